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

// Config says where a store is and whose it is.
type Config struct {
	Dir     string     // made when missing
	NodeID  dfs.NodeID // a directory serves the node that it was made for
	Reserve int64      // bytes of the disk that stay free; 0: the larger of 128 MiB and 1 %
	Hook    Hook       // nil outside tests
	Logger  hclog.Logger
}

// Store is one data directory. Its methods may be called concurrently.
type Store struct {
	dir     string
	reserve int64
	disk    disk
	log     hclog.Logger
	lock    *os.File

	identityMu sync.Mutex
	identity   Identity

	mu         sync.Mutex // guards what follows; never held during I/O
	ledger     ledger
	generation uint64
	claims     map[dfs.ChunkID]chan struct{} // IDs whose file is being changed
	failure    error                         // why nothing is written any more

	urgent chan struct{} // holds one when there is news that should not wait

	allocation sync.Mutex // one Create at a time asks for space and takes it
	shards     [shardCount]syncGroup
	nextTemp   atomic.Uint64
	nextBad    atomic.Uint64
}

// Open takes possession of a data directory, makes it ready if it is new, and
// finds out what it holds. It fails with Conflict when the directory is another
// node's, in use or of a newer version, Corrupt when its identity is damaged,
// Internal when files or memory are short, and Invalid when it cannot be read
// or written.
func Open(config Config) (*Store, error) {
	if _, err := dfs.ParseNodeID(string(config.NodeID)); err != nil {
		return nil, err
	}
	if config.Dir == "" || config.Reserve < 0 {
		return nil, dfs.Errorf(dfs.Invalid, "a data directory and a reserve of at least 0 bytes are needed")
	}
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	s := &Store{
		dir:     config.Dir,
		reserve: config.Reserve,
		disk:    disk{config.Hook},
		log:     config.Logger.Named("chunkstore"),
		claims:  make(map[dfs.ChunkID]chan struct{}),
		urgent:  make(chan struct{}, 1),
	}
	if err := s.open(config.NodeID); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(node dfs.NodeID) error {
	if err := s.makeDataDir(); err != nil {
		return unreadable(s.dir, err)
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if err := s.makeDirectories(); err != nil {
		return err
	}
	if err := s.claimDirectory(node); err != nil {
		return err
	}
	return s.recover()
}

// Close gives the directory free for another process. Writers must be done.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.failure == nil {
		s.failure = dfs.Errorf(dfs.Unavailable, "the chunk store is closed")
	}
	lock := s.lock
	s.lock = nil
	s.mu.Unlock()
	if lock == nil {
		return nil
	}
	return lock.Close()
}

func (s *Store) takeLock() error {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return unreadable(s.dir, err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		_ = lock.Close() // nothing was written to it
		return dfs.Errorf(dfs.Conflict, "the data directory %s is in use by another process; stop that DataNode, or give this one its own directory", s.dir)
	}
	if err != nil {
		_ = lock.Close() // nothing was written to it
		return unreadable(s.dir, err)
	}
	s.lock = lock
	return nil
}

func (s *Store) chunksDir() string     { return filepath.Join(s.dir, "chunks") }
func (s *Store) tempDir() string       { return filepath.Join(s.dir, "tmp") }
func (s *Store) quarantineDir() string { return filepath.Join(s.dir, "quarantine") }

func (s *Store) shardDir(shard int) string {
	return filepath.Join(s.chunksDir(), fmt.Sprintf("%02x", shard))
}

func shardOf(id dfs.ChunkID) int { return int(id & (shardCount - 1)) }

func (s *Store) path(id dfs.ChunkID) string {
	return filepath.Join(s.shardDir(shardOf(id)), id.String())
}

// claim waits until nobody else changes the file of a chunk, and keeps others
// from it until release is called.
func (s *Store) claim(id dfs.ChunkID) (release func()) {
	mine := make(chan struct{})
	for {
		s.mu.Lock()
		other, busy := s.claims[id]
		if !busy {
			s.claims[id] = mine
		}
		s.mu.Unlock()
		if !busy {
			break
		}
		<-other
	}
	return func() {
		s.mu.Lock()
		delete(s.claims, id)
		s.mu.Unlock()
		close(mine)
	}
}

// fail ends writing for good.
func (s *Store) fail(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return
	}
	s.failure = dfs.Errorf(dfs.Internal, "the disk of this DataNode has failed (%s: %w); it takes no new chunks until it is repaired and restarted", what, reason(err))
	s.log.Error("the disk has failed; no chunk is written any more", "dir", s.dir, "operation", what, "error", err)
}

func (s *Store) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// Stat tells what is held under an ID.
func (s *Store) Stat(id dfs.ChunkID) (Info, bool) {
	e, ok := s.entry(id)
	return Info{ID: id, Size: e.size, CRC32C: e.crc}, ok
}

func (s *Store) entry(id dfs.ChunkID) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.held.Get(id)
}

// List returns up to limit chunks with an ID above after, in order.
func (s *Store) List(after dfs.ChunkID, limit int) []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Info
	s.ledger.held.Ascend(after, func(id dfs.ChunkID, e entry) bool {
		if id > after && len(list) < limit {
			list = append(list, Info{ID: id, Size: e.size, CRC32C: e.crc})
		}
		return len(list) < limit
	})
	return list
}

// Totals sums up what is held.
type Totals struct {
	Count  int64
	Used   int64 // bytes of data
	Digest dfs.Digest
}

// Totals sums up what is held.
func (s *Store) Totals() Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Totals{Count: int64(s.ledger.held.Len()), Used: s.ledger.used, Digest: s.ledger.digest}
}

// Report returns the changes, at most limit, since the last report that was
// acknowledged. One report is open at a time: calling Report again takes the
// last one back and merges it with what has changed meanwhile.
func (s *Store) Report(limit int) *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.report(limit)
}

// ReportPage is Report together with the part of the full inventory, at most
// limit chunks, that follows after. Both are of one moment.
func (s *Store) ReportPage(after uint64, limit int) *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.reportPage(after, limit)
}

// Acknowledge says that a report has arrived. Only the latest one can.
func (s *Store) Acknowledge(r *Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.acknowledge(r)
}

// Urgent returns a channel that yields when there is news that should be
// reported without waiting: a chunk was found damaged, or Hurry was called. It
// is for one reader; several pieces of news may be announced as one.
func (s *Store) Urgent() <-chan struct{} { return s.urgent }

// Hurry lets Urgent yield.
func (s *Store) Hurry() {
	select {
	case s.urgent <- struct{}{}:
	default: // announced already
	}
}
