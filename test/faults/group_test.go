//go:build linux

package faults

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// TestFiveLoseTwo: five NameNodes go on without any two of them, and without a
// third nothing is acknowledged.
func TestFiveLoseTwo(t *testing.T) {
	length := faultbed.Duration(t)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 5, DataNodes: 3, NameNodeFlags: quickSnapshots})
	h := record(t, b, random, "five")
	h.warm(length)
	leader := b.LeaderAmong(b.NameNodes()...)
	others := b.Others(leader)
	random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	b.Kill(leader, others[0])
	h.goOn()
	next := b.LeaderAmong(others[1:]...)
	last := b.Others(leader, others[0], next)
	b.Kill(last[0])
	a := newAsker(t, isolatedTimeout)
	for range 3 { // a leader may take a moment to notice
		if status, answer := a.ask(http.MethodPost, b.URL(next)+protocol.Mkdir.Pattern, `{"path":"/two-of-five"}`); status/100 == 2 {
			t.Errorf("two of five acknowledged: %s", answer)
		}
	}
	b.StartAll()
	b.WaitReady()
	h.goOn()
	h.check()
	sameState(t, b, b.Client())
}

// TestRollingRestart restarts every process in good order, one after the other,
// under load: no call fails.
func TestRollingRestart(t *testing.T) {
	faultbed.Duration(t)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", 1)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 4, NameNodeFlags: []string{"-heartbeat", "500ms"}})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "rolling", 4, 3*chunkSize)
	work.start(t.Context())
	longest := time.Duration(0)
	for range rounds {
		for _, id := range append(b.NameNodes(), b.DataNodes()...) {
			count, began := l.count(), time.Now()
			b.Stop(id)
			b.WaitUntil("work goes on without "+id, func() bool { return l.count() > count+5 })
			longest = max(longest, time.Since(began))
			b.Start(id)
			b.WaitReady()
		}
	}
	work.quit()
	for _, r := range l.refused {
		t.Errorf("a call failed during a rolling restart: %v: %v", r.change, r.err)
	}
	l.check(t, readBack(t, c, "/"))
	waitHealthy(t, b, c)
	sameState(t, b, c)
	t.Logf("%d changes acknowledged; the longest stop, until work went on, took %s", l.count(), longest.Round(time.Millisecond))
}

// TestLateFollowerAndDeadLeader: a follower that needs a snapshot is all that is
// left besides one other when the leader dies in the middle of sending it.
func TestLateFollowerAndDeadLeader(t *testing.T) {
	faultbed.Duration(t)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", 1)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, NameNodeFlags: quickSnapshots})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "late", 16, 0)
	work.step = (*worker).makeAndRemove
	for range rounds {
		leader := b.LeaderAmong(b.NameNodes()...)
		late := b.Others(leader)[0]
		b.Kill(late)
		work.start(t.Context())
		count := l.count()
		b.WaitUntil("the log has gone on", func() bool { return l.count() >= count+2000 })
		b.WaitUntil("the leader has a snapshot", func() bool { return len(snapshotsOf(t, b, leader)) > 0 })
		b.Start(late)
		b.WaitUntil("it has begun to receive a snapshot", func() bool {
			found, err := filepath.Glob(filepath.Join(b.Dir(late), "raft", "snapshots", "*"))
			return err != nil || len(found) > 0
		})
		b.Kill(leader)
		count = l.count()
		b.WaitUntil("the other two go on", func() bool { return l.count() > count+50 })
		work.quit()
		l.checkRefusals(t)
		l.check(t, readBack(t, c, "/"))
		b.StartAll()
		b.WaitReady()
		sameState(t, b, c)
	}
}

// makeAndRemove makes a directory and removes it, most of the time: the log is to
// grow, the namespace not so much.
func (w *worker) makeAndRemove(ctx context.Context) {
	path := w.fresh("d")
	outcome := w.l.try(change{path: directory}, nil)
	err := w.c.Mkdir(ctx, mustPath(w.t, "%s", path))
	outcome(ctx, err)
	if err != nil || w.random.IntN(20) == 0 {
		return
	}
	outcome = w.l.try(change{path: nothing}, nil)
	outcome(ctx, w.c.Remove(ctx, mustPath(w.t, "%s", path)))
}
