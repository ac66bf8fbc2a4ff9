package chunkstore

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// MaxDirs is how many data directories a store can have.
const MaxDirs = 64

// Config says where a store is and whose it is.
type Config struct {
	Dirs      []string      // 1 to MaxDirs data directories; made when missing
	NodeID    dfs.NodeID    // a directory serves the node that it was made for
	Reserve   int64         // bytes of each disk that stay free; 0: the larger of 128 MiB and 1 %
	TrashKeep time.Duration // how long removed chunks stay in the trash; 0 removes them at once
	Unpacked  bool          // new small chunks get files of their own, like large ones
	Hook      Hook          // nil outside tests
	Logger    hclog.Logger
}

// Store keeps chunks in some data directories, its volumes. Its methods may be
// called concurrently.
type Store struct {
	volumes  []*volume // in the configured order, those out of service included
	keep     time.Duration
	unpacked bool
	buffers  *sync.Pool // of *recordBuffer
	log      hclog.Logger

	changing sync.Mutex // one change of the identity at a time
	identity atomic.Pointer[Identity]
	records  []volumeRecord // all volumes, for identity.json

	mu      sync.Mutex // guards what follows; never held during I/O
	ledger  ledger
	files   uint32                        // that were ever counted, so that none is taken for another
	claims  map[dfs.ChunkID]chan struct{} // IDs whose file is being changed
	unready error                         // why chunks cannot be asked for yet, or at all

	urgent chan struct{} // holds one when there is news that should not wait

	loaded   chan struct{} // closed when the directories have been read
	stop     context.CancelFunc
	loading  sync.WaitGroup
	probing  sync.Mutex // one Probe at a time
	emptying sync.Mutex // one EmptyTrash at a time
}

// Open takes possession of the data directories, makes them ready if they are
// new, and begins to find out what they hold: see Loaded. A directory that has
// lost its content, a disk that is not mounted for instance, is left out of
// service as long as another one serves. Open fails with Conflict when a
// directory is another node's or in use, Corrupt when its identity is damaged,
// Internal when files or memory are short, and Invalid when it cannot be read
// or written.
func Open(config Config) (*Store, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{
		keep:     config.TrashKeep,
		unpacked: config.Unpacked,
		buffers:  newRecordBuffers(),
		log:      config.Logger.Named("chunkstore"),
		claims:   make(map[dfs.ChunkID]chan struct{}),
		unready:  dfs.Errorf(dfs.Unavailable, "this DataNode is still reading its directories; try again in a moment"),
		urgent:   make(chan struct{}, 1),
		loaded:   make(chan struct{}),
		stop:     cancel,
	}
	for i, dir := range config.Dirs {
		v := newVolume(dir, config, s.log)
		v.index = uint8(i)
		v.segments.hold = func(writes []*packedWrite) { s.holdPacked(v, writes) }
		v.segments.alarm = s.Hurry
		s.volumes = append(s.volumes, v)
	}
	if err := s.open(config.NodeID); err != nil {
		close(s.loaded)
		return nil, errors.Join(err, s.Close())
	}
	s.loading.Go(func() { s.load(ctx) })
	return s, nil
}

func (c Config) check() error {
	if _, err := dfs.ParseNodeID(string(c.NodeID)); err != nil {
		return err
	}
	if c.Reserve < 0 || c.TrashKeep < 0 {
		return dfs.Errorf(dfs.Invalid, "neither the reserve nor the time in the trash can be negative")
	}
	if len(c.Dirs) == 0 || len(c.Dirs) > MaxDirs {
		return dfs.Errorf(dfs.Invalid, "%d data directories are given: 1 to %d are possible", len(c.Dirs), MaxDirs)
	}
	seen := make(map[string]bool)
	for _, dir := range c.Dirs {
		if dir == "" {
			return dfs.Errorf(dfs.Invalid, "a data directory has no name")
		}
		path, err := filepath.Abs(dir)
		if err != nil {
			return unreadable(dir, err)
		}
		if seen[path] {
			return dfs.Errorf(dfs.Invalid, "the data directory %s is given twice", dir)
		}
		seen[path] = true
	}
	return nil
}

// Close gives the directories free for other processes. It waits for what
// runs in the background, but not for ever: it fails with Internal when a disk
// does not answer; that directory is free when it does, or when the process has
// ended. Writers must be done.
func (s *Store) Close() error {
	s.stop()
	s.mu.Lock()
	s.unready = errClosed()
	s.mu.Unlock()
	s.loading.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), hangTimeout)
	defer cancel()
	var err error
	for _, v := range s.volumes {
		select {
		case <-v.close():
			err = errors.Join(err, v.unlocked)
		case <-ctx.Done():
			err = errors.Join(err, dfs.Errorf(dfs.Internal, "the disk of the data directory %s does not answer; it stays in use until it does or this process ends", v.dir))
		}
	}
	return err
}

func errClosed() error { return dfs.Errorf(dfs.Unavailable, "the chunk store is closed") }

// Loaded returns a channel that is closed when the directories have been read,
// or cannot be: Ready tells.
func (s *Store) Loaded() <-chan struct{} { return s.loaded }

// Ready tells why chunks cannot be asked for: nil when they can, Unavailable
// while the directories are being read and after Close, and else why reading
// them has failed, as Open would say it. Until then nothing is reported.
func (s *Store) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unready
}

// WaitLoaded waits until the directories have been read or ctx ends, and
// returns what Ready says then.
func (s *Store) WaitLoaded(ctx context.Context) error {
	select {
	case <-s.loaded:
	case <-ctx.Done():
	}
	return s.Ready()
}

// claim waits until nobody else changes the file of a chunk, and keeps others
// from it until release is called, once or more often. It fails with
// Unavailable when somebody else hangs.
func (s *Store) claim(id dfs.ChunkID) (release func(), err error) {
	mine := make(chan struct{})
	var patience *time.Timer
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
		if patience == nil {
			patience = time.NewTimer(writeTimeout)
			defer patience.Stop()
		}
		select {
		case <-other:
		case <-patience.C:
			return nil, unanswered(id)
		}
	}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.claims, id)
		s.mu.Unlock()
		close(mine)
	}), nil
}

// Stat tells what is held under an ID: nothing before Ready.
func (s *Store) Stat(id dfs.ChunkID) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.ledger.held.Get(id)
	return e.info(id), ok
}

// entry fails like Ready, and with NotFound.
func (s *Store) entry(id dfs.ChunkID) (entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unready != nil {
		return entry{}, s.unready
	}
	e, ok := s.ledger.held.Get(id)
	if !ok {
		return entry{}, notHeld(id)
	}
	return e, nil
}

// List returns up to limit chunks with an ID above after, in order.
func (s *Store) List(after dfs.ChunkID, limit int) []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Info
	s.ledger.held.Ascend(after, func(id dfs.ChunkID, e entry) bool {
		if id > after && len(list) < limit {
			list = append(list, e.info(id))
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
// last one back and merges it with what has changed meanwhile. Before Ready it
// is empty.
func (s *Store) Report(limit int) *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.report(limit)
}

// ReportPage is Report together with the part of the full inventory, at most
// limit chunks, that follows after. Both are of one moment. It is not to be
// called before Ready.
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
// reported without waiting: a chunk was found damaged, a directory has failed,
// or Hurry was called. It is for one reader; several pieces of news may be
// announced as one.
func (s *Store) Urgent() <-chan struct{} { return s.urgent }

// Hurry lets Urgent yield.
func (s *Store) Hurry() {
	select {
	case s.urgent <- struct{}{}:
	default: // announced already
	}
}
