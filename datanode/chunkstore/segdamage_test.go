package chunkstore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// writeSegment makes a directory whose only segment has groups of records, the
// chunks 1, 2 and so on of so many bytes, and returns where it and they lie.
func writeSegment(t *testing.T, dir string, groups ...[]int) (path string, records []record) {
	t.Helper()
	shutdown(t, openPackedIn(t, nil, 0, segmentSize, dir))
	content := testSegment.head()
	for _, sizes := range groups {
		durable := uint32(len(content))
		for _, size := range sizes {
			id := dfs.ChunkID(len(records) + 1)
			data := bytesOf(id, size)
			r := record{id: id, at: uint32(len(content)), size: uint32(size), crc: dfs.ChecksumOf(data)}
			content = testSegment.appendRecord(content, r, durable, data)
			records = append(records, r)
		}
	}
	path = filepath.Join(dir, "segments", testSegment.String()+segmentSuffix)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, records
}

// What was durable and is damaged is kept for people also when nothing whole
// follows: it must not be cut off with the torn tail.
func TestDamageBeforeATornTail(t *testing.T) {
	for name, c := range map[string]struct {
		at      int64 // in the record of chunk 2
		corrupt []dfs.ChunkID
	}{
		"header": {9, nil},
		"data":   {recordHead + 50, ids(2)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, records := writeSegment(t, dir, []int{1000}, []int{1000}, []int{1000})
			damageFile(t, path, int64(records[1].at)+c.at)
			damageFile(t, path, int64(records[2].at)+recordHead+50) // torn: its header says that 2 was durable
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := openPackedIn(t, nil, 0, segmentSize, dir)
			checkBytes(t, s, 1, 1000)
			if r := s.Report(10); r.Count != 1 || !slices.Equal(r.Corrupt, c.corrupt) {
				t.Errorf("reported %+v", r)
			}
			kept, err := filepath.Glob(filepath.Join(dir, "quarantine", "*"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("in quarantine: %v, %v", kept, err)
			}
			got, err := os.ReadFile(kept[0])
			want := content[records[1].at:records[1].end()]
			if c.corrupt != nil {
				want, got = want[recordHead:], got[:min(1000, len(got))]
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("not what was there: %v", err)
			}
			shutdown(t, s)
			s = openPackedIn(t, nil, 0, segmentSize, dir)
			checkBytes(t, s, 1, 1000)
			if n := s.Totals().Count; n != 1 {
				t.Errorf("%d held", n)
			}
		})
	}
}

// A chunk whose header was found damaged while its segment had no index is not
// held again when the segment is sealed and the process starts anew.
func TestDamagedHeaderBeforeTheSegmentIsSealed(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, testKeep, segmentSize, dir)
	for id := range dfs.ChunkID(3) {
		mustPutBytes(t, s, id+1, 1000)
	}
	e, _ := s.ledger.held.Get(2)
	damageFile(t, segmentFiles(t, dir, segmentSuffix)[0], int64(e.at)+10)
	if err := s.Verify(2); dfs.CodeOf(err) != dfs.Corrupt {
		t.Fatalf("%v", err)
	}
	s.volumes[0].segments.limit = 1
	mustPutBytes(t, s, 4, 1000) // seals it
	shutdown(t, s)
	s = openPackedIn(t, nil, testKeep, segmentSize, dir)
	if _, held := s.Stat(2); held || s.Totals().Count != 3 {
		t.Errorf("%d held", s.Totals().Count)
	}
}

// Whoever asks how the directories are doing may ask while they are read.
func TestVolumesWhileSegmentsAreRead(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, nil, 0, 100_000, dir)
	var writers sync.WaitGroup
	for w := range dfs.ChunkID(100) {
		writers.Go(func() {
			for id := range dfs.ChunkID(200) {
				if err := putBytes(s, w*200+id+1, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	shutdown(t, s)
	s, err := Open(Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer shutdown(t, s)
	for loading := true; loading; {
		select {
		case <-s.Loaded():
			loading = false
		default:
			s.Volumes()
		}
	}
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
	checkCounts(t, s)
}

// A damaged chunk that cannot be put into quarantine keeps its segment, and no
// other from being compacted.
func TestQuarantineFailsWhileCompacting(t *testing.T) {
	dir := t.TempDir()
	s := openPackedIn(t, func(op Op, path string) error {
		if op == OpCreate && strings.Contains(path, "quarantine") {
			return syscall.ENOSPC
		}
		return nil
	}, 0, 10_000, dir)
	for id := range dfs.ChunkID(30) {
		mustPutBytes(t, s, id+1, 1000)
	}
	first, _ := s.ledger.held.Get(1)
	second, _ := s.ledger.held.Get(11)
	if first.segment == second.segment {
		t.Fatal("the chunks are in one segment")
	}
	damageFile(t, segmentFiles(t, dir, segmentSuffix)[0], int64(first.at)+recordHead+5)
	for _, id := range ids(2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15) {
		if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		s.Compact(t.Context())
	}
	if s.volumes[0].segments.lookup(second.segment) != nil {
		t.Error("the second segment was not compacted")
	}
	if s.volumes[0].segments.lookup(first.segment) == nil {
		t.Error("the damaged bytes are lost")
	}
}

// That there is no room in quarantine is no reason not to serve the rest.
func TestDamageFoundOnAFullDisk(t *testing.T) {
	for name, at := range map[string]int64{"data": recordHead + 50, "header": 9} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, records := writeSegment(t, dir, []int{1000}, []int{1000}, []int{1000})
			damageFile(t, path, int64(records[1].at)+at)
			var full atomic.Bool
			full.Store(true)
			hook := func(op Op, path string) error {
				if full.Load() && op == OpCreate && strings.Contains(path, "quarantine") {
					return syscall.ENOSPC
				}
				return nil
			}
			for range 2 {
				s := openPackedIn(t, hook, 0, segmentSize, dir)
				checkBytes(t, s, 1, 1000)
				checkBytes(t, s, 3, 1000)
				if n := s.Totals().Count; n != 2 {
					t.Errorf("%d held", n)
				}
				shutdown(t, s)
			}
			full.Store(false)
			shutdown(t, openPackedIn(t, hook, 0, segmentSize, dir))
			if kept, err := filepath.Glob(filepath.Join(dir, "quarantine", "*")); err != nil || len(kept) != 1 {
				t.Errorf("in quarantine: %v, %v", kept, err)
			}
		})
	}
}

// A process that was short of files or memory for a moment compacts later.
func TestCompactionAfterAShortage(t *testing.T) {
	for _, suffix := range []string{indexSuffix, segmentSuffix} {
		t.Run(suffix, func(t *testing.T) {
			dir := t.TempDir()
			var short atomic.Bool
			s := openPackedIn(t, func(op Op, path string) error {
				if short.Load() && op == OpRead && strings.HasSuffix(path, suffix) {
					return syscall.ENOMEM
				}
				return nil
			}, 0, 10_000, dir)
			for id := range dfs.ChunkID(20) {
				mustPutBytes(t, s, id+1, 1000)
			}
			first, _ := s.ledger.held.Get(1)
			for id := range dfs.ChunkID(6) {
				if err := s.Remove(id + 1); err != nil {
					t.Fatal(err)
				}
			}
			short.Store(true)
			s.Compact(t.Context())
			short.Store(false)
			s.Compact(t.Context())
			if s.volumes[0].segments.lookup(first.segment) != nil {
				t.Error("the segment is not compacted")
			}
			checkBytes(t, s, 7, 1000)
		})
	}
}
