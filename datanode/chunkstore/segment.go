package chunkstore

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	segmentMagic  = "DFSSEGMT"
	segmentFormat = 1
	segmentHead   = 32 // bytes
	segmentSuffix = ".seg"

	recordMagic = "DFSR"
	recordHead  = 32 // bytes
	recordAlign = 8

	// maxSegment is the length beyond which a file cannot be a segment: places
	// in it have 32 bits.
	maxSegment = 1 << 31
)

// segmentName says which segment it is. The salt is random: it makes the
// checksums of one segment worthless in any other, and in any chunk.
type segmentName struct {
	number uint32 // from 1, never used again in its directory
	salt   uint64
}

// String is the name of the segment's files without their suffix.
func (n segmentName) String() string { return fmt.Sprintf("%08x-%016x", n.number, n.salt) }

// parseSegmentName accepts exactly what String writes.
func parseSegmentName(text string) (segmentName, bool) {
	number, salt, ok := strings.Cut(text, "-")
	if !ok {
		return segmentName{}, false
	}
	n, err := strconv.ParseUint(number, 16, 32)
	if err != nil {
		return segmentName{}, false
	}
	s, err := strconv.ParseUint(salt, 16, 64)
	if err != nil {
		return segmentName{}, false
	}
	name := segmentName{uint32(n), s}
	return name, n > 0 && name.String() == text
}

// sum is the checksum of what lies in the segment at some place.
func (n segmentName) sum(at uint32, p []byte) uint32 {
	var place [12]byte
	binary.LittleEndian.PutUint64(place[:], n.salt)
	binary.LittleEndian.PutUint32(place[8:], at)
	return uint32(dfs.ChecksumOf(place[:]).Update(p))
}

// head is the beginning of the segment.
func (n segmentName) head() []byte {
	b := append(make([]byte, 0, segmentHead), segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentFormat)
	b = binary.LittleEndian.AppendUint32(b, n.number)
	b = binary.LittleEndian.AppendUint64(b, n.salt)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, n.sum(0, b))
}

// checkHead fails with errNewer, or with a damage, which costs nothing: the
// name says the same.
func (n segmentName) checkHead(b []byte) error {
	if len(b) < segmentHead || string(b[:8]) != segmentMagic || n.sum(0, b[:28]) != binary.LittleEndian.Uint32(b[28:]) {
		return damage("its first bytes are not those of this segment")
	}
	if binary.LittleEndian.Uint32(b[8:]) != segmentFormat {
		return errNewer
	}
	return nil
}

// record is a chunk in a segment: what its header says, and where it lies.
type record struct {
	id      dfs.ChunkID
	at      uint32 // of the header
	size    uint32 // bytes of data
	crc     dfs.Checksum
	removed bool // the checksum is the complement of what it was
}

// recordSize is how long a record with so many bytes of data is.
func recordSize(size int64) int64 {
	return (recordHead + size + recordAlign - 1) / recordAlign * recordAlign
}

func (r record) length() int64 { return recordSize(int64(r.size)) }
func (r record) end() int64    { return int64(r.at) + r.length() }

func (r record) entry(segment uint32, volume uint8) entry {
	return entry{size: r.size, crc: r.crc, place: place{segment, r.at}, volume: volume}
}

// appendRecord appends the header and the data of a record. Durable is how much
// of the segment has been fsynced.
func (n segmentName) appendRecord(b []byte, r record, durable uint32, data []byte) []byte {
	from := len(b)
	b = append(b, recordMagic...)
	b = binary.LittleEndian.AppendUint32(b, r.size)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.id))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.crc))
	b = binary.LittleEndian.AppendUint32(b, durable)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, n.sum(r.at, b[from:]))
	b = append(b, data...)
	for range int(r.length()) - recordHead - len(data) {
		b = append(b, 0)
	}
	return b
}

// decodeHeader reads the header of the record at a place, if there is one.
func (n segmentName) decodeHeader(b []byte, at uint32) (r record, durable uint32, ok bool) {
	if len(b) < recordHead || string(b[:4]) != recordMagic {
		return record{}, 0, false
	}
	sum, want := binary.LittleEndian.Uint32(b[28:]), n.sum(at, b[:28])
	r = record{
		id:      dfs.ChunkID(binary.LittleEndian.Uint64(b[8:])),
		at:      at,
		size:    binary.LittleEndian.Uint32(b[4:]),
		crc:     dfs.Checksum(binary.LittleEndian.Uint32(b[16:])),
		removed: sum == ^want,
	}
	if sum != want && !r.removed || r.id == 0 || r.size < 1 || r.size > dfs.BlockSize {
		return record{}, 0, false
	}
	return r, binary.LittleEndian.Uint32(b[20:]), true
}

// sumOffset is where in a header its checksum is.
const sumOffset = recordHead - checksumSize
