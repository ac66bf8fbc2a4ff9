package cluster

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/dfs-go/dfs-go/cluster/wal"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	storeName    = "raft.db"
	storeTmpName = "raft.db.tmp"
	lockTimeout  = 2 * time.Second
	checksumSize = 4
)

// diskStore keeps the log, the term and the vote in one bbolt file, and the newest
// entries in a journal in front of it. Beyond those it
//
//   - ends every entry with a CRC-32C and checks it on the way back, since an
//     entry may lie on the disk for days before a follower needs it;
//   - reports a write that fails, or that takes longer than timeout, and writes
//     nothing more after that: a leader with a broken disk would otherwise go
//     on sending heartbeats and keep the whole group from working. A disk that
//     is merely full is no such failure: see room.
type diskStore struct {
	bolt    *raftboltdb.BoltStore
	log     *wal.Log // in front of bolt
	timeout time.Duration
	report  func(error)
	room    *room
	broken  atomic.Bool
	cut     atomic.Bool // the end of the log was deleted, and nothing was stored since
	leads   func() bool // nil: not yet
	term    *uint64     // of the vote that is being given; only raft's main loop votes
}

// openStore opens the store in dir and makes it when there is none. report is
// called with the reason when the node must not go on.
func openStore(dir string, timeout time.Duration, report func(error)) (*diskStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dfs.Errorf(dfs.Internal, "cannot make the directory of the Raft log: %w", err)
	}
	path := filepath.Join(dir, storeName)
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := refuseJournalAlone(dir); err != nil {
			return nil, err
		}
		err = createStore(dir)
	}
	if err != nil {
		return nil, dfs.Errorf(dfs.Internal, "cannot use the Raft log in %s: %w", dir, err)
	}
	if err := readThrough(path); err != nil {
		return nil, openFailure(path, err)
	}
	bolt, err := raftboltdb.New(boltOptions(path))
	if err != nil {
		return nil, openFailure(path, err)
	}
	taken := &room{path: path, reserve: roomReserve, take: takeBlocks, free: freeBytes}
	s := &diskStore{bolt: bolt, timeout: timeout, report: report, room: taken}
	if s.log, err = openJournal(filepath.Join(dir, journalName), bolt, s.write); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return s, nil
}

func boltOptions(path string) raftboltdb.Options {
	return raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        lockTimeout,
			NoFreelistSync: true, // else each commit rewrites a list that only grows
			FreelistType:   bbolt.FreelistMapType,
		},
	}
}

// createStore makes the file under another name first: a crash in the middle
// of it must not leave a file that cannot be opened.
func createStore(dir string) error {
	tmp := filepath.Join(dir, storeTmpName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	bolt, err := raftboltdb.New(boltOptions(tmp))
	if err != nil {
		return err
	}
	if err := bolt.Close(); err != nil {
		return err
	}
	if err := syncFile(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, storeName)); err != nil {
		return err
	}
	if err := syncFile(dir); err != nil {
		return err
	}
	return syncFile(filepath.Dir(dir))
}

// syncFile makes a file, or the names in a directory, durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// readThrough visits every page that holds data. bbolt answers damage with
// panics, some of them in goroutines of its own where nobody can catch them;
// here they become an error, before it is opened for writing.
func readThrough(path string) (err error) {
	defer damageAsError(&err)()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if err := checkLength(tx); err != nil {
			return err
		}
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

// checkLength finds a file that was cut off: pages that are missing at the end
// need not hold data today, but will be written to as if they existed.
func checkLength(tx *bbolt.Tx) error {
	info, err := os.Stat(tx.DB().Path())
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return dfs.Errorf(dfs.Corrupt, "it is %d bytes long instead of %d", info.Size(), tx.Size())
	}
	return nil
}

// damageAsError turns a panic, and a fault in mapped memory, into an error.
// Use it as: defer damageAsError(&err)()
func damageAsError(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		if p := recover(); p != nil {
			*err = dfs.Errorf(dfs.Corrupt, "damaged: %v", p)
		}
		debug.SetPanicOnFault(before)
	}
}

const rejoinAdvice = "remove this NameNode from the group, empty its whole meta-dir and let it join again"

func openFailure(path string, err error) error {
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return dfs.Errorf(dfs.Conflict, "%s is in use by another process: stop that one first", path)
	case errors.Is(err, fs.ErrPermission):
		return dfs.Errorf(dfs.Internal, "may not open %s: %w", path, err)
	case isFull(err):
		return dfs.Errorf(dfs.NoSpace, "no room for %s: free some space on that disk: %w", path, err)
	}
	return dfs.Errorf(dfs.Corrupt, "cannot open %s: %w: %s", path, err, rejoinAdvice)
}

// close leaves all entries in bolt, unless writing has failed before or there is no
// room: then the journal keeps them for the next start.
func (s *diskStore) close() error {
	end := s.log.Close
	if s.broken.Load() {
		end = s.log.Stop
	}
	err := end()
	if notWritten(err) {
		err = nil
	}
	return errors.Join(err, s.bolt.Close())
}

// fail reports err once and stops all writing.
func (s *diskStore) fail(err error) error {
	if !s.broken.Swap(true) {
		s.report(err)
	}
	return err
}

// write runs a write under the watchdog.
func (s *diskStore) write(what string, f func() error) error {
	if s.broken.Load() {
		return dfs.Errorf(dfs.Internal, "the Raft log is closed to writing after a failure")
	}
	watchdog := time.AfterFunc(s.timeout, func() {
		_ = s.fail(dfs.Errorf(dfs.Internal, "the disk has not completed a write (%s) for %s", what, s.timeout)) // reported
	})
	defer watchdog.Stop()
	if err := f(); notWritten(err) {
		return dfs.Errorf(dfs.NoSpace, "the disk is full (%s): %w", what, err) // raft makes do without
	} else if err != nil {
		return s.fail(dfs.Errorf(dfs.Internal, "the disk failed (%s): %w", what, err))
	}
	return nil
}

// FirstIndex is part of raft.LogStore.
func (s *diskStore) FirstIndex() (uint64, error) { return s.log.FirstIndex() }

// LastIndex is part of raft.LogStore.
func (s *diskStore) LastIndex() (uint64, error) { return s.log.LastIndex() }

// GetLog is part of raft.LogStore.
func (s *diskStore) GetLog(index uint64, entry *raft.Log) error {
	err := s.log.GetLog(index, entry)
	if errors.Is(err, raft.ErrLogNotFound) {
		return err // by identity: raft compares
	}
	if err == nil {
		err = unseal(index, entry)
	}
	if err != nil {
		return s.fail(dfs.Errorf(dfs.Corrupt, "entry %d of the Raft log is damaged (%w): %s", index, err, rejoinAdvice))
	}
	return nil
}

// StoreLog is part of raft.LogStore.
func (s *diskStore) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs is part of raft.LogStore. Raft goes on after an error, and in two
// cases as if there were none: when it has deleted entries to make place for
// these, it still believes in the end that the log had, and would acknowledge
// entries behind a hole; and a leader takes a configuration for the latest that
// it could not store. Only a new start cures these.
func (s *diskStore) StoreLogs(entries []*raft.Log) error {
	err := s.storeLogs(entries)
	if err == nil {
		s.cut.Store(false)
		return nil
	}
	if s.cut.Load() || s.leads != nil && s.leads() && slices.ContainsFunc(entries, isConfiguration) {
		return s.fail(dfs.Errorf(dfs.Internal, "the Raft log could not take entries that Raft relies on (%w); if the disk is full, free some space; then start this NameNode again", err))
	}
	return err
}

func isConfiguration(entry *raft.Log) bool { return entry.Type == raft.LogConfiguration }

func (s *diskStore) storeLogs(entries []*raft.Log) error {
	if err := s.room.admit(s.log.Pending()); err != nil {
		return err
	}
	sealed := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		sealed[i] = seal(entry)
	}
	return s.write("log entries", func() error { return s.log.StoreLogs(sealed) })
}

// DeleteRange is part of raft.LogStore.
func (s *diskStore) DeleteRange(first, last uint64) error {
	end, err := s.LastIndex()
	if err != nil {
		return err
	}
	if last >= end {
		s.cut.Store(true)
	}
	return s.write("deleting log entries", func() error { return s.log.DeleteRange(first, last) })
}

// What raft calls the two halves of a vote. It sets the term first.
const (
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
)

// Set is part of raft.StableStore. The term of a vote follows its candidate: half
// a vote is then one of an earlier term, which nobody asks for any more. The other
// way round it would be one for a candidate of earlier, whom raft would grant this
// term as well, without a look at its log.
func (s *diskStore) Set(key, value []byte) error {
	err := s.write("vote", func() error { return s.bolt.Set(key, value) })
	if err != nil || s.term == nil || string(key) != keyVoteCandidate {
		return err
	}
	term := *s.term
	s.term = nil
	return s.write("term of the vote", func() error { return s.bolt.SetUint64([]byte(keyVoteTerm), term) })
}

// SetUint64 is part of raft.StableStore.
func (s *diskStore) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm {
		s.term = &value
		return nil
	}
	return s.write("term", func() error { return s.bolt.SetUint64(key, value) })
}

// Get is part of raft.StableStore.
func (s *diskStore) Get(key []byte) ([]byte, error) { return s.bolt.Get(key) }

// GetUint64 is part of raft.StableStore.
func (s *diskStore) GetUint64(key []byte) (uint64, error) { return s.bolt.GetUint64(key) }

// seal returns a copy of entry, for the disk only, whose data ends with the
// checksum.
func seal(entry *raft.Log) *raft.Log {
	sealed := *entry
	sealed.Data = make([]byte, 0, len(entry.Data)+checksumSize)
	sealed.Data = append(sealed.Data, entry.Data...)
	sealed.Data = binary.BigEndian.AppendUint32(sealed.Data, uint32(entryChecksum(entry)))
	return &sealed
}

// unseal undoes seal in place.
func unseal(index uint64, entry *raft.Log) error {
	n := len(entry.Data) - checksumSize
	if n < 0 || entry.Index != index {
		return errors.New("not an entry")
	}
	want := dfs.Checksum(binary.BigEndian.Uint32(entry.Data[n:]))
	entry.Data = entry.Data[:n:n]
	if got := entryChecksum(entry); got != want {
		return errors.New("checksum " + got.String() + " instead of " + want.String())
	}
	return nil
}

// entryChecksum covers everything that raft acts on.
func entryChecksum(entry *raft.Log) dfs.Checksum {
	head := make([]byte, 0, 17)
	head = binary.BigEndian.AppendUint64(head, entry.Index)
	head = binary.BigEndian.AppendUint64(head, entry.Term)
	head = append(head, byte(entry.Type))
	return dfs.ChecksumOf(head).Update(entry.Data).Update(entry.Extensions)
}
