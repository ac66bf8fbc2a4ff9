package wal

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// journalOf makes a journal with a record for each of batches, and returns where
// they begin; the last place is that of the mark.
func journalOf(size int64, batches ...[]*raft.Log) (image []byte, places []int64) {
	h := newHead(testID, size)
	image = make([]byte, size)
	copy(image, h.encode())
	at := int64(recordsFrom)
	for _, batch := range append(batches, nil) {
		places = append(places, at)
		at += int64(copy(image[at:], h.appendRecord(nil, at, batch)))
	}
	return image, places
}

// FuzzJournal starts from a file of any bytes, with a head of any bytes or one that
// is as it should be: what is accepted can be gone on with.
func FuzzJournal(f *testing.F) {
	whole, places := journalOf(8<<10, entries(1, 3, 1, 20), entries(4, 4, 2, 500))
	h := newHead(testID, 8<<10)
	f.Add([]byte{}, whole[recordsFrom:])
	f.Add([]byte{}, whole[recordsFrom:places[1]])
	f.Add([]byte{}, []byte{})
	f.Add(h.encode(), whole[recordsFrom:])
	f.Add(h.encode()[:20], []byte{})
	// What has the right checksums, and is nonsense: entries that do not follow each other.
	f.Add([]byte{}, h.appendRecord(h.appendRecord(nil, recordsFrom, entries(1, 1, 1, 7)), recordsFrom+64, entries(3, 3, 1, 7)))
	f.Fuzz(func(t *testing.T, first, records []byte) {
		if len(first) > recordsFrom || len(records) > 1<<20 {
			return
		}
		image := slices.Concat(make([]byte, recordsFrom), records)
		if len(first) == 0 {
			first = newHead(testID, int64(len(image))).encode()
		}
		copy(image, first)
		goOnFrom(t, image)
	})
}

func goOnFrom(t *testing.T, image []byte) {
	t.Helper()
	h, found, err := scan(image)
	if err != nil {
		return
	}
	if payload(found) > int64(len(image)) || h.size != int64(len(image)) {
		t.Fatalf("%d bytes of entries in %d", payload(found), len(image))
	}
	base := newMemory()
	p := &platter{durable: slices.Clone(image), now: slices.Clone(image)}
	l, err := open("", h.id, base, unguarded, p.quiet())
	if err != nil {
		t.Fatalf("whole, and refused: %v", err)
	}
	defer l.Stop()
	want := make(model)
	want.store(found)
	if len(found) > 0 && found[len(found)-1].Index < math.MaxUint64-1 {
		next := entry(found[len(found)-1].Index+1, 9, 10)
		if err := l.StoreLog(next); err != nil {
			t.Fatal(err)
		}
		want.store([]*raft.Log{next})
	}
	if d := want.differs(l); d != "" {
		t.Fatal(d)
	}
}

// FuzzDamagedJournal writes over a part of a journal: it is refused, or nothing is
// missing but what that part has wiped out to the very end.
func FuzzDamagedJournal(f *testing.F) {
	batches := [][]*raft.Log{entries(1, 3, 1, 20), entries(4, 4, 2, 300), entries(5, 9, 2, 0), entries(10, 10, 2, 77)}
	all := slices.Concat(batches...)
	whole, places := journalOf(8<<10, batches...)
	mark := places[len(places)-1]
	f.Add(uint16(recordsFrom), []byte{0})
	f.Add(uint16(places[1]+8), []byte{1, 2, 3, 4})
	f.Add(uint16(places[3]), make([]byte, 200))
	f.Add(uint16(places[1]), whole[places[2]:places[3]])
	f.Add(uint16(places[3]), whole[mark:mark+recordHead])
	f.Fuzz(func(t *testing.T, at uint16, damage []byte) {
		image := slices.Clone(whole)
		from := min(int(at), len(image))
		n := copy(image[from:], damage)
		_, found, err := scan(image)
		if err != nil {
			if bytes.Equal(image, whole) {
				t.Fatalf("an undamaged one is refused: %v", err)
			}
			return
		}
		if !slices.EqualFunc(found, all[:len(found)], same) {
			t.Fatalf("other entries than were written: %+v", found)
		}
		if len(found) == len(all) {
			return
		}
		first := slices.IndexFunc(batches, func(b []*raft.Log) bool { return b[0].Index == uint64(len(found))+1 })
		if first < 0 || int64(from) >= places[first+1] || int64(from+n) <= mark {
			t.Fatalf("damage from %d to %d, and %d of %d entries are left", from, from+n, len(found), len(all))
		}
	})
}

// FuzzEntries decodes any bytes as the entries of a record: what is accepted is
// what would have been written.
func FuzzEntries(f *testing.F) {
	for _, e := range [][]*raft.Log{entries(1, 4, 1, 30), entries(math.MaxUint64-1, math.MaxUint64-1, 7, 0)} {
		record := newHead(testID, testSize).appendRecord(nil, recordsFrom, e)
		f.Add(record[recordHead:recordHead+payload(e)], e[0].Index, uint32(len(e)))
	}
	f.Add([]byte{}, uint64(0), uint32(math.MaxUint32))
	f.Add(bytes.Repeat([]byte{0xff}, 50), uint64(math.MaxUint64), uint32(2))
	f.Fuzz(func(t *testing.T, body []byte, first uint64, count uint32) {
		found, err := decodeEntries(body, first, count)
		if err != nil {
			return
		}
		var again []byte
		for i, e := range found {
			if e.Index != first+uint64(i) {
				t.Fatalf("entry %d of those from %d has index %d", i, first, e.Index)
			}
			again = appendEntry(again, e)
		}
		if len(found) != int(count) || !bytes.Equal(again, body) {
			t.Fatalf("%x was read as %x", body, again)
		}
	})
}

// TestOnlyAtItsPlace: a copy of a record is none, nor is one of another journal.
func TestOnlyAtItsPlace(t *testing.T) {
	image, places := journalOf(8<<10, entries(1, 1, 1, 20), entries(2, 2, 1, 20), entries(3, 3, 1, 20))
	h := newHead(testID, 8<<10)
	for i, at := range places {
		_, ok := h.decodeHeader(image, at)
		moved := slices.Concat(image[:at], make([]byte, recordAlign), image[at:])
		_, elsewhere := h.decodeHeader(moved, at+recordAlign)
		_, another := newHead(ID{9}, 8<<10).decodeHeader(image, at)
		h.generation++
		_, later := h.decodeHeader(image, at)
		h.generation--
		if !ok || elsewhere || another || later {
			t.Errorf("record %d: %v; at another place: %v, of another journal: %v, of a later generation: %v", i, ok, elsewhere, another, later)
		}
	}
}
