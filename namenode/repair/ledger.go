package repair

import (
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Ledger is the copies that a leader has ordered. Each is given to its target
// once. When the target does not hold the chunk in time, the copy is overdue:
// it does not count any more, and for as long again other targets are
// preferred. Not safe for concurrent use.
type Ledger struct {
	timeout time.Duration
	orders  []*order
}

type order struct {
	Copy
	deadline  time.Time
	delivered bool
	overdue   bool
}

// NewLedger returns an empty ledger of copies that may each take timeout.
func NewLedger(timeout time.Duration) *Ledger { return &Ledger{timeout: timeout} }

// Add takes in what Plan returned.
func (l *Ledger) Add(copies []Copy, now time.Time) {
	for _, c := range copies {
		l.orders = append(l.orders, &order{Copy: c, deadline: now.Add(l.timeout)})
	}
}

// Settle forgets the copies that are not needed any more and returns those
// that have become overdue.
func (l *Ledger) Settle(now time.Time, needed func(*Copy) bool) (overdue []Copy) {
	l.orders = slices.DeleteFunc(l.orders, func(o *order) bool {
		return !needed(&o.Copy) || !now.Before(o.deadline.Add(l.timeout))
	})
	for _, o := range l.orders {
		if !o.overdue && !now.Before(o.deadline) {
			o.overdue = true
			overdue = append(overdue, o.Copy)
		}
	}
	return overdue
}

// NeededIn tells of a copy whether it still makes sense: the chunk is in use
// and lacks replicas, and the target answers and does not hold it.
func NeededIn(s *fsm.State) func(*Copy) bool {
	return func(c *Copy) bool {
		chunk, known := s.Chunk(c.Chunk.ID)
		target, registered := s.NodeByNum(c.Target)
		if !known || chunk.Refs == 0 || !registered || target.Liveness == fsm.Down || slices.Contains(chunk.Replicas, c.Target) {
			return false
		}
		live := 0
		for _, num := range chunk.Replicas {
			if n, ok := s.NodeByNum(num); ok && n.Liveness != fsm.Down && n.URL != "" {
				live++
			}
		}
		return live < c.Wanted
	}
}

// Waiting tells whether there is a copy that its target has not been told of.
func (l *Ledger) Waiting(target fsm.NodeNum) bool {
	return slices.ContainsFunc(l.orders, func(o *order) bool { return o.waits(target) })
}

// Take returns the copies that the target has not been told of. They are not
// given out again.
func (l *Ledger) Take(target fsm.NodeNum) []Copy {
	var copies []Copy
	for _, o := range l.orders {
		if o.waits(target) {
			o.delivered = true
			copies = append(copies, o.Copy)
		}
	}
	return copies
}

func (o *order) waits(target fsm.NodeNum) bool {
	return o.Target == target && !o.delivered && !o.overdue
}

// Ongoing returns the copies that are under way.
func (l *Ledger) Ongoing() []Copy {
	var copies []Copy
	for _, o := range l.orders {
		if !o.overdue {
			copies = append(copies, o.Copy)
		}
	}
	return copies
}

// Empty tells whether nothing is under way or overdue.
func (l *Ledger) Empty() bool { return len(l.orders) == 0 }

// targets returns where copies of the chunk are under way, and where they are
// overdue.
func (l *Ledger) targets(id dfs.ChunkID) (ongoing, overdue []fsm.NodeNum) {
	for _, o := range l.orders {
		switch {
		case o.Chunk.ID != id:
		case o.overdue:
			overdue = append(overdue, o.Target)
		default:
			ongoing = append(ongoing, o.Target)
		}
	}
	return ongoing, overdue
}
