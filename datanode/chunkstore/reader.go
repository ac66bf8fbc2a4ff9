package chunkstore

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Chunk is an open chunk. The first Size bytes of File are its data; the rest
// is nobody's business. It stays readable when the chunk is removed.
type Chunk struct {
	Info
	File *os.File

	blocks     []dfs.Checksum
	generation uint64
	volume     *volume
}

// Close closes the file.
func (c *Chunk) Close() error { return c.File.Close() }

// Blocks returns the checksum of each block of the data, as written. They are
// not to be changed.
func (c *Chunk) Blocks() []dfs.Checksum { return c.blocks }

// OpenChunk opens a chunk for reading. The footer is checked, the data is not.
// It fails with NotFound when the chunk is not held, Corrupt when it turns out
// to be damaged, which puts it into quarantine, Internal when the disk fails,
// and else like Ready.
func (s *Store) OpenChunk(id dfs.ChunkID) (*Chunk, error) {
	e, err := s.entry(id)
	if err != nil {
		return nil, err
	}
	f, err := e.volume.disk.open(e.volume.path(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.fileVanished(id, e)
	case err != nil:
		s.readFailed(e.volume, id, err)
		return nil, readError(id, err)
	}
	c := &Chunk{Info: Info{ID: id, Size: e.size, CRC32C: e.crc}, File: f, generation: e.generation, volume: e.volume}
	if err := s.checkFooter(c); err != nil {
		_ = f.Close() // only read from
		return nil, err
	}
	return c, nil
}

// fileVanished tells what it means that a chunk has no file.
func (s *Store) fileVanished(id dfs.ChunkID, e entry) error {
	if !s.stillThere(e.volume) {
		return notHeld(id)
	}
	if err := s.quarantine(id, e.generation, "the file has vanished"); err != nil {
		return err // removed meanwhile
	}
	return damaged(id, errors.New("the file has vanished"))
}

func (s *Store) checkFooter(c *Chunk) error {
	foot, err := c.volume.readFooter(c.File)
	if err == nil && (Info{foot.id, foot.size, foot.crc}) != c.Info {
		err = damage("the footer is that of another chunk")
	}
	var bad damage
	switch {
	case errors.As(err, &bad), errors.Is(err, errNewer): // the format was known when the store was opened
		return s.condemn(c, err)
	case err != nil:
		s.readFailed(c.volume, c.ID, err)
		return readError(c.ID, err)
	}
	c.blocks = foot.blocks
	return nil
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
	defer c.Close() // only read from
	err = c.volume.checkBlocks(c.File, footer{id: id, size: c.Size, crc: c.CRC32C, blocks: c.blocks})
	var bad damage
	switch {
	case errors.As(err, &bad):
		return s.condemn(c, err)
	case err != nil:
		s.readFailed(c.volume, id, err)
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
	s.readFailed(c.volume, c.ID, err)
}

// Steady tells why nobody should rely on a chunk although it can be read: nil,
// NotFound when it is not held, or Internal when its disk has failed or hangs.
func (s *Store) Steady(id dfs.ChunkID) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	return e.volume.writable()
}

// condemn quarantines the very file that was found damaged.
func (s *Store) condemn(c *Chunk, why error) error {
	if err := s.quarantine(c.ID, c.generation, why.Error()); err != nil && dfs.CodeOf(err) != dfs.NotFound {
		s.log.Error("a damaged chunk could not be put into quarantine", "chunk", c.ID, "error", err)
	}
	return damaged(c.ID, why)
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
