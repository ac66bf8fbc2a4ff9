package repair

import (
	"math/rand/v2"
	"slices"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

// Limits bound how many copies are under way at once, so that repair leaves
// disks and network to the clients.
type Limits struct {
	PerTarget int
	PerSource int
	InCluster int
}

// Copy is a replica to be made.
type Copy struct {
	Chunk   fsm.Chunk // as it was when the copy was planned
	Wanted  int       // replicas
	Target  fsm.NodeNum
	Sources []fsm.NodeNum // best first
}

// Plan returns the copies to be ordered now, besides those that are under way:
// chunks with the fewest replicas first, at most one copy of each. Nodes are
// all DataNodes; what is on its way to them, the copies of the ledger
// included, has been taken from their room.
func Plan(report *Report, nodes []placement.Node, ledger *Ledger, limits Limits, random *rand.Rand) []Copy {
	p := newPlanner(nodes, ledger, limits, random)
	var plan []Copy
	for _, candidate := range p.candidates(report) {
		if p.total >= limits.InCluster {
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

// candidate is a chunk that lacks replicas and will have count of them when
// the copies under way are done.
type candidate struct {
	*Problem
	count            int
	ongoing, overdue []fsm.NodeNum
}

type planner struct {
	nodes   []placement.Node
	at      map[fsm.NodeNum]int // index into nodes
	ledger  *Ledger
	limits  Limits
	random  *rand.Rand
	targets map[fsm.NodeNum]int // copies under way to each node
	sources map[fsm.NodeNum]int // and from each
	total   int
}

func newPlanner(nodes []placement.Node, ledger *Ledger, limits Limits, random *rand.Rand) *planner {
	p := &planner{
		nodes: slices.Clone(nodes), at: make(map[fsm.NodeNum]int, len(nodes)),
		ledger: ledger, limits: limits, random: random,
		targets: make(map[fsm.NodeNum]int), sources: make(map[fsm.NodeNum]int),
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
	p.sources[c.Sources[0]]++
	if i, known := p.at[c.Target]; known && p.targets[c.Target] >= p.limits.PerTarget {
		p.nodes[i].Writable = false
	}
}

func (p *planner) reserve(c *Copy) { p.nodes[p.at[c.Target]].InFlight += c.Chunk.Size }

// candidates returns the chunks that may be copied, the most urgent first.
func (p *planner) candidates(report *Report) []candidate {
	var found []candidate
	for i := range report.Problems {
		problem := &report.Problems[i]
		if problem.Kind != Under {
			continue
		}
		ongoing, overdue := p.ledger.targets(problem.Chunk.ID)
		c := candidate{problem, len(problem.Live) + len(ongoing), ongoing, overdue}
		if c.count < problem.Wanted && (c.count == 1 || !report.MassLoss()) {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.count - b.count })
	return found
}

func (p *planner) choose(c candidate) (Copy, bool) {
	sources := p.rank(c.Live)
	if p.sources[sources[0]] >= p.limits.PerSource {
		return Copy{}, false
	}
	holders := slices.Concat(c.Live, c.ongoing)
	target, ok := placement.Another(p.nodes, c.Chunk.Size, numbers(holders, c.overdue), p.random)
	if !ok && len(c.overdue) > 0 { // better once more there than not at all
		target, ok = placement.Another(p.nodes, c.Chunk.Size, numbers(holders), p.random)
	}
	return Copy{Chunk: c.Chunk, Wanted: c.Wanted, Target: fsm.NodeNum(target), Sources: sources}, ok
}

// rank puts the nodes to read from in order: suspect ones last, those with
// little to do first.
func (p *planner) rank(live []fsm.NodeNum) []fsm.NodeNum {
	ranked := make([]fsm.NodeNum, len(live))
	for to, from := range p.random.Perm(len(live)) {
		ranked[to] = live[from]
	}
	suspect := func(num fsm.NodeNum) int {
		if i, known := p.at[num]; known && p.nodes[i].Live {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(ranked, func(a, b fsm.NodeNum) int {
		if difference := suspect(a) - suspect(b); difference != 0 {
			return difference
		}
		return p.sources[a] - p.sources[b]
	})
	return ranked
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

// Outlook says whether a chunk that lacks replicas can get one.
type Outlook int

// The outlooks.
const (
	Possible Outlook = iota
	NoNode           // every DataNode that answers holds the chunk
	NoRoom           // those that do not hold it cannot take it
)

// OutlookOf tells whether there is a node for another replica.
func OutlookOf(p *Problem, nodes []placement.Node, random *rand.Rand) Outlook {
	holders := numbers(p.Live)
	if _, ok := placement.Another(nodes, p.Chunk.Size, holders, random); ok {
		return Possible
	}
	for i := range nodes {
		if n := &nodes[i]; n.Live && n.Serving && !slices.Contains(holders, n.Num) {
			return NoRoom
		}
	}
	return NoNode
}
