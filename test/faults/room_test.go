//go:build linux

package faults

import (
	"context"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// TestFullNameNode fills the disk of the leader under load, then of a follower,
// then of all: with one, everything goes on elsewhere; with all, changes are
// refused plainly, and reading goes on; with room again, all catch up.
func TestFullNameNode(t *testing.T) {
	faultbed.Duration(t)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", 1)
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, NameNodeDisk: faultbed.Disk{Kind: faultbed.Ext4, Size: 96 << 20},
		NameNodeFlags: []string{"-snapshot-threshold", "100", "-snapshot-interval", "1s"},
	})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "room", 8, 0)
	work.step = (*worker).makeAndRemove
	work.start(t.Context())
	goOn := func(what string, count int) {
		t.Helper()
		before := l.count()
		b.WaitUntil(what, func() bool { return l.count() >= before+count })
	}
	goOn("there is a load", 200)
	for range rounds {
		leader := b.LeaderAmong(b.NameNodes()...)
		empty := b.Fill(leader)
		filled := time.Now()
		b.WaitUntil("another leads", func() bool { return b.Leader() != leader })
		goOn("the others go on", 1000)
		t.Logf("the others went on %s after the disk of %s was full", time.Since(filled).Round(time.Millisecond), leader)
		empty()
		goOn("all go on", 200)

		follower := b.Others(b.LeaderAmong(b.NameNodes()...))[0]
		empty = b.Fill(follower)
		goOn("a full follower holds up nobody", 1000)
		empty()
		mustRun(t, b)
	}
	work.quit()
	l.checkRefusals(t)
	l.check(t, readBack(t, c, "/"))
	sameState(t, b, c)
	fullEverywhere(t, b, work)
	l.check(t, readBack(t, c, "/"))
	sameState(t, b, c)
}

// fullEverywhere fills the disks of all NameNodes, one after the other.
func fullEverywhere(t *testing.T, b *faultbed.Bed, work *load) {
	t.Helper()
	c, l, w := b.Client(), work.workers[0].l, work.workers[0]
	var empty []func()
	for _, id := range b.NameNodes() {
		empty = append(empty, b.Fill(id))
	}
	mkdir := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		defer cancel()
		path := w.fresh("d")
		outcome := l.try(change{path: directory}, nil)
		err := c.Mkdir(ctx, mustPath(t, "%s", path))
		outcome(t.Context(), err)
		return err
	}
	b.WaitUntil("changes are refused for want of room", func() bool { return dfs.CodeOf(mkdir()) == dfs.NoSpace })
	for _, r := range l.refused {
		switch dfs.CodeOf(r.err) {
		case dfs.NoSpace, dfs.Unavailable, dfs.UnknownOutcome, dfs.Timeout, dfs.NotLeader:
		default:
			t.Errorf("refused with %s: %v", dfs.CodeOf(r.err), r.err)
		}
	}
	l.refused = nil // those
	if _, err := c.Stat(t.Context(), mustPath(t, loadDir)); err != nil {
		t.Errorf("a read while all disks are full: %v", err)
	}
	mustRun(t, b)
	for _, undo := range empty {
		undo()
	}
	b.WaitUntil("there is room again", func() bool { return mkdir() == nil })
	l.refused = nil // those that came before there was
}

// mustRun fails the test when a NameNode has ended by itself.
func mustRun(t *testing.T, b *faultbed.Bed) {
	t.Helper()
	for _, id := range b.NameNodes() {
		if !b.Running(id) {
			t.Fatalf("%s has ended by itself", id)
		}
	}
}
