package chunkstore

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Chunk is an open chunk. It stays readable when the chunk is removed.
type Chunk struct {
	Info

	file   *os.File // of a chunk with a file of its own
	at     int64    // position in file; negative when it is not known
	blocks []dfs.Checksum

	data    []byte // of a packed chunk: all of it, verified, in buffer
	buffer  *recordBuffer
	buffers *sync.Pool

	place  place
	volume *volume
}

// Close closes the file. The chunk is not to be used afterwards.
func (c *Chunk) Close() error {
	if c.buffer != nil {
		c.buffers.Put(c.buffer)
		c.buffer, c.data = nil, nil
	}
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// Blocks returns the checksum of each block of the data, as written. They are
// not to be changed.
func (c *Chunk) Blocks() []dfs.Checksum {
	if c.file == nil {
		return []dfs.Checksum{c.CRC32C}
	}
	return c.blocks
}

// Send writes n bytes of the data from an offset on. What a file has, the
// kernel sends by itself if w lets it. It fails like w, or like the disk. It is
// not for concurrent use.
func (c *Chunk) Send(w io.Writer, offset, n int64) (int64, error) {
	if c.file == nil {
		written, err := w.Write(c.data[offset : offset+n])
		return int64(written), err
	}
	if c.at != offset {
		if _, err := c.file.Seek(offset, io.SeekStart); err != nil {
			return 0, err
		}
	}
	sent, err := io.CopyN(w, c.file, n)
	c.at = offset + sent
	if err != nil {
		c.at = -1 // more may have been read than was sent
	}
	return sent, err
}

// ReadAt implements io.ReaderAt for the data.
func (c *Chunk) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset >= c.Size {
		return 0, io.EOF
	}
	short := int64(len(p)) > c.Size-offset
	p = p[:min(int64(len(p)), c.Size-offset)]
	n, err := len(p), error(nil)
	if c.file == nil {
		copy(p, c.data[offset:])
	} else {
		n, err = c.file.ReadAt(p, offset)
	}
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// OpenChunk opens a chunk for reading. Of a file the footer is checked, the data
// is not; a packed chunk is checked wholly. It fails with NotFound when the
// chunk is not held, Corrupt when it turns out to be damaged, which puts it into
// quarantine, Internal when the disk fails, Unavailable when it does not answer,
// and else like Ready.
func (s *Store) OpenChunk(id dfs.ChunkID) (*Chunk, error) {
	for {
		e, err := s.entry(id)
		if err != nil {
			return nil, err
		}
		if err := s.volumes[e.volume].silent(id); err != nil {
			return nil, err
		}
		if !e.packed() {
			return s.openFile(id, e)
		}
		c, err := s.openPacked(id, e)
		if !errors.Is(err, errSegmentGone) {
			return c, err
		}
	}
}

func (s *Store) openFile(id dfs.ChunkID, e entry) (*Chunk, error) {
	v := s.volumes[e.volume]
	c := &Chunk{Info: e.info(id), place: e.place, volume: v}
	var foot footer
	err := v.attempt(newTask(v, "open a chunk", true), hangTimeout, func(*task) (err error) {
		if c.file, err = v.disk.open(v.path(id)); err == nil {
			foot, err = v.readFooter(c.file)
		}
		return err
	}, c.discard)
	if errors.As(err, new(*noAnswer)) {
		return nil, unanswered(id)
	}
	if err = s.checkOpened(c, e, foot, err); err != nil {
		c.discard()
		return nil, err
	}
	c.blocks = foot.blocks
	return c, nil
}

func (c *Chunk) discard() { _ = c.Close() } // only read from

// checkOpened judges what came of opening a chunk.
func (s *Store) checkOpened(c *Chunk, e entry, foot footer, err error) error {
	if err == nil && (Info{foot.id, foot.size, foot.crc}) != c.Info {
		err = damage("the footer is that of another chunk")
	}
	var bad damage
	switch {
	case err == nil:
		return nil
	case c.file == nil && isMissing(err):
		return s.fileVanished(c.ID, e)
	case errors.As(err, &bad), errors.Is(err, errNewer): // the format was known when the store was opened
		return s.condemn(c.ID, c.place, err)
	case dfs.CodeOf(err) == dfs.Unavailable: // the store is being closed
		return err
	}
	s.readFailed(c.volume, spotOf(c.ID, c.place), err)
	return readError(c.ID, err)
}

// fileVanished tells what it means that a chunk has no file.
func (s *Store) fileVanished(id dfs.ChunkID, e entry) error {
	if !s.stillThere(s.volumes[e.volume]) {
		return notHeld(id)
	}
	if err := s.quarantine(id, e.place, "the file has vanished"); err != nil {
		return err // removed meanwhile
	}
	return damaged(id, errors.New("the file has vanished"))
}

// readFooter reads and checks the footer. It fails like decodeFooter, or with
// the error of the disk.
func (v *volume) readFooter(f *os.File) (footer, error) {
	stat, err := f.Stat()
	if err != nil {
		return footer{}, err
	}
	tail := make([]byte, min(stat.Size(), maxFooterSize))
	switch err := v.disk.readAt(f, tail, stat.Size()-int64(len(tail))); {
	case errors.Is(err, io.EOF):
		return footer{}, damage("the file has become shorter")
	case err != nil:
		return footer{}, err
	}
	return decodeFooter(tail, stat.Size())
}

// Verify reads a chunk wholly and compares each block with its checksum. It
// fails like OpenChunk.
func (s *Store) Verify(id dfs.ChunkID) error {
	c, err := s.OpenChunk(id)
	if err != nil {
		return err
	}
	if c.file == nil { // it has just been read
		return c.Close()
	}
	v := c.volume
	err = v.attempt(newTask(v, "read a chunk", true), hangTimeout, func(t *task) error {
		return v.checkBlocks(c.file, footer{id: id, size: c.Size, crc: c.CRC32C, blocks: c.blocks}, t.moved)
	}, c.discard)
	if errors.As(err, new(*noAnswer)) {
		return unanswered(id)
	}
	defer c.Close() // only read from
	var bad damage
	switch {
	case errors.As(err, &bad):
		return s.condemn(id, c.place, err)
	case dfs.CodeOf(err) == dfs.Unavailable: // the store is being closed
		return err
	case err != nil:
		s.readFailed(v, spotOf(id, c.place), err)
		return readError(id, err)
	}
	c.volume.readWell()
	return nil
}

// ReadEnded says what came of reading the data of a chunk: nil, or an error of
// which only those of the disk count. A disk that refuses several chunks in a
// row is taken out of service.
func (s *Store) ReadEnded(c *Chunk, err error) {
	if err == nil {
		c.volume.readWell()
		return
	}
	s.readFailed(c.volume, spotOf(c.ID, c.place), err)
}

// Reading is to be called before a part of a chunk is read, and what it returns
// afterwards. When limit passes in between, the disk is taken to hang.
func (s *Store) Reading(c *Chunk, limit time.Duration) (done func()) {
	if c.file == nil {
		return func() {} // all of it is in memory
	}
	t := newTask(c.volume, "send a chunk", true)
	timer := time.AfterFunc(limit, func() { _ = t.giveUp() }) // that it does not answer is noted
	return func() {
		timer.Stop()
		t.end(nil)
	}
}

// Steady tells why nobody should rely on a chunk although it can be read: nil,
// NotFound when it is not held, or Internal when its disk has failed or hangs.
func (s *Store) Steady(id dfs.ChunkID) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	return s.volumes[e.volume].writable()
}

// condemn quarantines the very bytes that were found damaged.
func (s *Store) condemn(id dfs.ChunkID, where place, why error) error {
	if err := s.quarantine(id, where, why.Error()); err != nil && dfs.CodeOf(err) != dfs.NotFound {
		s.log.Error("a damaged chunk could not be put into quarantine", "chunk", id, "error", err)
	}
	return damaged(id, why)
}

func notHeld(id dfs.ChunkID) error {
	return dfs.Errorf(dfs.NotFound, "chunk %s is not on this DataNode", id)
}

func damaged(id dfs.ChunkID, why error) error {
	return dfs.Errorf(dfs.Corrupt, "chunk %s is damaged on this DataNode (%w); read another replica", id, why)
}

func readError(id dfs.ChunkID, err error) error {
	return dfs.Errorf(dfs.Internal, "chunk %s could not be read from the disk (%w); read another replica and look at the log of this DataNode", id, reason(err))
}
