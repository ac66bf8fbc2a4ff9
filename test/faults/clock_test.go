//go:build linux

package faults

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

const (
	slowPieces = 4
	slowPause  = 500 * time.Millisecond
)

// TestClockJumps lets NameNodes lead whose clocks are wrong, one after the other:
// no upload expires for that, no DataNode is given up, and all agree.
func TestClockJumps(t *testing.T) {
	faultbed.Duration(t)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", 1)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3, NameNodeFlags: []string{"-upload-expiry", "5s", "-reclaim-grace", "2s"}})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "clock", 3, 2*chunkSize)
	work.start(t.Context())
	offsets := []string{"87600h", "-1h", "1h", "0s", "-87600h"}
	for i := range min(len(offsets), 2+rounds) {
		id := b.NameNodes()[i%3]
		b.Kill(id)
		b.SetEnv(id, "DFS_TEST_CLOCK_OFFSET="+offsets[i])
		b.Start(id)
		b.WaitReady()
		b.WaitUntil(id+" leads", func() bool {
			return b.Leader() == id || transfer(b, c, id) == nil && b.Leader() == id
		})
		slow := work.workers[0].fresh("slow") + "-" + offsets[i]
		source := &dripping{ctx: t.Context(), pieces: slowPieces}
		_, err := c.Upload(t.Context(), mustPath(t, "%s", slow), source, client.UploadOptions{Size: -1, ChunkSize: chunkSize})
		if err != nil {
			t.Errorf("a slow upload while the leader's clock was %s off: %v", offsets[i], err)
		}
		l.try(change{slow: contentOf(source.all)}, nil)(t.Context(), err)
		nodes, err := c.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, node := range nodes {
			if node.State == "down" {
				t.Errorf("%s counts as down since the leader's clock is %s off", node.ID, offsets[i])
			}
		}
	}
	work.quit()
	for _, id := range b.NameNodes() {
		if log := b.Log(id); strings.Contains(log, "giving up abandoned uploads") {
			t.Errorf("%s gave up uploads that were not abandoned", id)
		}
	}
	l.checkRefusals(t)
	l.check(t, readBack(t, c, "/"))
	waitHealthy(t, b, c)
	sameState(t, b, c)
}

// dripping gives a chunk now and then.
type dripping struct {
	ctx    context.Context
	pieces int
	all    []byte
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.pieces == 0 {
		return 0, io.EOF
	}
	d.pieces--
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-time.After(slowPause): // what makes it slow
	}
	n := min(len(p), chunkSize)
	for i := range p[:n] {
		p[i] = byte(d.pieces + i)
	}
	d.all = append(d.all, p[:n]...)
	return n, nil
}
