package chunkstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const sector = 512 // bytes that a disk writes wholly or not at all

// powerCut is a disk that remembers what of the segments is durable. When the
// power fails, what is not may be there or not, sector by sector.
type powerCut struct {
	dir string // the data directory

	mu      sync.Mutex
	left    int // operations until the power fails; below zero: never
	dead    bool
	pending func()            // makes durable what the operation that has just begun makes durable
	durable map[string][]byte // the segments by name
	entries map[string]bool   // names that are durable
}

var errDead = errors.New("the power has failed")

func newPowerCut(dir string) *powerCut {
	return &powerCut{dir: dir, left: -1, durable: make(map[string][]byte), entries: make(map[string]bool)}
}

func (p *powerCut) hook(op Op, path string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	if filepath.Base(filepath.Dir(path)) != "segments" && filepath.Base(path) != "segments" {
		return nil
	}
	if op == OpOpen || op == OpRead {
		return nil // by others, and of no matter
	}
	if p.pending != nil {
		p.pending()
		p.pending = nil
	}
	if p.left == 0 {
		p.dead = true
		return errDead
	}
	p.left--
	name := filepath.Base(path)
	switch op {
	case OpSyncData, OpSyncFile:
		p.pending = func() { p.durable[name] = p.read(name) }
	case OpSyncDir:
		p.pending = func() { p.entries = p.names() }
	}
	return nil
}

func (p *powerCut) read(name string) []byte {
	content, err := os.ReadFile(filepath.Join(p.dir, "segments", name))
	if err != nil {
		return nil
	}
	return content
}

func (p *powerCut) names() map[string]bool {
	names := make(map[string]bool)
	entries, _ := os.ReadDir(filepath.Join(p.dir, "segments")) // none when there is no directory
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names
}

// cut leaves the directory as a power failure may.
func (p *powerCut) cut(t *testing.T, rng *rand.Rand) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending != nil {
		p.pending() // it was the last one, and went well
	}
	names := p.names()
	all := maps.Clone(names)
	maps.Copy(all, p.entries)
	for name := range all {
		path := filepath.Join(p.dir, "segments", name)
		there := names[name]
		if there != p.entries[name] {
			there = rng.IntN(2) == 0 // made or unlinked, and not fsynced
		}
		if !there {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			continue
		}
		content := mix(rng, p.durable[name], p.read(name))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.durable, p.entries = make(map[string][]byte), p.names()
	for name := range p.entries {
		p.durable[name] = p.read(name)
	}
	p.dead, p.left, p.pending = false, -1, nil
}

// mix takes each sector from what was durable or from what was written since.
func mix(rng *rand.Rand, before, now []byte) []byte {
	if now == nil {
		return before
	}
	length := len(before)
	if rng.IntN(2) == 0 {
		length = len(now)
	}
	mixed := make([]byte, length)
	share := rng.IntN(5)
	for at := 0; at < length; at += sector {
		from := before
		if rng.IntN(4) < share {
			from = now
		}
		if at < len(from) {
			copy(mixed[at:min(at+sector, length)], from[at:])
		}
	}
	return mixed
}

// crashModel is what a store must hold, however often the power fails.
type crashModel struct {
	held  map[dfs.ChunkID]int // sizes of what was acknowledged
	maybe map[dfs.ChunkID]int // of what was refused, or removed
	next  dfs.ChunkID
}

// The power fails at any operation on the disk, again and again. Everything that
// was acknowledged is there, nothing is reported as damaged that is not, and what
// is there has the right bytes.
func TestPowerFailsAtEachOperation(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 4))
			dir := t.TempDir()
			p := newPowerCut(dir)
			m := &crashModel{held: make(map[dfs.ChunkID]int), maybe: make(map[dfs.ChunkID]int), next: 1}
			for round := range 40 {
				p.left = rng.IntN(30 + 5*round)
				s, err := openCrashing(t, p, rng)
				switch {
				case err == nil:
					m.check(t, s)
					m.work(t, s, rng)
					_ = s.Close() // it may be dead
				case !p.dead:
					t.Fatal(err)
				}
				p.cut(t, rng)
			}
			p.left = -1
			s, err := openCrashing(t, p, rng)
			if err != nil {
				t.Fatal(err)
			}
			m.check(t, s)
			shutdown(t, s)
		})
	}
}

func openCrashing(t *testing.T, p *powerCut, rng *rand.Rand) (*Store, error) {
	t.Helper()
	keep := time.Duration(rng.IntN(2)) * time.Nanosecond
	s, err := Open(Config{Dirs: []string{p.dir}, NodeID: "dn1", Reserve: 1, TrashKeep: keep, Hook: p.hook})
	if err != nil {
		return nil, err
	}
	if err := s.WaitLoaded(t.Context()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	g := s.volumes[0].segments
	g.limit, g.steps = 4000, 3000
	return s, nil
}

// work puts, removes and compacts until the power fails, or for a while.
func (m *crashModel) work(t *testing.T, s *Store, rng *rand.Rand) {
	for range 25 {
		switch rng.IntN(5) {
		case 0, 1:
			m.put(s, rng)
		case 2:
			for id, size := range m.held { // any
				m.maybe[id] = size
				delete(m.held, id)
				_ = s.Remove(id) // whatever comes of it
				break
			}
		case 3:
			s.EmptyTrash(time.Now().Add(time.Hour))
			s.Compact(t.Context())
		case 4:
			var some []dfs.ChunkID
			for id, size := range m.held { // any
				some = append(some, id)
				m.maybe[id] = size
				delete(m.held, id)
				if len(some) == 8 {
					break
				}
			}
			m.removeTogether(t, s, some)
		}
	}
}

// removeTogether removes chunks that the model does not count as held any more. What
// is not removed while the power is there is held.
func (m *crashModel) removeTogether(t *testing.T, s *Store, some []dfs.ChunkID) {
	t.Helper()
	for i, err := range s.RemoveTogether(some) {
		_, held := s.Stat(some[i])
		if held != (err != nil) && !errors.Is(err, ErrAlone) && dfs.CodeOf(err) != dfs.NotFound {
			t.Errorf("chunk %s is held %v after %v", some[i], held, err)
		}
	}
}

// put writes some chunks at the same time.
func (m *crashModel) put(s *Store, rng *rand.Rand) {
	errs := make([]error, 1+rng.IntN(5))
	sizes := make([]int, len(errs))
	var wg sync.WaitGroup
	for i := range errs {
		sizes[i] = 1 + rng.IntN(1200)
		wg.Go(func() { errs[i] = putBytes(s, m.next+dfs.ChunkID(i), sizes[i]) })
	}
	wg.Wait()
	for i, err := range errs {
		if id := m.next + dfs.ChunkID(i); err == nil {
			m.held[id] = sizes[i]
		} else {
			m.maybe[id] = sizes[i]
		}
	}
	m.next += dfs.ChunkID(len(errs))
}

func (m *crashModel) check(t *testing.T, s *Store) {
	t.Helper()
	if r := s.Report(10_000); len(r.Corrupt) > 0 {
		t.Fatalf("reported as damaged: %v", r.Corrupt)
	}
	if kept, err := os.ReadDir(s.volumes[0].quarantineDir()); err != nil || len(kept) > 0 {
		t.Fatalf("in quarantine: %v, %v", kept, err)
	}
	for id := range m.held {
		if _, held := s.Stat(id); !held {
			t.Fatalf("chunk %s was acknowledged and is lost", id)
		}
	}
	for _, info := range s.List(0, 10_000) {
		size, held := m.held[info.ID]
		if !held {
			size = m.maybe[info.ID]
		}
		c, err := s.OpenChunk(info.ID)
		if err != nil {
			if s.volumes[0].disk.hook("", "segments/x") != nil {
				return // the power has failed
			}
			t.Fatalf("chunk %s: %v", info.ID, err)
		}
		got := make([]byte, c.Size)
		if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytesOf(info.ID, size)) {
			t.Fatalf("chunk %s has other bytes, %v", info.ID, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
