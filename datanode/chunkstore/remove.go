package chunkstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Neither way of removing is followed by an fsync: a chunk that a power cut
// brings back is reported like any other, and judged again.

// Remove deletes a chunk. It fails with NotFound when it is not held.
func (s *Store) Remove(id dfs.ChunkID) error {
	release := s.claim(id)
	defer release()
	s.mu.Lock()
	e, _ := s.ledger.held.Get(id)
	removed := s.ledger.remove(id)
	s.mu.Unlock()
	if !removed {
		return notHeld(id)
	}
	err := s.disk.remove(s.path(id))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.mu.Lock()
	s.ledger.add(id, e) // it is still there
	s.mu.Unlock()
	return dfs.Errorf(dfs.Internal, "chunk %s could not be removed: %w", id, reason(err))
}

// Quarantine takes a damaged chunk out of service and keeps the file for
// people. It fails with NotFound when the chunk is not held.
func (s *Store) Quarantine(id dfs.ChunkID, why string) error {
	e, ok := s.entry(id)
	if !ok {
		return notHeld(id)
	}
	return s.quarantine(id, e.generation, why)
}

// quarantine leaves a file alone that has taken the place of the damaged one.
func (s *Store) quarantine(id dfs.ChunkID, generation uint64, why string) error {
	release := s.claim(id)
	defer release()
	s.mu.Lock()
	e, ok := s.ledger.held.Get(id)
	if !ok || e.generation != generation {
		s.mu.Unlock()
		return notHeld(id)
	}
	s.ledger.condemn(id) // whatever becomes of the file
	s.mu.Unlock()
	s.Hurry()
	return s.moveAway(id, why)
}

func (s *Store) moveAway(id dfs.ChunkID, why string) error {
	s.log.Error("a damaged chunk goes into quarantine", "chunk", id, "why", why)
	name := fmt.Sprintf("%s-%d-%d", id, s.Identity().Incarnation, s.nextBad.Add(1))
	err := s.disk.replace(s.path(id), filepath.Join(s.quarantineDir(), name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dfs.Errorf(dfs.Internal, "chunk %s could not be put into quarantine: %w", id, reason(err))
	}
	return nil
}
