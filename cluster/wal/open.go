package wal

import (
	"bytes"
	"errors"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	fileSize    = 8 << 20  // bytes; also bounds what is held in memory
	maxFileSize = 64 << 20 // that is read at a start
)

// Guard runs a write, and tells others when it fails or takes too long. It may
// refuse to.
type Guard func(what string, write func() error) error

// settings are different in tests.
type settings struct {
	interval time.Duration // until what has come is carried
	gathered int64         // bytes that are carried at once
	read     func(path string) ([]byte, error)
	open     func(path string) (storage, error)
}

func defaults() settings {
	return settings{interval: time.Second, gathered: 1 << 20, read: read, open: openStorage}
}

func openStorage(path string) (storage, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return diskFile{f}, err
}

// Open carries to base what the journal at path holds, and starts a log of both.
// guard runs the writes of the carrier. An error with the code dfs.Corrupt means
// that the journal is damaged, or not the one of this base: acknowledged entries
// may be lost.
func Open(path string, id ID, base raft.LogStore, guard Guard) (*Log, error) {
	return open(path, id, base, guard, defaults())
}

func open(path string, id ID, base raft.LogStore, guard Guard, s settings) (*Log, error) {
	image, err := s.read(path)
	if err != nil {
		return nil, err
	}
	h, entries, err := scan(image)
	if err != nil {
		return nil, err
	}
	if h.id != id {
		return nil, dfs.Errorf(dfs.Corrupt, "it belongs to another log")
	}
	missing, err := compare(base, h, entries)
	if err != nil {
		return nil, err
	}
	storage, err := s.open(path)
	if err != nil {
		return nil, err
	}
	f := &file{storage: storage, head: h, end: recordsFrom, written: h.written}
	last, err := restore(base, f, missing)
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	l := &Log{
		base: base, guard: guard, settings: s, file: f, last: last,
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	go l.run()
	return l, nil
}

// Empty tells whether a journal without damage holds no entries.
func Empty(path string) (bool, error) {
	image, err := read(path)
	if err != nil {
		return false, err
	}
	_, entries, err := scan(image)
	return err == nil && len(entries) == 0, err
}

// restore brings to base what it lacks, empties the journal, and returns with which
// entry the log ends. The last record may be seen although it will never be on the
// disk: after a power failure in here, base may hold more than the journal.
func restore(base raft.LogStore, f *file, missing []*raft.Log) (uint64, error) {
	if n := len(missing); n > 0 {
		if err := f.announce(missing[n-1].Index); err != nil {
			return 0, err
		}
		if err := base.StoreLogs(missing); err != nil {
			return 0, err
		}
	}
	last, err := base.LastIndex()
	if err != nil {
		return 0, err
	}
	return last, f.empty(last)
}

// compare returns the entries that base lacks, after making sure that the two belong
// together.
func compare(base raft.LogStore, h head, entries []*raft.Log) ([]*raft.Log, error) {
	last, err := base.LastIndex()
	if err != nil {
		return nil, err
	}
	end := h.limit
	if n := len(entries); n > 0 {
		end = max(end, entries[n-1].Index)
	}
	if last > end {
		return nil, dfs.Errorf(dfs.Corrupt, "it ends with entry %d, while the log behind it goes on to %d: entries are missing, or another version has written to that", end, last)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	first := entries[0].Index
	if last > 0 && last+1 < first {
		return nil, dfs.Errorf(dfs.Corrupt, "it begins with entry %d, while the log behind it ends with %d", first, last)
	}
	for len(entries) > 0 && entries[0].Index <= last {
		if err := checkSame(base, entries[0]); err != nil {
			return nil, err
		}
		entries = entries[1:]
	}
	return entries, nil
}

// checkSame refuses an entry that base holds otherwise. What base has deleted
// behind the back of the journal counts as that.
func checkSame(base raft.LogStore, e *raft.Log) error {
	var held raft.Log
	switch err := base.GetLog(e.Index, &held); {
	case errors.Is(err, raft.ErrLogNotFound):
		return dfs.Errorf(dfs.Corrupt, "the log behind it lacks entry %d", e.Index)
	case err != nil:
		return err
	}
	if held.Index != e.Index || held.Term != e.Term || held.Type != e.Type ||
		!bytes.Equal(held.Data, e.Data) || !bytes.Equal(held.Extensions, e.Extensions) {
		return dfs.Errorf(dfs.Corrupt, "the log behind it has another entry %d", e.Index)
	}
	return nil
}
