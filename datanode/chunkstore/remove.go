package chunkstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Neither way of removing is followed by an fsync: a chunk that a power cut
// brings back is reported like any other, and judged again.

// Remove takes a chunk out of what is held and moves its file into the trash.
// It fails with NotFound when the chunk is not held, Internal when the disk
// refuses, Unavailable when it does not answer, and else like Ready. What the
// disk does not answer in time is removed in the end, or held again.
func (s *Store) Remove(id dfs.ChunkID) error {
	release, err := s.claim(id)
	if err != nil {
		return err
	}
	e, err := s.entry(id)
	if err == nil && !e.volume.answers() {
		err = unanswered(id) // or it has just gone
	}
	if err != nil {
		release()
		return err
	}
	s.mu.Lock()
	removed := s.ledger.remove(id)
	s.mu.Unlock()
	if !removed {
		release()
		return notHeld(id) // its directory went out of service this moment
	}
	err = e.volume.within(hangTimeout, "remove a chunk", func() error {
		defer release()
		err := e.volume.throwAway(id, e.size, s.keep)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		s.restore(id, e)
		return dfs.Errorf(dfs.Internal, "chunk %s could not be removed: %w", id, reason(err))
	})
	return s.ended(id, err, release)
}

// ended lets a claim go after a task on a chunk, unless the task still runs, and
// turns its error into one for the caller.
func (s *Store) ended(id dfs.ChunkID, err error, release func()) error {
	if errors.As(err, new(*noAnswer)) {
		return unanswered(id)
	}
	release()
	return err
}

// restore puts a chunk back into the index whose file is still there.
func (s *Store) restore(id dfs.ChunkID, e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.volume.serves() {
		s.ledger.add(id, e)
	}
}

// Quarantine takes a damaged chunk out of service and keeps the file for
// people. It fails with NotFound when the chunk is not held, and else like
// Ready.
func (s *Store) Quarantine(id dfs.ChunkID, why string) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	return s.quarantine(id, e.generation, why)
}

// quarantine leaves a file alone that has taken the place of the damaged one.
func (s *Store) quarantine(id dfs.ChunkID, generation uint64, why string) error {
	release, err := s.claim(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	e, ok := s.ledger.held.Get(id)
	if !ok || e.generation != generation {
		s.mu.Unlock()
		release()
		return notHeld(id)
	}
	s.ledger.condemn(id) // whatever becomes of the file
	s.mu.Unlock()
	s.Hurry()
	e.volume.log.Error("a damaged chunk goes into quarantine", "chunk", id, "why", why)
	err = e.volume.within(hangTimeout, "put a chunk into quarantine", func() error {
		defer release()
		return e.volume.moveAway(id)
	})
	return s.ended(id, err, release)
}

// moveAway puts the file of a chunk into quarantine.
func (v *volume) moveAway(id dfs.ChunkID) error {
	err := v.putAside(id, v.quarantineDir(), v.newName(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dfs.Errorf(dfs.Internal, "chunk %s could not be put into quarantine: %w", id, reason(err))
	}
	return nil
}

// putAside moves the file of a chunk into a directory, which is made anew if
// somebody has removed it. It fails with fs.ErrNotExist when there is no file.
func (v *volume) putAside(id dfs.ChunkID, dir, name string) error {
	from, to := v.path(id), filepath.Join(dir, name)
	err := v.disk.replace(from, to)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, missing := os.Lstat(from); missing != nil {
		return err
	}
	if made := os.Mkdir(dir, 0o700); made != nil {
		return made
	}
	return v.disk.replace(from, to)
}
