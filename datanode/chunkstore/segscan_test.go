package chunkstore

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

var testSegment = segmentName{number: 7, salt: 0x1122334455667788}

// makeSegment writes groups of records as the log writer does.
func makeSegment(groups ...[]int) (content []byte, records []record) {
	content = testSegment.head()
	id := dfs.ChunkID(1)
	for _, sizes := range groups {
		durable := uint32(len(content))
		for _, size := range sizes {
			data := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(id)}).Read(data)
			r := record{id: id, at: uint32(len(content)), size: uint32(size), crc: dfs.ChecksumOf(data)}
			content = testSegment.appendRecord(content, r, durable, data)
			records = append(records, r)
			id++
		}
	}
	return content, records
}

func scanAll(t *testing.T, content []byte, sealed bool) scan {
	t.Helper()
	s, err := testSegment.scanSegment(bytes.NewReader(content), int64(len(content)), sealed, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func idsOf(records []record) (list []dfs.ChunkID) {
	for _, r := range records {
		list = append(list, r.id)
	}
	return list
}

func TestSegmentNames(t *testing.T) {
	for _, n := range []segmentName{testSegment, {1, 0}, {1<<32 - 1, 1<<64 - 1}} {
		if got, ok := parseSegmentName(n.String()); !ok || got != n {
			t.Errorf("%s: %v, %v", n, got, ok)
		}
	}
	for _, text := range []string{"", "-", "00000000-0000000000000001", "00000001-1", "1-0000000000000001", "0000000A-0000000000000001", "00000001-0000000000000001-", "+0000001-0000000000000001"} {
		if _, ok := parseSegmentName(text); ok {
			t.Errorf("%q is taken for a name", text)
		}
	}
}

func TestScanFindsAll(t *testing.T) {
	content, records := makeSegment([]int{1, 8, 100}, []int{dfs.BlockSize}, []int{7, 4096, 3})
	for _, sealed := range []bool{true, false} {
		s := scanAll(t, content, sealed)
		if !slices.Equal(s.records, records) || len(s.damaged)+len(s.gaps) > 0 || s.end != int64(len(content)) {
			t.Errorf("%+v", s)
		}
	}
}

// What is broken counts as damage when it was durable, and not when it is torn.
func TestScanTellsDamageFromATornTail(t *testing.T) {
	// Chunks 1 to 3 are durable, by the word of 4; 4 and 5 are the last group.
	build := func() ([]byte, []record) { return makeSegment([]int{100, 200}, []int{300}, []int{400, 500}) }
	flip := func(at func([]record) int) func([]byte, []record) []byte {
		return func(b []byte, r []record) []byte { b[at(r)] ^= 0x10; return b }
	}
	header := func(n int) func([]record) int { return func(r []record) int { return int(r[n].at) + 9 } }
	data := func(n int) func([]record) int { return func(r []record) int { return int(r[n].at) + recordHead + 50 } }
	for name, c := range map[string]struct {
		harm                func([]byte, []record) []byte
		held, damaged       []dfs.ChunkID
		gaps                int
		heldSealed, lostToo []dfs.ChunkID // when all was durable: lostToo is damaged besides
	}{
		"data in the middle":     {flip(data(1)), ids(1, 3, 4, 5), ids(2), 0, nil, nil},
		"header in the middle":   {flip(header(1)), ids(1, 3, 4, 5), nil, 1, nil, nil},
		"first header":           {flip(header(0)), ids(2, 3, 4, 5), nil, 1, nil, nil},
		"data in the last group": {flip(data(3)), ids(1, 2, 3, 5), nil, 0, nil, ids(4)},
		"last data":              {flip(data(4)), ids(1, 2, 3, 4), nil, 0, nil, ids(5)},
		"cut in the data":        {func(b []byte, r []record) []byte { return b[:r[4].at+100] }, ids(1, 2, 3, 4), nil, 0, nil, ids(5)},
		"cut in a header":        {func(b []byte, r []record) []byte { return b[:r[4].at+20] }, ids(1, 2, 3, 4), nil, 0, nil, nil},
		"last group is gone":     {func(b []byte, r []record) []byte { return b[:r[3].at] }, ids(1, 2, 3), nil, 0, nil, nil},
		"the sector of 3 is zero, and 4 says it was durable": {func(b []byte, r []record) []byte {
			clear(b[r[2].at:r[3].at])
			return b
		}, ids(1, 2, 4, 5), nil, 0, nil, nil},
		"preallocated zeros": {func(b []byte, _ []record) []byte { return append(b, make([]byte, 5000)...) }, ids(1, 2, 3, 4, 5), nil, 0, nil, nil},
		"garbage behind":     {func(b []byte, _ []record) []byte { return append(b, bytes.Repeat([]byte("DFSR"), 999)...) }, ids(1, 2, 3, 4, 5), nil, 0, nil, nil},
		"head":               {func(b []byte, _ []record) []byte { clear(b[:segmentHead]); return b }, ids(1, 2, 3, 4, 5), nil, 0, nil, nil},
	} {
		content, records := build()
		content = c.harm(content, records)
		s := scanAll(t, content, false)
		if !slices.Equal(idsOf(s.records), c.held) || !slices.Equal(idsOf(s.damaged), c.damaged) || (len(s.gaps) > 0) != (c.gaps > 0) {
			t.Errorf("%s: held %v, damaged %v, %d gaps", name, idsOf(s.records), idsOf(s.damaged), len(s.gaps))
		}
		for _, g := range s.torn {
			clear(content[g.from:g.to])
		}
		if again := scanAll(t, content[:s.end], true); !slices.Equal(again.records, s.records) || !slices.Equal(again.damaged, s.damaged) || len(again.gaps) != len(s.gaps) {
			t.Errorf("%s: after the torn parts are wiped out, %+v became %+v", name, s, again)
		}
		content, records = build()
		s = scanAll(t, c.harm(content, records), true)
		if lost := slices.Sorted(slices.Values(slices.Concat(c.damaged, c.lostToo))); !slices.Equal(idsOf(s.records), c.held) || !slices.Equal(idsOf(s.damaged), lost) {
			t.Errorf("%s, sealed: held %v, damaged %v", name, idsOf(s.records), idsOf(s.damaged))
		}
	}
}

// What is left of one record is one gap, however many zeros its data has: each
// gap becomes a file.
func TestSparseDataIsOneGap(t *testing.T) {
	content, _ := makeSegment([]int{100}, []int{100})
	data := make([]byte, dfs.BlockSize)
	for at := 0; at < len(data); at += 64 {
		data[at] = 1
	}
	sparse := record{id: 9, at: uint32(len(content)), size: dfs.BlockSize, crc: dfs.ChecksumOf(data)}
	content = testSegment.appendRecord(content, sparse, sparse.at, data)
	next := record{id: 10, at: uint32(len(content)), size: 64, crc: dfs.ChecksumOf(data[:64])}
	content = testSegment.appendRecord(content, next, next.at, data[:64])
	content[sparse.at+9] ^= 0x10
	for _, sealed := range []bool{true, false} {
		s := scanAll(t, content, sealed)
		if len(s.gaps) != 1 || s.gaps[0].from != int64(sparse.at) || s.gaps[0].to > sparse.end() || !slices.Equal(idsOf(s.records), ids(1, 2, 10)) {
			t.Errorf("%d gaps, %v held", len(s.gaps), idsOf(s.records))
		}
	}
}

// A segment that somebody has stored as a file is no source of records.
func TestRecordsInsideAChunk(t *testing.T) {
	inner, _ := makeSegment([]int{10, 20, 30})
	other := segmentName{number: 8, salt: 99}
	content := other.head()
	r := record{id: 77, at: segmentHead, size: uint32(len(inner)), crc: dfs.ChecksumOf(inner)}
	content = other.appendRecord(content, r, segmentHead, inner)
	content[segmentHead+9] ^= 1 // its header is damaged: the scan looks inside
	s, err := other.scanSegment(bytes.NewReader(content), int64(len(content)), true, func() {})
	if err != nil || len(s.records)+len(s.damaged) > 0 || len(s.gaps) == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	// Nor is its own content, shifted.
	copied := append(testSegment.head(), make([]byte, 64)...)
	copied = append(copied, inner[segmentHead:]...)
	if s := scanAll(t, copied, true); len(s.records) > 0 {
		t.Errorf("%+v", s.records)
	}
}

func TestRemovedRecords(t *testing.T) {
	content, records := makeSegment([]int{10, 20, 30})
	sum := content[records[1].at+sumOffset:]
	binary.LittleEndian.PutUint32(sum, ^binary.LittleEndian.Uint32(sum))
	s := scanAll(t, content, true)
	records[1].removed = true
	if !slices.Equal(s.records, records) {
		t.Errorf("%+v", s.records)
	}
	index := testSegment.encodeIndex(records, s.end)
	got, length, ok := testSegment.decodeIndex(index)
	if !ok || length != s.end || !slices.Equal(got, records) {
		t.Errorf("%+v, %d, %v", got, length, ok)
	}
}

// Any prefix of a segment followed by anything has exactly the records that are
// wholly inside the prefix, and no length of it makes the scan fail.
func FuzzScanPrefix(f *testing.F) {
	f.Add(uint16(0), []byte{}, uint8(1))
	f.Add(uint16(2000), []byte("DFSRDFSRDFSRDFSR"), uint8(2))
	f.Add(uint16(333), bytes.Repeat([]byte{0}, 100), uint8(3))
	content, records := makeSegment([]int{100, 200}, []int{1, 2, 3}, []int{1000}, []int{64, 8})
	f.Fuzz(func(t *testing.T, cut uint16, garbage []byte, mode uint8) {
		at := int(cut) % (len(content) + 1)
		harmed := append(slices.Clone(content[:at]), garbage...)
		if bytes.HasPrefix(content[at:], garbage[:min(len(garbage), len(content)-at)]) && len(garbage) > 0 {
			return // it goes on as it was
		}
		s, err := testSegment.scanSegment(bytes.NewReader(harmed), int64(len(harmed)), mode%2 == 0, func() {})
		if err != nil {
			t.Fatal(err)
		}
		var want []record
		for _, r := range records {
			// The padding is nobody's: a record is whole when its data is.
			if int64(r.at)+recordHead+int64(r.size) <= int64(at) && r.end() <= int64(len(harmed)) {
				want = append(want, r)
			}
		}
		if len(s.records) < len(want) || !slices.Equal(s.records[:len(want)], want) {
			t.Fatalf("cut at %d: %v, want %v", at, s.records, want)
		}
		if len(s.records) > len(want)+1 { // garbage may happen to complete the record that was cut
			t.Fatalf("cut at %d: %v were never written", at, s.records[len(want):])
		}
	})
}

// Whatever a file has, a scan neither panics nor finds what has no good checksum.
func FuzzScan(f *testing.F) {
	content, _ := makeSegment([]int{5, 10}, []int{100})
	f.Add(content, true)
	f.Add(content[:60], false)
	f.Fuzz(func(t *testing.T, content []byte, sealed bool) {
		s, err := testSegment.scanSegment(bytes.NewReader(content), int64(len(content)), sealed, func() {})
		if err != nil {
			t.Fatal(err)
		}
		end := int64(segmentHead)
		for _, r := range s.records {
			if int64(r.at) < end || r.end() > int64(len(content)) || dfs.ChecksumOf(content[r.at+recordHead:][:r.size]) != r.crc {
				t.Fatalf("%+v in %d bytes", r, len(content))
			}
			end = r.end()
		}
		for _, r := range s.damaged {
			end = max(end, min(r.end(), int64(len(content))))
		}
		for _, g := range s.gaps {
			end = max(end, g.to)
		}
		for _, g := range s.torn {
			if g.from >= g.to || g.to > s.end {
				t.Fatalf("%+v is to be wiped out, and the end is %d", g, s.end)
			}
		}
		if s.end != end || s.end > max(segmentHead, int64(len(content))) {
			t.Fatalf("the end is %d", s.end)
		}
	})
}

func FuzzIndex(f *testing.F) {
	_, records := makeSegment([]int{5, 10}, []int{100})
	f.Add(testSegment.encodeIndex(records, 1000))
	f.Add(testSegment.encodeIndex(nil, segmentHead))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, content []byte) {
		records, length, ok := testSegment.decodeIndex(content)
		if !ok {
			return
		}
		if again := testSegment.encodeIndex(records, length); !bytes.Equal(again, content) {
			t.Fatalf("%d records of an index that is not theirs", len(records))
		}
	})
}

func FuzzRecordHeader(f *testing.F) {
	content, _ := makeSegment([]int{5})
	f.Add(content[segmentHead:], uint32(segmentHead))
	f.Fuzz(func(t *testing.T, b []byte, at uint32) {
		r, durable, ok := testSegment.decodeHeader(b, at)
		if !ok {
			return
		}
		again := testSegment.appendRecord(nil, r, durable, make([]byte, r.size))[:recordHead]
		if r.removed {
			binary.LittleEndian.PutUint32(again[sumOffset:], ^binary.LittleEndian.Uint32(again[sumOffset:]))
		}
		again[24], again[25], again[26], again[27] = b[24], b[25], b[26], b[27] // of no meaning yet
		if !reflect.DeepEqual(again[:sumOffset], b[:sumOffset]) {
			t.Fatalf("% x became % x", b[:recordHead], again)
		}
	})
}

// One wrong bit anywhere makes an index worthless, and the mark of a removal is
// not one.
func TestIndexIsChecked(t *testing.T) {
	_, records := makeSegment([]int{5, 10}, []int{100})
	index := testSegment.encodeIndex(records, 1000)
	for bit := range len(index) * 8 {
		harmed := slices.Clone(index)
		harmed[bit/8] ^= 1 << (bit % 8)
		if got, _, ok := testSegment.decodeIndex(harmed); ok {
			t.Fatalf("bit %d does not matter: %+v", bit, got)
		}
	}
	for n := range index {
		if _, _, ok := testSegment.decodeIndex(index[:n]); ok {
			t.Fatalf("%d bytes are enough", n)
		}
	}
	if _, _, ok := (segmentName{7, 1}).decodeIndex(index); ok {
		t.Error("it is of another segment")
	}
	for _, r := range records {
		read := func(b []byte, offset int64) error { copy(b, index[offset:]); return nil }
		got, offset, err := testSegment.findEntry(r.at, 0, int64(len(records)), read)
		if err != nil || got != r || !bytes.Equal(index[offset:][:indexEntry], testSegment.appendEntry(nil, r)) {
			t.Errorf("%+v at %d, %v", got, offset, err)
		}
		if _, _, err := testSegment.findEntry(r.at+8, 0, int64(len(records)), read); err == nil {
			t.Error("a record was found that is not there")
		}
	}
}
