//go:build linux

package faults

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// TestFrozenLeaderDisk lets the leader's disk hang under load: the others take
// over, and it comes back when it is started again.
func TestFrozenLeaderDisk(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, NameNodeDisk: faultbed.Disk{Kind: faultbed.Ext4, Size: 128 << 20}, NameNodeFlags: []string{"-disk-timeout", "5s"},
	})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "frozen", 1, 0)
	work.step = (*worker).tickMkdir
	work.start(t.Context())
	leader := b.LeaderAmong(b.NameNodes()...)
	b.Freeze(leader)
	frozen := time.Now()
	next := b.LeaderAmong(b.Others(leader)...)
	t.Logf("%s leads %s after the disk of %s froze", next, time.Since(frozen).Round(time.Millisecond), leader)
	count := l.count()
	b.WaitUntil("the others go on", func() bool { return l.count() > count+20 })
	b.WaitUntil("it says why it ends", func() bool { return strings.Contains(b.Log(leader), "the disk has not completed a write") })
	t.Logf("%s says so %s after its disk froze", leader, time.Since(frozen).Round(time.Millisecond))
	b.WaitUntil("nobody answers there any more", func() bool { return !listens(b.URL(leader)) })
	t.Logf("%s lets go of its port %s after its disk froze", leader, time.Since(frozen).Round(time.Millisecond))
	b.Thaw(leader) // until then, a thread that waits for the disk keeps the process
	b.WaitUntil("the process has ended", func() bool { return !b.Running(leader) })
	b.StartAll()
	b.WaitReady()
	work.quit()
	l.check(t, readBack(t, c, "/"))
	sameEverywhere(t, b)
}

// TestFullDataNode fills the disks of DataNodes under load, first of one, then of
// all: with one, everything goes on; with all, uploads are refused plainly, and
// reading goes on; when there is space again, all is well.
func TestFullDataNode(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, DataNodes: 4, NameNodeFlags: []string{"-heartbeat", "500ms"}, DataNodeFlags: []string{"-reserve", "1MiB"},
		DataNodeDisk: faultbed.Disk{Kind: faultbed.Tmpfs, Size: 256 << 20},
	})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "full", 3, 4*chunkSize)
	work.start(t.Context())
	empty := []func(){b.Fill("dn1")}
	count := l.count()
	b.WaitUntil("the others go on", func() bool { return l.count() > count+30 })
	work.quit()
	for _, id := range b.DataNodes()[1:] {
		empty = append(empty, b.Fill(id))
	}
	b.WaitUntil("the leader knows that all are full", func() bool {
		nodes, err := c.Nodes(t.Context())
		for _, node := range nodes {
			if node.Free >= chunkSize {
				return false
			}
		}
		return err == nil
	})
	w := work.workers[0]
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	err := w.put(ctx, w.fresh("f"), randomData(w.random, chunkSize), false)
	cancel()
	if err == nil {
		t.Error("an upload to full disks was acknowledged")
	}
	t.Logf("an upload to full disks, refused after %s: %v", time.Since(began).Round(time.Millisecond), err)
	l.refused = nil // that one
	l.check(t, readBack(t, c, "/"))
	for _, undo := range empty {
		undo()
	}
	b.WaitUntil("there is space again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return w.put(ctx, w.fresh("f"), randomData(w.random, chunkSize), false) == nil
	})
	l.check(t, readBack(t, c, "/"))
	// Not until fsck is content: copies that were ordered to a full node are
	// ordered anew after a minute only.
}

// listens tells whether a connection to a server is accepted.
func listens(baseURL string) bool {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(baseURL, "http://"), isolatedTimeout)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
