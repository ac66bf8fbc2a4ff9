package chunkstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

const (
	// segmentSize is how long a segment gets, and segmentStep how much of it is
	// allocated at a time.
	segmentSize = 64 << 20
	segmentStep = 1 << 20

	// segmentRecords is how many records make a segment full, however small they
	// are: their list is in memory while it is written to.
	segmentRecords = 1 << 17

	// maxOpenSegments is how many files of segments a volume has open at a time,
	// besides those that are being read.
	maxOpenSegments = 128
)

// segments are where the small chunks of a volume lie. Only the last one is
// written to, by the log writer (log.go); the others are sealed.
type segments struct {
	volume *volume
	limit  int64 // of the length of a segment; segmentSize outside tests
	steps  int64 // segmentStep outside tests

	hold  func([]*packedWrite) // puts durable records into the index
	alarm func()               // tells that the disk has failed

	mu      sync.Mutex // guards what follows; never held during I/O
	known   map[uint32]*segment
	last    uint32   // the highest number that was ever used
	next    *batch   // takes what is to be written; nil when nothing is
	ending  *segment // to be sealed, if it is being written to; nil when none is
	writing bool     // the log writer is at work
	open    int      // files
	closed  bool
	trash   []waiting // the oldest first

	trashed, trashedChunks int64 // bytes and chunks in trash

	log logWriter // of whoever is at work
}

// segment is one file with records, and its index once it is sealed.
type segment struct {
	segmentName

	marking sync.Mutex // one removal at a time, and none while the index is written; guards records and indexed
	records []record   // of the one that is written to, in order
	indexed int64      // records in the index file; 0 while there is none

	// Guarded by segments.mu.
	file    *os.File // nil when it is not open
	users   int      // of file
	sealed  bool     // nothing is appended any more
	gone    bool     // unlinked
	failed  bool     // something in it cannot be read: it is not compacted
	length  int64    // bytes up to the end of the last durable record
	live    int64    // bytes of records that are not removed
	waiting int64    // bytes of removed records in the trash
}

func newSegments(v *volume) *segments {
	return &segments{volume: v, limit: segmentSize, steps: segmentStep, known: make(map[uint32]*segment)}
}

func (g *segments) dir() string { return filepath.Join(g.volume.dir, "segments") }

func (g *segments) path(n segmentName) string {
	return filepath.Join(g.dir(), n.String()+segmentSuffix)
}
func (g *segments) index(n segmentName) string { return filepath.Join(g.dir(), n.String()+indexSuffix) }

// errSegmentGone is of a place in a segment that is not there any more: what
// lived in it has been copied elsewhere.
var errSegmentGone = errors.New("the segment has been given up")

func (g *segments) lookup(number uint32) *segment {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[number]
}

// acquire opens the file of a segment, or finds it open. Who acquires must
// release.
func (g *segments) acquire(number uint32) (*segment, *os.File, error) {
	g.mu.Lock()
	seg := g.known[number]
	if seg == nil {
		g.mu.Unlock()
		return nil, nil, errSegmentGone
	}
	seg.users++
	f := seg.file
	g.mu.Unlock()
	if f != nil {
		return seg, f, nil
	}
	f, err := g.volume.disk.open(g.path(seg.segmentName))
	g.mu.Lock()
	spare := f
	if err == nil && seg.file == nil {
		spare, seg.file = nil, f
		g.open++
	}
	if err == nil {
		f = seg.file // somebody else may have been quicker
	}
	g.mu.Unlock()
	if spare != nil {
		_ = spare.Close() // only read from
	}
	if err != nil {
		g.release(seg)
		if errors.Is(err, fs.ErrNotExist) && g.lookup(number) != seg {
			err = errSegmentGone
		}
		return nil, nil, err
	}
	return seg, f, nil
}

// release closes what nobody needs: the file of a segment that is gone, and any
// when too many are open.
func (g *segments) release(seg *segment) {
	g.mu.Lock()
	seg.users--
	var idle *os.File
	if seg.gone || g.closed {
		idle = g.takeIdle(seg)
	} else if g.open > maxOpenSegments {
		for _, other := range g.known {
			if idle = g.takeIdle(other); idle != nil {
				break
			}
		}
	}
	g.mu.Unlock()
	if idle != nil {
		_ = idle.Close() // what was written has been fsynced
	}
}

// takeIdle takes the file of a segment if nobody uses it: under the lock.
func (g *segments) takeIdle(seg *segment) *os.File {
	if seg.users > 0 || seg.file == nil || !seg.sealed && !g.closed {
		return nil
	}
	f := seg.file
	seg.file = nil
	g.open--
	return f
}

// close closes all files, those that are being read when that has ended.
func (g *segments) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	var err error
	for _, seg := range g.known {
		if f := g.takeIdle(seg); f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// unlink removes a segment in which nothing is worth keeping.
func (g *segments) unlink(seg *segment) {
	g.mu.Lock()
	delete(g.known, seg.number)
	seg.gone = true
	idle := g.takeIdle(seg)
	g.mu.Unlock()
	if idle != nil {
		_ = idle.Close() // nothing in it matters
	}
	g.discard(g.path(seg.segmentName))
	g.discard(g.index(seg.segmentName)) // the next start removes one that is alone
}

// discard removes a file that nobody needs.
func (g *segments) discard(path string) {
	if err := g.volume.disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.volume.log.Warn("a file that is not needed stays until the next start", "path", path, "error", err)
	}
}

// readRecord reads the record of a chunk into b, which has its length without
// the padding, and checks all of it. It fails with a damage, errSegmentGone, or
// the error of the disk.
func (g *segments) readRecord(want record, number uint32, b []byte) error {
	seg, f, err := g.acquire(number)
	if err != nil {
		return err
	}
	defer g.release(seg)
	if err := g.volume.disk.readWhole(f, b, int64(want.at)); err != nil {
		return err
	}
	return seg.check(want, b)
}

// check compares a record that was read with what it should be. The mark of a
// removal does not count: the index decides what is held.
func (n segmentName) check(want record, b []byte) error {
	got, _, ok := n.decodeHeader(b, want.at)
	got.removed = want.removed
	switch {
	case !ok:
		return damage("the header of its record is damaged")
	case got != want:
		return damage("the record is that of another chunk")
	}
	return checkRecordData(want, b)
}

// Counting, for those without the lock.
func (g *segments) count(number uint32, live, waiting int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seg := g.known[number]; seg != nil {
		seg.live += live
		seg.waiting += waiting
	}
}
