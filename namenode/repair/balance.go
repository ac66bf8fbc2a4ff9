package repair

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

const (
	// A node that is fuller or emptier than the mean by more than startShare of
	// that sets balancing off, which goes on until none is by more than stopShare.
	startShare = 0.10
	stopShare  = 0.05
	// maxMoves bounds the moves whose surplus replica has not been trimmed yet.
	maxMoves = 256
)

// Balancer decides which chunks are to move, so that the DataNodes are equally
// full. It only orders copies: when one has been made there is a replica too
// many, and the trim takes it from the fullest node. Not safe for concurrent use.
type Balancer struct {
	slack  int64 // bytes
	active bool
	moves  map[dfs.ChunkID]*Copy // ordered, until the surplus is gone
}

// NewBalancer returns one that leaves nodes alone which are off by no more than
// slack bytes.
func NewBalancer(slack int64) *Balancer {
	return &Balancer{slack: slack, moves: make(map[dfs.ChunkID]*Copy)}
}

// Imbalance is the nodes that are fuller than the mean and those that are
// emptier.
type Imbalance struct{ full, empty map[fsm.NodeNum]bool }

// lackedByEmpty tells whether an emptier node holds none of the replicas.
func (i *Imbalance) lackedByEmpty(holders []fsm.NodeNum) bool {
	held := 0
	for _, num := range holders {
		if i.empty[num] {
			held++
		}
	}
	return held < len(i.empty)
}

// Moving tells how many moves are not through.
func (b *Balancer) Moving() int { return len(b.moves) }

// Look finds out whether there is something to balance, nil if not.
func (b *Balancer) Look(view View, copies *Ledger, trims *Trims) *Imbalance {
	s := b.scale(view, copies, trims)
	if s == nil || !b.active {
		return nil
	}
	imbalance := &Imbalance{make(map[fsm.NodeNum]bool), make(map[fsm.NodeNum]bool)}
	for _, num := range s.nodes {
		imbalance.full[num] = s.deviation(num) > 0
		imbalance.empty[num] = s.deviation(num) < 0
	}
	maps := []map[fsm.NodeNum]bool{imbalance.full, imbalance.empty}
	for _, m := range maps { // so that its length counts
		for num, is := range m {
			if !is {
				delete(m, num)
			}
		}
	}
	return imbalance
}

// PlanMoves returns the copies to be ordered now. It looks at a report that Look
// was asked for before, and does nothing as long as there is something to repair.
func (b *Balancer) PlanMoves(v *TrimView, nodes []placement.Node, limits Limits, random *rand.Rand) []Copy {
	report := v.Report
	s := b.scale(v.View, v.Copies, v.Trims)
	// Surplus that others have left is trimmed first, where it is fullest: a
	// new leader does not know which of it are its predecessor's moves.
	if s == nil || !b.active || report.Under+report.Missing+report.Draining > 0 || report.MassLoss() || report.Over > int64(len(b.moves)) {
		return nil
	}
	p := &movePlanner{
		planner: newPlanner(nodes, v.Copies, limits, random), scale: s, view: v, fleet: newFleet(&v.View), moves: b.moves,
		tried: make(map[fsm.NodeNum]int),
	}
	var plan []Copy
	for !p.full() && len(b.moves) < maxMoves {
		c, ok := p.next()
		if !ok {
			break
		}
		b.moves[c.Chunk.ID] = &c
		plan = append(plan, c)
	}
	return plan
}

// scale settles the moves and weighs the nodes: all DataNodes in service that
// take orders. It returns nil when one of them is not up, and decides whether
// there is something to do.
func (b *Balancer) scale(view View, copies *Ledger, trims *Trims) *scale {
	f := newFleet(&view)
	b.settle(f, &view, copies)
	s := &scale{loads: newLoads(view.Nodes, copies, trims), slack: b.slack}
	doomed := view.Doomed
	for id, move := range b.moves {
		if doomed == nil || len(doomed(id)) == 0 { // or it has been taken for gone above
			s.loads.add(move.From, -move.Chunk.Size)
		}
	}
	var used, total int64
	for i := range view.Nodes {
		n := &view.Nodes[i]
		if n.Service != fsm.InService || n.Incarnation == 0 || gone(n, view.Now) {
			continue
		}
		if n.Liveness != fsm.Up {
			return nil
		}
		s.nodes = append(s.nodes, n.Num)
		used += s.loads[n.Num].used
		total += s.loads[n.Num].total
	}
	if total <= 0 {
		return nil
	}
	s.mean = float64(used) / float64(total)
	share := startShare
	if b.active {
		share = stopShare
	}
	b.active = slices.ContainsFunc(s.nodes, func(num fsm.NodeNum) bool { return s.off(num, share) })
	return s
}

// settle forgets the moves that are through, and those that have failed.
func (b *Balancer) settle(f *fleet, view *View, copies *Ledger) {
	under := copies.targets()
	for id, move := range b.moves {
		chunk, known := view.Chunk(id)
		p := Problem{Chunk: chunk, Wanted: move.Wanted}
		f.judge(&p)
		arrived := slices.Contains(p.Live, move.Target)
		coming := slices.Contains(under[id].ongoing, move.Target)
		if !known || chunk.Refs == 0 || arrived && len(p.Live) <= p.Wanted || !arrived && !coming {
			delete(b.moves, id)
		}
	}
}

// scale is how full the nodes are in comparison.
type scale struct {
	nodes []fsm.NodeNum
	loads loads
	mean  float64 // used share of all of them together
	slack int64
}

// deviation is how many bytes a node has more than its share.
func (s *scale) deviation(num fsm.NodeNum) float64 {
	return float64(s.loads[num].used) - s.mean*float64(s.loads[num].total)
}

// off tells whether a node deviates from its share by more than a share of that.
func (s *scale) off(num fsm.NodeNum, share float64) bool {
	d := max(s.deviation(num), -s.deviation(num))
	return d > float64(s.slack) && d > share*s.mean*float64(s.loads[num].total)
}

type movePlanner struct {
	*planner
	scale *scale
	view  *TrimView
	fleet *fleet
	moves map[dfs.ChunkID]*Copy
	tried map[fsm.NodeNum]int // of each node's movable chunks, from the first on
}

// next plans a move from the fullest node it can be made from.
func (p *movePlanner) next() (Copy, bool) {
	ranked := slices.SortedFunc(slices.Values(p.scale.nodes), func(a, b fsm.NodeNum) int {
		return cmp.Compare(p.scale.loads.fill(b), p.scale.loads.fill(a))
	})
	for _, from := range ranked {
		if p.scale.deviation(from) <= 0 {
			continue
		}
		movable := p.view.Report.Movable[from]
		for p.tried[from] < len(movable) {
			problem := movable[p.tried[from]]
			p.tried[from]++
			if c, ok := p.move(&problem, from, ranked); ok {
				p.account(&c)
				p.reserve(&c)
				p.scale.loads.add(c.Target, c.Chunk.Size)
				p.scale.loads.add(from, -c.Chunk.Size)
				return c, true
			}
		}
	}
	return Copy{}, false
}

// move finds the emptiest node for a chunk of the node from.
func (p *movePlanner) move(problem *Problem, from fsm.NodeNum, ranked []fsm.NodeNum) (Copy, bool) {
	if !p.untouched(problem) {
		return Copy{}, false
	}
	sources := p.rank(problem)
	if p.sources[sources[0]] >= p.limits.PerSource {
		return Copy{}, false
	}
	for _, to := range slices.Backward(ranked) {
		if p.scale.deviation(to) >= 0 {
			continue
		}
		node := &p.nodes[p.at[to]]
		if node.Takes(problem.Chunk.Size) && !slices.Contains(problem.Live, to) && p.helps(problem, from, to) {
			return Copy{Chunk: problem.Chunk, From: from, Wanted: problem.Wanted, Target: to, Sources: sources}, true
		}
	}
	return Copy{}, false
}

// untouched tells whether the chunk is still as the survey found it, and
// nothing is being done with it.
func (p *movePlanner) untouched(problem *Problem) bool {
	chunk, known := p.view.Chunk(problem.Chunk.ID)
	if !known || chunk.Refs == 0 || !slices.Equal(chunk.Replicas, problem.Chunk.Replicas) || p.moves[chunk.ID] != nil {
		return false
	}
	if _, busy := p.copies[chunk.ID]; busy {
		return false
	}
	p.fleet.judge(problem)
	return problem.Kind == 0
}

// helps tells whether a move makes the nodes more alike, and whether the trim
// will take the replica away that it should. The trim keeps the chunk on as many
// racks as it can, so that the move does, too.
func (p *movePlanner) helps(problem *Problem, from, to fsm.NodeNum) bool {
	size := problem.Chunk.Size
	if !p.scale.off(from, stopShare) && !p.scale.off(to, stopShare) {
		return false
	}
	if p.scale.deviation(from)-float64(size) < p.scale.deviation(to)+float64(size) {
		return false
	}
	holders := append(slices.Clone(problem.Live), to)
	p.scale.loads.add(to, size)
	victim := p.fleet.least(holders, p.scale.loads, p.view.Flapping)
	p.scale.loads.add(to, -size)
	return victim == from
}
