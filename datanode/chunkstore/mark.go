package chunkstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// headersAtOnce is how many headers are marked at a time in a segment without an
// index: the log writer may wait for it.
const headersAtOnce = 16

// removal is a packed chunk that is not held any more, and what comes of the
// removal of its record.
type removal struct {
	id    dfs.ChunkID
	entry entry
	err   error
}

func (r *removal) length() int64 { return recordSize(int64(r.entry.size)) }

func failAll(removals []*removal, err error) {
	for _, r := range removals {
		r.err = err
	}
}

// isDamage tells whether err is of the content of a file rather than of the disk.
func isDamage(err error) bool { return errors.As(err, new(damage)) }

// mark makes removals last, all of one segment and in order: see decision 0013. A
// record that nobody would find at the next start needs no mark.
func (g *segments) mark(number uint32, removals []*removal) {
	seg := g.lookup(number)
	if seg == nil {
		failAll(removals, errSegmentGone)
		return
	}
	for rest := removals; len(rest) > 0; {
		rest = rest[g.markSome(seg, rest):]
	}
}

// markSome marks the first of some records, and returns how many.
func (g *segments) markSome(seg *segment, removals []*removal) (n int) {
	seg.marking.Lock()
	defer seg.marking.Unlock()
	if seg.indexed > 0 {
		g.markIndex(seg, removals)
	} else {
		removals = removals[:min(len(removals), headersAtOnce)]
		failAll(removals, damage("there is no index"))
	}
	var scanned []*removal // what the next start finds by scanning the segment
	for _, r := range removals {
		if isDamage(r.err) || isMissing(r.err) {
			scanned = append(scanned, r)
		}
	}
	if len(scanned) > 0 {
		g.markHeaders(seg, scanned)
	}
	for _, r := range scanned {
		if isDamage(r.err) {
			r.err = nil
		}
	}
	return len(removals)
}

func (g *segments) markIndex(seg *segment, removals []*removal) {
	disk := g.volume.disk
	f, err := disk.openToMark(g.index(seg.segmentName))
	if err != nil {
		failAll(removals, err)
		return
	}
	read := nearby(seg.indexed, func(b []byte, offset int64) error { return disk.readWhole(f, b, offset) })
	next := int64(0) // entry to be looked at
	for _, one := range removals {
		r, offset, err := seg.findEntry(one.entry.at, next, seg.indexed, read)
		if err == nil {
			next = (offset-indexHead)/indexEntry + 1
			r.removed = true
			last := indexEntry - checksumSize
			err = disk.writeAt(f, seg.appendEntry(nil, r)[last:], offset+int64(last))
		}
		one.err = err
	}
	if err := f.Close(); err != nil {
		for _, one := range removals {
			one.err = errors.Join(one.err, err)
		}
	}
}

func (g *segments) markHeaders(seg *segment, removals []*removal) {
	f, err := g.volume.disk.openToMark(g.path(seg.segmentName))
	if err != nil {
		failAll(removals, err)
		return
	}
	for _, one := range removals {
		one.err = g.markHeader(seg, f, one.entry.at)
	}
	err = f.Close()
	for _, one := range removals {
		one.err = errors.Join(one.err, err)
		if one.err != nil && !isDamage(one.err) {
			continue
		}
		// Also of a header that is damaged: the index, when there is one, must not
		// have the record.
		i, found := slices.BinarySearchFunc(seg.records, one.entry.at, func(r record, at uint32) int { return cmp.Compare(r.at, at) })
		if found {
			seg.records[i].removed = true
		}
	}
}

func (g *segments) markHeader(seg *segment, f *os.File, at uint32) error {
	b := make([]byte, recordHead)
	if err := g.volume.disk.readWhole(f, b, int64(at)); err != nil {
		return err
	}
	r, _, ok := seg.decodeHeader(b, at)
	switch {
	case !ok:
		return damage("the header of its record is damaged")
	case r.removed:
		return nil
	}
	sum := ^binary.LittleEndian.Uint32(b[sumOffset:])
	return g.volume.disk.writeAt(f, binary.LittleEndian.AppendUint32(nil, sum), int64(at)+sumOffset)
}
