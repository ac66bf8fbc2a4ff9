package chunkstore

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// minReserve keeps room for two of the largest chunks.
const minReserve = 2 * dfs.MaxChunkSize

// Space is what the disks of a store have, in bytes.
type Space struct {
	Capacity int64 // of the whole file systems
	Free     int64 // that chunks may still take: what is available beyond the reserves, never negative
}

// figures are what a file system said last. A disk that hangs must not hang
// those who only ask how full it is, so they are remembered.
type figures struct {
	device    uint64 // tells file systems apart
	capacity  int64
	available int64 // beyond the reserve; negative when the reserve is not there
}

// measure asks the file system, and remembers what it says.
func (v *volume) measure() error {
	f, err := v.ask(v.dir)
	if err != nil {
		return err
	}
	reserve := v.reserve
	if reserve == 0 {
		reserve = max(minReserve, f.capacity/100)
	}
	f.available -= reserve
	v.mu.Lock()
	defer v.mu.Unlock()
	v.figures = f
	return nil
}

// askDisk asks the file system of a directory. What it says is available is
// without a reserve.
func askDisk(dir string) (figures, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return figures{}, err
	}
	f := figures{
		capacity:  int64(stat.Blocks) * int64(stat.Bsize),
		available: int64(stat.Bavail) * int64(stat.Bsize),
	}
	info, err := os.Stat(dir)
	if err != nil {
		return figures{}, err
	}
	if unixStat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.device = uint64(unixStat.Dev)
	}
	return f, nil
}

// free is called under the lock. What is in the trash can be had at any time.
func (v *volume) free() int64 { return max(0, v.figures.available+v.trash.bytes) }

// room is free for those without the lock.
func (v *volume) room() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.free()
}

// Space sums up the directories that serve, as they were when they were asked
// last: by Probe, or for a new chunk. Two directories on one file system count
// it once, and one that takes no chunks has no room. An error means that no
// directory serves.
func (s *Store) Space() (Space, error) {
	devices := make(map[uint64]*deviceSpace)
	for _, v := range s.volumes {
		v.addTo(devices)
	}
	if len(devices) == 0 {
		return Space{}, dfs.Errorf(dfs.Internal, "no data directory of this DataNode is in service; look at its log")
	}
	var sum Space
	for _, d := range devices {
		sum.Capacity += d.capacity
		if d.writable {
			sum.Free += max(0, d.available+d.trash)
		}
	}
	return sum, nil
}

type deviceSpace struct {
	capacity, available, trash int64
	writable                   bool
}

func (v *volume) addTo(devices map[uint64]*deviceSpace) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return
	}
	d := devices[v.figures.device]
	if d == nil {
		d = &deviceSpace{}
		devices[v.figures.device] = d
	}
	d.capacity = v.figures.capacity
	if v.blocked() != nil {
		return
	}
	if !d.writable || v.figures.available < d.available {
		d.available = v.figures.available // the careful figure: the other may be older
	}
	d.trash += v.trash.bytes
	d.writable = true
}

// Writable tells why the store takes no chunks: nil while a directory has room
// for a chunk of the default size, NoSpace when none has, Internal when all
// disks have failed, and else what Ready says.
func (s *Store) Writable() error {
	if err := s.Ready(); err != nil {
		return err
	}
	var failure, full error
	for _, v := range s.volumes {
		if err := v.writable(); err != nil {
			failure = err
			continue
		}
		free := v.room()
		if free >= fileSize(dfs.DefaultChunkSize) {
			return nil
		}
		full = dfs.Errorf(dfs.NoSpace, "the disk is full: %d bytes are free beyond the reserve; delete files or add a DataNode", free)
	}
	if full != nil {
		return full
	}
	return failure
}

// linkAndUnlink renames without replacing, in two steps. A crash between them
// leaves a second name in tmp, which the next start removes.
func linkAndUnlink(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
