package namenode

import (
	"time"

	"github.com/dfs-go/dfs-go/fsm"
)

const (
	flapWindow  = time.Hour
	flapReturns = 2 // from being down, within the window
)

// watchedNodes is what a leader remembers of the coming and going of DataNodes.
// Its zero value has seen none.
type watchedNodes struct {
	known map[fsm.NodeNum]*watchedNode
}

type watchedNode struct {
	changed     time.Time // when it was last seen to come, go or start anew
	liveness    fsm.Liveness
	incarnation uint64
	down        bool        // and not up again since
	returns     []time.Time // the last few
}

// look compares the nodes with what was seen before, and tells whether one has
// come, gone or started anew.
func (w *watchedNodes) look(nodes []fsm.Node, now time.Time) (changed bool) {
	if w.known == nil {
		w.known = make(map[fsm.NodeNum]*watchedNode)
	}
	for i := range nodes {
		n := &nodes[i]
		seen := w.known[n.Num]
		if seen == nil {
			seen = new(watchedNode)
			w.known[n.Num] = seen
			seen.changed, changed = now, true
		}
		if seen.liveness != n.Liveness || seen.incarnation != n.Incarnation {
			seen.liveness, seen.incarnation = n.Liveness, n.Incarnation
			seen.changed, changed = now, true
		}
		switch {
		case n.Liveness == fsm.Down:
			seen.down = true
		case n.Liveness == fsm.Up && seen.down:
			seen.down = false
			seen.returns = append(seen.returns, now)
			seen.returns = seen.returns[max(0, len(seen.returns)-flapReturns):]
		}
	}
	return changed
}

// changes returns when each node was last seen to come, go or start anew.
func (w *watchedNodes) changes() map[fsm.NodeNum]time.Time {
	changes := make(map[fsm.NodeNum]time.Time, len(w.known))
	for num, seen := range w.known {
		changes[num] = seen.changed
	}
	return changes
}

// flapping tells whether a node has come back more than once lately.
func (w *watchedNodes) flapping(num fsm.NodeNum, now time.Time) bool {
	seen := w.known[num]
	return seen != nil && len(seen.returns) == flapReturns && now.Sub(seen.returns[0]) < flapWindow
}
