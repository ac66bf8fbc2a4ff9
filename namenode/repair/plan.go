package repair

import (
	"math/rand/v2"
	"slices"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

// Limits bound how many copies are under way at once, so that repair leaves
// disks and network to the clients.
type Limits struct {
	PerTarget int
	PerSource int
	InCluster int
	// TargetBytes bounds what is on its way to one node: no further copy is
	// ordered to a node that waits for so much. 0 for no bound.
	TargetBytes int64
}

// Copy is a replica to be made.
type Copy struct {
	Chunk   fsm.Chunk   // as it was when the copy was planned
	Kind    Kind        // what is wrong with the chunk; 0 for a move
	From    fsm.NodeNum // of a move: the node whose replica is to go afterwards
	Wanted  int         // replicas
	Target  fsm.NodeNum
	Sources []fsm.NodeNum // best first
}

// Plan returns the copies to be ordered now, besides those that are under way:
// chunks with the fewest replicas first, then those on too few racks, then those
// whose nodes are being emptied; at most one copy of each. Nodes are all
// DataNodes; what is on its way to them, the copies of the ledger included, has
// been taken from their room.
func Plan(report *Report, nodes []placement.Node, ledger *Ledger, limits Limits, random *rand.Rand) []Copy {
	p := newPlanner(nodes, ledger, limits, random)
	var plan []Copy
	for _, candidate := range p.candidates(report) {
		if p.full() {
			break
		}
		if c, ok := p.choose(candidate); ok {
			p.account(&c)
			p.reserve(&c)
			plan = append(plan, c)
		}
	}
	return plan
}

// candidate is a chunk that is to get another replica.
type candidate struct {
	*Problem
	urgency          urgency
	ongoing, overdue []fsm.NodeNum
}

// urgency is by kind, and for chunks that lack replicas by how many there will
// be when the copies under way are done.
type urgency struct {
	kind  Kind
	count int
}

func (u urgency) compare(other urgency) int {
	if u.kind != other.kind {
		return int(other.kind) - int(u.kind)
	}
	return u.count - other.count
}

type planner struct {
	nodes   []placement.Node
	at      map[fsm.NodeNum]int // index into nodes
	copies  map[dfs.ChunkID]targets
	limits  Limits
	random  *rand.Rand
	targets map[fsm.NodeNum]int   // copies under way to each node
	bytes   map[fsm.NodeNum]int64 // of those
	sources map[fsm.NodeNum]int   // copies under way from each
	total   int
}

func newPlanner(nodes []placement.Node, ledger *Ledger, limits Limits, random *rand.Rand) *planner {
	p := &planner{
		nodes: slices.Clone(nodes), at: make(map[fsm.NodeNum]int, len(nodes)),
		copies: ledger.targets(), limits: limits, random: random,
		targets: make(map[fsm.NodeNum]int), bytes: make(map[fsm.NodeNum]int64), sources: make(map[fsm.NodeNum]int),
	}
	for i := range p.nodes {
		p.at[fsm.NodeNum(p.nodes[i].Num)] = i
	}
	for _, c := range ledger.Ongoing() {
		p.account(&c)
	}
	return p
}

// account counts a copy that is under way.
func (p *planner) account(c *Copy) {
	p.total++
	p.targets[c.Target]++
	p.bytes[c.Target] += c.Chunk.Size
	p.sources[c.Sources[0]]++
	full := p.targets[c.Target] >= p.limits.PerTarget || p.limits.TargetBytes > 0 && p.bytes[c.Target] >= p.limits.TargetBytes
	if i, known := p.at[c.Target]; known && full {
		p.nodes[i].Writable = false
	}
}

func (p *planner) reserve(c *Copy) { p.nodes[p.at[c.Target]].InFlight += c.Chunk.Size }

// full tells whether nothing more can be ordered, whatever the chunk.
func (p *planner) full() bool {
	return p.total >= p.limits.InCluster || !slices.ContainsFunc(p.nodes, func(n placement.Node) bool { return n.Takes(1) })
}

// candidates returns the chunks that may be copied, the most urgent first.
func (p *planner) candidates(report *Report) []candidate {
	var found []candidate
	for i := range report.Problems {
		problem := &report.Problems[i]
		if problem.Kind < Draining || problem.Kind == Missing {
			continue
		}
		t := p.copies[problem.Chunk.ID]
		u, needed := urgencyOf(problem, len(t.ongoing))
		if needed && (!report.MassLoss() || u.kind == Under && u.count <= 1) {
			found = append(found, candidate{problem, u, t.ongoing, t.overdue})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.urgency.compare(b.urgency) })
	return found
}

// urgencyOf tells how urgent another copy is besides the ongoing ones, and
// whether one is needed.
func urgencyOf(p *Problem, ongoing int) (urgency, bool) {
	switch {
	case p.standing()+ongoing < p.Wanted:
		return urgency{Under, p.standing() + ongoing}, true
	case len(p.Serving)+ongoing < p.Wanted:
		return urgency{Draining, len(p.Serving) + ongoing}, true
	}
	return urgency{Misplaced, 0}, p.Kind == Misplaced && ongoing == 0
}

func (p *planner) choose(c candidate) (Copy, bool) {
	sources := p.rank(c.Problem)
	if p.sources[sources[0]] >= p.limits.PerSource {
		return Copy{}, false
	}
	holders := numbers(c.Serving, c.ongoing)
	target, ok := placement.Another(p.nodes, c.Chunk.Size, holders, numbers(c.Live, c.overdue), p.random)
	if !ok && len(c.overdue) > 0 { // better once more there than not at all
		target, ok = placement.Another(p.nodes, c.Chunk.Size, holders, numbers(c.Live), p.random)
	}
	if ok && c.urgency.kind == Misplaced && sharesRack(p.nodes, target, holders) {
		return Copy{}, false // that would help nobody
	}
	return Copy{Chunk: c.Chunk, Kind: c.urgency.kind, Wanted: c.Wanted, Target: fsm.NodeNum(target), Sources: sources}, ok
}

// sharesRack tells whether one of the holders is on the target's rack.
func sharesRack(nodes []placement.Node, target uint32, holders []uint32) bool {
	at := slices.IndexFunc(nodes, func(n placement.Node) bool { return n.Num == target })
	return slices.ContainsFunc(nodes, func(n placement.Node) bool {
		return n.Rack == nodes[at].Rack && slices.Contains(holders, n.Num)
	})
}

// rank puts the nodes to read from in order: those that are about to give the
// chunk up last, before them suspect ones, and those with little to do first. An
// order may name only so many.
func (p *planner) rank(problem *Problem) []fsm.NodeNum {
	ranked := make([]fsm.NodeNum, len(problem.Live))
	for to, from := range p.random.Perm(len(problem.Live)) {
		ranked[to] = problem.Live[from]
	}
	penalty := func(num fsm.NodeNum) int {
		if slices.Contains(problem.Doomed, num) {
			return 2
		}
		if i, known := p.at[num]; known && p.nodes[i].Live {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(ranked, func(a, b fsm.NodeNum) int {
		if difference := penalty(a) - penalty(b); difference != 0 {
			return difference
		}
		return p.sources[a] - p.sources[b]
	})
	return ranked[:min(len(ranked), dfs.MaxReplication)]
}

func numbers(lists ...[]fsm.NodeNum) []uint32 {
	var all []uint32
	for _, list := range lists {
		for _, num := range list {
			all = append(all, uint32(num))
		}
	}
	return all
}

// Outlook says whether a chunk that is to have another replica can get one.
type Outlook int

// The outlooks.
const (
	Possible Outlook = iota
	NoNode           // every DataNode that answers holds the chunk
	NoRoom           // those that do not hold it cannot take it
	NoRack           // those that can take it are on no other rack
)

// OutlookOf tells whether there is a node for another replica.
func OutlookOf(p *Problem, nodes []placement.Node, random *rand.Rand) Outlook {
	holders := numbers(p.Serving)
	if target, ok := placement.Another(nodes, p.Chunk.Size, holders, numbers(p.Live), random); ok {
		if p.Kind == Misplaced && sharesRack(nodes, target, holders) {
			return NoRack
		}
		return Possible
	}
	for i := range nodes {
		if n := &nodes[i]; n.Live && n.Serving && !slices.Contains(numbers(p.Live), n.Num) {
			return NoRoom
		}
	}
	return NoNode
}
