package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// openPackedIn opens a store whose segments are short.
func openPackedIn(t *testing.T, hook Hook, keep time.Duration, limit int64, dirs ...string) *Store {
	t.Helper()
	s, err := Open(Config{Dirs: dirs, NodeID: "dn1", Reserve: 1, TrashKeep: keep, Hook: hook})
	if err == nil {
		err = s.WaitLoaded(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range s.volumes {
		v.segments.limit = limit
		v.segments.steps = 64 << 10
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func bytesOf(id dfs.ChunkID, size int) []byte {
	return bytes.Repeat([]byte(id.String()), size/16+1)[:size]
}

func putBytes(s *Store, id dfs.ChunkID, size int) error {
	data := bytesOf(id, size)
	_, err := s.Put(id, data, dfs.ChecksumOf(data))
	return err
}

func mustPutBytes(t *testing.T, s *Store, id dfs.ChunkID, size int) {
	t.Helper()
	if err := putBytes(s, id, size); err != nil {
		t.Fatal(err)
	}
}

func checkBytes(t *testing.T, s *Store, id dfs.ChunkID, size int) {
	t.Helper()
	c, err := s.OpenChunk(id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got bytes.Buffer
	if n, err := c.Send(&got, 0, c.Size); err != nil || n != int64(size) || !bytes.Equal(got.Bytes(), bytesOf(id, size)) {
		t.Fatalf("chunk %s: %d bytes, %v", id, n, err)
	}
	if err := s.Verify(id); err != nil {
		t.Fatal(err)
	}
}

// shutdown closes a store before the end of a test.
func shutdown(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func segmentFiles(t *testing.T, dir, suffix string) (paths []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "segments", "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// Who comes while others wait for the disk shares the next fsync, and nobody is
// answered, nor is a chunk seen, before its own.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers = 40
		var syncs atomic.Int64
		goOn, hangs := make(chan struct{}), atomic.Bool{}
		s := openPackedIn(t, func(op Op, path string) error {
			if op == OpSyncData {
				syncs.Add(1)
				if hangs.Load() {
					<-goOn
				}
			}
			return nil
		}, 0, segmentSize, t.TempDir())
		mustPutBytes(t, s, 1000, 10)
		hangs.Store(true)
		syncs.Store(0)
		var answered atomic.Int64
		var wg sync.WaitGroup
		for id := range dfs.ChunkID(writers) {
			wg.Go(func() {
				if err := putBytes(s, id+1, 100); err != nil {
					t.Error(err)
				}
				answered.Add(1)
			})
			synctest.Wait() // the first is alone, the others find it waiting
		}
		if n := s.Totals().Count; answered.Load() != 0 || n != 1 || syncs.Load() != 1 {
			t.Errorf("%d answered and %d held before the fsync; %d fsyncs", answered.Load(), n, syncs.Load())
		}
		close(goOn)
		wg.Wait()
		if n := s.Totals().Count; n != writers+1 || syncs.Load() != 2 {
			t.Errorf("%d held, %d fsyncs", n, syncs.Load())
		}
	})
}

func TestSegmentsAreSealedAndFound(t *testing.T) {
	dir := t.TempDir()
	const count, size = 200, 900
	s := openPackedIn(t, nil, 0, 10_000, dir)
	for id := range dfs.ChunkID(count) {
		mustPutBytes(t, s, id+1, size+int(id)%7)
	}
	totals := s.Totals()
	if n := len(segmentFiles(t, dir, segmentSuffix)); n < 18 {
		t.Errorf("%d segments", n)
	}
	for round := range 3 {
		if n := s.volumes[0].segments.open; n > maxOpenSegments+1 {
			t.Errorf("%d files are open", n)
		}
		for id := range dfs.ChunkID(count) {
			checkBytes(t, s, id+1, size+int(id)%7)
		}
		if got := s.Totals(); got != totals {
			t.Errorf("round %d: %+v, want %+v", round, got, totals)
		}
		shutdown(t, s)
		segs, indexes := segmentFiles(t, dir, segmentSuffix), segmentFiles(t, dir, indexSuffix)
		if round > 0 && len(segs) != len(indexes) {
			t.Errorf("%d segments, %d indexes", len(segs), len(indexes))
		}
		switch round {
		case 0:
			if len(indexes) != len(segs)-1 {
				t.Errorf("%d segments, %d indexes", len(segs), len(indexes))
			}
		case 1: // an index is a convenience
			for i, path := range indexes {
				if i%2 == 0 {
					damageFile(t, path, int64(20+3*i))
				} else if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
		s = openPackedIn(t, nil, 0, 10_000, dir)
		if r := s.Report(1000); len(r.Added)+len(r.Removed)+len(r.Corrupt) > 0 {
			t.Errorf("reported %+v", r)
		}
	}
}

func TestManySegments(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, 0, 200, dir)
	const count = 3 * maxOpenSegments
	var wg sync.WaitGroup
	for part := range dfs.ChunkID(4) {
		wg.Go(func() {
			for id := part; id < count; id += 4 {
				if err := putBytes(s, id+1, 150); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		for part := range dfs.ChunkID(4) {
			wg.Go(func() {
				for id := range dfs.ChunkID(count) {
					if err := s.Verify((id*7+part)%count + 1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := s.volumes[0].segments.open; n > maxOpenSegments+1 {
			t.Errorf("%d files are open", n)
		}
		shutdown(t, s)
		s = openPackedIn(t, nil, 0, 200, dir)
	}
}

func damageFile(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x20
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// Damage is found, by whoever reads or at the start, and costs one chunk.
func TestDamagedRecords(t *testing.T) {
	const size = 1000
	for name, c := range map[string]struct {
		harm     func(t *testing.T, segment string, at int64)
		atStart  bool // it is found without reading
		nameless bool // nothing says at the start whose it was
	}{
		"data":   {func(t *testing.T, path string, at int64) { damageFile(t, path, at+recordHead+500) }, false, false},
		"header": {func(t *testing.T, path string, at int64) { damageFile(t, path, at+10) }, false, false},
		"data, no index": {func(t *testing.T, path string, at int64) {
			damageFile(t, path, at+recordHead+500)
			removeIndex(t, path)
		}, true, false},
		"header, no index": {func(t *testing.T, path string, at int64) {
			damageFile(t, path, at+10)
			removeIndex(t, path)
		}, true, true},
		"head of the segment": {func(t *testing.T, path string, at int64) {
			damageFile(t, path, 3)
			damageFile(t, path, at+recordHead+1)
			removeIndex(t, path)
		}, true, false},
	} {
		for _, running := range []bool{true, false} {
			if running && c.atStart {
				continue
			}
			t.Run(fmt.Sprint(name, ", running: ", running), func(t *testing.T) {
				dir := t.TempDir()
				s := openPackedIn(t, nil, testKeep, 10_000, dir)
				for id := range dfs.ChunkID(30) {
					mustPutBytes(t, s, id+1, size)
				}
				s.Acknowledge(s.Report(100))
				e, _ := s.ledger.held.Get(5)
				path := s.volumes[0].segments.path(s.volumes[0].segments.lookup(e.segment).segmentName)
				if !running {
					shutdown(t, s)
				}
				c.harm(t, path, int64(e.at))
				if !running {
					s = openPackedIn(t, nil, testKeep, 10_000, dir)
				}
				if !c.atStart {
					if err := s.Verify(5); dfs.CodeOf(err) != dfs.Corrupt {
						t.Errorf("%v", err)
					}
				}
				if _, held := s.Stat(5); held || s.Totals().Count != 29 {
					t.Errorf("%d held", s.Totals().Count)
				}
				if r := s.Report(100); !c.nameless && !slices.Equal(r.Corrupt, ids(5)) || c.nameless && len(r.Corrupt) > 0 {
					t.Errorf("reported %+v", r)
				}
				if kept, err := os.ReadDir(s.volumes[0].quarantineDir()); err != nil || len(kept) != 1 {
					t.Errorf("in quarantine: %v, %v", kept, err)
				}
				mustPutBytes(t, s, 5, size) // a good copy comes
				shutdown(t, s)
				s = openPackedIn(t, nil, testKeep, 10_000, dir)
				for id := range dfs.ChunkID(30) {
					checkBytes(t, s, id+1, size)
				}
				if r := s.Report(100); len(r.Corrupt) > 0 {
					t.Errorf("reported again: %+v", r)
				}
			})
		}
	}
}

func removeIndex(t *testing.T, segment string) {
	t.Helper()
	if err := os.Remove(strings.TrimSuffix(segment, segmentSuffix) + indexSuffix); err != nil {
		t.Fatal(err)
	}
}

// A sealed segment that has become shorter has lost what lay beyond, and says so.
func TestSegmentBecomesShorter(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, 0, 10_000, dir)
	for id := range dfs.ChunkID(12) {
		mustPutBytes(t, s, id+1, 1000)
	}
	e, _ := s.ledger.held.Get(7)
	path := s.volumes[0].segments.path(s.volumes[0].segments.lookup(e.segment).segmentName)
	shutdown(t, s)
	if err := os.Truncate(path, int64(e.at)+500); err != nil {
		t.Fatal(err)
	}
	s = openPackedIn(t, nil, 0, 10_000, dir)
	if r := s.Report(100); !slices.Equal(r.Corrupt, ids(7, 8, 9)) || r.Count != 9 {
		t.Errorf("reported %+v", r)
	}
	shutdown(t, s)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s = openPackedIn(t, nil, 0, 10_000, dir)
	if n := s.Totals().Count; n != 3 || len(segmentFiles(t, dir, indexSuffix)) != len(segmentFiles(t, dir, segmentSuffix)) {
		t.Errorf("%d chunks are held of a segment that is gone", n)
	}
}

func TestSegmentOfANewerVersion(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, 0, segmentSize, dir)
	mustPutBytes(t, s, 1, 10)
	shutdown(t, s)
	path := segmentFiles(t, dir, segmentSuffix)[0]
	name, _ := parseSegmentName(strings.TrimSuffix(filepath.Base(path), segmentSuffix))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[8] = 2
	sum := name.sum(0, content[:28])
	copy(content[28:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1})
	if err == nil {
		err = errors.Join(s.WaitLoaded(t.Context()), s.Close())
	}
	if dfs.CodeOf(err) != dfs.Conflict || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("%v", err)
	}
}

// A removed chunk stays removed over a start, lies in the trash for its time, and
// then its space comes back.
func TestPackedTrashAndCompaction(t *testing.T) {
	dir := t.TempDir()
	const size, count = 1000, 40
	s := openPackedIn(t, nil, testKeep, 10_000, dir)
	for id := range dfs.ChunkID(count) {
		mustPutBytes(t, s, id+1, size)
	}
	full := len(segmentFiles(t, dir, segmentSuffix))
	for id := dfs.ChunkID(1); id <= count; id++ {
		if id%4 != 0 {
			if err := s.Remove(id); err != nil {
				t.Fatal(err)
			}
			if err := s.Remove(id); dfs.CodeOf(err) != dfs.NotFound {
				t.Errorf("removed twice: %v", err)
			}
		}
	}
	check := func(trashed int64) {
		t.Helper()
		status := s.Volumes()[0]
		if status.TrashFiles != trashed || status.TrashBytes != trashed*recordSize(size) || status.Chunks != count/4 || status.Used != size*count/4 {
			t.Errorf("%+v", status)
		}
		for id := dfs.ChunkID(4); id <= count; id += 4 {
			checkBytes(t, s, id, size)
		}
	}
	check(30)
	s.Compact(t.Context())
	check(30)
	shutdown(t, s)
	s = openPackedIn(t, nil, testKeep, 10_000, dir)
	check(30) // its time begins anew
	s.EmptyTrash(time.Now().Add(testKeep - time.Minute))
	check(30)
	s.EmptyTrash(time.Now().Add(testKeep + 2*packedTrash))
	check(0)
	if status := s.Volumes()[0]; status.DeadBytes != 30*recordSize(size) || status.SegmentBytes != 40*recordSize(size) {
		t.Errorf("%+v", status)
	}
	for range full + 1 {
		s.Compact(t.Context())
	}
	check(0)
	if got := len(segmentFiles(t, dir, segmentSuffix)); got > 2 || s.Volumes()[0].DeadBytes > 0 {
		t.Errorf("%d segments of %d are left, %+v", got, full, s.Volumes()[0])
	}
	if r := s.Report(100); r.Count != count/4 || len(r.Corrupt) > 0 {
		t.Errorf("%+v", r)
	}
	shutdown(t, s)
	s = openPackedIn(t, nil, testKeep, 10_000, dir)
	check(0)
}

// What the documentation says of bringing a chunk back.
func TestPackedChunkIsBroughtBack(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		dir := t.TempDir()
		limit := int64(segmentSize)
		if sealed {
			limit = 1
		}
		s := openPackedIn(t, nil, testKeep, limit, dir)
		for id := range dfs.ChunkID(5) {
			mustPutBytes(t, s, id+1, 100)
		}
		for id := range dfs.ChunkID(4) {
			if err := s.Remove(id + 1); err != nil {
				t.Fatal(err)
			}
		}
		shutdown(t, s)
		list := fmt.Sprintf("%s\nnonsense\n\n%s\n", dfs.ChunkID(2), dfs.ChunkID(3))
		if err := os.WriteFile(filepath.Join(dir, "segments", restoreFile), []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s = openPackedIn(t, nil, testKeep, limit, dir)
			if n := s.Totals().Count; n != 3 {
				t.Errorf("%d held", n)
			}
			for _, id := range ids(2, 3, 5) {
				checkBytes(t, s, id, 100)
			}
			if _, err := os.Stat(filepath.Join(dir, "segments", restoreFile)); !isMissing(err) {
				t.Errorf("the list is still there: %v", err)
			}
			shutdown(t, s)
		}
	}
}

// A segment that could not be unlinked after it was compacted, or not compacted
// to its end, leaves records twice.
func TestInterruptedCompaction(t *testing.T) {
	dir := t.TempDir()
	var fails atomic.Bool
	s := openPackedIn(t, func(op Op, path string) error {
		if fails.Load() && op == OpRemove {
			return syscall.EPERM
		}
		return nil
	}, 0, 10_000, dir)
	for id := range dfs.ChunkID(20) {
		mustPutBytes(t, s, id+1, 1000)
	}
	for id := range dfs.ChunkID(6) {
		if err := s.Remove(id + 1); err != nil {
			t.Fatal(err)
		}
	}
	before := len(segmentFiles(t, dir, segmentSuffix))
	fails.Store(true)
	s.Compact(t.Context())
	fails.Store(false)
	if got := len(segmentFiles(t, dir, segmentSuffix)); got < before {
		t.Fatalf("%d segments became %d", before, got)
	}
	for range 2 {
		shutdown(t, s)
		s = openPackedIn(t, nil, 0, 10_000, dir)
		for id := dfs.ChunkID(7); id <= 20; id++ {
			checkBytes(t, s, id, 1000)
		}
		if r := s.Report(100); r.Count != 14 || len(r.Corrupt) > 0 {
			t.Errorf("%+v", r)
		}
		if kept, err := os.ReadDir(s.volumes[0].quarantineDir()); err != nil || len(kept) > 0 {
			t.Errorf("in quarantine: %v, %v", kept, err)
		}
	}
	for range before {
		s.Compact(t.Context())
	}
	if dead := s.Volumes()[0].DeadBytes; dead > 5000 {
		t.Errorf("%d bytes are dead", dead)
	}
}

// Chunks are removed, read and put while their segments are compacted.
func TestCompactionUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, 0, 20_000, dir)
	const workers, count = 4, 120
	ctx, cancel := context.WithCancel(t.Context())
	var compacting, working sync.WaitGroup
	compacting.Go(func() {
		for ctx.Err() == nil {
			s.EmptyTrash(time.Now().Add(time.Hour))
			s.Compact(ctx)
		}
	})
	for worker := range dfs.ChunkID(workers) {
		working.Go(func() {
			for i := range dfs.ChunkID(count) {
				id := 1 + worker*1000 + i
				if err := putBytes(s, id, 700); err != nil {
					t.Error(err)
				}
				if i%3 > 0 {
					if err := s.Remove(id - 1); err != nil && i > 0 && dfs.CodeOf(err) != dfs.NotFound {
						t.Error(err)
					}
				}
				if err := s.Verify(id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	cancel()
	compacting.Wait()
	totals := s.Totals()
	checkCounts(t, s)
	for _, c := range s.List(0, 10_000) {
		checkBytes(t, s, c.ID, 700)
	}
	shutdown(t, s)
	s = openPackedIn(t, nil, 0, 20_000, dir)
	if got := s.Totals(); got != totals {
		t.Errorf("%+v, want %+v", got, totals)
	}
	checkCounts(t, s)
}

// Whoever was about to read from a segment that is given up reads where the chunk
// is now.
func TestChunkMovesWhileItIsOpened(t *testing.T) {
	dir := t.TempDir()
	var s *Store
	var armed atomic.Bool
	hook := func(op Op, path string) error {
		if op == OpOpen && strings.HasSuffix(path, segmentSuffix) && armed.CompareAndSwap(true, false) {
			s.Compact(t.Context())
		}
		return nil
	}
	s = openPackedIn(t, hook, 0, 4_000, dir)
	for id := range dfs.ChunkID(3) {
		mustPutBytes(t, s, id+1, 1000)
	}
	shutdown(t, s)
	s = openPackedIn(t, hook, 0, 4_000, dir)
	if err := errors.Join(s.Remove(1), s.Remove(2)); err != nil {
		t.Fatal(err)
	}
	e, _ := s.ledger.held.Get(3)
	armed.Store(true)
	checkBytes(t, s, 3, 1000)
	if now, _ := s.ledger.held.Get(3); now.place == e.place || s.volumes[0].segments.lookup(e.segment) != nil {
		t.Errorf("it has not moved: %+v", now)
	}
}

// The number of a segment that has gone may be used again, but only when nothing
// of it can come back.
func TestUnlinkedSegmentsAreGone(t *testing.T) {
	dir := t.TempDir()
	var synced atomic.Int64
	hook := func(op Op, path string) error {
		if op == OpSyncDir && filepath.Base(path) == "segments" {
			synced.Add(1)
		}
		return nil
	}
	s := openPackedIn(t, hook, 0, segmentSize, dir)
	mustPutBytes(t, s, 1, 10)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	s.Compact(t.Context())
	if left := segmentFiles(t, dir, ""); len(left) > 0 {
		t.Fatalf("left: %v", left)
	}
	shutdown(t, s)
	synced.Store(0)
	openPackedIn(t, hook, 0, segmentSize, dir)
	if synced.Load() == 0 {
		t.Error("the directory was not fsynced")
	}
}

// checkCounts compares what segments are believed to hold with what they do.
func checkCounts(t *testing.T, s *Store) {
	t.Helper()
	live := make(map[uint32]int64)
	s.ledger.held.Scan(func(_ dfs.ChunkID, e entry) bool {
		live[e.segment] += recordSize(int64(e.size))
		return true
	})
	g := s.volumes[0].segments
	g.mu.Lock()
	defer g.mu.Unlock()
	for number, seg := range g.known {
		if seg.live != live[number] || seg.dead() < 0 {
			t.Errorf("segment %d: %d bytes live, %d counted, %d dead", number, live[number], seg.live, seg.dead())
		}
	}
}

// One bad sector can be of many small chunks, and is still one bad sector.
func TestOneBadSectorIsNotTheDisk(t *testing.T) {
	top := t.TempDir()
	var bad atomic.Bool
	s := openPackedIn(t, func(op Op, path string) error {
		if bad.Load() && op == OpRead && strings.HasSuffix(path, segmentSuffix) && strings.Contains(path, "00000001-") {
			return syscall.EIO
		}
		return nil
	}, 0, segmentSize, filepath.Join(top, "a"), filepath.Join(top, "b"))
	for id := range dfs.ChunkID(40) {
		mustPutBytes(t, s, id+1, 100)
	}
	bad.Store(true)
	for id := range dfs.ChunkID(40) {
		if err := s.Verify(id + 1); dfs.CodeOf(err) != dfs.Internal {
			t.Fatalf("%v", err)
		}
	}
	for _, v := range s.Volumes() {
		if v.Gone {
			t.Error("the disk is out of service")
		}
	}
	bad.Store(false)
	for id := range dfs.ChunkID(40) {
		checkBytes(t, s, id+1, 100)
	}
}

// What fails while a group is written costs that group; whether it costs the
// disk depends on what it was.
func TestPackedWriteFails(t *testing.T) {
	for name, c := range map[string]struct {
		op       Op
		err      error
		fresh    bool // there is no segment yet
		code     dfs.Code
		unusable bool
	}{
		"create":                 {OpCreate, syscall.EMFILE, true, dfs.Internal, false},
		"create, full":           {OpCreate, syscall.ENOSPC, true, dfs.NoSpace, false},
		"create, read-only":      {OpCreate, syscall.EROFS, true, dfs.Internal, true},
		"allocate, full":         {OpAllocate, syscall.ENOSPC, true, dfs.NoSpace, false},
		"allocate":               {OpAllocate, syscall.EIO, true, dfs.Internal, true},
		"head":                   {OpWrite, syscall.EIO, true, dfs.Internal, true},
		"fsync of the segment":   {OpSyncFile, syscall.EIO, true, dfs.Internal, true},
		"fsync of the name":      {OpSyncDir, syscall.EIO, true, dfs.Internal, true},
		"name, no descriptors":   {OpSyncDir, &os.PathError{Op: "open", Err: syscall.EMFILE}, true, dfs.Internal, false},
		"write":                  {OpWrite, syscall.EIO, false, dfs.Internal, true},
		"write, full":            {OpWrite, syscall.ENOSPC, false, dfs.NoSpace, false},
		"fdatasync":              {OpSyncData, syscall.EIO, false, dfs.Internal, true},
		"fdatasync, memory":      {OpSyncData, syscall.ENOMEM, false, dfs.Internal, true},
		"fdatasync, full":        {OpSyncData, syscall.ENOSPC, false, dfs.NoSpace, false},
		"fdatasync, new segment": {OpSyncData, syscall.EIO, true, dfs.Internal, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var armed atomic.Bool
			var after atomic.Int64
			s := openPackedIn(t, func(op Op, path string) error {
				if !armed.Load() {
					return nil
				}
				if op == c.op {
					return c.err
				}
				if after.Load() > 0 && (op == OpSyncData || op == OpCreate) {
					t.Errorf("after the failure: %s %s", op, path)
				}
				return nil
			}, 0, segmentSize, dir)
			if !c.fresh {
				mustPutBytes(t, s, 1, 1000)
			}
			armed.Store(true)
			if err := putBytes(s, 2, 1000); dfs.CodeOf(err) != c.code {
				t.Errorf("%v", err)
			}
			if _, held := s.Stat(2); held {
				t.Error("held although it failed")
			}
			if c.unusable {
				after.Store(1)
				if err := putBytes(s, 2, 1000); dfs.CodeOf(err) != dfs.Internal {
					t.Errorf("%v", err)
				}
			}
			armed.Store(false)
			if !c.unusable {
				mustPutBytes(t, s, 3, 500)
				checkBytes(t, s, 3, 500)
			}
			if !c.fresh {
				checkBytes(t, s, 1, 1000) // reading goes on in any case
			}
			shutdown(t, s)
			s = openPackedIn(t, nil, 0, segmentSize, dir)
			if _, held := s.Stat(2); held {
				t.Error("what was refused is there after a start")
			}
			if r := s.Report(10); len(r.Corrupt) > 0 {
				t.Errorf("reported %+v", r)
			}
			mustPutBytes(t, s, 2, 1000) // a new start is a new chance
			checkBytes(t, s, 2, 1000)
		})
	}
}

// A disk that hangs costs those who wait for it their time, and nobody else.
func TestPackedOnADiskThatHangs(t *testing.T) {
	for _, op := range []Op{OpWrite, OpSyncData, OpRead} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				top := t.TempDir()
				dirs := []string{filepath.Join(top, "a"), filepath.Join(top, "b")}
				h := &hanging{dir: filepath.Join(dirs[1], "segments"), op: op, goOn: make(chan struct{})}
				s := openPackedIn(t, h.hook, 0, segmentSize, dirs...)
				var here, there, next dfs.ChunkID
				for next = 1; here == 0 || there == 0; next++ {
					mustPutBytes(t, s, next, 10)
					if e, err := s.entry(next); err == nil && e.volume == 1 {
						here = next
					} else {
						there = next
					}
				}
				h.on.Store(true)
				if op == OpRead {
					checkAnswers(t, dfs.Unavailable, hangTimeout, func() error { return s.Verify(here) })
					checkAnswers(t, dfs.Unavailable, 0, func() error { return s.Verify(here) })
				} else {
					began := time.Now()
					var waiting sync.WaitGroup
					for range 40 { // some of them go to the disk that hangs, in two groups
						next++
						id := next
						waiting.Go(func() {
							if err := putBytes(s, id, 10); err != nil && dfs.CodeOf(err) != dfs.Unavailable {
								t.Error(err)
							}
						})
						synctest.Wait()
					}
					waiting.Wait()
					if took := time.Since(began); took != writeTimeout {
						t.Errorf("waited %s", took)
					}
				}
				checkStalled(t, s, true)
				checkAnswers(t, "", 0, func() error { return s.Verify(there) })
				checkAnswers(t, "", 0, func() error { return putBytes(s, 5000, 10) })
				h.on.Store(false)
				close(h.goOn)
				synctest.Wait()
				checkStalled(t, s, false)
				checkAnswers(t, "", 0, func() error { return s.Verify(here) })
				if v := s.volumes[1]; v.writers != 0 || v.writing != 0 || v.overdue != 0 || len(s.claims) != 0 {
					t.Errorf("%d writers of %d bytes, %d overdue, %d claims", v.writers, v.writing, v.overdue, len(s.claims))
				}
				if op != OpRead { // it was written in the end
					checkAnswers(t, "", 0, func() error { return s.Verify(next) })
				}
			})
		})
	}
}

// A full disk refuses, and gives room again when chunks are removed, whichever.
func TestPackedOnAFullDisk(t *testing.T) {
	for name, goes := range map[string]func(id, count dfs.ChunkID) bool{
		"the older half": func(id, count dfs.ChunkID) bool { return id <= count/2 },
		"every fourth":   func(id, count dfs.ChunkID) bool { return id%4 == 0 },
	} {
		t.Run(name, func(t *testing.T) { testPackedOnAFullDisk(t, goes) })
	}
}

func testPackedOnAFullDisk(t *testing.T, goes func(id, count dfs.ChunkID) bool) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, testKeep, 10_000, dir)
	v := s.volumes[0]
	v.ask = func(string) (figures, error) { // a disk of 100 kB
		var used int64
		for _, path := range segmentFiles(t, dir, segmentSuffix) {
			info, err := os.Stat(path)
			if err != nil {
				return figures{}, err
			}
			used += info.Size()
		}
		return figures{capacity: 1 << 30, available: 100_000 - used + v.reserve}, nil
	}
	id := dfs.ChunkID(1)
	for ; ; id++ {
		if err := putBytes(s, id, 1000); err != nil {
			if dfs.CodeOf(err) != dfs.NoSpace {
				t.Fatal(err)
			}
			break
		}
	}
	if id < 80 {
		t.Errorf("full after %d chunks", id)
	}
	files := len(segmentFiles(t, dir, segmentSuffix))
	for range 5 {
		if err := putBytes(s, id, 1000); dfs.CodeOf(err) != dfs.NoSpace {
			t.Errorf("%v", err)
		}
	}
	if got := len(segmentFiles(t, dir, segmentSuffix)); got != files {
		t.Errorf("%d files were made in vain", got-files)
	}
	for gone := dfs.ChunkID(1); gone < id; gone++ {
		if goes(gone, id) {
			if err := s.Remove(gone); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range files {
		s.Compact(t.Context()) // the trash does not count now
	}
	for put := id; put < id+10; put++ {
		mustPutBytes(t, s, put, 1000)
	}
	for held := dfs.ChunkID(1); held < id; held++ {
		if !goes(held, id) {
			checkBytes(t, s, held, 1000)
		}
	}
}

// What lies in files of an earlier version is found, and stays where it is.
func TestOldFilesAndSegments(t *testing.T) {
	dir := t.TempDir()
	s := openTrash(t, nil, dir)
	keepChunk(t, s, 1, 100)
	keepChunk(t, s, 2, 100)
	shutdown(t, s)
	s = openPackedIn(t, nil, testKeep, segmentSize, dir)
	for _, id := range ids(1, 2) {
		if err := s.Verify(id); err != nil {
			t.Error(err)
		}
	}
	mustPutBytes(t, s, 3, 100)
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	if status := s.Volumes()[0]; status.TrashFiles != 1 || status.Chunks != 2 || status.Used != 200 {
		t.Errorf("%+v", status)
	}
	checkBytes(t, s, 3, 100)
	shutdown(t, s)
	s = openTrash(t, nil, dir) // and with packing switched off
	checkBytes(t, s, 3, 100)
	if err := s.Verify(2); err != nil {
		t.Error(err)
	}
}

// The same chunk in two directories, in segments, is settled as with files.
func TestPackedDuplicates(t *testing.T) {
	top := t.TempDir()
	dirs := []string{filepath.Join(top, "a"), filepath.Join(top, "b")}
	both := openPackedIn(t, nil, 0, segmentSize, dirs...)
	shutdown(t, both)
	for i, dir := range dirs {
		s := openPackedIn(t, nil, 0, segmentSize, dir)
		mustPutBytes(t, s, 1, 100)
		mustPutBytes(t, s, dfs.ChunkID(2+i), 100)
		if i == 0 {
			mustPutBytes(t, s, 9, 77) // and one that differs
		} else {
			mustPutBytes(t, s, 9, 78)
		}
		e, _ := s.ledger.held.Get(9)
		path := s.volumes[0].segments.path(s.volumes[0].segments.lookup(e.segment).segmentName)
		shutdown(t, s)
		if i == 0 {
			s = openPackedIn(t, nil, 0, segmentSize, dir) // an index is made
			shutdown(t, s)
			damageFile(t, path, int64(e.at)+recordHead+5)
		}
	}
	s := openPackedIn(t, nil, 0, segmentSize, dirs...)
	for _, id := range ids(1, 2, 3) {
		checkBytes(t, s, id, 100)
	}
	checkBytes(t, s, 9, 78)
	if r := s.Report(100); r.Count != 4 || len(r.Corrupt) > 0 {
		t.Errorf("%+v", r)
	}
	for i, want := range []int{1, 1} { // the damaged 9; the second 1
		if kept, err := os.ReadDir(s.volumes[i].quarantineDir()); err != nil || len(kept) != want {
			t.Errorf("%s: %v, %v", dirs[i], kept, err)
		}
	}
}

// What was torn in the last group lies between whole records. It stays unnoticed
// also when the segment is not the last any more, and has lost its index.
func TestTornBetweenWholeRecords(t *testing.T) {
	dir := t.TempDir()
	shutdown(t, openPackedIn(t, nil, 0, segmentSize, dir))
	name := segmentName{1, 42}
	content := name.head()
	var torn int
	for id := range dfs.ChunkID(3) {
		data := bytesOf(id+1, 1000)
		r := record{id: id + 1, at: uint32(len(content)), size: 1000, crc: dfs.ChecksumOf(data)}
		torn = len(content) - 900 // at last in the data of the second
		content = name.appendRecord(content, r, segmentHead, data)
	}
	clear(content[torn : torn+512])
	path := filepath.Join(dir, "segments", name.String()+segmentSuffix)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := openPackedIn(t, nil, 0, segmentSize, dir)
		checkBytes(t, s, 1, 1000)
		checkBytes(t, s, 3, 1000)
		if r := s.Report(10); r.Count != s.Totals().Count || len(r.Corrupt) > 0 {
			t.Errorf("reported %+v", r)
		}
		if _, held := s.Stat(2); held {
			t.Error("a torn chunk is held")
		}
		if kept, err := os.ReadDir(s.volumes[0].quarantineDir()); err != nil || len(kept) > 0 {
			t.Errorf("in quarantine: %v, %v", kept, err)
		}
		mustPutBytes(t, s, 4, 10) // into a segment of its own
		shutdown(t, s)
		removeIndex(t, path)
	}
}
