package wal

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

const sector = 512 // bytes that a disk writes wholly or not at all

var errDead = errors.New("the power has failed")

// world is a log on disks that fail together, after so many operations.
type world struct {
	p    *platter
	base *memory
	left int // operations; below zero: for ever
	dead bool
	want model // what was acknowledged
	open *step // was not answered before the power failed
}

func newWorld() *world {
	w := &world{p: newPlatter(testSize), base: newMemory(), want: make(model), left: -1}
	w.p.step, w.base.step = w.operation, w.operation
	return w
}

// operation lets an operation of a disk happen, or not. What happened before it is
// on the disk or not, as sync says.
func (w *world) operation() error {
	if w.dead || w.left == 0 {
		w.dead = true
		return errDead
	}
	w.left--
	return nil
}

// run lets a process live until the power fails or it has done so many steps.
func (w *world) run(t *testing.T, rng *rand.Rand, steps, life int) {
	t.Helper()
	w.left = life
	l, err := open("", testID, w.base, unguarded, w.p.quiet())
	if err != nil {
		if !w.dead {
			t.Fatalf("it does not start: %v", err)
		}
		return
	}
	defer l.Stop()
	if d := w.want.differs(l); d != "" {
		t.Fatalf("at the start: %s", d)
	}
	for i := range steps {
		next := anyStep(rng, w.want, uint64(i))
		if err := next.do(l); err != nil {
			w.wantDead(t, err)
			w.open = &next
			return
		}
		w.want = next.in(w.want)
		switch rng.IntN(4) {
		case 0:
			err = l.carry()
		case 1:
			err = l.turn()
		}
		if err != nil {
			w.wantDead(t, err)
			return
		}
	}
}

func (w *world) wantDead(t *testing.T, err error) {
	t.Helper()
	if !w.dead || !errors.Is(err, errDead) && !errors.Is(err, errFailed) {
		t.Fatal(err)
	}
}

// dirty returns the sectors that the power may or may not have left.
func (w *world) dirty() []int {
	var sectors []int
	for at := 0; at < len(w.p.now); at += sector {
		if !slices.Equal(w.p.now[at:at+sector], w.p.durable[at:at+sector]) {
			sectors = append(sectors, at)
		}
	}
	return sectors
}

// after returns the world in which only some of the dirty sectors have made it.
func (w *world) after(made func(i int) bool) *world {
	next := newWorld()
	next.want, next.open = w.want, w.open
	next.p.durable = slices.Clone(w.p.durable)
	for i, at := range w.dirty() {
		if made(i) {
			copy(next.p.durable[at:at+sector], w.p.now[at:])
		}
	}
	next.p.now = slices.Clone(next.p.durable)
	next.base.held = maps.Clone(w.base.held)
	return next
}

// killed returns the world in which only the process has died: everything that was
// written is seen, and not yet durable.
func (w *world) killed() *world {
	next := w.after(func(int) bool { return false })
	next.p.now = slices.Clone(w.p.now)
	return next
}

// check makes sure that the next start finds all that was acknowledged, and of what
// was not answered all or nothing.
func (w *world) check(t *testing.T) {
	t.Helper()
	l, err := open("", testID, w.base, unguarded, w.p.quiet())
	if err != nil {
		t.Fatalf("it does not start: %v", err)
	}
	defer l.Stop()
	d := w.want.differs(l)
	if d != "" && w.open != nil {
		if done := w.open.in(w.want); done.differs(l) == "" {
			w.want, d = done, ""
		}
	}
	if d != "" {
		t.Fatalf("after the power failure: %s", d)
	}
	w.open = nil
}

// afterwards tries all subsets of the dirty sectors, or some when there are many.
func (w *world) afterwards(rng *rand.Rand, then func(*world)) {
	n := len(w.dirty())
	if n <= 4 {
		for subset := range 1 << n {
			then(w.after(func(i int) bool { return subset>>i&1 == 1 }))
		}
		return
	}
	for _, share := range []int{0, 1, 2, 2, 2, 3, 4} {
		then(w.after(func(int) bool { return rng.IntN(4) < share }))
	}
}

// TestPowerFailure lets the power fail after each operation of the disks, leaves
// any of the sectors that were not durable, and does that again in the process that
// comes next, also while it starts.
func TestPowerFailure(t *testing.T) {
	const steps = 12
	worlds := 0
	for seed := range uint64(40) {
		for life := 0; ; life++ {
			w := newWorld()
			w.run(t, rand.New(rand.NewPCG(seed, 0)), steps, life)
			rng := rand.New(rand.NewPCG(seed, uint64(life)))

			// Only the process dies; the power fails while the next one starts.
			killed := w.killed()
			killed.startBriefly(t, rng)
			killed.afterwards(rng, func(w *world) {
				w.check(t)
				w.run(t, rng, 3, -1)
			})
			w.afterwards(rng, func(w *world) {
				worlds++
				crashes := w.after(func(int) bool { return true })
				w.check(t)
				w.run(t, rng, 3, -1)

				// The start itself is cut short, and whatever comes after it.
				crashes.startBriefly(t, rng)
				crashes.afterwards(rng, func(w *world) {
					w.check(t)
					w.run(t, rng, 3, -1)
				})
			})
			if !w.dead || t.Failed() {
				break
			}
		}
	}
	t.Logf("%d worlds", worlds)
}

// startBriefly starts after a power failure, and is cut off soon.
func (w *world) startBriefly(t *testing.T, rng *rand.Rand) {
	t.Helper()
	w.left = rng.IntN(4)
	l, err := open("", testID, w.base, unguarded, w.p.quiet())
	if err == nil {
		l.Stop()
	} else if !w.dead {
		t.Fatalf("it does not start: %v", err)
	}
}

// TestDamage flips each bit of a journal that a process has left, and makes zeros of
// each sector. The next start finds everything or refuses; only the last record can
// be lost unnoticed, and only together with its mark.
func TestDamage(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	var all []*raft.Log
	var last int64
	for i := uint64(1); i <= 30; i += 3 {
		last = l.file.end
		if err := l.StoreLogs(entries(i, i+2, 1, 90)); err != nil {
			t.Fatal(err)
		}
		all = append(all, entries(i, i+2, 1, 90)...)
	}
	end := l.file.end
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	refused := 0
	judge := func(what string, at int64, lastMayBeLost bool, damage func([]byte)) {
		t.Helper()
		image := slices.Clone(p.now)
		damage(image)
		_, found, err := scan(image)
		switch {
		case err != nil:
			refused++
			if at >= end {
				t.Fatalf("%s at byte %d, behind all records: %v", what, at, err)
			}
		case len(found) == len(all) && slices.EqualFunc(found, all, same):
		case !lastMayBeLost || len(found) != len(all)-3 || !slices.EqualFunc(found, all[:len(found)], same):
			t.Fatalf("%s at byte %d: %d of %d entries are left", what, at, len(found), len(all))
		}
	}
	for at := range end + 2*sector {
		judge("a flipped bit", at, false, func(b []byte) { b[at] ^= 1 << (at % 8) })
	}
	if records := int(end - recordsFrom); refused < records*9/10 { // the rest is what fills up to multiples of 8
		t.Errorf("%d of %d flipped bits were refused", refused, records)
	}
	for at := int64(0); at < testSize; at += sector {
		to := at + sector
		judge("a sector of zeros", at, at <= end && to >= last, func(b []byte) { clear(b[at:to]) })
	}
	for size := int64(0); size < testSize; size += sector {
		if _, _, err := scan(p.now[:size]); err == nil {
			t.Fatalf("a journal of %d bytes instead of %d is accepted", size, testSize)
		}
	}
	for at := end; at < testSize; at += 7 {
		image := slices.Clone(p.now)
		image[at] = 0xff
		if _, found, err := scan(image); err != nil || len(found) != len(all) {
			t.Fatalf("a byte behind the end makes a difference: %v", err)
		}
	}
}

// TestOlderGeneration: what lies behind the end since an earlier time is nothing.
func TestOlderGeneration(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	if err := l.StoreLogs(entries(1, 2, 1, 100)); err != nil {
		t.Fatal(err)
	}
	for i := uint64(3); i < 20; i++ {
		if err := l.StoreLogs(entries(i, i, 1, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.turn(); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs(entries(20, 21, 1, 100)); err != nil { // as long as the first
		t.Fatal(err)
	}
	clear(p.now[l.file.end:][:recordHead]) // without its mark the next thing is an old record
	if _, found, err := scan(p.now); err != nil || len(found) != 2 {
		t.Fatalf("%d entries, error %v", len(found), err)
	}
	image := slices.Clone(p.now)
	image[recordsFrom+recordHead] ^= 1
	if _, found, err := scan(image); err != nil || len(found) != 0 {
		t.Fatalf("old records prove something: %d entries, error %v", len(found), err)
	}
}
