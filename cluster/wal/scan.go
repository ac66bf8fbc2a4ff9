package wal

import (
	"encoding/binary"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// scan returns the entries of a journal, given all its bytes. What was perhaps
// never acknowledged, at the end, is left out. Everything else that is not as it
// was written is dfs.Corrupt.
func scan(image []byte) (head, []*raft.Log, error) {
	h, err := decodeHead(image)
	if err != nil {
		return head{}, nil, err
	}
	if int64(len(image)) != h.size {
		return head{}, nil, dfs.Errorf(dfs.Corrupt, "it is %d bytes long instead of %d", len(image), h.size)
	}
	var entries []*raft.Log
	at := int64(recordsFrom)
	for {
		more, next, err := h.next(image, at)
		if err != nil {
			return head{}, nil, err
		}
		if len(more) == 0 {
			break
		}
		if n := len(entries); n > 0 && more[0].Index != entries[n-1].Index+1 {
			return head{}, nil, dfs.Errorf(dfs.Corrupt, "entry %d follows entry %d", more[0].Index, entries[n-1].Index)
		}
		entries = append(entries, more...)
		at = next
	}
	if later, ok := h.laterHeader(image, at); ok {
		return head{}, nil, dfs.Errorf(dfs.Corrupt, "the record at byte %d is damaged, and was durable when the one at byte %d was written", at, later)
	}
	return h, entries, nil
}

// next returns the entries of the record at a place, and where the next one
// begins; none when there is no whole record, or a mark.
func (h head) next(image []byte, at int64) ([]*raft.Log, int64, error) {
	r, ok := h.decodeHeader(image, at)
	if !ok || r.count == 0 {
		return nil, at, nil
	}
	body := image[at+recordHead:][:r.length]
	if dfs.ChecksumOf(body) != r.crc {
		return nil, at, nil
	}
	entries, err := decodeEntries(body, r.first, r.count)
	if err != nil {
		return nil, at, dfs.Errorf(dfs.Corrupt, "the record at byte %d: %w", at, err)
	}
	return entries, r.end(), nil
}

// laterHeader looks for a record or a mark behind a place.
func (h head) laterHeader(image []byte, at int64) (int64, bool) {
	for at += recordAlign; at+recordHead <= int64(len(image)); at += recordAlign {
		if binary.LittleEndian.Uint32(image[at:]) != recordMagic {
			continue
		}
		if _, ok := h.decodeHeader(image, at); ok {
			return at, true
		}
	}
	return 0, false
}
