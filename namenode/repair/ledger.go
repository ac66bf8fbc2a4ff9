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
// and there is still wrong with it what was, and the target answers, is in
// service and does not hold it.
func NeededIn(view View) func(*Copy) bool {
	f := newFleet(&view)
	return func(c *Copy) bool {
		chunk, known := view.Chunk(c.Chunk.ID)
		target, registered := f.nodes[c.Target]
		if !known || chunk.Refs == 0 || !registered || target.Liveness == fsm.Down || target.Service != fsm.InService ||
			slices.Contains(chunk.Replicas, c.Target) {
			return false
		}
		p := Problem{Chunk: chunk, Wanted: c.Wanted}
		f.judge(&p)
		switch {
		case len(p.Serving) < c.Wanted:
			return true
		case c.From != 0:
			return p.Kind == 0 && slices.Contains(p.Serving, c.From)
		}
		return c.Kind == Misplaced && !f.onRackOf(p.Serving, c.Target)
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

// targets is where copies of a chunk are under way, and where they are overdue.
type targets struct{ ongoing, overdue []fsm.NodeNum }

func (l *Ledger) targets() map[dfs.ChunkID]targets {
	found := make(map[dfs.ChunkID]targets, len(l.orders))
	for _, o := range l.orders {
		t := found[o.Chunk.ID]
		if o.overdue {
			t.overdue = append(t.overdue, o.Target)
		} else {
			t.ongoing = append(t.ongoing, o.Target)
		}
		found[o.Chunk.ID] = t
	}
	return found
}
