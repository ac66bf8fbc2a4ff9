package repair

import (
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Trim is a replica that is to go because there are enough others.
type Trim struct {
	Chunk       fsm.Chunk // as it was when the trim was planned
	Wanted      int       // replicas
	Victim      fsm.NodeNum
	Incarnation uint64        // of the victim
	Keepers     []fsm.NodeNum // at least Wanted; set when the order is given
}

// trimPatience is how long a trim may take, however often its victim is told.
// After that others get their turn.
const trimPatience = 2 * time.Minute

// Trims is the trims that a leader has ordered. A replica in it is doomed: it
// is no keeper of another, and counts as none that is wanted. It stays so until
// it is gone, or there is no order any more that the victim might carry out.
// The order is given to it again and again. Not safe for concurrent use.
type Trims struct {
	again  time.Duration
	orders map[fsm.NodeNum]map[dfs.ChunkID]*trimOrder
	doomed map[dfs.ChunkID][]fsm.NodeNum
}

type trimOrder struct {
	Trim
	delivered time.Time // zero when it never was
	since     time.Time // when it was first looked after
}

// NewTrims returns an empty ledger of trims, whose orders are given out anew
// when again has passed.
func NewTrims(again time.Duration) *Trims {
	return &Trims{
		again:  again,
		orders: make(map[fsm.NodeNum]map[dfs.ChunkID]*trimOrder), doomed: make(map[dfs.ChunkID][]fsm.NodeNum),
	}
}

// Add takes in what PlanTrims returned.
func (t *Trims) Add(trims []Trim) {
	for _, trim := range trims {
		if t.orders[trim.Victim] == nil {
			t.orders[trim.Victim] = make(map[dfs.ChunkID]*trimOrder)
		}
		if t.orders[trim.Victim][trim.Chunk.ID] == nil {
			t.doomed[trim.Chunk.ID] = append(t.doomed[trim.Chunk.ID], trim.Victim)
		}
		t.orders[trim.Victim][trim.Chunk.ID] = &trimOrder{Trim: trim}
	}
}

// Settle forgets the trims that doomed says no to. When their victims cannot be
// carrying the order out, it also forgets those whose replica missed says to be
// needed, and those that have been ordered in vain for too long, which it returns.
func (t *Trims) Settle(now time.Time, doomed, missed func(*Trim) bool) (vain []Trim) {
	for _, orders := range t.orders {
		for _, o := range orders {
			if o.since.IsZero() {
				o.since = now
			}
			switch idle := t.idle(o, now); {
			case !doomed(&o.Trim), idle && missed(&o.Trim):
			case idle && o.late(now):
				vain = append(vain, o.Trim)
			default:
				continue
			}
			t.forget(&o.Trim)
		}
	}
	return vain
}

// Want takes note of how many replicas are wanted now.
func (t *Trims) Want(wanted map[dfs.ChunkID]int) {
	t.each(func(trim *Trim) {
		if count, known := wanted[trim.Chunk.ID]; known {
			trim.Wanted = count
		}
	})
}

func (t *Trims) forget(trim *Trim) {
	delete(t.orders[trim.Victim], trim.Chunk.ID)
	if len(t.orders[trim.Victim]) == 0 {
		delete(t.orders, trim.Victim)
	}
	left := slices.DeleteFunc(slices.Clone(t.doomed[trim.Chunk.ID]), func(num fsm.NodeNum) bool { return num == trim.Victim })
	if len(left) == 0 {
		delete(t.doomed, trim.Chunk.ID)
		return
	}
	t.doomed[trim.Chunk.ID] = left
}

// Doomed returns the nodes whose replica of the chunk is being trimmed, as they
// are now: later changes of t do not show. It is nil when there are none.
func (t *Trims) Doomed() Doomed {
	if len(t.doomed) == 0 {
		return nil
	}
	doomed := make(map[dfs.ChunkID][]fsm.NodeNum, len(t.doomed))
	for id, nodes := range t.doomed {
		doomed[id] = slices.Clone(nodes)
	}
	return func(id dfs.ChunkID) []fsm.NodeNum { return doomed[id] }
}

// Outstanding returns how many trims there are.
func (t *Trims) Outstanding() int {
	count := 0
	for _, orders := range t.orders {
		count += len(orders)
	}
	return count
}

// Waiting tells whether the victim has to be told of a trim.
func (t *Trims) Waiting(victim fsm.NodeNum, now time.Time) bool {
	for _, o := range t.orders[victim] {
		if t.due(o, now) {
			return true
		}
	}
	return false
}

// Take returns the trims that the victim has to be told of, those of the lowest
// chunks first. Those that have not enough keepers wait.
func (t *Trims) Take(victim fsm.NodeNum, now time.Time, keepers func(*Trim) []fsm.NodeNum) []Trim {
	var trims []Trim
	for _, o := range t.orders[victim] {
		if !t.due(o, now) {
			continue
		}
		if o.Keepers = keepers(&o.Trim); len(o.Keepers) >= o.Wanted {
			o.delivered = now
			trims = append(trims, o.Trim)
		}
	}
	slices.SortFunc(trims, func(a, b Trim) int { return compareIDs(a.Chunk.ID, b.Chunk.ID) })
	return trims
}

func (t *Trims) due(o *trimOrder, now time.Time) bool { return t.idle(o, now) && !o.late(now) }

// idle tells whether the victim cannot be carrying the order out.
func (t *Trims) idle(o *trimOrder, now time.Time) bool {
	return o.delivered.IsZero() || now.Sub(o.delivered) >= t.again
}

func (o *trimOrder) late(now time.Time) bool {
	return !o.since.IsZero() && now.Sub(o.since) >= trimPatience
}

// each calls fn with every trim, in no particular order.
func (t *Trims) each(fn func(*Trim)) {
	for _, orders := range t.orders {
		for _, o := range orders {
			fn(&o.Trim)
		}
	}
}

func compareIDs(a, b dfs.ChunkID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// DoomedIn tells of a trim whether its replica is still doomed: it is there, on
// a node that has not been started anew, and there is a replica too many.
func DoomedIn(view View) func(*Trim) bool {
	view.Doomed = nil
	f := newFleet(&view)
	return func(t *Trim) bool {
		p, ok := f.victim(t, &view)
		return ok && len(p.Live) > t.Wanted
	}
}

// MissedIn tells of a trim whether its replica is one that is wanted after all:
// it is on a node in service, and there are too few others on such nodes, say
// because one of these is to be emptied. To wait for another copy could be in
// vain, for the victim cannot take it.
func MissedIn(view View) func(*Trim) bool {
	f := newFleet(&view)
	return func(t *Trim) bool {
		p, ok := f.victim(t, &view)
		return ok && slices.Contains(p.Doomed, t.Victim) && f.nodes[t.Victim].Service == fsm.InService && len(p.Serving) < t.Wanted
	}
}

// KeepersIn returns, for a trim, the nodes that are to keep their replicas: all
// others that are in service, up, and known to have it for certain. There are
// none when nothing is to be trimmed at all, and no more than an order may name.
func KeepersIn(view View) func(*Trim) []fsm.NodeNum {
	f := newFleet(&view)
	return func(t *Trim) (keepers []fsm.NodeNum) {
		p, ok := f.victim(t, &view)
		if !ok || f.massLoss() || !slices.Contains(p.Doomed, t.Victim) {
			return nil
		}
		for _, num := range p.Serving {
			if n := f.nodes[num]; n.Liveness == fsm.Up && n.Inventoried && view.Reported(num, t.Chunk.ID) {
				keepers = append(keepers, num)
			}
		}
		return keepers[:min(len(keepers), dfs.MaxReplication)]
	}
}

// victim returns how the chunk of a trim stands, and whether the victim is
// still what it was.
func (f *fleet) victim(t *Trim, view *View) (Problem, bool) {
	chunk, known := view.Chunk(t.Chunk.ID)
	if !known || chunk.Refs == 0 || !slices.Contains(chunk.Replicas, t.Victim) || f.nodes[t.Victim].Incarnation != t.Incarnation {
		return Problem{}, false
	}
	p := Problem{Chunk: chunk, Wanted: t.Wanted}
	f.judge(&p)
	return p, true
}
