package namenode

import (
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
)

func TestWatchedNodes(t *testing.T) {
	var w watchedNodes
	now := time.Unix(1000, 0)
	node := fsm.Node{Num: 1, Incarnation: 1}
	look := func(liveness fsm.Liveness) (changed bool) {
		now = now.Add(time.Minute)
		node.Liveness = liveness
		return w.look([]fsm.Node{node}, now)
	}
	for i, step := range []struct {
		liveness fsm.Liveness
		changed  bool
		flaps    bool
	}{
		{fsm.Up, true, false}, {fsm.Up, false, false},
		{fsm.Suspect, true, false}, {fsm.Up, true, false}, // never down: only slow
		{fsm.Down, true, false}, {fsm.Down, false, false}, {fsm.Suspect, true, false}, {fsm.Up, true, false},
		{fsm.Down, true, false}, {fsm.Up, true, true}, {fsm.Up, false, true},
	} {
		if changed := look(step.liveness); changed != step.changed || w.flapping(1, now) != step.flaps {
			t.Errorf("step %d: changed %v, flapping %v", i, changed, w.flapping(1, now))
		}
		if changed := w.changes()[1].Equal(now); changed != step.changed {
			t.Errorf("step %d: quiet since %s, now is %s", i, w.changes()[1], now)
		}
	}
	if node.Incarnation++; !look(fsm.Up) {
		t.Error("a new start is no change")
	}
	if w.flapping(1, now.Add(flapWindow)) || w.flapping(2, now) {
		t.Error("flapping for ever, or a node that nobody knows")
	}
}
