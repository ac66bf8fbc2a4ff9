package repair

import (
	"maps"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxTrims bounds the trims that one node is to see to at a time.
const maxTrims = 32

// Watch is since when chunks have been seen to have replicas too many, by one
// leader. It holds what the last survey listed, so it is bounded by that.
type Watch struct {
	long  time.Duration
	since map[dfs.ChunkID]time.Time
}

// watchOn is how long a chunk is watched beyond the delay after which it may be
// trimmed. What could not be trimmed by then is passed over once, so that others
// come up in a survey that cannot list all.
const watchOn = 10 * time.Minute

// NewWatch returns one that has seen nothing. Surplus may be trimmed after delay.
func NewWatch(delay time.Duration) *Watch {
	return &Watch{long: delay + watchOn, since: make(map[dfs.ChunkID]time.Time)}
}

// Note takes in the surplus of a survey. What is not in it is forgotten: it has
// to be seen all the time.
func (w *Watch) Note(surplus []Problem, now time.Time) {
	fresh := make(map[dfs.ChunkID]time.Time, len(surplus))
	for i := range surplus {
		id := surplus[i].Chunk.ID
		first, known := w.since[id]
		if !known || now.Sub(first) >= w.long {
			first = now
		}
		fresh[id] = first
	}
	w.since = fresh
}

// Forget has chunks be watched anew, so that others have their turn first.
func (w *Watch) Forget(trims []Trim) {
	if len(trims) == 0 {
		return
	}
	since := maps.Clone(w.since) // others look at it
	for i := range trims {
		delete(since, trims[i].Chunk.ID)
	}
	w.since = since
}

// Holds tells whether the chunk is being watched, and not for long enough that
// others should have their turn.
func (w *Watch) Holds(now time.Time) func(dfs.ChunkID) bool {
	since := w.since // replaced, never changed
	return func(id dfs.ChunkID) bool {
		first, known := since[id]
		return known && now.Sub(first) < w.long
	}
}

// TrimView is what trims are planned by.
type TrimView struct {
	View
	Report *Report   // a refreshed one
	Clock  time.Time // of the leader, monotonic
	Delay  time.Duration
	// Changed is when each node was last seen to change its liveness or to start
	// anew. One that is not in it was not seen yet.
	Changed map[fsm.NodeNum]time.Time
	Watch   *Watch
	Copies  *Ledger
	Trims   *Trims
	// Flapping tells whether the node keeps going down and coming back.
	Flapping func(fsm.NodeNum) bool
}

// Obstacle is why no replica of a chunk with too many is being trimmed.
type Obstacle int

// The obstacles.
const (
	NoObstacle   Obstacle = iota
	BeingTrimmed          // on its way already
	Partition             // so many nodes are down that the rest is left alone
	TooNew                // has not been seen for long enough
	Copying               // a copy of the chunk is under way
	Silent                // a holder is suspect
	NoOrders              // a holder only knows the short heartbeat
	NoInventory           // a holder's reports and the state do not agree
	Unreported            // a holder has not reported its replica yet
	Unsteady              // a holder has just come, or was just started anew
)

// PlanTrims returns the trims to be ordered now, at most one of each chunk.
// Nothing is trimmed unless every holder is known to have its replica, and the
// surplus has been there, with all holders quiet, for the delay.
func PlanTrims(v *TrimView) []Trim {
	p := newTrimPlanner(v)
	var plan []Trim
	for _, problem := range p.oldestFirst() {
		if obstacle, _ := p.obstacle(problem); obstacle != NoObstacle || !problem.trimmable() {
			continue
		}
		if trim, ok := p.choose(problem); ok {
			plan = append(plan, trim)
		}
	}
	return plan
}

// oldestFirst returns the surplus that has been watched for the longest first:
// what was ordered in vain comes after all others.
func (p *trimPlanner) oldestFirst() []*Problem {
	surplus := make([]*Problem, len(p.Report.Surplus))
	for i := range surplus {
		surplus[i] = &p.Report.Surplus[i]
	}
	slices.SortStableFunc(surplus, func(a, b *Problem) int {
		return p.Watch.since[a.Chunk.ID].Compare(p.Watch.since[b.Chunk.ID])
	})
	return surplus
}

// ObstacleTo tells why the surplus of a chunk is not being trimmed, and which
// nodes it is waiting for.
func ObstacleTo(v *TrimView) func(*Problem) (Obstacle, []fsm.NodeNum) {
	return newTrimPlanner(v).obstacle
}

type trimPlanner struct {
	*TrimView
	fleet   *fleet
	loads   loads
	copying map[dfs.ChunkID]targets
	victims map[fsm.NodeNum]int // trims of each
}

func newTrimPlanner(v *TrimView) *trimPlanner {
	p := &trimPlanner{
		TrimView: v, fleet: newFleet(&v.View), loads: newLoads(v.Nodes, v.Copies, v.Trims),
		copying: v.Copies.targets(), victims: make(map[fsm.NodeNum]int),
	}
	v.Trims.each(func(t *Trim) { p.victims[t.Victim]++ })
	return p
}

func (p *trimPlanner) obstacle(problem *Problem) (Obstacle, []fsm.NodeNum) {
	switch {
	case len(problem.Doomed) > 0:
		return BeingTrimmed, problem.Doomed
	case p.fleet.massLoss():
		return Partition, nil
	}
	if coming := p.coming(problem); len(coming) > 0 {
		return Copying, coming
	}
	for _, hindered := range []struct {
		obstacle Obstacle
		by       func(*fsm.Node) bool
	}{
		{Silent, func(n *fsm.Node) bool { return n.Liveness != fsm.Up }},
		{NoOrders, func(n *fsm.Node) bool { return n.Incarnation == 0 }},
		{NoInventory, func(n *fsm.Node) bool { return !n.Inventoried }},
		{Unreported, func(n *fsm.Node) bool { return !p.Reported(n.Num, problem.Chunk.ID) }},
		{Unsteady, func(n *fsm.Node) bool {
			changed, seen := p.Changed[n.Num]
			return !seen || p.Clock.Sub(changed) < p.Delay
		}},
	} {
		var nodes []fsm.NodeNum
		for _, num := range problem.Live {
			if n := p.fleet.nodes[num]; hindered.by(&n) {
				nodes = append(nodes, num)
			}
		}
		if len(nodes) > 0 {
			return hindered.obstacle, nodes
		}
	}
	first, watched := p.Watch.since[problem.Chunk.ID]
	if !watched || p.Clock.Sub(first) < p.Delay {
		return TooNew, nil
	}
	return NoObstacle, nil
}

// coming is where copies of a chunk may still arrive, overdue ones too.
func (p *trimPlanner) coming(problem *Problem) []fsm.NodeNum {
	t := p.copying[problem.Chunk.ID]
	return slices.DeleteFunc(slices.Concat(t.ongoing, t.overdue), func(num fsm.NodeNum) bool {
		return slices.Contains(problem.Chunk.Replicas, num)
	})
}

// choose makes a trim of the replica that is needed least. A node that has
// enough to see to is waited for: another victim would be a worse one.
func (p *trimPlanner) choose(problem *Problem) (Trim, bool) {
	victim := p.fleet.least(problem.Live, p.loads, p.Flapping)
	if p.victims[victim] >= maxTrims {
		return Trim{}, false
	}
	p.victims[victim]++
	p.loads.add(victim, -problem.Chunk.Size)
	return Trim{Chunk: problem.Chunk, Wanted: problem.Wanted, Victim: victim, Incarnation: p.fleet.nodes[victim].Incarnation}, true
}

// least returns the holder whose replica is needed least: one that is being
// emptied, then one without whom the others are on as many racks as can be, then
// one that comes and goes, then the fullest.
func (f *fleet) least(holders []fsm.NodeNum, loads loads, flapping func(fsm.NodeNum) bool) fsm.NodeNum {
	serving := make([]fsm.NodeNum, 0, len(holders))
	for _, num := range holders {
		if f.nodes[num].Service == fsm.InService {
			serving = append(serving, num)
		}
	}
	spread := func(without fsm.NodeNum) int {
		return f.spread(slices.DeleteFunc(slices.Clone(serving), func(num fsm.NodeNum) bool { return num == without }))
	}
	return slices.MaxFunc(holders, func(a, b fsm.NodeNum) int {
		for _, difference := range []int{
			yes(f.nodes[a].Service != fsm.InService) - yes(f.nodes[b].Service != fsm.InService),
			spread(a) - spread(b),
			yes(flapping(a)) - yes(flapping(b)),
		} {
			if difference != 0 {
				return difference
			}
		}
		switch fillA, fillB := loads.fill(a), loads.fill(b); {
		case fillA < fillB:
			return -1
		case fillA > fillB:
			return 1
		}
		return 0
	})
}

func yes(b bool) int {
	if b {
		return 1
	}
	return 0
}
