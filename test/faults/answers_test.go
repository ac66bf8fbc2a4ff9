//go:build linux

package faults

import (
	"context"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
)

const (
	// silence is longer than a client waits for one answer (3 s), so that it
	// tries again.
	silence       = 4 * time.Second
	silenceRounds = 2
)

// TestLostAnswers loses the leader's answers on their way, but not the requests:
// what was done gets asked for again, and is to be answered as the first time,
// not with "it exists already" or "there is no such thing".
func TestLostAnswers(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, Network: faultbed.Namespaces})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "answers", 8, 0)
	work.step = (*worker).changeNames
	work.start(t.Context())
	for range faultbed.Count(t, "DFS_FAULT_ROUNDS", silenceRounds) {
		leader := b.LeaderAmong(b.NameNodes()...)
		count := l.count()
		b.WaitUntil("there is a load", func() bool { return l.count() > count+100 })
		b.CutOneWay(leader, faultbed.Client)
		time.Sleep(silence)
		b.HealOneWay(leader, faultbed.Client)
		count = l.count()
		b.WaitUntil("the load goes on", func() bool { return l.count() > count+100 })
	}
	work.quit()
	l.checkRefusals(t)
	l.check(t, readBack(t, c, "/"))
	sameEverywhere(t, b)
	t.Logf("%d changes acknowledged", l.count())
}

// changeNames makes a directory, renames it and removes it. Each would fail if it
// were done twice.
func (w *worker) changeNames(ctx context.Context) {
	from, to := w.fresh("a"), w.fresh("b")
	outcome := w.l.try(change{from: directory}, nil)
	err := w.c.Mkdir(ctx, mustPath(w.t, "%s", from))
	outcome(ctx, err)
	if err != nil {
		return
	}
	outcome = w.l.try(change{from: nothing, to: directory}, &move{from, to})
	err = w.c.Rename(ctx, mustPath(w.t, "%s", from), mustPath(w.t, "%s", to))
	outcome(ctx, err)
	if err != nil || w.random.IntN(2) == 0 {
		return
	}
	outcome = w.l.try(change{to: nothing}, nil)
	outcome(ctx, w.c.Remove(ctx, mustPath(w.t, "%s", to)))
}
