package repair

import (
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// goneAfter is how long a node is silent before it is taken for gone for good.
// It does not speak for a partition any more, or nodes that were lost one by
// one over the years would hold up repair for ever.
const goneAfter = 24 * time.Hour

// Doomed returns on which nodes this leader has ordered the chunk's replica to
// be trimmed.
type Doomed func(dfs.ChunkID) []fsm.NodeNum

// fleet is the DataNodes by which chunks are judged.
type fleet struct {
	nodes     map[fsm.NodeNum]fsm.Node
	racks     int // that replicas could be spread over
	inService int // without those that are gone for good
	down      int // of those
	doomed    Doomed
}

func newFleet(view *View) *fleet {
	f := &fleet{nodes: make(map[fsm.NodeNum]fsm.Node, len(view.Nodes)), doomed: view.Doomed}
	racks := make(map[string]bool)
	for _, n := range view.Nodes {
		f.nodes[n.Num] = n
		if n.Service != fsm.InService || gone(&n, view.Now) {
			continue
		}
		f.inService++
		if n.Liveness == fsm.Down {
			f.down++
			continue
		}
		if n.URL != "" {
			racks[n.Rack] = true
		}
	}
	f.racks = len(racks)
	return f
}

func gone(n *fsm.Node, now time.Time) bool {
	return n.Liveness == fsm.Down && now.Sub(n.LastHeartbeat) > goneAfter
}

func massLoss(down, inService int) bool { return down >= 2 && 3*down > inService }

func (f *fleet) massLoss() bool { return massLoss(f.down, f.inService) }

// judge finds out how the replicas of p's chunk stand and what is wrong with
// them, given how many are wanted.
func (f *fleet) judge(p *Problem) {
	p.Live, p.Lost, p.Serving, p.Doomed = nil, nil, nil, nil
	var doomed []fsm.NodeNum
	if f.doomed != nil {
		doomed = f.doomed(p.Chunk.ID)
	}
	if len(doomed) == 0 && f.allServing(p.Chunk.Replicas) {
		p.Live, p.Serving = p.Chunk.Replicas, p.Chunk.Replicas // shared with the state, which never changes it
	} else {
		f.split(p, doomed)
	}
	p.Kind = f.kind(p)
}

func (f *fleet) allServing(replicas []fsm.NodeNum) bool {
	for _, num := range replicas {
		if n, known := f.nodes[num]; !known || n.URL == "" || n.Liveness == fsm.Down || n.Service != fsm.InService {
			return false
		}
	}
	return true
}

// split parts the replicas into those that answer and those whose node is
// down. A suspect node is only slow so far.
func (f *fleet) split(p *Problem, doomed []fsm.NodeNum) {
	for _, num := range p.Chunk.Replicas {
		switch n, known := f.nodes[num]; {
		case !known || n.URL == "": // nobody could read from it
		case n.Liveness == fsm.Down:
			p.Lost = append(p.Lost, num)
		default:
			p.Live = append(p.Live, num)
		}
	}
	surplus := len(p.Live) > p.Wanted // without one there is nothing to trim, and nobody is doomed any more
	for _, num := range p.Live {
		switch {
		case surplus && slices.Contains(doomed, num):
			p.Doomed = append(p.Doomed, num)
		case f.nodes[num].Service == fsm.InService:
			p.Serving = append(p.Serving, num)
		}
	}
}

func (f *fleet) kind(p *Problem) Kind {
	switch {
	case len(p.Live) == 0 && p.Wanted > 0:
		return Missing
	case p.standing() < p.Wanted:
		return Under
	case len(p.Serving) < p.Wanted:
		return Draining
	case f.spread(p.Serving) < min(p.Wanted, f.racks):
		return Misplaced
	case len(p.Live) > p.Wanted:
		return Over
	}
	return 0
}

// spread counts the racks of the nodes.
func (f *fleet) spread(nums []fsm.NodeNum) int {
	count := 0
	for i, num := range nums {
		if !f.onRackOf(nums[:i], num) {
			count++
		}
	}
	return count
}

// onRackOf tells whether one of the nodes is on the rack of num.
func (f *fleet) onRackOf(nums []fsm.NodeNum, num fsm.NodeNum) bool {
	rack := f.nodes[num].Rack
	return slices.ContainsFunc(nums, func(other fsm.NodeNum) bool { return f.nodes[other].Rack == rack })
}
