package reclaim

import (
	"maps"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Ledger is the deletions that a leader has ordered. Each is given to its node
// once; when the node still holds the chunk at the deadline, the deletion is
// forgotten and can be planned anew. Not safe for concurrent use.
type Ledger struct {
	timeout time.Duration
	nodes   map[fsm.NodeNum]map[dfs.ChunkID]deletion
}

type deletion struct {
	deadline  time.Time
	delivered bool
}

// NewLedger returns an empty ledger of deletions that may each take timeout.
func NewLedger(timeout time.Duration) *Ledger {
	return &Ledger{timeout: timeout, nodes: make(map[fsm.NodeNum]map[dfs.ChunkID]deletion)}
}

// Add takes in what Plan returned.
func (l *Ledger) Add(orders []Order, now time.Time) {
	for _, o := range orders {
		if l.nodes[o.Node] == nil {
			l.nodes[o.Node] = make(map[dfs.ChunkID]deletion)
		}
		for _, id := range o.Chunks {
			l.nodes[o.Node][id] = deletion{deadline: now.Add(l.timeout)}
		}
	}
}

// Settle forgets the deletions that the state shows to be done, and those whose
// deadline has passed, of which it returns how many had been given to their node.
func (l *Ledger) Settle(now time.Time, s *fsm.State) (overdue int) {
	for num, deletions := range l.nodes {
		maps.DeleteFunc(deletions, func(id dfs.ChunkID, d deletion) bool {
			if !s.Reported(num, id) {
				return true
			}
			late := !now.Before(d.deadline)
			if late && d.delivered {
				overdue++
			}
			return late
		})
		if len(deletions) == 0 {
			delete(l.nodes, num)
		}
	}
	return overdue
}

// Waiting tells whether there is a deletion that the node has not been told of.
func (l *Ledger) Waiting(num fsm.NodeNum) bool {
	for _, d := range l.nodes[num] {
		if !d.delivered {
			return true
		}
	}
	return false
}

// Take returns, in order, the deletions that the node has not been told of, at
// most limit, if s is a state in which it may be told. They are not given out
// again.
func (l *Ledger) Take(s *fsm.State, num fsm.NodeNum, limit int) []dfs.ChunkID {
	if node, known := s.NodeByNum(num); !known || !reliable(&node) {
		return nil
	}
	var ids []dfs.ChunkID
	for id, d := range l.nodes[num] {
		if !d.delivered && s.Reported(num, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = ids[:min(len(ids), limit)]
	for _, id := range ids {
		d := l.nodes[num][id]
		d.delivered = true
		l.nodes[num][id] = d
	}
	return ids
}

// Empty tells whether nothing is under way.
func (l *Ledger) Empty() bool { return len(l.nodes) == 0 }

// count returns how many deletions are under way on the node.
func (l *Ledger) count(num fsm.NodeNum) int { return len(l.nodes[num]) }

// has tells whether the node is to delete the chunk already.
func (l *Ledger) has(num fsm.NodeNum, id dfs.ChunkID) bool {
	_, ordered := l.nodes[num][id]
	return ordered
}
