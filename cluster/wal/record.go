package wal

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	headMagic   = "dfsjrnl1"
	headLength  = 56   // bytes; in one sector, which a disk writes wholly or not at all
	recordsFrom = 4096 // where the first record lies

	recordMagic = 0x314c4a52 // "RJL1"
	recordHead  = 32         // bytes
	recordAlign = 8          // records begin at multiples of it
	entryHead   = 25         // bytes
)

// ID tells which journal belongs to which store.
type ID [16]byte

// head is the beginning of a journal. All integers are little-endian:
//
//	 0  magic, 8 bytes
//	 8  id, 16 bytes
//	24  generation
//	32  size of the file in bytes
//	40  limit
//	48  how far the file has been written to at least once, in KiB, 4 bytes
//	52  CRC-32C of all before, 4 bytes
type head struct {
	id         ID
	generation uint64 // one more each time the journal is emptied: older records are none any more
	size       int64
	limit      uint64 // the store behind holds no entry beyond this one but those that went through the journal
	written    int64
}

func (h head) encode() []byte {
	b := make([]byte, 0, headLength)
	b = append(b, headMagic...)
	b = append(b, h.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.generation)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	b = binary.LittleEndian.AppendUint64(b, h.limit)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.written>>10))
	return binary.LittleEndian.AppendUint32(b, uint32(dfs.ChecksumOf(b)))
}

func decodeHead(b []byte) (head, error) {
	if len(b) < recordsFrom {
		return head{}, dfs.Errorf(dfs.Corrupt, "it is only %d bytes long", len(b))
	}
	b = b[:headLength]
	sum := binary.LittleEndian.Uint32(b[headLength-4:])
	if string(b[:8]) != headMagic || dfs.Checksum(sum) != dfs.ChecksumOf(b[:headLength-4]) {
		return head{}, dfs.Errorf(dfs.Corrupt, "its first bytes are damaged")
	}
	return head{
		id:         ID(b[8:24]),
		generation: binary.LittleEndian.Uint64(b[24:]),
		size:       int64(binary.LittleEndian.Uint64(b[32:])),
		limit:      binary.LittleEndian.Uint64(b[40:]),
		written:    int64(binary.LittleEndian.Uint32(b[48:])) << 10,
	}, nil
}

// A record is a header, the entries, and zeros up to a multiple of 8:
//
//	 0  magic, 4 bytes
//	 4  CRC-32C of id, generation, place in the file (8 bytes) and bytes 8 to 31, 4 bytes
//	 8  length of the entries in bytes, 4 bytes
//	12  CRC-32C of the entries, 4 bytes
//	16  index of the first entry, 8 bytes
//	24  number of entries, 4 bytes; 0 for a mark
//	28  0, 4 bytes
//
// An entry is its term (8 bytes), its type (1), when it was appended (8, Unix
// nanoseconds), the lengths of data and extensions (4 each), and those two.
type record struct {
	at     int64
	length int64 // of the entries, in bytes
	crc    dfs.Checksum
	first  uint64
	count  uint32
}

func (r record) end() int64 { return r.at + sizeOf(r.length) }

// sizeOf returns what a record with so many bytes of entries takes.
func sizeOf(length int64) int64 {
	return recordHead + (length+recordAlign-1)/recordAlign*recordAlign
}

// payload returns how many bytes entries take in a record.
func payload(entries []*raft.Log) int64 {
	var n int64
	for _, e := range entries {
		n += entryHead + int64(len(e.Data)) + int64(len(e.Extensions))
	}
	return n
}

// appendRecord appends the record of entries, or a mark when there are none,
// that is to lie at a place in the file.
func (h head) appendRecord(b []byte, at int64, entries []*raft.Log) []byte {
	start := len(b)
	b = append(b, make([]byte, recordHead)...)
	for _, e := range entries {
		b = appendEntry(b, e)
	}
	header, body := b[start:start+recordHead], b[start+recordHead:]
	binary.LittleEndian.PutUint32(header, recordMagic)
	binary.LittleEndian.PutUint32(header[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(header[12:], uint32(dfs.ChecksumOf(body)))
	if len(entries) > 0 {
		binary.LittleEndian.PutUint64(header[16:], entries[0].Index)
	}
	binary.LittleEndian.PutUint32(header[24:], uint32(len(entries)))
	binary.LittleEndian.PutUint32(header[4:], h.headerSum(at, header))
	for len(b)%recordAlign != start%recordAlign {
		b = append(b, 0)
	}
	return b
}

func appendEntry(b []byte, e *raft.Log) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.Term)
	b = append(b, byte(e.Type))
	b = binary.LittleEndian.AppendUint64(b, uint64(unixNano(e.AppendedAt)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Extensions)))
	b = append(b, e.Data...)
	return append(b, e.Extensions...)
}

// headerSum covers where the record lies and in which generation, so that no
// copy of a record and no older one is taken for one. Two generations that follow
// each other never have the same sum, as they differ in less than 32 bits.
func (h head) headerSum(at int64, header []byte) uint32 {
	var place [32]byte
	copy(place[:], h.id[:])
	binary.LittleEndian.PutUint64(place[16:], h.generation)
	binary.LittleEndian.PutUint64(place[24:], uint64(at))
	return uint32(dfs.ChecksumOf(place[:]).Update(header[8:recordHead]))
}

// decodeHeader reads the header at a place of the file, if there is one. That the
// record lies within the file is part of it.
func (h head) decodeHeader(image []byte, at int64) (record, bool) {
	if at+recordHead > int64(len(image)) {
		return record{}, false
	}
	b := image[at : at+recordHead]
	if binary.LittleEndian.Uint32(b) != recordMagic || binary.LittleEndian.Uint32(b[4:]) != h.headerSum(at, b) {
		return record{}, false
	}
	r := record{
		at:     at,
		length: int64(binary.LittleEndian.Uint32(b[8:])),
		crc:    dfs.Checksum(binary.LittleEndian.Uint32(b[12:])),
		first:  binary.LittleEndian.Uint64(b[16:]),
		count:  binary.LittleEndian.Uint32(b[24:]),
	}
	return r, r.end() <= int64(len(image))
}

var errNoEntries = errors.New("not log entries")

// decodeEntries returns the entries of a record. Their data lie in body.
func decodeEntries(body []byte, first uint64, count uint32) ([]*raft.Log, error) {
	if int64(count)*entryHead > int64(len(body)) || first > math.MaxUint64-uint64(count) {
		return nil, errNoEntries
	}
	entries := make([]*raft.Log, 0, count)
	for i := range count {
		if len(body) < entryHead {
			return nil, errNoEntries
		}
		data := uint64(binary.LittleEndian.Uint32(body[17:]))
		extensions := uint64(binary.LittleEndian.Uint32(body[21:]))
		if uint64(len(body)-entryHead) < data+extensions {
			return nil, errNoEntries
		}
		e := &raft.Log{
			Index:      first + uint64(i),
			Term:       binary.LittleEndian.Uint64(body),
			Type:       raft.LogType(body[8]),
			AppendedAt: fromUnixNano(int64(binary.LittleEndian.Uint64(body[9:]))),
		}
		body = body[entryHead:]
		e.Data, body = body[:data:data], body[data:]
		e.Extensions, body = body[:extensions:extensions], body[extensions:]
		entries = append(entries, e)
	}
	if len(body) > 0 {
		return nil, errNoEntries
	}
	return entries, nil
}

const noTime = math.MinInt64

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.UnixNano()
}

func fromUnixNano(n int64) time.Time {
	if n == noTime {
		return time.Time{}
	}
	return time.Unix(0, n)
}
