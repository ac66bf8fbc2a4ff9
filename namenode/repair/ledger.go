package repair

import (
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// roomPatience is how long a copy that its target was told of is waited for
// although the target says that it is full: it may have taken the last room.
const roomPatience = 5 * time.Second

// Ledger is the copies that a leader has ordered. Each is given to its target
// once. When the target does not hold the chunk in time, or shows that it will
// not, the copy is overdue: it does not count any more, and for as long as a copy
// may take other targets are preferred. Not safe for concurrent use.
type Ledger struct {
	timeout time.Duration
	orders  []*order
}

type order struct {
	Copy
	deadline    time.Time
	delivered   time.Time // zero when it never was
	incarnation uint64    // of the target then
	overdue     bool
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
func (l *Ledger) Settle(now time.Time, needed func(*Copy) bool, targets Targets) (overdue []Overdue) {
	l.orders = slices.DeleteFunc(l.orders, func(o *order) bool {
		return !needed(&o.Copy) || !now.Before(o.deadline.Add(l.timeout))
	})
	for _, o := range l.orders {
		if reason := o.hopeless(now, targets); !o.overdue && reason != "" {
			o.overdue = true
			if o.deadline.After(now) {
				o.deadline = now
			}
			overdue = append(overdue, Overdue{o.Copy, reason})
		}
	}
	return overdue
}

// Overdue is a copy that is not expected any more, and why.
type Overdue struct {
	Copy
	Reason string
}

// Targets is the DataNodes as they are.
type Targets map[fsm.NodeNum]fsm.Node

// TargetsIn returns the DataNodes of a view.
func TargetsIn(view View) Targets { return newFleet(&view).nodes }

// hopeless tells why a copy is not expected any more, "" if it is.
func (o *order) hopeless(now time.Time, targets Targets) string {
	target, known := targets[o.Target]
	told := !o.delivered.IsZero()
	switch {
	case !now.Before(o.deadline):
		return "it took too long"
	case !known:
	case told && target.Incarnation > o.incarnation:
		return "the target has been started anew"
	case (!target.Writable || target.Free < o.Chunk.Size) && (!told || now.Sub(o.delivered) >= roomPatience):
		return "the target has no room"
	}
	return ""
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
// given out again. The incarnation is that of the target.
func (l *Ledger) Take(target fsm.NodeNum, incarnation uint64, now time.Time) []Copy {
	var copies []Copy
	for _, o := range l.orders {
		if o.waits(target) {
			o.delivered, o.incarnation = now, incarnation
			copies = append(copies, o.Copy)
		}
	}
	return copies
}

func (o *order) waits(target fsm.NodeNum) bool {
	return o.Target == target && o.delivered.IsZero() && !o.overdue
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
