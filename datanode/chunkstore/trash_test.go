package chunkstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const testKeep = time.Hour

func openTrash(t *testing.T, hook Hook, dirs ...string) *Store {
	t.Helper()
	s, err := Open(Config{Dirs: dirs, NodeID: "dn1", Reserve: 1, TrashKeep: testKeep, Hook: hook, Unpacked: true})
	if err == nil {
		err = s.WaitLoaded(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func keepChunk(t *testing.T, s *Store, id dfs.ChunkID, size int) {
	t.Helper()
	data := make([]byte, size)
	data[0] = byte(id)
	w, err := s.Create(id, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(dfs.ChecksumOf(data)); err != nil {
		t.Fatal(err)
	}
}

func checkTrash(t *testing.T, s *Store, sizes ...int64) {
	t.Helper()
	v := s.volumes[0]
	var bytes int64
	for _, size := range sizes {
		bytes += fileSize(size)
	}
	entries, err := os.ReadDir(v.trashDir())
	if err != nil {
		t.Fatal(err)
	}
	status := s.Volumes()[0]
	if len(entries) != len(sizes) || status.TrashFiles != int64(len(sizes)) || status.TrashBytes != bytes {
		t.Errorf("%d files in trash/, %d of %d bytes counted; want %d of %d", len(entries), status.TrashFiles, status.TrashBytes, len(sizes), bytes)
	}
}

func TestTrash(t *testing.T) {
	dir := t.TempDir()
	s := openTrash(t, nil, dir)
	for id := range dfs.ChunkID(4) {
		keepChunk(t, s, id+1, 100*int(id+1))
	}
	s.Acknowledge(s.Report(10))
	began := time.Now()
	for _, id := range []dfs.ChunkID{3, 1} {
		if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(id); dfs.CodeOf(err) != dfs.NotFound {
			t.Errorf("removed twice: %v", err)
		}
	}
	if r := s.Report(10); len(r.Removed) != 2 || r.Count != 2 || s.Totals().Used != 600 {
		t.Errorf("%+v, %+v", r, s.Totals())
	}
	checkTrash(t, s, 300, 100)
	s.EmptyTrash(began.Add(testKeep - time.Nanosecond))
	checkTrash(t, s, 300, 100)
	keepChunk(t, s, 3, 300) // it comes back, and is removed again
	if err := s.Remove(3); err != nil {
		t.Fatal(err)
	}
	checkTrash(t, s, 300, 100, 300)
	s.EmptyTrash(time.Now().Add(testKeep))
	checkTrash(t, s)
	if err := s.Remove(2); err != nil {
		t.Fatal(err)
	}
	checkTrash(t, s, 200)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	began = time.Now()
	s = openTrash(t, nil, dir) // the time begins anew
	checkTrash(t, s, 200)
	s.EmptyTrash(began.Add(testKeep - time.Nanosecond))
	checkTrash(t, s, 200)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "trash"))
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "0000000000000002-1-") {
		t.Fatalf("%v, %v", entries, err)
	}
	// What the documentation says of bringing a chunk back.
	if err := os.Rename(filepath.Join(dir, "trash", entries[0].Name()), filepath.Join(dir, "chunks", "02", "0000000000000002")); err != nil {
		t.Fatal(err)
	}
	s = openTrash(t, nil, dir)
	checkTrash(t, s)
	if err := s.Verify(2); err != nil {
		t.Error(err)
	}
}

func TestTrashCountsAsFreeAndMakesRoom(t *testing.T) {
	var removed []string
	s := openTrash(t, func(op Op, path string) error {
		if op == OpRemove && filepath.Base(filepath.Dir(path)) == "trash" {
			removed = append(removed, filepath.Base(path)[:16])
		}
		return nil
	}, t.TempDir())
	v := s.volumes[0]
	const size = 10_000
	room := 4 * fileSize(size)
	v.ask = func(string) (figures, error) { // a disk of that size
		var used int64
		for _, dir := range []string{v.trashDir(), v.tempDir(), v.shardDir(1), v.shardDir(2), v.shardDir(3), v.shardDir(4), v.shardDir(5), v.shardDir(6)} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return figures{}, err
			}
			used += int64(len(entries)) * fileSize(size)
		}
		return figures{capacity: 1 << 30, available: room - used + v.reserve}, nil
	}
	free := func(want int64) {
		t.Helper()
		if space, err := s.Space(); err != nil || space.Free != want*fileSize(size) {
			t.Errorf("%d bytes are free, %v; want %d chunks", space.Free, err, want)
		}
	}
	for id := range dfs.ChunkID(4) {
		keepChunk(t, s, id+1, size)
	}
	free(0)
	if _, err := s.Create(5, size); dfs.CodeOf(err) != dfs.NoSpace {
		t.Errorf("a full disk: %v", err)
	}
	for _, id := range []dfs.ChunkID{2, 4, 1} {
		if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	free(3)
	keepChunk(t, s, 5, size)
	free(2)
	checkTrash(t, s, size, size)
	keepChunk(t, s, 6, size)
	free(1)
	if want := []string{"0000000000000002", "0000000000000004"}; len(removed) != 2 || removed[0] != want[0] || removed[1] != want[1] {
		t.Errorf("removed %v, want %v", removed, want)
	}
}

func TestTrashOnADiskInTrouble(t *testing.T) {
	var fault error
	var which Op
	s := openTrash(t, func(op Op, path string) error {
		if op == which {
			return fault
		}
		return nil
	}, t.TempDir())
	for id := range dfs.ChunkID(3) {
		keepChunk(t, s, id+1, 100)
	}
	which, fault = OpRename, syscall.ENOSPC // no room for the name: it goes at once
	if err := s.Remove(1); err != nil {
		t.Error(err)
	}
	checkTrash(t, s)
	which, fault = OpRemove, syscall.EIO
	if err := s.Remove(2); err != nil {
		t.Error(err)
	}
	s.EmptyTrash(time.Now().Add(2 * testKeep)) // the file stays, and is not asked for again
	if status := s.Volumes()[0]; status.TrashFiles != 0 || status.TrashBytes != 0 {
		t.Errorf("%+v", status)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fault = nil
	s = openTrash(t, nil, s.volumes[0].dir)
	checkTrash(t, s, 100)
	s.volumes[0].fail("a test", errors.New("broken"))
	s.EmptyTrash(time.Now().Add(2 * testKeep))
	checkTrash(t, s, 100) // a disk that has failed is left in peace
}

// Somebody may have emptied the trash or the quarantine with rm -r. A chunk that
// is given up must not stay where the next start finds it, least of all a
// damaged one.
func TestDirectoriesForTheGivenUpAreMissing(t *testing.T) {
	dir := t.TempDir()
	s := openTrash(t, nil, dir)
	v := s.volumes[0]
	for id := range dfs.ChunkID(3) {
		keepChunk(t, s, id+1, 10)
	}
	if err := errors.Join(os.RemoveAll(v.trashDir()), os.RemoveAll(v.quarantineDir())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Remove(1), s.Quarantine(2, "a test"), s.Remove(3)); err != nil {
		t.Error(err)
	}
	for id := range dfs.ChunkID(3) {
		if _, err := os.Stat(v.path(id + 1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("chunk %d: %v", id+1, err)
		}
	}
	checkTrash(t, s, 10, 10)
	if kept, err := os.ReadDir(v.quarantineDir()); err != nil || len(kept) != 1 {
		t.Errorf("in quarantine: %v, %v", kept, err)
	}
	if err := os.Remove(v.path(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
