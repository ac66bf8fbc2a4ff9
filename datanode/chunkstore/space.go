package chunkstore

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// minReserve keeps room for two of the largest chunks.
const minReserve = 2 * dfs.MaxChunkSize

// Space is what the disk of a store has, in bytes.
type Space struct {
	Capacity int64 // of the whole file system
	Free     int64 // that chunks may still take: what is available beyond the reserve, never negative
}

// Space asks the file system. An error means that the disk does not answer.
func (s *Store) Space() (Space, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(s.dir, &stat); err != nil {
		return Space{}, dfs.Errorf(dfs.Internal, "the free space of %s cannot be told: %w", s.dir, err)
	}
	capacity := int64(stat.Blocks) * int64(stat.Bsize)
	available := int64(stat.Bavail) * int64(stat.Bsize)
	reserve := s.reserve
	if reserve == 0 {
		reserve = max(minReserve, capacity/100)
	}
	return Space{Capacity: capacity, Free: max(0, available-reserve)}, nil
}

// Writable tells why the store takes no chunks: nil while it does, NoSpace when
// there is no room for a chunk of the default size, Internal when the disk has
// failed.
func (s *Store) Writable() error {
	if err := s.failed(); err != nil {
		return err
	}
	space, err := s.Space()
	if err != nil {
		return err
	}
	if space.Free < fileSize(dfs.DefaultChunkSize) {
		return dfs.Errorf(dfs.NoSpace, "the disk is full: %d bytes are free beyond the reserve; delete files or add a DataNode", space.Free)
	}
	return nil
}

// linkAndUnlink renames without replacing, in two steps. A crash between them
// leaves a second name in tmp, which the next start removes.
func linkAndUnlink(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
