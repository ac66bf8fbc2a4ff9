package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// TestLogConforms does the same to a store alone and with a journal in front of it,
// which is carried, closed, left as it is and opened again in between.
func TestLogConforms(t *testing.T) {
	behind := map[string]func(*testing.T) raft.LogStore{
		"bolt":   func(t *testing.T) raft.LogStore { return newBolt(t) },
		"memory": func(*testing.T) raft.LogStore { return newMemory() },
	}
	for name, base := range behind {
		steps := map[string]int{"bolt": 60, "memory": 600}[name]
		t.Run(name+" alone", func(t *testing.T) {
			conform(t, steps, base(t), func(l raft.LogStore, _ *rand.Rand) raft.LogStore { return l })
		})
		t.Run("journal and "+name, func(t *testing.T) {
			b, p := base(t), newPlatter(testSize)
			conform(t, steps, p.log(t, b), func(old raft.LogStore, rng *rand.Rand) raft.LogStore {
				l := old.(*Log)
				var err error
				switch rng.IntN(10) {
				case 0:
					err = l.Stop()
				case 1:
					err = l.Close()
				case 2, 3:
					return ok(t, l, l.turn())
				case 4:
					return ok(t, l, l.carry())
				default:
					return l
				}
				return p.log(t, ok(t, b, err))
			})
		})
	}
}

func ok(t *testing.T, s raft.LogStore, err error) raft.LogStore {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func conform(t *testing.T, steps int, l raft.LogStore, disturb func(raft.LogStore, *rand.Rand) raft.LogStore) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	want := make(model)
	for i := range steps {
		next := anyStep(rng, want, uint64(i))
		if err := next.do(l); err != nil {
			t.Fatalf("step %d, %+v: %v", i, next, err)
		}
		want = next.in(want)
		if d := want.differs(l); d != "" {
			t.Fatalf("after step %d, %+v: %s", i, next, d)
		}
		l = disturb(l, rng)
		if d := want.differs(l); d != "" {
			t.Fatalf("after step %d and what disturbed it: %s", i, d)
		}
	}
}

// TestAppendIsOneSync is what all of this is for.
func TestAppendIsOneSync(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	base.step = func() error { return errors.New("nothing should be carried") }
	before := p.syncs
	for i := range uint64(20) {
		if err := l.StoreLogs(entries(2*i+1, 2*i+2, 1, 50)); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.syncs - before; n != 20 {
		t.Errorf("20 appends took %d fdatasyncs", n)
	}
}

// TestFullJournal: an append that has no room waits until all was carried.
func TestFullJournal(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	want := make(model)
	for i := range uint64(200) {
		e := entries(i+1, i+1, 1, 500)
		if err := l.StoreLogs(e); err != nil {
			t.Fatal(err)
		}
		want.store(e)
		if n := l.Pending(); n > testSize {
			t.Fatalf("%d bytes are pending", n)
		}
	}
	if d := want.differs(l); d != "" {
		t.Error(d)
	}
	if len(base.held) < 170 {
		t.Errorf("only %d entries were carried", len(base.held))
	}
}

// TestCarrier: what has come is carried after a while, at once when it is much,
// and the journal is empty then.
func TestCarrier(t *testing.T) {
	for _, name := range []string{"after a while", "much"} {
		t.Run(name, func(t *testing.T) {
			p, base := newPlatter(testSize), newMemory()
			s := p.quiet()
			if name == "much" {
				s.gathered = 1000
			} else {
				s.interval = time.Millisecond
			}
			l, err := open("", testID, base, unguarded, s)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Stop()
			if err := l.StoreLogs(entries(1, 10, 1, 100)); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the entries to be carried", func() bool {
				last, err := base.LastIndex()
				return err == nil && last == 10 && l.Pending() == 0
			})
			waitUntil(t, "the journal to be emptied", func() bool {
				l.changes.Lock()
				defer l.changes.Unlock()
				return l.file.used() == 0
			})
		})
	}
}

// TestCarrierTriesAgain when there was no room.
func TestCarrierTriesAgain(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	var tries atomic.Int32
	base.step = func() error {
		if tries.Add(1) < 3 {
			return syscall.ENOSPC
		}
		return nil
	}
	s := p.quiet()
	s.interval = time.Millisecond
	l, err := open("", testID, base, unguarded, s)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the entries to be carried", func() bool { return l.Pending() == 0 })
}

// TestCloseWithoutRoom: what cannot be carried at the end stays in the journal.
func TestCloseWithoutRoom(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	want := make(model)
	want.store(entries(1, 3, 1, 10))
	if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
		t.Fatal(err)
	}
	base.step = func() error { return syscall.ENOSPC }
	for range 2 { // the second call is told the same
		if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %v", err)
		}
	}
	if _, err := open("", testID, base, unguarded, p.quiet()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a start without room: error %v", err)
	}
	base.step = nil
	if d := want.differs(p.log(t, base)); d != "" {
		t.Error(d)
	}
}

// TestStartWithoutRoom: a file system that needs room to write over a sector, and has
// none, is no reason to take the journal for damaged.
func TestStartWithoutRoom(t *testing.T) {
	for _, missing := range []int{0, 3} {
		p, base := newPlatter(testSize), newMemory()
		want := make(model)
		want.store(entries(1, 3, 1, 10))
		l := p.log(t, base)
		if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
			t.Fatal(err)
		}
		if missing == 0 {
			if err := l.turn(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Stop(); err != nil {
			t.Fatal(err)
		}
		p.write = func(b []byte) []byte { return nil }
		if _, err := open("", testID, base, unguarded, p.quiet()); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("with %d entries to carry: error %v", missing, err)
		}
		p.write = nil
		if d := want.differs(p.log(t, base)); d != "" {
			t.Error(d)
		}
	}
}

// TestFailures: after a failed write or fdatasync nothing is acknowledged any more,
// what was acknowledged before is there, and the next start finds it.
func TestFailures(t *testing.T) {
	failure := errors.New("the disk is broken")
	tests := map[string]func(*platter){
		"write":          func(p *platter) { p.step = func() error { return failure } },
		"fdatasync":      func(p *platter) { p.sync = func() error { return failure } },
		"mark":           func(p *platter) { failMark(p, failure) },
		"mark, for room": func(p *platter) { failMark(p, fmt.Errorf("%w: %w", failure, syscall.ENOSPC)) },
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			p, base := newPlatter(testSize), newMemory()
			l := p.log(t, base)
			want := make(model)
			want.store(entries(1, 3, 1, 10))
			if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
				t.Fatal(err)
			}
			fail(p)
			if err := l.StoreLogs(entries(4, 4, 1, 10)); err == nil || !strings.Contains(err.Error(), failure.Error()) {
				t.Fatalf("error %v", err)
			}
			p.step, p.sync = nil, nil
			for what, err := range map[string]error{
				"append": l.StoreLogs(entries(4, 4, 1, 10)), "delete": l.DeleteRange(1, 2), "close": l.Close(),
			} {
				if !errors.Is(err, errFailed) || errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s after the failure: error %v", what, err)
				}
			}
			if d := want.differs(l); d != "" {
				t.Error(d)
			}
			copy(p.now, p.durable)
			l = p.log(t, base)
			if last, _ := l.LastIndex(); last == 4 { // durable, and nobody was told
				want.store(entries(4, 4, 1, 10))
			}
			if d := want.differs(l); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestFailedReset: when the first sector cannot be written, nothing is deleted, and
// nothing is written any more.
func TestFailedReset(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	want := make(model)
	want.store(entries(1, 3, 1, 10))
	if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
		t.Fatal(err)
	}
	p.step = func() error { return syscall.ENOSPC }
	for range 2 {
		if err := l.DeleteRange(2, 3); !errors.Is(err, errFailed) || errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %v", err)
		}
		p.step = nil
	}
	if err := l.StoreLogs(entries(4, 4, 1, 10)); !errors.Is(err, errFailed) {
		t.Fatalf("error %v", err)
	}
	if d := want.differs(l); d != "" {
		t.Error(d)
	}
}

func failMark(p *platter, err error) {
	p.sync = func() error {
		copy(p.durable, p.now)
		p.step = func() error { return err }
		return nil
	}
}

// TestFullDisk: a write that finds no room changes nothing, and the next one may
// find some.
func TestFullDisk(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	want := make(model)
	for i := range uint64(30) {
		e := entries(i+1, i+1, 1, 300)
		p.write = func(b []byte) []byte { return b[:len(b)/2] }
		if err := l.StoreLogs(e); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %v", err)
		}
		p.write = nil
		if d := want.differs(l); d != "" {
			t.Fatal(d)
		}
		if err := l.StoreLogs(e); err != nil {
			t.Fatal(err)
		}
		want.store(e)
		if d := want.differs(l); d != "" {
			t.Fatal(d)
		}
		if i%7 == 0 {
			l.Stop()
			l = p.log(t, base)
		}
	}
}

// TestFullDiskThenDelete: what an append has left that found no room is not an entry
// of the log that comes out of deleting.
func TestFullDiskThenDelete(t *testing.T) {
	for _, emptied := range []bool{false, true} {
		t.Run(fmt.Sprintf("emptied=%v", emptied), func(t *testing.T) {
			p, base := newPlatter(testSize), newMemory()
			l := p.log(t, base)
			want := make(model)
			want.store(entries(1, 10, 1, 10))
			if err := l.StoreLogs(entries(1, 10, 1, 10)); err != nil {
				t.Fatal(err)
			}
			if emptied {
				if err := l.turn(); err != nil {
					t.Fatal(err)
				}
			}
			// The record finds room, the zeros behind it do not.
			l.file.written = l.file.end
			size := sizeOf(payload(entries(11, 11, 1, 10)))
			p.write = func(b []byte) []byte { return b[:size] }
			if err := l.StoreLogs(entries(11, 11, 1, 10)); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("error %v", err)
			}
			p.write = nil
			if err := l.DeleteRange(9, 10); err != nil {
				t.Fatal(err)
			}
			want.remove(9, 10)
			if err := l.Stop(); err != nil {
				t.Fatal(err)
			}
			if d := want.differs(p.log(t, base)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestFailedStart: a record whose fdatasync has failed is seen by the next start, but
// never comes to the disk. When that start does not get to its end either, the one
// after a power failure must not miss the record, which was never acknowledged.
func TestFailedStart(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	failure := errors.New("the disk is broken")
	if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
		t.Fatal(err)
	}
	p.sync = func() error { return failure }
	if err := l.StoreLogs(entries(4, 4, 1, 10)); !errors.Is(err, failure) {
		t.Fatalf("error %v", err)
	}
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	p.sync = func() error {
		if len(base.held) > 0 { // it was carried
			return failure
		}
		copy(p.durable[:sector], p.now) // only what was written again
		return nil
	}
	if _, err := open("", testID, base, unguarded, p.quiet()); !errors.Is(err, failure) {
		t.Fatalf("error %v", err)
	}
	p.sync = nil
	copy(p.now, p.durable)
	want := make(model)
	want.store(entries(1, 4, 1, 10))
	if d := want.differs(p.log(t, base)); d != "" {
		t.Error(d)
	}
}

// TestFailedCarry: when the store behind has failed, not for want of room, nothing is
// written to it any more, and the journal keeps what it holds.
func TestFailedCarry(t *testing.T) {
	p, base := newPlatter(testSize), newMemory()
	l := p.log(t, base)
	failure := errors.New("the disk is broken")
	if err := l.StoreLogs(entries(1, 3, 1, 10)); err != nil {
		t.Fatal(err)
	}
	base.step = func() error { return failure }
	if err := l.turn(); !errors.Is(err, failure) {
		t.Fatalf("error %v", err)
	}
	base.step = nil
	for what, err := range map[string]error{"carry": l.turn(), "delete": l.DeleteRange(2, 3), "close": l.Close()} {
		if !errors.Is(err, errBehind) {
			t.Errorf("%s after the failure: error %v", what, err)
		}
	}
	if len(base.held) > 0 {
		t.Errorf("%d entries were carried", len(base.held))
	}
	want := make(model)
	want.store(entries(1, 3, 1, 10))
	if d := want.differs(p.log(t, base)); d != "" {
		t.Error(d)
	}
}

// TestConcurrentUse reads, appends, deletes what is old, and carries, all at once.
func TestConcurrentUse(t *testing.T) {
	base := newBolt(t)
	path := filepath.Join(t.TempDir(), "journal")
	if err := create(path, testID, 128<<10); err != nil {
		t.Fatal(err)
	}
	s := defaults()
	s.interval, s.gathered = time.Millisecond, 10<<10
	l, err := open(path, testID, base, unguarded, s)
	if err != nil {
		t.Fatal(err)
	}
	const count = 1000
	var stored, first atomic.Uint64
	first.Store(1)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for i := range uint64(3) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(i, 0))
			for {
				select {
				case <-done:
					return
				default:
				}
				last := stored.Load()
				if last == 0 {
					continue
				}
				index := last - min(last-1, rng.Uint64N(100))
				var got raft.Log
				err := l.GetLog(index, &got)
				if errors.Is(err, raft.ErrLogNotFound) && index < first.Load() {
					continue
				}
				if err != nil || !same(&got, entry(index, 1, 300)) {
					t.Errorf("entry %d is %+v (%v)", index, got, err)
					return
				}
				if now, err := l.LastIndex(); err != nil || now < last {
					t.Errorf("the log ends with %d (%v), and %d was stored", now, err, last)
				}
				if from, err := l.FirstIndex(); err != nil || from == 0 {
					t.Errorf("the log begins with %d (%v)", from, err)
				}
			}
		})
	}
	for i := uint64(1); i <= count && !t.Failed(); i += 5 {
		if err := l.StoreLogs(entries(i, i+4, 1, 300)); err != nil {
			t.Fatal(err)
		}
		stored.Store(i + 4)
		if i%100 == 1 && i > 200 {
			from := first.Load()
			first.Store(i - 150) // before it is gone
			if err := l.DeleteRange(from, i-151); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(done)
	readers.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want := make(model)
	want.store(entries(first.Load(), count, 1, 300))
	if d := want.differs(base); d != "" {
		t.Errorf("after the end, the store behind: %s", d)
	}
}

// TestBelongTogether puts a journal in front of stores that are not its own.
func TestBelongTogether(t *testing.T) {
	tests := []struct {
		name   string
		behind []*raft.Log // in the place of entries 1 to 10; the journal holds 11 to 20
		wrong  string
	}{
		{"as it was", entries(1, 10, 1, 10), ""},
		{"partly carried", entries(1, 15, 1, 10), ""},
		{"carried", entries(1, 20, 1, 10), ""},
		{"the beginning was deleted", entries(8, 10, 1, 10), ""},
		{"all was deleted", nil, ""},
		{"entries are missing", entries(1, 9, 1, 10), "begins with entry 11"},
		{"entries of another term", append(entries(1, 10, 1, 10), entries(11, 12, 2, 10)...), "another entry 11"},
		{"it goes on further", entries(1, 21, 1, 10), "goes on to 21"},
		{"it lacks what it should have", append(entries(1, 10, 1, 10), entries(13, 13, 1, 10)...), "lacks entry 11"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlatter(testSize)
			before := newMemory()
			before.held.store(entries(1, 10, 1, 10))
			l := p.log(t, before)
			if err := l.StoreLogs(entries(11, 20, 1, 10)); err != nil {
				t.Fatal(err)
			}
			base := newMemory()
			base.held.store(tt.behind)
			l, err := open("", testID, base, unguarded, p.quiet())
			if err == nil {
				defer l.Stop()
			}
			if tt.wrong == "" {
				want := make(model)
				want.store(tt.behind)
				want.store(entries(11, 20, 1, 10))
				if err != nil {
					t.Fatal(err)
				}
				if d := want.differs(l); d != "" {
					t.Error(d)
				}
				return
			}
			wantCode(t, err, dfs.Corrupt)
			if !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestLostContents: when a journal holds nothing, but the store behind has more
// than it had when that began, entries may be missing. After Close anything may
// have happened to the store behind.
func TestLostContents(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed=%v", closed), func(t *testing.T) {
			p, base := newPlatter(testSize), newMemory()
			l := p.log(t, base)
			if err := errors.Join(l.StoreLogs(entries(1, 5, 1, 10)), l.carry(), l.StoreLogs(entries(6, 7, 1, 10))); err != nil {
				t.Fatal(err)
			}
			if closed {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				base.held.store(entries(8, 9, 1, 10))
			}
			clear(p.now[recordsFrom:])
			l, err := open("", testID, base, unguarded, p.quiet())
			if err == nil {
				defer l.Stop()
			}
			if !closed {
				wantCode(t, err, dfs.Corrupt)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnothersJournal(t *testing.T) {
	p := newPlatter(testSize)
	_, err := open("", ID{9}, newMemory(), unguarded, p.quiet())
	wantCode(t, err, dfs.Corrupt)
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for range 2 { // the second time in the place of the first
		if err := Create(path, testID); err != nil {
			t.Fatal(err)
		}
		if empty, err := Empty(path); err != nil || !empty {
			t.Fatalf("a new one is empty: %v, %v", empty, err)
		}
		base := newMemory()
		l, err := Open(path, testID, base, unguarded)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.StoreLogs(entries(1, 9, 1, 100)), l.Stop()); err != nil {
			t.Fatal(err)
		}
		if empty, err := Empty(path); err != nil || empty {
			t.Fatalf("it is empty: %v, %v", empty, err)
		}
		if l, err = Open(path, testID, base, unguarded); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil || len(base.held) != 9 {
			t.Fatalf("%d entries were carried, error %v", len(base.held), err)
		}
	}
}
