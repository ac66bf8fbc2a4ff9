package chunkstore

import (
	"os"
	"path/filepath"
	"slices"
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
