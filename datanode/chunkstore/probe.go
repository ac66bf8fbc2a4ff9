package chunkstore

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxBadReads is how many different chunks in a row a disk may refuse to read
// before it is taken for dead. One bad sector is one chunk.
const maxBadReads = 3

const probeSize = 512 // bytes

// Probe looks after each directory: whether it is still there and this
// node's, how full it is, and whether it takes a file. One that is not there is
// taken out of service, and its chunks count as removed; one that takes no file
// gets no new chunks. It is to be called every few seconds, and returns after
// ten seconds even when a disk hangs.
func (s *Store) Probe() {
	s.probing.Lock()
	defer s.probing.Unlock()
	s.onEach("probe", func(v *volume) error {
		s.probe(v)
		return nil
	})
}

func (s *Store) probe(v *volume) {
	if why := v.missing(s.Identity().Instance); why != nil {
		s.lose(v, why)
		return
	}
	if err := v.measure(); err != nil {
		if isVanished(err) {
			s.lose(v, err)
		}
		return
	}
	if v.writable() != nil {
		return
	}
	what, err := v.tryWriting()
	if err == nil {
		what, err = "write "+identityFile, s.catchUp(v)
	}
	if err != nil && !isFull(err) && !isShortage(err) {
		v.fail(what, err)
		s.Hurry()
	}
}

// missing tells why the directory is not what was opened: nil while it is, or
// while that cannot be told.
func (v *volume) missing(instance string) error {
	for _, path := range []string{v.dir, v.identityPath()} {
		if err := v.disk.before(OpStat, path); err != nil {
			return vanished(err)
		}
	}
	found, err := readIdentity(v.identityPath())
	switch {
	case dfs.CodeOf(err) == dfs.Corrupt:
		v.fail("read "+identityFile, err)
		return nil
	case err != nil:
		return vanished(err)
	case found.Instance != instance || found.Volume != v.id:
		return errors.New("another directory has taken its place")
	}
	return nil
}

// vanished is err if it says that the directory is not there.
func vanished(err error) error {
	if isVanished(err) {
		return err
	}
	return nil // of the process, not of the disk
}

// tryWriting writes a file as a chunk is written, and removes it.
func (v *volume) tryWriting() (what string, err error) {
	path := filepath.Join(v.tempDir(), fmt.Sprintf("probe-%d", v.named.Add(1)))
	f, err := v.disk.create(path)
	if err != nil {
		return "create a file", err
	}
	what = "write"
	if err = v.disk.write(f, make([]byte, probeSize)); err == nil {
		what, err = "fsync of a file", v.disk.syncFile(f)
	}
	if closed := f.Close(); err == nil && closed != nil {
		what, err = "close", closed
	}
	if removed := v.disk.remove(path); err == nil && removed != nil {
		what, err = "remove a file", removed
	}
	return what, err
}

// lose takes a volume out of service: its chunks are removed from what is
// held, and that is reported. What comes back is found at the next start.
func (s *Store) lose(v *volume, why error) {
	gone := dfs.Errorf(dfs.Internal, "a data directory of this DataNode is out of service (%w); repair or mount the disk, and start this DataNode again", reason(why))
	if !v.leave(gone) {
		return
	}
	s.mu.Lock()
	lost := s.ledger.removeAll(v.index) // hold adds nothing to a volume that is gone
	s.mu.Unlock()
	v.log.Error("the data directory is out of service", "why", why, "chunks", lost)
	s.Hurry()
}

// spot is a part of the disk that may be bad by itself: a file, or some
// neighbourhood in a segment, where one bad sector can be of many chunks.
type spot struct {
	file    dfs.ChunkID
	segment uint32
	part    uint32
}

const spotSize = 1 << 20 // bytes of a segment

func spotOf(id dfs.ChunkID, where place) spot {
	if where.packed() {
		return spot{segment: where.segment, part: where.at / spotSize}
	}
	return spot{file: id}
}

// readFailed notes that the disk refused to read a chunk, and readWell that it
// did read the data of one: a footer may come from memory although the disk is
// dead. When several different ones fail and none succeeds between, the disk is
// taken for dead.
func (s *Store) readFailed(v *volume, at spot, err error) {
	if !isBadRead(err) {
		return
	}
	v.mu.Lock()
	if v.badReads == nil {
		v.badReads = make(map[spot]struct{})
	}
	v.badReads[at] = struct{}{}
	dead := len(v.badReads) >= maxBadReads
	v.mu.Unlock()
	if dead {
		s.lose(v, fmt.Errorf("%d chunks in a row could not be read: %w", maxBadReads, reason(err)))
	}
}

func (v *volume) readWell() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.badReads = nil
}

// stillThere finds out, when a file has vanished, whether the whole directory
// has, or another is in its place: then nothing is known of the chunk.
func (s *Store) stillThere(v *volume) bool {
	why := v.missing(s.Identity().Instance)
	if why == nil {
		return true
	}
	s.lose(v, why)
	return false
}
