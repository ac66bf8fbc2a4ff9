package placement

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Node is a DataNode as placement sees it.
type Node struct {
	Num      uint32
	ID       dfs.NodeID
	Rack     string
	Live     bool  // heard of lately, not suspect
	Serving  bool  // not draining or drained
	Writable bool  // says that it can take chunks
	Free     int64 // bytes that may still be written
	InFlight int64 // bytes allocated on it and not yet stored
}

// Request says what is to be placed.
type Request struct {
	Chunks      int
	ChunkSize   int64 // bytes
	Replication int   // wanted replicas of each chunk
	Exclude     []dfs.NodeID
}

// ErrNotReady is the cause of a refusal that is over when DataNodes have read
// their directories.
var ErrNotReady = errors.New("DataNodes are not ready")

// Plan returns for each chunk the numbers of its nodes, in pipeline order: as
// many as the replication asks for, or as there are, but never fewer than
// dfs.MinReplicas. When that cannot be done the error says why and what to do:
// Unavailable for too few nodes, with the cause ErrNotReady when there will be
// enough soon, NoSpace for too little room.
func Plan(nodes []Node, request Request, random *rand.Rand) ([][]uint32, error) {
	if err := feasible(nodes, request); err != nil {
		return nil, err
	}
	planner := &planner{request: request, random: random}
	for _, n := range nodes {
		if request.usable(&n) {
			planner.nodes = append(planner.nodes, n)
		}
	}
	plan := make([][]uint32, 0, request.Chunks)
	for range request.Chunks {
		targets := planner.next()
		if len(targets) < dfs.MinReplicas(request.Replication) {
			if waiting := notReady(nodes, request); waiting > 0 {
				return nil, awaiting(waiting)
			}
			return nil, noRoom(len(planner.nodes), request)
		}
		plan = append(plan, targets)
	}
	return plan, nil
}

func (r *Request) excluded(n *Node) bool { return slices.Contains(r.Exclude, n.ID) }

func (r *Request) usable(n *Node) bool {
	return n.Live && n.Serving && n.Writable && !r.excluded(n) && n.room() >= r.ChunkSize
}

// ready tells whether the node takes chunks for which it has room. One that has
// room and takes none is reading its directories, as after a start.
func (r *Request) ready(n *Node) bool { return n.Writable || n.room() < r.ChunkSize }

// room is the free space that is not spoken for.
func (n *Node) room() int64 { return n.Free - n.InFlight }

func feasible(nodes []Node, request Request) error {
	needed := dfs.MinReplicas(request.Replication)
	live, usable, excluded := 0, 0, 0
	waiting := notReady(nodes, request)
	for i := range nodes {
		n := &nodes[i]
		switch {
		case !n.Live || !n.Serving:
		case request.excluded(n):
			excluded++
		default:
			live++
			if request.usable(n) {
				usable++
			}
		}
	}
	switch {
	case usable >= needed:
		return nil
	case usable+waiting >= needed:
		return awaiting(waiting)
	case live >= needed:
		return dfs.Errorf(dfs.NoSpace, "%s live, but only %d can take a chunk of %d bytes and %d are needed: delete files or add a DataNode", are(live), usable, request.ChunkSize, needed)
	}
	return tooFew(live, excluded, needed, request.Replication)
}

// notReady counts the nodes that may be usable soon.
func notReady(nodes []Node, request Request) int {
	count := 0
	for i := range nodes {
		if n := &nodes[i]; n.Live && n.Serving && !request.excluded(n) && !request.ready(n) {
			count++
		}
	}
	return count
}

func awaiting(count int) error {
	return &dfs.Error{
		Code:    dfs.Unavailable,
		Message: fmt.Sprintf("%s live but not ready for new chunks yet, as after a start; try again in a moment", are(count)),
		Cause:   ErrNotReady,
	}
}

func tooFew(live, excluded, needed, replication int) error {
	advice := "start another"
	if needed-live > 1 {
		advice = fmt.Sprintf("start %d more", needed-live)
	}
	if live >= 1 && needed > 1 && excluded == 0 {
		advice += " or pass --replication 1"
	}
	unreachable := ""
	if excluded > 0 {
		unreachable = fmt.Sprintf(" (%d more could not be reached by you)", excluded)
	}
	return dfs.Errorf(dfs.Unavailable, "%s live%s, %d %s needed for replication %d: %s", are(live), unreachable, needed, isOrAre(needed), replication, advice)
}

func noRoom(usable int, request Request) error {
	return dfs.Errorf(dfs.NoSpace, "the %d DataNodes that can take chunks have no room for %d chunks of %d bytes with replication %d: delete files or add a DataNode", usable, request.Chunks, request.ChunkSize, request.Replication)
}

func are(n int) string {
	if n == 1 {
		return "1 DataNode is"
	}
	return fmt.Sprintf("%d DataNodes are", n)
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// planner draws the nodes of one chunk after another and keeps account of what
// it has promised.
type planner struct {
	nodes   []Node
	request Request
	random  *rand.Rand
}

func (p *planner) next() []uint32 {
	chosen := make([]int, 0, p.request.Replication)
	for len(chosen) < p.request.Replication {
		i := p.draw(chosen)
		if i < 0 {
			break
		}
		chosen = append(chosen, i)
	}
	targets := make([]uint32, len(chosen))
	for at, i := range chosen {
		p.nodes[i].InFlight += p.request.ChunkSize
		targets[at] = p.nodes[i].Num
	}
	return targets
}

// draw picks a node that is not chosen yet, from the racks with the fewest
// chosen nodes, by weight. It returns -1 when there is none.
func (p *planner) draw(chosen []int) int {
	total, fewest := 0.0, len(chosen)+1
	picked := -1
	for i := range p.nodes {
		if slices.Contains(chosen, i) || p.nodes[i].room() < p.request.ChunkSize {
			continue
		}
		sharing := p.sharing(chosen, p.nodes[i].Rack)
		if sharing > fewest {
			continue
		}
		if sharing < fewest {
			total, fewest = 0, sharing
		}
		// Each candidate replaces the earlier ones with its share of the total
		// weight: a weighted draw in one pass (Chao 1982, sample of one).
		weight := p.weight(&p.nodes[i])
		total += weight
		if p.random.Float64()*total < weight {
			picked = i
		}
	}
	return picked
}

// sharing counts the chosen nodes on a rack.
func (p *planner) sharing(chosen []int, rack string) int {
	count := 0
	for _, i := range chosen {
		if p.nodes[i].Rack == rack {
			count++
		}
	}
	return count
}

// queueDepth is how many chunks on their way to a node halve its weight.
const queueDepth = 16

func (p *planner) weight(n *Node) float64 {
	queued := float64(n.InFlight) / float64(p.request.ChunkSize)
	return float64(n.room()) / (1 + queued/queueDepth)
}
