package chunkstore

import (
	"encoding/binary"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	indexMagic  = "DFSINDEX"
	indexFormat = 1
	indexHead   = 40 // bytes
	indexEntry  = 24 // bytes
	indexSuffix = ".idx"

	// maxIndex is longer than the index of any segment.
	maxIndex = indexHead + maxSegment/recordHead*indexEntry
)

// encodeIndex lists the records of a segment, in order, of which so many bytes
// are used.
func (n segmentName) encodeIndex(records []record, length int64) []byte {
	b := make([]byte, 0, indexHead+len(records)*indexEntry)
	b = append(b, indexMagic...)
	b = binary.LittleEndian.AppendUint32(b, indexFormat)
	b = binary.LittleEndian.AppendUint32(b, n.number)
	b = binary.LittleEndian.AppendUint64(b, n.salt)
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(records)))
	b = binary.LittleEndian.AppendUint32(b, n.sum(0, b))
	for _, r := range records {
		b = n.appendEntry(b, r)
	}
	return b
}

func (n segmentName) appendEntry(b []byte, r record) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.id))
	b = binary.LittleEndian.AppendUint32(b, r.at)
	b = binary.LittleEndian.AppendUint32(b, r.size)
	b = binary.LittleEndian.AppendUint32(b, uint32(r.crc))
	sum := n.sum(r.at, b[from:])
	if r.removed {
		sum = ^sum
	}
	return binary.LittleEndian.AppendUint32(b, sum)
}

// decodeIndex returns the records and how much of the segment is used. An index
// in which anything is wrong is of no use.
func (n segmentName) decodeIndex(b []byte) (records []record, length int64, ok bool) {
	if len(b) < indexHead || string(b[:8]) != indexMagic || n.sum(0, b[:36]) != binary.LittleEndian.Uint32(b[36:]) ||
		binary.LittleEndian.Uint32(b[8:]) != indexFormat {
		return nil, 0, false
	}
	length = int64(binary.LittleEndian.Uint64(b[24:]))
	count := int64(binary.LittleEndian.Uint32(b[32:]))
	if length < segmentHead || length > maxSegment || int64(len(b)) != indexHead+count*indexEntry {
		return nil, 0, false
	}
	records = make([]record, 0, count)
	end := int64(segmentHead)
	for b = b[indexHead:]; len(b) > 0; b = b[indexEntry:] {
		r, ok := n.decodeEntry(b)
		if !ok || int64(r.at) < end || r.end() > length {
			return nil, 0, false
		}
		end = r.end()
		records = append(records, r)
	}
	return records, length, true
}

func (n segmentName) decodeEntry(b []byte) (record, bool) {
	r := record{
		id:   dfs.ChunkID(binary.LittleEndian.Uint64(b)),
		at:   binary.LittleEndian.Uint32(b[8:]),
		size: binary.LittleEndian.Uint32(b[12:]),
		crc:  dfs.Checksum(binary.LittleEndian.Uint32(b[16:])),
	}
	sum, want := binary.LittleEndian.Uint32(b[20:]), n.sum(r.at, b[:20])
	r.removed = sum == ^want
	return r, (sum == want || r.removed) && r.id != 0 && r.size >= 1 && r.size <= dfs.BlockSize && r.at%recordAlign == 0
}

// findEntry looks for the record at a place in an index that read reads, from so
// many entries on, and returns where its entry is. It looks first at what is near
// the beginning, unless that is the beginning of the index: who looks for many, in
// order, begins behind the last one.
func (n segmentName) findEntry(at uint32, from, count int64, read func(b []byte, offset int64) error) (r record, offset int64, err error) {
	b := make([]byte, indexEntry)
	step := int64(0)
	if from == 0 {
		step = count
	}
	for low, high := from, count; low < high; step = 2*step + 1 {
		middle := min(low+step, (low+high)/2)
		offset = indexHead + middle*indexEntry
		if err := read(b, offset); err != nil {
			return record{}, 0, err
		}
		r, ok := n.decodeEntry(b)
		switch {
		case !ok:
			return record{}, 0, damage("an entry of the index is damaged")
		case r.at == at:
			return r, offset, nil
		case r.at < at:
			low = middle + 1
		default:
			high = middle
		}
	}
	return record{}, 0, damagef("the index does not have the record at byte %d", at)
}

// nearby reads entries of an index with so many, a page of the file at a time:
// those that are looked for next are close by, as a rule.
func nearby(count int64, read func(b []byte, offset int64) error) func(b []byte, offset int64) error {
	const page = 4096
	end := indexHead + count*indexEntry
	buffer := make([]byte, page+indexEntry) // the last entry of a page may end in the next
	var start, length int64                 // of what is in the buffer
	return func(b []byte, offset int64) error {
		if offset < start || offset+int64(len(b)) > start+length {
			start = offset - offset%page
			length = min(int64(len(buffer)), end-start)
			if err := read(buffer[:length], start); err != nil {
				length = 0
				return err
			}
		}
		copy(b, buffer[offset-start:])
		return nil
	}
}
