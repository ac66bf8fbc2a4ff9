//go:build linux

package faults

import (
	"bytes"
	"context"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// quickSnapshots makes a test see snapshots and followers that need one. An entry
// carries the commands of all who wait, so there are fewer entries than changes.
var quickSnapshots = []string{"-snapshot-threshold", "40", "-snapshot-interval", "2s", "-trailing-logs", "40"}

// TestLeaderKills kills the leader again and again while a client makes a
// directory every 50 ms and others do all that clients do. DFS_FAULT_KILLS says
// how often. No change may be refused, be missing or happen twice.
func TestLeaderKills(t *testing.T) {
	faultbed.Duration(t)
	kills := faultbed.Count(t, "DFS_FAULT_KILLS", 3)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3, NameNodeFlags: quickSnapshots})
	c := b.Client()
	l := newLedger(t, b)
	ticking := newLoad(t, c, l, random, "ticks", 1, 0)
	ticking.step = (*worker).tickMkdir
	working := newLoad(t, c, l, random, "kills", 2, 2*chunkSize)
	ticking.start(t.Context())
	working.start(t.Context())
	var moments []time.Time
	for range kills {
		leader := b.Leader()
		moments = append(moments, time.Now())
		b.Kill(leader)
		b.Leader()
		b.Start(leader)
		b.WaitReady()
		count := l.count()
		b.WaitUntil("changes are acknowledged again", func() bool { return l.count() > count+20 })
	}
	ticking.quit()
	working.quit()
	l.check(t, readBack(t, c, "/"))
	for _, r := range l.refused {
		t.Errorf("the client should have retried: %v: %v", r.change, r.err)
	}
	gaps := l.gaps(moments)
	t.Logf("%d kills, %d changes, gap without an acknowledgement: median %s, 99 of 100 within %s, longest %s", kills,
		l.count(), quantile(gaps, 0.5), quantile(gaps, 0.99), quantile(gaps, 1))
}

// quantile returns how long the shortest of the durations last, as a share of
// all, rounded to milliseconds.
func quantile(durations []time.Duration, share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)].Round(time.Millisecond)
}

// tickMkdir makes a directory every 50 ms. Not with its parents: then one that
// was made twice is an error.
func (w *worker) tickMkdir(ctx context.Context) {
	time.Sleep(50 * time.Millisecond)
	path := w.fresh("d")
	outcome := w.l.try(change{path: directory}, nil)
	outcome(ctx, w.c.Mkdir(ctx, mustPath(w.t, "%s", path)))
}

// TestMixedFaults changes files while processes are killed, stopped and
// continued, and then reads back everything.
func TestMixedFaults(t *testing.T) {
	length := faultbed.Duration(t)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 4, NameNodeFlags: quickSnapshots})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, random, "mixed", 3, 4*chunkSize)
	work.start(t.Context())
	faults := make(map[string]int)
	for end := time.Now().Add(length); time.Now().Before(end); {
		faults[harm(b, random)]++
	}
	work.quit()
	l.check(t, readBack(t, c, "/"))
	if l.count() < leastChanges {
		t.Fatal("the run is void: almost nothing was acknowledged")
	}
	t.Logf("%d changes acknowledged, %d failed, faults: %v", l.count(), len(l.refused), faults)
	for _, r := range l.refused {
		t.Logf("failed: %v: %s: %v", r.change, dfs.CodeOf(r.err), r.err)
	}
	l.checkRefusals(t)
}

// harm does one harm, lets it act for a while, and undoes it.
func harm(b *faultbed.Bed, random *rand.Rand) string {
	act := func() { time.Sleep(time.Duration(500+random.IntN(2000)) * time.Millisecond) }
	pause := func(id string) {
		b.Pause(id)
		act()
		act()
		b.Continue(id)
	}
	dataNodes := b.DataNodes()
	dataNode := dataNodes[random.IntN(len(dataNodes))]
	harms := []struct {
		name string
		do   func()
	}{
		{"kill the leader", func() { b.Kill(b.Leader()); act() }},
		{"kill a DataNode", func() { b.Kill(dataNode); act() }},
		{"stop the leader", func() { pause(b.Leader()) }},
		{"stop a DataNode", func() { pause(dataNode) }},
		{"kill leader and DataNode", func() { b.Kill(b.Leader(), dataNode); act() }},
		{"kill all NameNodes", func() { b.Kill(b.NameNodes()...) }},
		{"kill everything", func() { b.Kill() }},
	}
	chosen := harms[random.IntN(len(harms))]
	chosen.do()
	b.StartAll()
	b.WaitReady()
	act()
	return chosen.name
}

// TestKillEverythingDuringUpload: after a crash of all processes the finished
// file is whole and the unfinished one is absent.
func TestKillEverythingDuringUpload(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3})
	c := b.Client()
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i * 7)
	}
	if _, err := c.Upload(t.Context(), mustPath(t, "/whole"), bytes.NewReader(data), client.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	source := &crashing{data: data, crash: func() { b.Kill(); giveUp() }}
	if _, err := c.Upload(ctx, mustPath(t, "/unfinished"), source, client.UploadOptions{Size: -1}); err == nil {
		t.Fatal("an upload to a dead cluster was acknowledged")
	}
	restarted := time.Now()
	b.StartAll()
	b.WaitReady()
	t.Logf("ready %s after the restart", time.Since(restarted).Round(time.Millisecond))
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), mustPath(t, "/whole"), &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Fatalf("the acknowledged file: %v, equal: %t", err, bytes.Equal(got.Bytes(), data))
	}
	if _, err := c.Stat(t.Context(), mustPath(t, "/unfinished")); dfs.CodeOf(err) != dfs.NotFound {
		t.Fatalf("the unfinished file: %v", err)
	}
}

// crashing gives data, and calls crash in the middle of it.
type crashing struct {
	data  []byte
	at    int
	crash func()
}

func (c *crashing) Read(p []byte) (int, error) {
	if c.at > len(c.data)/2 && c.crash != nil {
		c.crash()
		c.crash = nil
	}
	if c.at == len(c.data) {
		return 0, io.EOF
	}
	n := copy(p, c.data[c.at:])
	c.at += n
	return n, nil
}
