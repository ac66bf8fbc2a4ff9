package chunkstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
)

// mark makes the removal of a record last: see decision 0013. A record that
// nobody would find at the next start needs no mark.
func (g *segments) mark(p place, length int64) error {
	seg := g.lookup(p.segment)
	if seg == nil {
		return errSegmentGone
	}
	seg.marking.Lock()
	defer seg.marking.Unlock()
	var bad damage
	err := error(damage("there is no index"))
	if seg.indexed > 0 {
		err = g.markIndex(seg, p.at)
	}
	if errors.As(err, &bad) || isMissing(err) { // the next start scans the segment
		err = g.markHeader(seg, p.at)
	}
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	g.count(p.segment, -length, 0)
	return nil
}

func (g *segments) markIndex(seg *segment, at uint32) error {
	disk := g.volume.disk
	f, err := disk.openToMark(g.index(seg.segmentName))
	if err != nil {
		return err
	}
	read := func(b []byte, offset int64) error { return disk.readWhole(f, b, offset) }
	r, offset, err := seg.findEntry(at, seg.indexed, read)
	if err == nil {
		r.removed = true
		last := indexEntry - checksumSize
		err = disk.writeAt(f, seg.appendEntry(nil, r)[last:], offset+int64(last))
	}
	return errors.Join(err, f.Close())
}

func (g *segments) markHeader(seg *segment, at uint32) error {
	disk := g.volume.disk
	f, err := disk.openToMark(g.path(seg.segmentName))
	if err != nil {
		return err
	}
	b := make([]byte, recordHead)
	if err = disk.readWhole(f, b, int64(at)); err == nil {
		r, _, ok := seg.decodeHeader(b, at)
		switch {
		case !ok:
			err = damage("the header of its record is damaged")
		case !r.removed:
			sum := ^binary.LittleEndian.Uint32(b[sumOffset:])
			err = disk.writeAt(f, binary.LittleEndian.AppendUint32(nil, sum), int64(at)+sumOffset)
		}
	}
	err = errors.Join(err, f.Close())
	var bad damage
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	// Also of a header that is damaged: the index, when there is one, must not
	// have the record.
	i, found := slices.BinarySearchFunc(seg.records, at, func(r record, at uint32) int { return cmp.Compare(r.at, at) })
	if found {
		seg.records[i].removed = true
	}
	return err
}
