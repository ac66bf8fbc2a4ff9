package cluster

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// logCacheSize is how many of the newest entries stay in memory for followers
// that are just behind.
const logCacheSize = 512

// rebasedLog is the log as raft sees it. A snapshot that was installed from
// the leader replaces the log up to its index, also where a follower still
// held other entries that were never committed. Raft itself leaves those in
// place, is asked for the entry at the snapshot's index, finds the wrong term
// there and gets the same snapshot again, for ever (hashicorp/raft#697).
// Declaring the store monotonic does not help: raft then empties it, but goes
// on to believe in the last entry it had, until the next restart.
type rebasedLog struct {
	raft.LogStore // a raft.LogCache
	base          atomic.Pointer[snapshotEnd]
}

// snapshotEnd is the last entry that a snapshot contains.
type snapshotEnd struct {
	index, term uint64
}

// rebase is called when the state machine was restored from a snapshot. When
// the log holds the last entry of the snapshot, log and snapshot belong
// together and nothing changes. Otherwise the snapshot takes the place of all
// entries up to its end.
func (l *rebasedLog) rebase(end snapshotEnd) error {
	var entry raft.Log
	err := l.LogStore.GetLog(end.index, &entry)
	if err == nil && entry.Term == end.term {
		return nil
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	contradicts, err := l.endsAgainst(end)
	if err != nil {
		return err
	}
	l.base.Store(&end)
	first, err := l.FirstIndex()
	if err != nil || first == 0 || first > end.index {
		return err
	}
	if err := l.DeleteRange(first, end.index); err != nil {
		return err
	}
	if contradicts {
		return errEndsAgainst
	}
	return nil
}

// errEndsAgainst asks for a new start. Raft keeps the term of its last entry in
// mind, and believes in that rather than in a snapshot of the same index: it
// would refuse all that follows, and get the snapshot again, for ever.
var errEndsAgainst = errors.New("the Raft log ended just where the snapshot does, with an entry that was never committed: start this NameNode again")

// endsAgainst tells whether the last entry of the log has the index at which a
// snapshot ends, and another term.
func (l *rebasedLog) endsAgainst(end snapshotEnd) (bool, error) {
	last, err := l.LastIndex()
	if err != nil || last != end.index || last == 0 {
		return false, err
	}
	var entry raft.Log
	if err := l.LogStore.GetLog(last, &entry); err != nil {
		return false, err
	}
	return entry.Term != end.term, nil
}

// rebaseAtStart does what a rebase could not when the process ended before it,
// as long as raft has not read the end of the log.
func (l *rebasedLog) rebaseAtStart(snapshots raft.SnapshotStore) error {
	metas, err := snapshots.List()
	if err != nil || len(metas) == 0 {
		return err
	}
	end := snapshotEnd{index: metas[0].Index, term: metas[0].Term}
	contradicts, err := l.endsAgainst(end)
	if err != nil || !contradicts {
		return err
	}
	if err := l.rebase(end); !errors.Is(err, errEndsAgainst) {
		return err
	}
	return nil
}

// GetLog returns the entry at index. That of the base has a term only: it is
// asked for to see whether what follows it fits, never to be sent or applied,
// because raft sends a snapshot to a follower that needs the entries before it.
func (l *rebasedLog) GetLog(index uint64, entry *raft.Log) error {
	base := l.base.Load()
	switch {
	case base == nil || index > base.index:
		return l.LogStore.GetLog(index, entry)
	case index == base.index && index > 1: // nothing comes before the first entry
		*entry = raft.Log{Index: base.index, Term: base.term, Type: raft.LogNoop}
		return nil
	}
	return raft.ErrLogNotFound
}
