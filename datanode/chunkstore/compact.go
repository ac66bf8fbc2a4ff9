package chunkstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// deadShare is how much of a segment must be dead, one in so many bytes, for
	// it to be compacted; when the disk is full, deadShareFull.
	deadShare     = 2
	deadShareFull = 16

	// deadTail is how much of the segment that is written to must be dead, unless
	// nothing lives in it.
	deadTail = 1 << 20 // bytes

	// compactRate is how much is copied in a second at most, and compactStep
	// how much at a time.
	compactRate = 16 << 20 // bytes
	compactStep = 1 << 20  // bytes

	// packedTrash is how much longer than asked for a removed chunk may stay in
	// the trash: those that are removed within that time wait together.
	packedTrash = time.Second
)

// waiting is removed chunks of one segment that are kept for a while.
type waiting struct {
	segment uint32
	chunks  int64
	bytes   int64 // of their records
	since   time.Time
}

// throwAway removes the record of a chunk that is not held any more.
func (g *segments) throwAway(e entry, keep time.Duration) error {
	one := &removal{entry: e}
	g.throwAwayAll([]*removal{one}, keep, func() {})
	return one.err
}

// throwAwayAll is throwAway for many, in the order of their places. It says in each
// what has come of it, and gives signs of life.
func (g *segments) throwAwayAll(removals []*removal, keep time.Duration, moved func()) {
	for rest := removals; len(rest) > 0; moved() {
		n := 1
		for n < len(rest) && rest[n].entry.segment == rest[0].entry.segment {
			n++
		}
		some := rest[:n]
		rest = rest[n:]
		g.mark(some[0].entry.segment, some)
		gone := waiting{segment: some[0].entry.segment, since: time.Now()}
		for _, r := range some {
			if r.err == nil {
				gone.chunks++
				gone.bytes += r.length()
			}
		}
		if keep > 0 && gone.chunks > 0 {
			g.await(gone) // before nothing lives any more
		}
		g.count(gone.segment, -gone.bytes, 0)
	}
}

// await puts removed records into the trash.
func (g *segments) await(w waiting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seg := g.known[w.segment]
	if seg == nil {
		return
	}
	seg.waiting += w.bytes
	g.trashed += w.bytes
	g.trashedChunks += w.chunks
	if n := len(g.trash); n > 0 {
		last := &g.trash[n-1]
		if last.segment == w.segment && w.since.Sub(last.since) < packedTrash {
			last.chunks += w.chunks
			last.bytes += w.bytes
			return
		}
	}
	g.trash = append(g.trash, w)
}

// expire gives up what has been in the trash since before a moment.
func (g *segments) expire(before time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for ; n < len(g.trash) && !g.trash[n].since.Add(packedTrash).After(before); n++ {
		w := g.trash[n]
		g.trashed -= w.bytes
		g.trashedChunks -= w.chunks
		if seg := g.known[w.segment]; seg != nil {
			seg.waiting -= w.bytes
		}
	}
	g.trash = append([]waiting(nil), g.trash[n:]...)
}

// segmentStatus is what the segments of a volume take, in bytes.
type segmentStatus struct {
	bytes   int64 // of all records, live or not
	dead    int64 // of those that wait for their segment to be compacted
	trashed int64 // of those that are in the trash
	chunks  int64 // in the trash
}

func (g *segments) status() segmentStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := segmentStatus{trashed: g.trashed, chunks: g.trashedChunks}
	for _, seg := range g.known {
		s.bytes += seg.length - segmentHead
		s.dead += seg.dead()
	}
	return s
}

// dead is how many bytes of a segment nobody needs.
func (seg *segment) dead() int64 { return seg.length - segmentHead - seg.live - seg.waiting }

// Compact gives back the space of removed chunks that were packed with others:
// of each volume at most one segment, the one with the most to give, if that is
// enough. What lives in it is copied to another. It is to be called every few
// seconds, and ends with ctx.
func (s *Store) Compact(ctx context.Context) {
	for _, v := range s.volumes {
		if !v.answers() || v.writable() != nil || s.Ready() != nil {
			continue
		}
		seg := v.segments.worst(v.isFull())
		if seg == nil {
			continue
		}
		if err := s.compact(ctx, v, seg); err != nil && ctx.Err() == nil && dfs.CodeOf(err) != dfs.NoSpace {
			v.log.Warn("a segment could not be compacted", "segment", seg.segmentName, "error", err)
		}
	}
}

// isFull tells whether the volume needs all the space that it can get.
func (v *volume) isFull() bool { return v.room() < fileSize(dfs.DefaultChunkSize) }

// worst returns the segment with the most dead bytes, if they are worth
// the work. When the disk is full, what is in the trash does not count.
func (g *segments) worst(full bool) *segment {
	if full {
		g.expire(time.Now().Add(packedTrash))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var best *segment
	for _, seg := range g.known {
		if !seg.worthCompacting(full) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(seg.dead()*best.length, best.dead()*seg.length), cmp.Compare(seg.dead(), best.dead())) > 0 {
			best = seg
		}
	}
	return best
}

// worthCompacting is called under the lock. One that is still written to has to be
// quite dead.
func (seg *segment) worthCompacting(full bool) bool {
	share := int64(deadShare)
	if full {
		share = deadShareFull
	}
	switch {
	case seg.failed, seg.waiting > 0, !seg.sealed && seg.length == segmentHead:
		return false
	case seg.live == 0:
		return true
	case !seg.sealed && seg.dead() < deadTail:
		return false
	}
	return seg.dead()*share >= seg.length
}

// compact copies what lives in a segment, and unlinks it when nothing does.
func (s *Store) compact(ctx context.Context, v *volume, seg *segment) error {
	g := v.segments
	if b, err := g.end(seg); err != nil || v.await(b.task, writeTimeout) != nil {
		return errors.Join(err, v.failed())
	}
	var records []record
	err := v.within(loadTimeout, "read an index", func() (err error) {
		records, err = g.recordsOf(seg)
		return err
	})
	if err != nil {
		if !isPassing(err) {
			g.setAside(seg)
		}
		return err
	}
	for rest := records; len(rest) > 0; {
		began, n, size := time.Now(), 0, int64(0)
		for n < len(rest) && size < compactStep {
			size += rest[n].length()
			n++
		}
		copied, err := s.moveRecords(v, seg.number, rest[:n])
		if err != nil {
			return err
		}
		rest = rest[n:]
		if !pause(ctx, time.Until(began.Add(time.Duration(float64(copied)/compactRate*float64(time.Second))))) {
			return ctx.Err()
		}
	}
	if s.anyHeld(v, seg.number, records) {
		g.setAside(seg)
		return nil
	}
	if !g.isEmpty(seg) {
		return nil // something has come into the trash
	}
	return v.within(hangTimeout, "remove a segment", func() error {
		g.unlink(seg)
		return nil
	})
}

// anyHeld tells whether a chunk still lives in a segment: then it could not be
// read.
func (s *Store) anyHeld(v *volume, segment uint32, records []record) bool {
	held := func(r record) bool {
		e, held := s.ledger.held.Get(r.id)
		return held && e.volume == v.index && e.place == (place{segment, r.at})
	}
	for some := range slices.Chunk(records, pageSize) { // others want the lock, too
		s.mu.Lock()
		found := slices.ContainsFunc(some, held)
		s.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}

func (g *segments) isEmpty(seg *segment) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return seg.live == 0 && seg.waiting == 0
}

// setAside leaves a segment as it is until the next start.
func (g *segments) setAside(seg *segment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seg.failed = true
}

// pause waits, and tells whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// moveRecords copies those of some records that are held, and returns when all
// of them are durable in their new place, with how many bytes they have.
func (s *Store) moveRecords(v *volume, segment uint32, records []record) (copied int64, err error) {
	var writes []*packedWrite
	var b *batch
	for _, r := range records {
		w, err := s.readToMove(v, segment, r)
		if err != nil {
			return copied, err
		}
		if w == nil {
			continue
		}
		writes = append(writes, w)
		copied += r.length()
		if b, err = v.segments.write(w); err != nil {
			w.done()
			return copied, err
		}
	}
	if b != nil { // batches end in order
		if err := v.await(b.task, writeTimeout); err != nil {
			return copied, err
		}
	}
	for _, w := range writes {
		if w.err != nil && dfs.CodeOf(w.err) != dfs.NotFound { // removed meanwhile
			return copied, w.err
		}
	}
	return copied, nil
}

// readToMove claims and reads a chunk that is held in a segment. It returns nil
// when it is not held there, or damaged, which puts it into quarantine. One that
// cannot be read stays where it is.
func (s *Store) readToMove(v *volume, segment uint32, r record) (*packedWrite, error) {
	from := place{segment, r.at}
	e, err := s.entry(r.id)
	if err != nil || e.place != from || s.volumes[e.volume] != v {
		return nil, nil // removed, or put elsewhere
	}
	release, err := s.claim(r.id)
	if err != nil {
		return nil, err
	}
	if now, err := s.entry(r.id); err != nil || now != e {
		release()
		return nil, nil
	}
	var data []byte
	err = v.attempt(newTask(v, "read a chunk", true), hangTimeout, func(*task) (err error) {
		data, err = v.readPacked(r.id, e)
		return err
	}, nil)
	if err == nil {
		return &packedWrite{id: r.id, data: data, crc: r.crc, from: from, done: release}, nil
	}
	release()
	var bad damage
	switch {
	case errors.As(err, new(*noAnswer)), dfs.CodeOf(err) == dfs.Unavailable:
		return nil, unanswered(r.id)
	case errors.As(err, &bad):
		_ = s.condemn(r.id, e.place, err) // it says what was known
		return nil, nil
	}
	if isPassing(err) {
		return nil, readError(r.id, err)
	}
	s.readFailed(v, spotOf(r.id, e.place), err)
	return nil, nil
}

// isPassing tells whether err says nothing of the segment: it can be compacted
// another time.
func isPassing(err error) bool { return isShortage(err) || errors.As(err, new(*noAnswer)) }

// recordsOf lists what a sealed segment had when it was sealed.
func (g *segments) recordsOf(seg *segment) ([]record, error) {
	seg.marking.Lock()
	defer seg.marking.Unlock()
	if seg.indexed == 0 {
		return append([]record(nil), seg.records...), nil
	}
	records, _, err := g.readIndex(seg.segmentName)
	return records, err
}
