package chunkstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// removedChunks makes a directory with so many removed chunks, all in one
// segment, and a list that wants them back.
func removedChunks(t *testing.T, dir string, count dfs.ChunkID) (list string) {
	t.Helper()
	s := openPackedIn(t, nil, testKeep, segmentSize, dir)
	var text strings.Builder
	for id := range count + 1 {
		mustPutBytes(t, s, id+1, 1000)
	}
	for id := range count {
		if err := s.Remove(id + 1); err != nil {
			t.Fatal(err)
		}
		text.WriteString((id + 1).String() + "\n")
	}
	shutdown(t, s)
	list = filepath.Join(dir, "segments", restoreFile)
	if err := os.WriteFile(list, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return list
}

// The list of what is wanted back goes when all of it is durable, names included.
func TestTheListStaysUntilItsChunksAreDurable(t *testing.T) {
	dir := t.TempDir()
	list := removedChunks(t, dir, 3)
	var mu sync.Mutex
	renamed := make(map[string]bool) // directories, not durable yet
	s := openPackedIn(t, func(op Op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op == OpRename && strings.Contains(path, "/chunks/"):
			renamed[filepath.Dir(path)] = true
		case op == OpSyncDir:
			delete(renamed, path)
		case op == OpRemove && path == list && len(renamed) > 0:
			t.Errorf("the list is removed before %v are durable", renamed)
		}
		return nil
	}, testKeep, segmentSize, dir)
	for _, id := range ids(1, 2, 3, 4) {
		checkBytes(t, s, id, 1000)
	}
}

// A bad sector under a chunk that is wanted back costs that chunk.
func TestWantedChunkCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	list := removedChunks(t, dir, 3)
	content, err := os.ReadFile(list)
	if err == nil {
		err = os.Remove(list)
	}
	if err != nil {
		t.Fatal(err)
	}
	shutdown(t, openPackedIn(t, nil, testKeep, segmentSize, dir)) // makes the index
	if err := os.WriteFile(list, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int64 // of the segment: its head, then what is wanted
	s := openPackedIn(t, func(op Op, path string) error {
		if op == OpRead && strings.HasSuffix(path, segmentSuffix) && reads.Add(1) == 3 {
			return syscall.EIO
		}
		return nil
	}, testKeep, segmentSize, dir)
	if n := s.Totals().Count; n != 3 { // two that are back, and the one that was not removed
		t.Errorf("%d held", n)
	}
	checkBytes(t, s, 1, 1000)
	checkBytes(t, s, 3, 1000)
	if _, err := os.Stat(list); !isMissing(err) {
		t.Errorf("the list is still there: %v", err)
	}
}

// A list that is too long is refused: nothing of it is forgotten.
func TestListOfTooManyChunks(t *testing.T) {
	dir := t.TempDir()
	list := removedChunks(t, dir, 1)
	content, err := os.ReadFile(list)
	if err == nil {
		err = os.WriteFile(list, append(bytes.Repeat([]byte("\n"), maxRestoreFile), content...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer shutdown(t, s)
	if err := s.WaitLoaded(t.Context()); dfs.CodeOf(err) != dfs.Invalid || !strings.Contains(err.Error(), "at a time") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(list); err != nil {
		t.Error(err)
	}
}

// Bringing back much takes long, and must not look as if the disk hung.
func TestBringingBackShowsSignsOfLife(t *testing.T) {
	dir := t.TempDir()
	const count = 30
	removedChunks(t, dir, count)
	v := newVolume(dir, Config{}, hclog.NewNullLogger())
	moves := atomic.Int64{}
	err := v.segments.examine(t.Context(), &volumeContent{volume: v}, func() { moves.Add(1) })
	if err = errors.Join(err, v.segments.close()); err != nil || moves.Load() < count {
		t.Errorf("%d signs of life, %v", moves.Load(), err)
	}
}

// What does not fit on the disk is brought back by a later start, and the others
// are served meanwhile.
func TestNoRoomToBringChunksBack(t *testing.T) {
	dir := t.TempDir()
	list := removedChunks(t, dir, 3)
	var full atomic.Bool
	full.Store(true)
	hook := func(op Op, path string) error {
		if full.Load() && op == OpWrite && strings.Contains(path, "/tmp/000") {
			return syscall.ENOSPC
		}
		return nil
	}
	s := openPackedIn(t, hook, testKeep, segmentSize, dir)
	checkBytes(t, s, 4, 1000)
	if _, err := os.Stat(list); err != nil {
		t.Error(err)
	}
	shutdown(t, s)
	full.Store(false)
	s = openPackedIn(t, hook, testKeep, segmentSize, dir)
	for _, id := range ids(1, 2, 3, 4) {
		checkBytes(t, s, id, 1000)
	}
	if _, err := os.Stat(list); !isMissing(err) {
		t.Errorf("the list is still there: %v", err)
	}
}
