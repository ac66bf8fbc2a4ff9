package chunkstore

import (
	"errors"
	"io/fs"
	"sync"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// PackLimit is up to how many bytes a chunk is packed with others. It is one
// block: then its checksum is that of its only block.
const PackLimit = dfs.BlockSize

// packs tells whether a chunk of so many bytes lies in a segment.
func (s *Store) packs(size int64) bool { return !s.unpacked && size <= PackLimit }

// Put stores a chunk whose data is in memory. It is Create, Write and Commit in
// one, and fails like them. After Unavailable the disk may go on with data for as
// long as it hangs: then it is not to be used again.
func (s *Store) Put(id dfs.ChunkID, data []byte, want dfs.Checksum) (Info, error) {
	size := int64(len(data))
	if !s.packs(size) {
		return s.putFile(id, data, want)
	}
	if err := s.mayCreate(id, size); err != nil {
		return Info{}, err
	}
	info := Info{ID: id, Size: size, CRC32C: dfs.ChecksumOf(data)}
	if info.CRC32C != want {
		return Info{}, wrongChecksum(info, want)
	}
	err := errNoVolume() // when there is none to try
	for _, v := range s.choose(recordSize(size)) {
		if err = s.putOn(v, info, data); dfs.CodeOf(err) != dfs.NoSpace {
			break
		}
	}
	if err != nil {
		return Info{}, err
	}
	return info, nil
}

func (s *Store) putFile(id dfs.ChunkID, data []byte, want dfs.Checksum) (Info, error) {
	w, err := s.Create(id, int64(len(data)))
	if err != nil {
		return Info{}, err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return Info{}, err
	}
	return w.Commit(want)
}

// putOn appends a chunk to the segments of one volume.
func (s *Store) putOn(v *volume, info Info, data []byte) error {
	release, err := s.claim(info.ID)
	if err != nil {
		return err
	}
	if held, ok := s.Stat(info.ID); ok {
		release()
		return sameContent(held, info)
	}
	size := recordSize(info.Size)
	v.expect(size)
	w := &packedWrite{id: info.ID, data: data, crc: info.CRC32C, done: func() { v.expect(-size); release() }}
	b, err := v.segments.write(w)
	if err != nil {
		w.done()
		return err
	}
	if err := v.await(b.task, writeTimeout); err != nil {
		return unanswered(info.ID) // what is written is done with when the disk answers
	}
	return w.err
}

// holdPacked puts records that are durable now into the index. The chunks are
// claimed.
func (s *Store) holdPacked(v *volume, writes []*packedWrite) {
	s.mu.Lock()
	defer s.mu.Unlock()
	serves := v.serves()
	for _, w := range writes {
		switch {
		case !serves:
			w.err = v.failed()
		case w.moves():
			if s.ledger.move(w.id, w.from, w.at) {
				v.segments.count(w.from.segment, -w.length(), 0)
			} else {
				w.err = notHeld(w.id)
			}
		default:
			s.ledger.add(w.id, entry{size: uint32(len(w.data)), crc: w.crc, place: w.at, volume: v.index})
		}
	}
}

// recordBuffer has room for the largest record, without its padding.
type recordBuffer [recordHead + PackLimit]byte

func newRecordBuffers() *sync.Pool { return &sync.Pool{New: func() any { return new(recordBuffer) }} }

// openPacked reads a packed chunk, all of it, and checks it.
func (s *Store) openPacked(id dfs.ChunkID, e entry) (*Chunk, error) {
	v := s.volumes[e.volume]
	c := &Chunk{Info: e.info(id), place: e.place, volume: v, buffers: s.buffers, buffer: s.buffers.Get().(*recordBuffer)}
	b := c.buffer[:recordHead+int(e.size)]
	c.data = b[recordHead:]
	err := v.segments.readNow(e.record(id), e.segment, b)
	if errors.Is(err, errNotCached) {
		err = v.attempt(newTask(v, "read a chunk", true), hangTimeout, func(*task) error {
			return v.segments.readRecord(e.record(id), e.segment, b)
		}, nil)
		if errors.As(err, new(*noAnswer)) {
			return nil, unanswered(id) // and the buffer is the task's
		}
	}
	if err == nil {
		v.readWell()
		return c, nil
	}
	defer c.discard()
	return nil, s.judgePacked(c, e, err)
}

// judgePacked tells what it means that a packed chunk could not be read. It
// fails with errSegmentGone when it is to be read again, elsewhere.
func (s *Store) judgePacked(c *Chunk, e entry, err error) error {
	if now, failure := s.entry(c.ID); failure == nil && now.place != e.place {
		return errSegmentGone // moved, or put anew
	}
	var bad damage
	switch {
	case errors.Is(err, errSegmentGone), isMissing(err):
		return s.fileVanished(c.ID, e)
	case errors.As(err, &bad):
		return s.condemn(c.ID, e.place, err)
	case dfs.CodeOf(err) == dfs.Unavailable: // the store is being closed
		return err
	}
	s.readFailed(c.volume, spotOf(c.ID, e.place), err)
	return readError(c.ID, err)
}

// errNotCached is of a record that cannot be had without asking the disk.
var errNotCached = errors.New("not in memory")

// readNow is readRecord for what is in memory. Such a read cannot hang, and so
// needs nobody who watches it.
func (g *segments) readNow(want record, number uint32, b []byte) error {
	seg := g.lookup(number)
	if g.volume.disk.hook != nil || seg == nil || !g.use(seg) {
		return errNotCached
	}
	defer g.release(seg)
	if !readCached(seg.file, b, int64(want.at)) {
		return errNotCached
	}
	return seg.check(want, b)
}

// use is acquire for a file that is open already.
func (g *segments) use(seg *segment) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if seg.file == nil || g.closed {
		return false
	}
	seg.users++
	return true
}

func checkRecordData(want record, b []byte) error {
	if dfs.ChecksumOf(b[recordHead:]) != want.crc {
		return damage("its data is not what was written")
	}
	return nil
}

// readPacked reads the data of a packed chunk and checks it. What could be read
// is returned also when it is damaged.
func (v *volume) readPacked(id dfs.ChunkID, e entry) ([]byte, error) {
	b := make([]byte, recordHead+int(e.size))
	err := v.segments.readRecord(e.record(id), e.segment, b)
	return b[recordHead:], err
}

// isMissing tells whether err is of a file that is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
