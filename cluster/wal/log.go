package wal

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Log is a raft.LogStore: a journal and the store behind it, as one log. All
// methods may be called concurrently. Entries that were stored must not be changed
// any more.
type Log struct {
	base     raft.LogStore
	guard    Guard
	settings settings

	// Locks are taken in this order.
	changes  sync.Mutex // one change at a time, for as long as it takes
	file     *file      // under changes
	carrying sync.Mutex // one transaction at a time
	failed   error      // of base, for good; under carrying
	mu       sync.RWMutex
	pending  []*raft.Log // in the journal, one after the other, and not yet in base
	bytes    int64       // of pending
	last     uint64      // entry; 0 in an empty log

	wake, hurry chan struct{} // one token each: something is pending; much is
	stop, ended chan struct{} // of the carrier
	closing     sync.Once
	closed      error
}

// FirstIndex is part of raft.LogStore.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	first, err := l.base.FirstIndex()
	if err == nil && first == 0 && len(l.pending) > 0 {
		first = l.pending[0].Index
	}
	return first, err
}

// LastIndex is part of raft.LogStore.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, nil
}

// GetLog is part of raft.LogStore.
func (l *Log) GetLog(index uint64, entry *raft.Log) error {
	if e := l.inMemory(index); e != nil {
		*entry = *e
		return nil
	}
	return l.base.GetLog(index, entry) // an entry leaves memory after it has come here
}

func (l *Log) inMemory(index uint64) *raft.Log {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.pending) == 0 || index < l.pending[0].Index || index > l.last {
		return nil
	}
	return l.pending[index-l.pending[0].Index]
}

// StoreLog is part of raft.LogStore.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs is part of raft.LogStore. When the journal is full, it waits until all
// was carried.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.changes.Lock()
	defer l.changes.Unlock()
	length := payload(entries)
	size := sizeOf(length)
	if !l.follow(entries) || size > l.file.capacity() {
		return l.storeBehind(entries)
	}
	if l.file.used()+size > l.file.capacity() {
		if err := l.settle(l.last); err != nil {
			return err
		}
	}
	if err := l.file.append(entries); err != nil {
		return err
	}
	l.mu.Lock()
	l.pending = append(l.pending, entries...)
	l.bytes += length
	l.last = entries[len(entries)-1].Index
	much := l.bytes >= l.settings.gathered
	l.mu.Unlock()
	signal(l.wake)
	if much {
		signal(l.hurry)
	}
	return nil
}

// follow tells whether entries go on where the log ends. An empty log begins
// anywhere.
func (l *Log) follow(entries []*raft.Log) bool {
	next := l.last + 1
	if l.last == 0 {
		next = max(1, entries[0].Index)
	}
	for i, e := range entries {
		if e.Index != next+uint64(i) {
			return false
		}
	}
	return true
}

// storeBehind stores what the journal cannot take.
func (l *Log) storeBehind(entries []*raft.Log) error {
	limit := l.last
	for _, e := range entries {
		limit = max(limit, e.Index)
	}
	if err := l.settle(limit); err != nil {
		return err
	}
	return l.changeBase(func() error { return l.base.StoreLogs(entries) })
}

// DeleteRange is part of raft.LogStore.
func (l *Log) DeleteRange(first, last uint64) error {
	l.changes.Lock()
	defer l.changes.Unlock()
	if err := l.settle(l.last); err != nil { // or what is deleted would come back at the next start
		return err
	}
	return l.changeBase(func() error { return l.base.DeleteRange(first, last) })
}

// changeBase changes base while nothing is pending.
func (l *Log) changeBase(change func() error) error {
	l.carrying.Lock()
	err := l.behind(change)
	l.carrying.Unlock()
	if err != nil {
		return err
	}
	last, err := l.base.LastIndex()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.last = last
	l.mu.Unlock()
	return nil
}

// Pending returns how many bytes of entries are in the journal and not yet in the
// store behind it.
func (l *Log) Pending() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.bytes
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is a token already
	}
}
