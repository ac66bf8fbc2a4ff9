package chunkstore

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// logBuffer is how much is written to a segment at a time.
const logBuffer = 1 << 20 // bytes

// packedWrite is a chunk on its way into a segment.
type packedWrite struct {
	id   dfs.ChunkID
	data []byte
	crc  dfs.Checksum
	from place  // of a chunk that is moved: where it was
	done func() // called when it has come to an end, if not nil

	at  place // where it lies; set when err is nil
	err error // set before the batch's task ends
}

func (w *packedWrite) length() int64 { return recordSize(int64(len(w.data))) }

// moves tells whether the chunk is held already. Such a write may use the
// reserve: it is what gives space back.
func (w *packedWrite) moves() bool { return w.from.packed() }

// batch is what is made durable together.
type batch struct {
	task   *task
	writes []*packedWrite
}

// logWriter is the state of the goroutine that appends to the last segment.
// There is one at most, and none while there is nothing to write.
type logWriter struct {
	tail      *segment // nil when a new one is needed
	file      *os.File // of tail
	allocated int64    // bytes of tail
	buffer    []byte
}

// write queues records and returns the batch that they are part of, whose task
// ends when they are durable and held, or have failed. It fails with Unavailable
// when the store is being closed; then done is not called.
func (g *segments) write(writes ...*packedWrite) (*batch, error) { return g.enqueue(writes, nil) }

// end queues the sealing of a segment, if it is the one that is written to.
func (g *segments) end(seg *segment) (*batch, error) { return g.enqueue(nil, seg) }

func (g *segments) enqueue(writes []*packedWrite, ending *segment) (*batch, error) {
	if !g.volume.enter() {
		return nil, errClosed()
	}
	g.mu.Lock()
	if g.next == nil {
		g.next = &batch{task: newTask(g.volume, "write small chunks", false)}
	}
	b, starts := g.next, !g.writing
	b.writes = append(b.writes, writes...)
	g.writing = true
	if ending != nil {
		g.ending = ending
	}
	g.mu.Unlock()
	if starts {
		go g.run() // Close waits for it, see volume.close
	} else {
		g.volume.exit()
	}
	return b, nil
}

// run writes batches until there are none. While one is being written, the next
// one fills.
func (g *segments) run() {
	defer g.volume.exit()
	for {
		g.mu.Lock()
		b, ending := g.next, g.ending
		g.next, g.ending = nil, nil
		g.writing = b != nil
		g.mu.Unlock()
		if b == nil {
			return
		}
		if ending != nil && ending == g.log.tail {
			g.seal()
		}
		for rest := b.writes; len(rest) > 0; {
			n, err := g.writeSome(rest)
			if err == nil {
				g.hold(rest[:n])
			}
			for _, w := range rest[:n] {
				if err != nil {
					w.err = g.failed(w.id, err)
				}
				if w.done != nil {
					w.done()
				}
			}
			rest = rest[n:]
			b.task.moved()
		}
		b.task.end(nil)
		runtime.Gosched() // those who were served may have more to write
	}
}

// logFailure is what went wrong on the disk.
type logFailure struct {
	what   string
	err    error
	ofSync bool // of an fsync: it is not known what is durable
}

func failure(what string, err error) error     { return &logFailure{what, err, false} }
func syncFailure(what string, err error) error { return &logFailure{what, err, true} }

func (f *logFailure) Error() string { return f.what + ": " + f.err.Error() }
func (f *logFailure) Unwrap() error { return f.err }

// failed says it for the sender of a chunk.
func (g *segments) failed(id dfs.ChunkID, err error) error {
	var fault *logFailure
	if errors.As(err, &fault) {
		return writeError(id, fault.err)
	}
	return err
}

// writeSome makes as many records durable as fit into one segment, at least one,
// and returns how many. An error is that of all of them.
func (g *segments) writeSome(writes []*packedWrite) (n int, err error) {
	if err := g.volume.failed(); err != nil {
		return len(writes), err
	}
	n, size, err := g.prepare(writes)
	if err == nil {
		err = g.append(writes[:n], size)
	}
	var fault *logFailure
	if errors.As(err, &fault) {
		if isBroken(fault.err) || fault.ofSync && isFinal(fault.err) {
			g.volume.fail(fault.what, fault.err)
			g.alarm()
		}
		g.giveUpTail()
	}
	return n, err
}

// prepare sees to it that there is a segment with room for at least the first
// record, and tells how many fit and their length.
func (g *segments) prepare(writes []*packedWrite) (n int, size int64, err error) {
	l := &g.log
	if l.tail != nil && (l.tail.length+writes[0].length() > g.limit || len(l.tail.records) >= segmentRecords) {
		g.seal()
	}
	if l.tail == nil {
		if err := g.begin(writes[0]); err != nil {
			return 1, 0, err
		}
	}
	for _, w := range writes {
		if n > 0 && l.tail.length+size+w.length() > g.limit || w.moves() != writes[0].moves() {
			break
		}
		size += w.length()
		n++
	}
	err = g.allocate(writes[0], l.tail.length+size)
	if n > 1 && dfs.CodeOf(err) == dfs.NoSpace {
		n, size = 1, writes[0].length() // one may still fit
		err = g.allocate(writes[0], l.tail.length+size)
	}
	return n, size, err
}

// allocate takes the space of the segment up to end for some writes, and more if
// there is more.
func (g *segments) allocate(first *packedWrite, end int64) error {
	l, v := &g.log, g.volume
	if end <= l.allocated {
		return nil
	}
	v.allocation.Lock()
	defer v.allocation.Unlock()
	until := max(end, l.allocated+g.steps)
	err := v.makeRoom(first.id, until-l.allocated)
	if dfs.CodeOf(err) == dfs.NoSpace {
		until = end
		err = v.makeRoom(first.id, until-l.allocated)
	}
	if err != nil && !first.moves() {
		return err
	}
	if err := v.disk.reserve(l.file, until); err != nil {
		return failure("allocate space", err)
	}
	v.mu.Lock()
	v.figures.available -= until - l.allocated
	v.mu.Unlock()
	l.allocated = until
	return nil
}

// begin makes a new segment. It is durable, with its name, when it returns.
func (g *segments) begin(first *packedWrite) (err error) {
	l, disk := &g.log, g.volume.disk
	if err := g.volume.hasRoom(first.id, segmentHead+first.length()); err != nil && !first.moves() {
		return err // and no file was made in vain
	}
	g.mu.Lock()
	g.last++
	name := segmentName{g.last, rand.Uint64()}
	g.mu.Unlock()
	f, err := disk.create(g.path(name))
	if err != nil {
		return failure("create a file", err)
	}
	l.tail, l.file, l.allocated = &segment{segmentName: name, file: f, length: segmentHead}, f, 0
	g.mu.Lock()
	g.known[name.number] = l.tail
	g.open++
	g.mu.Unlock()
	if err := g.allocate(first, segmentHead+first.length()); err != nil {
		g.giveUpTail()
		return err
	}
	if err := disk.writeAt(f, name.head(), 0); err != nil {
		return failure("write", err)
	}
	if err := disk.syncFile(f); err != nil {
		return syncFailure("fsync of a file", err)
	}
	if err := disk.syncDir(g.dir()); err != nil {
		return syncFailure("fsync of a directory", err)
	}
	return nil
}

// append writes records behind the others, and makes them durable.
func (g *segments) append(writes []*packedWrite, size int64) error {
	l, disk := &g.log, g.volume.disk
	durable := l.tail.length
	at, from := durable, durable // of the next record, of the buffer
	buffer := slices.Grow(l.buffer[:0], int(min(size, logBuffer+recordSize(dfs.BlockSize))))
	records := make([]record, 0, len(writes))
	for _, w := range writes {
		r := record{id: w.id, at: uint32(at), size: uint32(len(w.data)), crc: w.crc}
		buffer = l.tail.appendRecord(buffer, r, uint32(durable), w.data)
		at = r.end()
		records = append(records, r)
		w.at = place{l.tail.number, r.at}
		if len(buffer) >= logBuffer || at == durable+size {
			if err := disk.writeAt(l.file, buffer, from); err != nil {
				return failure("write", err)
			}
			buffer, from = buffer[:0], at
		}
	}
	l.buffer = buffer
	if err := disk.syncData(l.file); err != nil {
		return syncFailure("fsync of a file", err)
	}
	l.tail.marking.Lock()
	l.tail.records = append(l.tail.records, records...)
	l.tail.marking.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	l.tail.length += size
	l.tail.live += size
	return nil
}

// seal ends a segment that is full. That it has no index is no harm: the next
// start makes one.
func (g *segments) seal() {
	l, v := &g.log, g.volume
	if err := v.disk.truncate(l.file, l.tail.length); err != nil {
		v.log.Warn("a segment keeps space that it does not need", "segment", l.tail.segmentName, "error", err)
	}
	if err := g.writeIndex(l.tail, l.tail.records); err != nil {
		v.log.Warn("a segment has no index until the next start", "segment", l.tail.segmentName, "error", err)
	}
	g.endTail()
}

// giveUpTail cuts off what was not acknowledged, and appends nothing to that
// segment again: what a failed write or fsync has left in it is not known.
func (g *segments) giveUpTail() {
	l, v := &g.log, g.volume
	if l.tail == nil {
		return
	}
	seg := l.tail
	switch {
	case seg.length == segmentHead:
		g.endTail()
		g.unlink(seg)
	case v.failed() == nil:
		g.seal()
		g.settleEnd(seg)
	default:
		if err := v.disk.truncate(l.file, seg.length); err != nil {
			v.log.Warn("chunks that were refused may stay on the disk", "segment", seg.segmentName, "error", err)
		}
		g.endTail()
	}
}

// settleEnd makes durable that something was cut off. If it came back, it would
// be taken for damage, which is no more than a false alarm.
func (g *segments) settleEnd(seg *segment) {
	_, f, err := g.acquire(seg.number)
	if err == nil {
		err = g.volume.disk.syncFile(f)
		g.release(seg)
	}
	if err != nil {
		g.volume.log.Warn("chunks that were refused may be reported as damaged after a power cut", "segment", seg.segmentName, "error", err)
	}
}

func (g *segments) endTail() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log.tail.sealed = true
	g.log.tail, g.log.file, g.log.allocated = nil, nil, 0
}

// writeIndex writes the index of a segment that is sealed. It is checked when it
// is read, so nothing needs to be fsynced.
func (g *segments) writeIndex(seg *segment, records []record) error {
	seg.marking.Lock()
	defer seg.marking.Unlock()
	temp := g.index(seg.segmentName) + ".tmp"
	f, err := g.volume.disk.create(temp)
	if err != nil {
		return err
	}
	err = g.volume.disk.write(f, seg.encodeIndex(records, seg.length))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = g.volume.disk.replace(temp, g.index(seg.segmentName))
	}
	if err != nil {
		_ = os.Remove(temp) // or the next start does
		return err
	}
	seg.indexed = int64(len(records))
	seg.records = nil
	return nil
}
