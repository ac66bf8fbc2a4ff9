package reclaim

import (
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Limits bound one round of planning.
type Limits struct {
	Look    int // pieces of garbage, and orphans, that are looked at
	PerNode int // deletions under way on one node
}

// Order is chunks that a node is to give up.
type Order struct {
	Node   fsm.NodeNum
	Chunks []dfs.ChunkID
}

// Cursor is where the last round stopped looking. The zero value is the
// beginning, where it is again after the end.
type Cursor struct {
	garbage dfs.ChunkID
	node    fsm.NodeNum // whose orphans are looked at
	orphan  dfs.ChunkID
}

// Plan returns what is to be deleted now, besides what is under way: replicas
// of garbage, and orphans, that are such since the log index cutoff or longer.
// A node is told only what it has itself reported to hold, and only while its
// reports and the state agree. The state must not change meanwhile.
func Plan(s *fsm.State, cutoff uint64, ledger *Ledger, limits Limits, cursor *Cursor) []Order {
	p := newPlanner(s, cutoff, ledger, limits)
	p.look = limits.Look
	p.lookAtGarbage(cursor)
	p.look = limits.Look // neither keeps the other waiting
	p.lookAtOrphans(cursor)
	var orders []Order
	for _, num := range p.nodes {
		if len(p.planned[num]) > 0 {
			orders = append(orders, Order{num, p.planned[num]})
		}
	}
	return orders
}

type planner struct {
	state   *fsm.State
	cutoff  uint64
	ledger  *Ledger
	look    int
	nodes   []fsm.NodeNum       // that can be told anything, in order
	room    map[fsm.NodeNum]int // deletions that may be added on each of them
	free    int                 // nodes with any
	planned map[fsm.NodeNum][]dfs.ChunkID
}

func newPlanner(s *fsm.State, cutoff uint64, ledger *Ledger, limits Limits) *planner {
	p := &planner{
		state: s, cutoff: cutoff, ledger: ledger,
		room: make(map[fsm.NodeNum]int), planned: make(map[fsm.NodeNum][]dfs.ChunkID),
	}
	for _, node := range s.Nodes() {
		if !reliable(&node) {
			continue
		}
		p.nodes = append(p.nodes, node.Num)
		if room := limits.PerNode - ledger.count(node.Num); room > 0 {
			p.room[node.Num] = room
			p.free++
		}
	}
	return p
}

// reliable tells whether the node answers, understands orders, and holds what
// the state believes. One that came back has to show its inventory first.
func reliable(n *fsm.Node) bool {
	return n.Liveness == fsm.Up && n.Incarnation > 0 && n.Inventoried
}

// goOn counts what is looked at, and tells whether there is a point in it.
func (p *planner) goOn() bool {
	p.look--
	return p.look >= 0 && p.free > 0
}

func (p *planner) lookAtGarbage(cursor *Cursor) {
	through := true
	p.state.GarbageAfter(cursor.garbage, func(g fsm.Garbage) bool {
		if through = p.goOn(); !through {
			return false
		}
		cursor.garbage = g.ID
		if g.Since <= p.cutoff {
			for _, num := range g.Replicas {
				p.delete(num, g.ID)
			}
		}
		return true
	})
	if through {
		cursor.garbage = 0
	}
}

func (p *planner) lookAtOrphans(cursor *Cursor) {
	for _, num := range p.nodes {
		if num < cursor.node || p.room[num] == 0 {
			continue
		}
		if num > cursor.node {
			cursor.node, cursor.orphan = num, 0
		}
		if !p.orphansOf(num, cursor) {
			return
		}
	}
	cursor.node, cursor.orphan = 0, 0
}

// orphansOf tells whether it is through with the orphans of a node, or with its
// room.
func (p *planner) orphansOf(num fsm.NodeNum, cursor *Cursor) (through bool) {
	through = true
	p.state.OrphansAfter(num, cursor.orphan, func(o fsm.Orphan) bool {
		if through = p.goOn(); !through {
			return false
		}
		cursor.orphan = o.ID
		// Whoever lost the future that an ID comes from may want it back.
		if o.Issued && o.Since <= p.cutoff {
			p.delete(num, o.ID)
		}
		return p.room[num] > 0
	})
	return through
}

// delete plans one deletion, if the node may be told to and has room for it.
func (p *planner) delete(num fsm.NodeNum, id dfs.ChunkID) {
	if p.room[num] == 0 || p.ledger.has(num, id) || !p.state.Reported(num, id) {
		return
	}
	p.planned[num] = append(p.planned[num], id)
	if p.room[num]--; p.room[num] == 0 {
		p.free--
	}
}
