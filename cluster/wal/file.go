package wal

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// chunkSize is how many bytes are filled with zeros ahead, together with a
// record: the first write to a block, though it belongs to the file, would cost its
// fdatasync a commit of the file system besides.
const chunkSize = 256 << 10

// storage is what a journal needs of a file.
type storage interface {
	WriteAt(p []byte, offset int64) (int, error)
	SyncData() error
	Close() error
}

type diskFile struct{ *os.File }

func (f diskFile) SyncData() error { return syncData(f.File) }

// file is a journal that is written to, by one caller at a time.
type file struct {
	storage storage
	head    head
	end     int64 // of the last record; there lies its mark
	written int64 // so far the file has been written to
	touched bool  // since it was emptied; what found no room may have left a record, too
	buffer  []byte
	failed  error // of the first write that failed, after which there is none
}

var errFailed = errors.New("the journal cannot be written to after a failure")

// used returns how many bytes of records there are.
func (f *file) used() int64 { return f.end - recordsFrom }

// capacity is how many bytes of records, marks left out, there can be.
func (f *file) capacity() int64 { return f.head.size - recordsFrom - recordHead }

// append makes a record of entries, for which there must be room, durable.
func (f *file) append(entries []*raft.Log) error {
	record := f.head.appendRecord(f.buffer[:0], f.end, entries)
	end := f.end + int64(len(record))
	b := record
	if need := end + recordHead; need > f.written {
		ahead := min((need+chunkSize-1)/chunkSize*chunkSize, f.head.size)
		b = append(b, make([]byte, ahead-end)...)
	}
	if cap(record) <= chunkSize {
		f.buffer = record[:0]
	}
	f.touched = true
	if err := f.write(b, f.end); err != nil {
		return err
	}
	if err := f.sync(); err != nil {
		return err
	}
	f.written = max(f.written, f.end+int64(len(b)))
	f.end = end
	return f.mark()
}

// mark writes, without waiting for the disk, that the last record is durable.
func (f *file) mark() error {
	if err := f.write(f.head.appendRecord(f.buffer[:0], f.end, nil), f.end); err != nil {
		return f.giveUp(err) // the record is there, but will not be told of
	}
	return nil
}

// reset is empty, and a failure of it is final.
func (f *file) reset(limit uint64) error {
	if err := f.empty(limit); err != nil {
		return f.giveUp(err) // who knows which head is there
	}
	return nil
}

// empty empties the journal. Everything in it must be durable elsewhere. limit is
// the last entry that the store behind may hold from now on without the journal.
func (f *file) empty(limit uint64) error {
	h := f.head
	h.generation++
	h.limit, h.written = limit, f.written
	if err := f.writeHead(h); err != nil {
		return err
	}
	f.end, f.touched = recordsFrom, false
	return nil
}

// announce lets the store behind hold entries up to limit, without emptying the
// journal.
func (f *file) announce(limit uint64) error {
	h := f.head
	h.limit = max(h.limit, limit)
	return f.writeHead(h)
}

func (f *file) writeHead(h head) error {
	if err := f.write(h.encode(), 0); err != nil {
		return err
	}
	if err := f.sync(); err != nil {
		return err
	}
	f.head = h
	return nil
}

// write fails for good unless the disk is full: then nothing counts as written,
// and the same place is written to the next time.
func (f *file) write(b []byte, at int64) error {
	if f.failed != nil {
		return f.failed
	}
	_, err := f.storage.WriteAt(b, at)
	if err != nil && !isFull(err) {
		f.failed = errors.Join(errFailed, err)
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// giveUp fails for good, and keeps only the text of err: a full disk is no way out
// here.
func (f *file) giveUp(err error) error {
	if errors.Is(err, errFailed) {
		return err
	}
	f.failed = errors.Join(errFailed, errors.New(err.Error()))
	return f.failed
}

func (f *file) sync() error {
	err := f.storage.SyncData()
	if err != nil {
		f.failed = errors.Join(errFailed, err)
	}
	return err
}

// Create makes an empty journal, in the place of one that may be there. An error
// that wraps syscall.ENOSPC says that there is no room for it.
func Create(path string, id ID) error { return create(path, id, fileSize) }

// newHead is of a journal that was never in front of a store: that may hold
// anything.
func newHead(id ID, size int64) head {
	return head{id: id, size: size, limit: math.MaxUint64, written: recordsFrom}
}

func create(path string, id ID, size int64) error {
	tmp := path + ".tmp"
	if err := writeEmpty(tmp, newHead(id, size)); err != nil {
		_ = os.Remove(tmp) // the next try writes over it
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeEmpty(path string, h head) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = allocate(f, h.size)
	if err == nil {
		_, err = f.WriteAt(append(h.encode(), make([]byte, recordsFrom-headLength)...), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// read returns all bytes of a journal, and refuses what is too long for one.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFileSize {
		return nil, dfs.Errorf(dfs.Corrupt, "it is %d bytes long", info.Size())
	}
	return os.ReadFile(path)
}
