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
	if err == nil && !s.volumes[e.volume].answers() {
		err = unanswered(id) // or it has just gone
	}
	if err != nil {
		release()
		return err
	}
	v := s.volumes[e.volume]
	s.mu.Lock()
	removed := s.ledger.remove(id)
	s.mu.Unlock()
	if !removed {
		release()
		return notHeld(id) // its directory went out of service this moment
	}
	err = v.within(hangTimeout, "remove a chunk", func() error {
		defer release()
		return s.removed(id, e, v.throwAway(id, e, s.keep))
	})
	return s.ended(id, err, release)
}

// removed says what has come of a removal: when the disk has refused, the chunk is
// held again.
func (s *Store) removed(id dfs.ChunkID, e entry, err error) error {
	if err == nil || isMissing(err) || errors.Is(err, errSegmentGone) {
		return nil
	}
	s.restore(id, e)
	return dfs.Errorf(dfs.Internal, "chunk %s could not be removed: %w", id, reason(err))
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
	if s.volumes[e.volume].serves() {
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
	return s.quarantine(id, e.place, why)
}

// quarantine leaves alone what has taken the place of the damaged bytes.
func (s *Store) quarantine(id dfs.ChunkID, where place, why string) error {
	release, err := s.claim(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	e, ok := s.ledger.held.Get(id)
	if !ok || e.place != where {
		s.mu.Unlock()
		release()
		return notHeld(id)
	}
	s.ledger.condemn(id) // whatever becomes of the file
	s.mu.Unlock()
	s.Hurry()
	v := s.volumes[e.volume]
	v.log.Error("a damaged chunk goes into quarantine", "chunk", id, "why", why)
	err = v.within(hangTimeout, "put a chunk into quarantine", func() error {
		defer release()
		return v.moveAway(id, e)
	})
	return s.ended(id, err, release)
}

// moveAway puts the bytes of a chunk into quarantine.
func (v *volume) moveAway(id dfs.ChunkID, e entry) error {
	var err error
	if e.packed() {
		err = v.copyAway(id, e)
	} else {
		err = v.putAside(id, v.quarantineDir(), v.newName(id))
	}
	if err != nil && !isMissing(err) && !errors.Is(err, errSegmentGone) {
		return dfs.Errorf(dfs.Internal, "chunk %s could not be put into quarantine: %w", id, reason(err))
	}
	return nil
}

// copyAway writes what can be read of a packed chunk to a chunk file in
// quarantine, and removes the record. When that fails the segment stays, with
// the only copy of the damaged bytes: compacting would not end with it.
func (v *volume) copyAway(id dfs.ChunkID, e entry) (err error) {
	defer func() {
		if seg := v.segments.lookup(e.segment); err != nil && seg != nil {
			v.segments.setAside(seg)
		}
	}()
	data, err := v.readPacked(id, e)
	var bad damage
	switch {
	case err == nil, errors.As(err, &bad):
		if err := v.writeChunkFile(filepath.Join(v.quarantineDir(), v.newName(id)), e.info(id), data); err != nil {
			return err
		}
	case IsUnreadable(err):
		v.log.Warn("nothing is left of a damaged chunk for the quarantine", "chunk", id, "error", err)
	default:
		return err
	}
	return v.segments.throwAway(e, 0)
}

// writeChunkFile writes the file that the chunk would have if it were not
// packed, and makes it durable, but not its name.
func (v *volume) writeChunkFile(path string, info Info, data []byte) error {
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := v.disk.create(path)
	if err != nil {
		return err
	}
	foot := footer{id: info.ID, size: info.Size, crc: info.CRC32C, blocks: []dfs.Checksum{info.CRC32C}}
	if err = v.disk.write(f, append(data, foot.encode()...)); err == nil {
		err = v.disk.syncFile(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = v.disk.remove(path) // the error says enough
	}
	return err
}

// putAside moves the file of a chunk into a directory, which is made anew if
// somebody has removed it. It fails with fs.ErrNotExist when there is no file.
func (v *volume) putAside(id dfs.ChunkID, dir, name string) error {
	from, to := v.path(id), filepath.Join(dir, name)
	err := v.disk.replace(from, to)
	if !isMissing(err) {
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
