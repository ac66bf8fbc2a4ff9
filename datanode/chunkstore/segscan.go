package chunkstore

import (
	"encoding/binary"
	"io"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const scanWindow = 256 << 10 // bytes

// scan is what was found by reading a segment from its beginning to its end.
type scan struct {
	records []record // whole ones, in order
	damaged []record // were durable once, and their data is not what was written
	gaps    []gap    // were durable once, and it cannot be told what they were
	torn    []gap    // were never durable, and lie before the end
	end     int64    // of the last that is whole, or was durable once: what follows is of no use
}

// gap is a part of a segment.
type gap struct{ from, to int64 }

// scanSegment finds the records of a segment of so many bytes. Sealed means that
// all of it was durable; of any other segment only that counts which a record
// says was durable when it was written, and what is broken behind that is a torn
// tail. It fails only when reading does.
func (n segmentName) scanSegment(r io.ReaderAt, size int64, sealed bool, moved func()) (scan, error) {
	s := scan{end: segmentHead}
	w := &window{r: r, size: size, moved: moved}
	durable := int64(segmentHead)
	if sealed {
		durable = size
	}
	var broken []record
	var gaps []gap
	known := int64(segmentHead) // the end of the last header that is one
	for at := int64(segmentHead); at+recordHead <= size; {
		head, err := w.read(at, recordHead)
		if err != nil {
			return scan{}, err
		}
		rec, since, ok := n.decodeHeader(head, uint32(at))
		if !ok {
			at += recordAlign
			gaps = widen(gaps, head, known, at)
			continue
		}
		known = int64(rec.at) + recordHead
		durable = max(durable, min(int64(since), int64(rec.at)))
		if rec.end() > size {
			broken = append(broken, rec)
			at += recordHead // something may lie in what is said to be its data
			continue
		}
		data, err := w.read(at+recordHead, int(rec.size))
		if err != nil {
			return scan{}, err
		}
		if dfs.ChecksumOf(data) == rec.crc {
			s.records = append(s.records, rec)
			s.end = rec.end()
		} else {
			broken = append(broken, rec)
		}
		at = rec.end()
	}
	s.judge(broken, gaps, durable, size)
	return s, nil
}

// judge tells what was durable, and is damage, from what is torn.
func (s *scan) judge(broken []record, gaps []gap, durable, size int64) {
	for _, rec := range broken {
		switch {
		case int64(rec.at) >= durable && rec.end() > size: // others may lie where its data should
			gaps = append(gaps, gap{int64(rec.at), int64(rec.at) + recordHead})
		case int64(rec.at) >= durable:
			gaps = append(gaps, gap{int64(rec.at), rec.end()})
		case !rec.removed:
			s.damaged = append(s.damaged, rec)
			s.end = max(s.end, min(rec.end(), size))
		}
	}
	var behind []gap
	for _, g := range gaps {
		if g.from < durable {
			s.gaps = append(s.gaps, gap{g.from, min(g.to, durable)})
			s.end = max(s.end, min(g.to, durable))
		}
		if g.to > durable {
			behind = append(behind, gap{max(g.from, durable), g.to})
		}
	}
	for _, g := range behind {
		if g.to <= s.end {
			s.torn = append(s.torn, g)
		}
	}
}

// widen notes that the 8 bytes up to end, at the beginning of head, are of no
// known record. Zeros by themselves were never written. What lies between two
// known headers is one gap: data with many zeros would be thousands.
func widen(gaps []gap, head []byte, known, end int64) []gap {
	if binary.LittleEndian.Uint64(head) == 0 {
		return gaps
	}
	if n := len(gaps); n > 0 && gaps[n-1].from >= known {
		gaps[n-1].to = end
		return gaps
	}
	return append(gaps, gap{end - recordAlign, end})
}

// window reads a file forwards, much at a time.
type window struct {
	r      io.ReaderAt
	size   int64
	moved  func()
	buffer []byte
	from   int64
}

// read returns n bytes, at most scanWindow, that are there. They hold until the
// next call.
func (w *window) read(at int64, n int) ([]byte, error) {
	if at < w.from || at+int64(n) > w.from+int64(len(w.buffer)) {
		if w.buffer == nil {
			w.buffer = make([]byte, scanWindow)
		}
		w.buffer = w.buffer[:min(scanWindow, w.size-at)]
		w.from = at
		if _, err := w.r.ReadAt(w.buffer, at); err != nil {
			w.buffer = nil
			return nil, err
		}
		w.moved()
	}
	return w.buffer[at-w.from:][:n], nil
}
