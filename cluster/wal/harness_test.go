package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for things that must happen, on a machine that may be slow.
const patience = 60 * time.Second

var testID = ID{1, 2, 3}

// entry makes a log entry whose data depend on index and term.
func entry(index, term uint64, size int) *raft.Log {
	e := &raft.Log{Index: index, Term: term, Type: raft.LogCommand, AppendedAt: time.Unix(0, int64(index))}
	e.Data = bytes.Repeat(fmt.Appendf(nil, "%d/%d ", index, term), size/4+1)[:size]
	if index%3 == 0 {
		e.Extensions, e.AppendedAt = []byte("x"), time.Time{}
	}
	return e
}

func entries(first, last, term uint64, size int) []*raft.Log {
	var all []*raft.Log
	for i := first; i <= last; i++ {
		all = append(all, entry(i, term, size))
	}
	return all
}

// model is what a raft.LogStore should be.
type model map[uint64]*raft.Log

func (m model) store(entries []*raft.Log) {
	for _, e := range entries {
		m[e.Index] = e
	}
}

func (m model) remove(first, last uint64) {
	maps.DeleteFunc(m, func(i uint64, _ *raft.Log) bool { return i >= first && i <= last })
}

func (m model) bounds() (first, last uint64) {
	if len(m) == 0 {
		return 0, 0
	}
	indexes := slices.Sorted(maps.Keys(m))
	return indexes[0], indexes[len(indexes)-1]
}

// differs says what of a store is not as in the model; "" when all is.
func (m model) differs(s raft.LogStore) string {
	wantFirst, wantLast := m.bounds()
	first, err := s.FirstIndex()
	last, lastErr := s.LastIndex()
	if err = errors.Join(err, lastErr); err != nil || first != wantFirst || last != wantLast {
		return fmt.Sprintf("it goes from %d to %d (%v) instead of %d to %d", first, last, err, wantFirst, wantLast)
	}
	for i := max(1, first) - 1; i <= last+1; i++ {
		var got raft.Log
		err := s.GetLog(i, &got)
		if want := m[i]; want == nil && err != raft.ErrLogNotFound { // raft compares by identity
			return fmt.Sprintf("entry %d should not be there (%v)", i, err)
		} else if want != nil && (err != nil || !same(&got, want)) {
			return fmt.Sprintf("entry %d is %+v (%v) instead of %+v", i, got, err, *want)
		}
	}
	return ""
}

func same(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) &&
		bytes.Equal(a.Extensions, b.Extensions) && a.AppendedAt.Equal(b.AppendedAt)
}

// memory is a store behind a journal. Each call is one transaction.
type memory struct {
	mu   sync.Mutex
	held model
	step func() error // asked before each change; may be nil
}

func newMemory() *memory { return &memory{held: make(model)} }

func (m *memory) FirstIndex() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, _ := m.held.bounds()
	return first, nil
}

func (m *memory) LastIndex() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, last := m.held.bounds()
	return last, nil
}

func (m *memory) GetLog(index uint64, out *raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.held[index]
	if e == nil {
		return raft.ErrLogNotFound
	}
	*out = *e
	return nil
}

func (m *memory) StoreLog(e *raft.Log) error { return m.StoreLogs([]*raft.Log{e}) }

func (m *memory) StoreLogs(entries []*raft.Log) error {
	return m.change(func() { m.held.store(entries) })
}

func (m *memory) DeleteRange(first, last uint64) error {
	return m.change(func() { m.held.remove(first, last) })
}

func (m *memory) change(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.step != nil {
		if err := m.step(); err != nil {
			return err
		}
	}
	f()
	return nil
}

// platter is a journal's file in memory, of which some is durable.
type platter struct {
	mu      sync.Mutex
	durable []byte
	now     []byte
	step    func() error          // asked before each operation; may be nil
	write   func(p []byte) []byte // what is really written; may be nil
	sync    func() error          // instead of making durable; may be nil
	syncs   int
}

const testSize = 16 << 10

func newPlatter(size int64) *platter {
	image := make([]byte, size)
	copy(image, newHead(testID, size).encode())
	return &platter{durable: image, now: slices.Clone(image)}
}

func (p *platter) WriteAt(b []byte, at int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.step != nil {
		if err := p.step(); err != nil {
			return 0, err
		}
	}
	whole := len(b)
	if p.write != nil {
		b = p.write(b)
	}
	if at+int64(whole) > int64(len(p.now)) {
		return 0, fs.ErrInvalid
	}
	copy(p.now[at:], b)
	if len(b) < whole {
		return len(b), &fs.PathError{Op: "write", Path: "journal", Err: syscall.ENOSPC}
	}
	return whole, nil
}

func (p *platter) SyncData() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.step != nil {
		if err := p.step(); err != nil {
			return err
		}
	}
	p.syncs++
	if p.sync != nil {
		return p.sync()
	}
	copy(p.durable, p.now)
	return nil
}

func (p *platter) Close() error { return nil }

// quiet are settings under which nothing is carried unless the test says so.
func (p *platter) quiet() settings {
	return settings{
		interval: time.Hour, gathered: 1 << 40,
		read: func(string) ([]byte, error) { return slices.Clone(p.now), nil },
		open: func(string) (storage, error) { return p, nil },
	}
}

func unguarded(_ string, f func() error) error { return f() }

func (p *platter) log(t *testing.T, base raft.LogStore) *Log {
	t.Helper()
	l, err := open("", testID, base, unguarded, p.quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

func wantCode(t *testing.T, err error, want dfs.Code) {
	t.Helper()
	if got := dfs.CodeOf(err); got != want {
		t.Fatalf("error %v has code %q instead of %q", err, got, want)
	}
}

func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func newBolt(t *testing.T) *raftboltdb.BoltStore {
	t.Helper()
	b, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(t.TempDir(), "bolt")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// step is one change of a log.
type step struct {
	store       []*raft.Log
	first, last uint64 // to delete, when there is nothing to store
}

func (s step) do(l raft.LogStore) error {
	if s.store != nil {
		return l.StoreLogs(s.store)
	}
	return l.DeleteRange(s.first, s.last)
}

func (s step) in(m model) model {
	m = maps.Clone(m)
	if s.store != nil {
		m.store(s.store)
	} else {
		m.remove(s.first, s.last)
	}
	return m
}

// anyStep chooses what raft may do next, and now and then what it never does.
func anyStep(rng *rand.Rand, m model, term uint64) step {
	first, last := m.bounds()
	size := []int{0, 10, 200, 1500}[rng.IntN(4)]
	count := 1 + rng.Uint64N(4)
	switch n := rng.IntN(100); {
	case n < 70:
		if last == 0 {
			last = rng.Uint64N(20)
		}
		return step{store: entries(last+1, last+count, term, size)}
	case n < 76: // behind a snapshot that was installed
		last += 2 + rng.Uint64N(10)
		return step{store: entries(last, last+count, term, size)}
	case n < 78 && first > 0: // over what is there
		from := first + rng.Uint64N(last-first+1)
		return step{store: entries(from, from+count, term, size)}
	case n < 79:
		return step{store: entries(last+1, last+8, term, testSize/4)} // too much for the journal
	case n < 88: // what conflicts
		return step{first: max(last, count) - count + 1, last: last + rng.Uint64N(2)}
	case n < 97: // what a snapshot holds
		return step{first: first, last: first + rng.Uint64N(max(1, last-first))}
	case n < 98:
		return step{first: first + (last-first)/3, last: first + (last-first)/2}
	}
	return step{first: first, last: last}
}
