package chunkstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// trashSpell is how long one EmptyTrash goes on removing: the rest has time.
const trashSpell = 2 * time.Second

// trash is the files that wait to be removed from one volume, the oldest first.
type trash struct {
	files []trashed
	first int   // those before it have been removed
	bytes int64 // of all files
}

type trashed struct {
	name  string
	size  int64 // bytes of the file
	since time.Time
}

func (t *trash) count() int64 { return int64(len(t.files) - t.first) }

func (t *trash) add(file trashed) {
	t.files = append(t.files, file)
	t.bytes += file.size
}

// take returns the oldest file, if it is not younger than before.
func (t *trash) take(before time.Time) (trashed, bool) {
	if t.count() == 0 || t.files[t.first].since.After(before) {
		return trashed{}, false
	}
	file := t.files[t.first]
	t.first++
	t.bytes -= file.size
	if t.first > len(t.files)/2 {
		t.files, t.first = append([]trashed(nil), t.files[t.first:]...), 0
	}
	return file, true
}

// EmptyTrash removes what has been in the trash for longer than
// Config.TrashKeep, or as much of it as can be done in a few seconds. It is to
// be called every few seconds.
func (s *Store) EmptyTrash(now time.Time) {
	s.emptying.Lock()
	defer s.emptying.Unlock()
	before := now.Add(-s.keep)
	s.onEach("empty the trash", func(v *volume) error {
		v.segments.expire(before)
		for began := time.Now(); v.writable() == nil && time.Since(began) < trashSpell; {
			if !v.removeOldest(before) {
				break
			}
		}
		return nil
	})
}

// removeOldest removes one file from the trash, if there is one that is not
// younger than before.
func (v *volume) removeOldest(before time.Time) bool {
	v.mu.Lock()
	file, ok := v.trash.take(before)
	v.mu.Unlock()
	if !ok {
		return false
	}
	err := v.disk.remove(filepath.Join(v.trashDir(), file.name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.log.Warn("a file stays in the trash until the next start", "file", file.name, "error", err)
		return true
	}
	v.mu.Lock()
	v.figures.available += file.size
	v.mu.Unlock()
	return true
}

// throwAway moves a chunk into the trash. When that is not possible, or not
// wanted, it is removed for good.
func (v *volume) throwAway(id dfs.ChunkID, e entry, keep time.Duration) error {
	if e.packed() {
		return v.segments.throwAway(e, keep)
	}
	if keep > 0 {
		file := trashed{name: v.newName(id), size: fileSize(int64(e.size)), since: time.Now()}
		err := v.putAside(id, v.trashDir(), file.name)
		if err == nil {
			v.mu.Lock()
			v.trash.add(file)
			v.mu.Unlock()
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		v.log.Warn("a chunk cannot be moved into the trash and is removed at once", "chunk", id, "error", err)
	}
	return v.disk.remove(v.path(id))
}

// findTrash takes over what an earlier process left. Its time begins anew.
func (v *volume) findTrash() error {
	entries, err := os.ReadDir(v.trashDir())
	if err != nil {
		return unreadable(v.dir, err)
	}
	now := time.Now()
	var found trash
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return unreadable(v.dir, err)
		}
		if !info.Mode().IsRegular() {
			v.log.Warn("this is not a chunk and is left alone", "path", filepath.Join(v.trashDir(), e.Name()))
			continue
		}
		found.add(trashed{name: e.Name(), size: info.Size(), since: now})
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.gone {
		v.trash = found
	}
	return nil
}
