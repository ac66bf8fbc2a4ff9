package chunkstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const shardCount = 256

// volume is one data directory, on a disk of its own as a rule. It knows of
// files; which of them count is the ledger's business.
//
// There are three degrees of trouble. A stalled volume has not answered for a
// while and gets no new chunks until it does. One that has failed gets none
// until it is opened anew, but is read from. One that is gone is as if it had
// never been there.
type volume struct {
	index    uint8 // among those of the store
	segments *segments
	dir      string // as configured
	reserve  int64
	disk     disk
	ask      func(dir string) (figures, error) // askDisk outside tests
	log      hclog.Logger
	lock     *os.File

	id          string // of the directory; known after Open
	incarnation uint64 // for names that were never used
	named       atomic.Uint64

	allocation sync.Mutex // one chunk at a time asks for space and takes it
	shards     [shardCount]syncGroup

	saving sync.Mutex // of identity.json; guards saved
	saved  Identity   // what it says

	mu       sync.Mutex    // guards what follows
	failure  error         // why nothing is written any more
	gone     bool          // and nothing is read
	overdue  int           // tasks that have taken too long and have not ended
	unread   int           // those of them that only read
	busy     int           // tasks under way
	closed   bool          // no task begins any more
	idle     chan struct{} // closed when closed and not busy
	unlocked error         // what came of giving the lock free; set before idle is closed
	figures  figures
	writers  int   // chunks being written
	writing  int64 // bytes of files that they will have
	trash    trash
	badReads map[spot]struct{} // what could not be read since the last time that something could
}

func newVolume(dir string, config Config, log hclog.Logger) *volume {
	v := &volume{
		dir: dir, reserve: config.Reserve, disk: disk{config.Hook}, ask: askDisk, log: log.With("dir", dir), idle: make(chan struct{}),
	}
	v.segments = newSegments(v)
	return v
}

func (v *volume) takeLock() error {
	lock, err := os.OpenFile(filepath.Join(v.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return unreadable(v.dir, err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		_ = lock.Close() // nothing was written to it
		return dfs.Errorf(dfs.Conflict, "the data directory %s is in use by another process; stop that DataNode, or give this one its own directory", v.dir)
	}
	if err != nil {
		_ = lock.Close() // nothing was written to it
		return unreadable(v.dir, err)
	}
	v.lock = lock
	return nil
}

func (v *volume) unlock() error {
	err := v.segments.close()
	lock := v.lock
	v.lock = nil
	if lock == nil {
		return err
	}
	return errors.Join(err, lock.Close())
}

func (v *volume) identityPath() string  { return filepath.Join(v.dir, identityFile) }
func (v *volume) chunksDir() string     { return filepath.Join(v.dir, "chunks") }
func (v *volume) tempDir() string       { return filepath.Join(v.dir, "tmp") }
func (v *volume) quarantineDir() string { return filepath.Join(v.dir, "quarantine") }
func (v *volume) trashDir() string      { return filepath.Join(v.dir, "trash") }

func (v *volume) shardDir(shard int) string {
	return filepath.Join(v.chunksDir(), fmt.Sprintf("%02x", shard))
}

func shardOf(id dfs.ChunkID) int { return int(id & (shardCount - 1)) }

func (v *volume) path(id dfs.ChunkID) string {
	return filepath.Join(v.shardDir(shardOf(id)), id.String())
}

// newName is a name for a file of a chunk that is no longer held.
func (v *volume) newName(id dfs.ChunkID) string {
	return fmt.Sprintf("%s-%d-%d", id, v.incarnation, v.named.Add(1))
}

// fail ends writing for good.
func (v *volume) fail(what string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failure != nil {
		return
	}
	v.failure = dfs.Errorf(dfs.Internal, "the disk of this DataNode has failed (%s: %w); it takes no new chunks until it is repaired and restarted", what, reason(err))
	v.log.Error("the disk has failed; no chunk is written to it any more", "operation", what, "error", err)
}

// leave takes the volume out of service, and tells whether it was in service.
func (v *volume) leave(why error) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return false
	}
	v.gone, v.failure = true, why
	v.trash = trash{}
	return true
}

// serves tells whether chunks can be read.
func (v *volume) serves() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.gone
}

// answers tells whether the volume serves and nothing waits for it in vain.
func (v *volume) answers() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.gone && v.overdue == 0
}

// writable tells why no chunk is written here: nil, or an Internal error.
func (v *volume) writable() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.blocked()
}

// failed is writable for what is being written already: that may wait.
func (v *volume) failed() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failure
}

// blocked is writable under the lock.
func (v *volume) blocked() error {
	if v.failure == nil && v.overdue > 0 {
		return dfs.Errorf(dfs.Internal, "the disk of this DataNode does not answer; it takes no new chunks until it does")
	}
	return v.failure
}

// VolumeStatus is how one data directory is doing. Sizes are in bytes.
type VolumeStatus struct {
	Dir          string
	ID           string // random, of the directory; "" when it could not be told
	Capacity     int64  // of the file system
	Free         int64  // that chunks may still take; files in the trash count as free
	Used         int64  // by the data of chunks
	Chunks       int64
	TrashBytes   int64
	TrashFiles   int64 // chunks in the trash, packed ones too
	SegmentBytes int64 // of packed chunks, removed ones too
	DeadBytes    int64 // of packed chunks that were removed, and are gone when their segment is compacted
	Failure      error // why it takes no chunks, however full it is; nil when all is well
	Gone         bool  // out of service: its chunks do not count
}

// Volumes tells how the data directories are doing, in the configured order.
func (s *Store) Volumes() []VolumeStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]VolumeStatus, 0, len(s.volumes))
	for _, v := range s.volumes {
		status := v.status()
		held := s.ledger.on[v.index]
		packed := v.segments.status()
		status.SegmentBytes, status.DeadBytes = packed.bytes, packed.dead
		if !status.Gone {
			status.TrashBytes += packed.trashed
			status.TrashFiles += packed.chunks
		}
		status.Used, status.Chunks = held.used, held.count
		list = append(list, status)
	}
	return list
}

func (v *volume) status() VolumeStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	status := VolumeStatus{
		Dir: v.dir, ID: v.id, TrashBytes: v.trash.bytes, TrashFiles: v.trash.count(),
		Failure: v.blocked(), Gone: v.gone,
	}
	if !v.gone {
		status.Capacity = v.figures.capacity
	}
	if status.Failure == nil {
		status.Free = v.free()
	}
	return status
}
