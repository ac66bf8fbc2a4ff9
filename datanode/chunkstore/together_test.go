package chunkstore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// counted is a disk that counts, and fails from some operation on.
type counted struct {
	mu   sync.Mutex
	ops  map[Op]int
	all  int
	fail func(n int, op Op, path string) error // n counts from 1
}

func (c *counted) hook(op Op, path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
	if c.ops == nil {
		c.ops = make(map[Op]int)
	}
	c.ops[op]++
	if c.fail == nil {
		return nil
	}
	return c.fail(c.all, op, path)
}

func (c *counted) reset(fail func(n int, op Op, path string) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops, c.all, c.fail = nil, 0, fail
}

func (c *counted) count(op Op) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops[op]
}

// sealTail ends the segment that is written to.
func sealTail(t testing.TB, s *Store) {
	t.Helper()
	g := s.volumes[0].segments
	b, err := g.end(g.log.tail)
	if err != nil {
		t.Fatal(err)
	}
	<-b.task.done
}

// fromTo lists IDs.
func fromTo(first, last dfs.ChunkID) (ids []dfs.ChunkID) {
	for id := first; id <= last; id++ {
		ids = append(ids, id)
	}
	return ids
}

// Many removals open each index once, read it once, and wait for no fsync; each is
// four bytes. What is written to while they go on is not locked for long.
func TestManyRemovalsCostLittle(t *testing.T) {
	const count, size = 1000, 100
	for _, when := range []string{"before", "never", "after"} {
		t.Run("sealed "+when, func(t *testing.T) {
			dir := t.TempDir()
			var disk counted
			s := openPackedIn(t, disk.hook, testKeep, segmentSize, dir)
			for _, id := range fromTo(1, count) {
				mustPutBytes(t, s, id, size)
			}
			if when == "before" {
				sealTail(t, s)
			}
			removed := slices.DeleteFunc(fromTo(1, count), func(id dfs.ChunkID) bool { return id%10 == 0 })
			slices.Reverse(removed) // an order is in any order
			disk.reset(nil)
			if err := errors.Join(s.RemoveTogether(removed)...); err != nil {
				t.Fatal(err)
			}
			opens, reads := 1, count*indexEntry/4096+12
			if when != "before" {
				opens, reads = len(removed)/headersAtOnce+1, len(removed)
			}
			if got := disk.count(OpOpen); got > opens {
				t.Errorf("%d files were opened", got)
			}
			if got := disk.count(OpRead); got > reads {
				t.Errorf("%d reads, want at most %d", got, reads)
			}
			if got := disk.count(OpWrite); got != len(removed) {
				t.Errorf("%d writes for %d removals", got, len(removed))
			}
			if n := disk.count(OpSyncData) + disk.count(OpSyncFile) + disk.count(OpSyncDir); n > 0 {
				t.Errorf("%d fsyncs", n)
			}
			check := func() {
				t.Helper()
				status := s.Volumes()[0]
				if n := int64(len(removed)); status.TrashFiles != n || status.TrashBytes != n*recordSize(size) || status.Chunks != count/10 {
					t.Errorf("%+v", status)
				}
				checkCounts(t, s)
				for id := dfs.ChunkID(10); id <= count; id += 10 {
					checkBytes(t, s, id, size)
				}
			}
			check()
			if when == "after" { // the index that is made now must have the marks
				sealTail(t, s)
			}
			shutdown(t, s)
			s = openPackedIn(t, nil, testKeep, segmentSize, dir)
			check()
			s.EmptyTrash(time.Now().Add(testKeep + 2*packedTrash))
			for range 2 {
				s.Compact(t.Context())
			}
			if dead := s.Volumes()[0].DeadBytes; dead > 0 {
				t.Errorf("%d bytes are dead", dead)
			}
		})
	}
}

// What is not packed, not held, or busy is left to Remove or answered; nobody waits.
func TestRemovedTogetherOrAlone(t *testing.T) {
	s := openPackedIn(t, nil, testKeep, 5_000, t.TempDir())
	for _, id := range fromTo(1, 20) {
		mustPutBytes(t, s, id, 1000)
	}
	mustPutBytes(t, s, 30, PackLimit+1)
	release, err := s.claim(3)
	if err != nil {
		t.Fatal(err)
	}
	errs := s.RemoveTogether(ids(1, 30, 3, 99, 20, 1, 7))
	for i, want := range []error{nil, ErrAlone, ErrAlone, notHeld(99), nil, ErrAlone, nil} {
		if got := errs[i]; !errors.Is(got, want) && dfs.CodeOf(got) != dfs.CodeOf(want) {
			t.Errorf("%d: %v, want %v", i, got, want)
		}
	}
	release()
	for _, id := range ids(30, 3) {
		if err := s.Remove(id); err != nil {
			t.Error(err)
		}
	}
	if err := s.Remove(1); dfs.CodeOf(err) != dfs.NotFound {
		t.Errorf("given twice: %v", err)
	}
	if n := s.Totals().Count; n != 16 || len(s.claims) > 0 {
		t.Errorf("%d held, %d claims", n, len(s.claims))
	}
	mustPutBytes(t, s, 1, 500) // the ID is free
	checkBytes(t, s, 1, 500)
	if errs := s.RemoveTogether(nil); len(errs) > 0 {
		t.Errorf("%v", errs)
	}
	shutdown(t, s)
	if errs := s.RemoveTogether(ids(2)); dfs.CodeOf(errs[0]) != dfs.Unavailable {
		t.Errorf("after Close: %v", errs)
	}
}

// The disk may refuse any operation, once or for good, or the process may die there: what
// was said to be removed stays removed, and what was not is held, also at the next start.
func TestRemovalsFailInTheMiddle(t *testing.T) {
	const count = 60
	removed := slices.DeleteFunc(fromTo(1, count), func(id dfs.ChunkID) bool { return id%4 == 0 })
	for name, fails := range map[string]func(at, n int) bool{
		"one":         func(at, n int) bool { return n == at },
		"from one on": func(at, n int) bool { return n >= at },
	} {
		t.Run(name, func(t *testing.T) {
			for at, some := 1, true; some; at += 3 {
				dir := t.TempDir()
				var disk counted
				s := openPackedIn(t, disk.hook, testKeep, 20_000, dir) // three segments, one of them open
				for _, id := range fromTo(1, count) {
					mustPutBytes(t, s, id, 1000)
				}
				if got := len(segmentFiles(t, dir, indexSuffix)); got < 2 {
					t.Fatalf("%d segments are sealed", got)
				}
				disk.reset(func(n int, _ Op, _ string) error {
					if fails(at, n) {
						return syscall.EIO
					}
					return nil
				})
				errs := s.RemoveTogether(removed)
				some = disk.all >= at
				if failed := errors.Join(errs...); some != (failed != nil) {
					t.Fatalf("failure at operation %d of %d: %v", at, disk.all, failed)
				}
				disk.reset(nil)
				for range 2 {
					for i, id := range removed {
						if _, held := s.Stat(id); held != (errs[i] != nil) {
							t.Fatalf("failure at operation %d: chunk %s is held %v after %v", at, id, held, errs[i])
						}
						if errs[i] != nil {
							checkBytes(t, s, id, 1000)
						}
					}
					checkBytes(t, s, 4, 1000)
					checkCounts(t, s)
					shutdown(t, s)
					s = openPackedIn(t, nil, testKeep, 20_000, dir)
				}
				for i, err := range errs {
					if err == nil {
						continue
					}
					if err := s.Remove(removed[i]); err != nil {
						t.Fatal(err)
					}
				}
				if n := s.Totals().Count; n != count/4 {
					t.Fatalf("%d held", n)
				}
				shutdown(t, s)
			}
		})
	}
}

// An index that is missing, damaged or too short has the removals go into the segment.
func TestManyRemovalsWithABadIndex(t *testing.T) {
	const count = 300
	for name, harm := range map[string]func(t *testing.T, path string) error{
		"missing": func(t *testing.T, path string) error { return os.Remove(path) },
		"short":   func(t *testing.T, path string) error { return os.Truncate(path, indexHead+count/2*indexEntry) },
		"damaged": func(t *testing.T, path string) error { damageFile(t, path, indexHead+count/2*indexEntry+3); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openPackedIn(t, nil, testKeep, segmentSize, dir)
			for _, id := range fromTo(1, count) {
				mustPutBytes(t, s, id, 50)
			}
			sealTail(t, s)
			if err := harm(t, segmentFiles(t, dir, indexSuffix)[0]); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.RemoveTogether(fromTo(count/2, count-1))...); err != nil {
				t.Fatal(err)
			}
			if n := s.Totals().Count; n != count/2 {
				t.Errorf("%d held", n)
			}
			checkCounts(t, s)
			shutdown(t, s)
			s = openPackedIn(t, nil, testKeep, segmentSize, dir)
			for _, id := range fromTo(count/2+1, count-1) { // the entry of the first may be whole, and marked
				if _, held := s.Stat(id); held {
					t.Fatalf("chunk %s is back", id)
				}
			}
			checkBytes(t, s, count, 50)
		})
	}
}

// A disk that hangs costs its time once, and the chunks of another nothing.
func TestManyRemovalsOnADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := t.TempDir()
		dirs := []string{filepath.Join(top, "a"), filepath.Join(top, "b")}
		h := &hanging{dir: filepath.Join(dirs[1], "segments"), op: OpWrite, goOn: make(chan struct{})}
		s := openPackedIn(t, h.hook, testKeep, segmentSize, dirs...)
		const count = 40
		for _, id := range fromTo(1, count) {
			mustPutBytes(t, s, id, 10)
		}
		where := make(map[dfs.ChunkID]uint8)
		for _, id := range fromTo(1, count) {
			e, err := s.entry(id)
			if err != nil {
				t.Fatal(err)
			}
			where[id] = e.volume
		}
		h.on.Store(true)
		began := time.Now()
		errs := s.RemoveTogether(fromTo(1, count))
		if took := time.Since(began); took != hangTimeout {
			t.Errorf("took %s", took)
		}
		stuck := 0
		for i, err := range errs {
			want := dfs.Code("")
			if where[dfs.ChunkID(i+1)] == 1 {
				want = dfs.Unavailable
				stuck++
			}
			if dfs.CodeOf(err) != want {
				t.Errorf("chunk %d: %v", i+1, err)
			}
		}
		if stuck == 0 || stuck == count || len(s.claims) != stuck || s.Totals().Count != 0 {
			t.Errorf("%d of %d hang, %d claims, %d held", stuck, count, len(s.claims), s.Totals().Count)
		}
		checkStalled(t, s, true)
		h.on.Store(false)
		close(h.goOn)
		synctest.Wait()
		checkStalled(t, s, false)
		if len(s.claims) > 0 || s.Totals().Count > 0 {
			t.Errorf("%d claims, %d held", len(s.claims), s.Totals().Count)
		}
	})
}

// Compaction claims many chunks, too: neither waits for the other with something claimed.
// And segments are written to and sealed while their records are marked.
func TestManyRemovalsDuringCompaction(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, 0, 20_000, dir)
	const rounds, each = 30, 40
	var over atomic.Bool
	var others sync.WaitGroup
	kept := 0
	others.Go(func() {
		for ; !over.Load() && kept < 2000; kept++ {
			if err := putBytes(s, 100_000+dfs.ChunkID(kept), 700); err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() {
		for !over.Load() {
			s.EmptyTrash(time.Now().Add(time.Hour))
			s.Compact(t.Context())
		}
	})
	for round := range dfs.ChunkID(rounds) {
		these := fromTo(1+round*each, (round+1)*each)
		for _, id := range these {
			mustPutBytes(t, s, id, 700)
		}
		some := slices.DeleteFunc(slices.Clone(these), func(id dfs.ChunkID) bool { return id%5 == 0 })
		for i, err := range s.RemoveTogether(some) {
			if errors.Is(err, ErrAlone) {
				err = s.Remove(some[i])
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	over.Store(true)
	others.Wait()
	for range 2 {
		if n := s.Totals().Count; n != int64(rounds*each/5+kept) {
			t.Errorf("%d held", n)
		}
		checkCounts(t, s)
		for _, c := range s.List(0, 10_000) {
			checkBytes(t, s, c.ID, 700)
		}
		shutdown(t, s)
		s = openPackedIn(t, nil, 0, 20_000, dir)
	}
}

// An entry is found from wherever the search begins, if it is not before that.
func TestFindEntryFromAnywhere(t *testing.T) {
	var records []record
	at := uint32(segmentHead)
	for id := range dfs.ChunkID(400) {
		r := record{id: id + 1, at: at, size: 10}
		records = append(records, r)
		at = uint32(r.end())
	}
	index := testSegment.encodeIndex(records, int64(at))
	count := int64(len(records))
	for from := int64(0); from <= count; from += 7 {
		reads := 0
		read := nearby(count, func(b []byte, offset int64) error {
			if offset+int64(len(b)) > int64(len(index)) {
				t.Fatalf("%d bytes at %d of %d are read", len(b), offset, len(index))
			}
			reads++
			copy(b, index[offset:])
			return nil
		})
		for i, r := range records {
			got, offset, err := testSegment.findEntry(r.at, from, count, read)
			if int64(i) < from {
				if err == nil {
					t.Fatalf("record %d was found from %d", i, from)
				}
			} else if err != nil || got != r || offset != indexHead+int64(i)*indexEntry {
				t.Fatalf("record %d from %d: %+v at %d, %v", i, from, got, offset, err)
			}
		}
		if from < count {
			reads = 0
			if _, _, err := testSegment.findEntry(records[from].at, from, count, read); err != nil || reads > 12 {
				t.Errorf("%d reads, %v", reads, err)
			}
		}
	}
	broken := nearby(count, func([]byte, int64) error { return syscall.EIO })
	if _, _, err := testSegment.findEntry(records[5].at, 0, count, broken); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
}
