package chunkstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Writer takes the data of one chunk. Nothing is seen of it before Commit. Each
// Writer must end with Commit or Abort. It is not for concurrent use.
type Writer struct {
	store  *Store
	volume *volume
	id     dfs.ChunkID
	size   int64
	path   string   // of the temporary file; "" when there is none any more
	file   *os.File // nil when closed
	packed []byte   // what was written of a chunk that is to be packed; nil when that is over

	written int64
	crc     dfs.Checksum
	block   dfs.Checksum // of the block being filled
	blocks  []dfs.Checksum
	ended   bool // the volume does not expect it any more
	lost    bool // the disk does not answer: all of this is its task's, which cleans up
}

// Create begins a chunk of size bytes and takes its space on a disk. It fails
// with Invalid for an impossible size, NoSpace when the chunk does not fit
// beside the reserve of any disk, Internal when the disk fails, Unavailable when
// it does not answer (the next chunk goes to another, if there is one), and else
// like Ready.
func (s *Store) Create(id dfs.ChunkID, size int64) (*Writer, error) {
	if err := s.mayCreate(id, size); err != nil {
		return nil, err
	}
	if s.packs(size) {
		return s.createPacked(id, size)
	}
	err := errNoVolume() // when there is none to try
	for _, v := range s.choose(fileSize(size)) {
		var w *Writer
		if w, err = s.createOn(v, id, size); err == nil {
			return w, nil
		}
		if dfs.CodeOf(err) != dfs.NoSpace {
			break
		}
	}
	return nil, err
}

func (s *Store) mayCreate(id dfs.ChunkID, size int64) error {
	if id == 0 || size < 1 || size > dfs.MaxChunkSize {
		return dfs.Errorf(dfs.Invalid, "chunk %s cannot have %d bytes: 1 to %d are possible", id, size, dfs.MaxChunkSize)
	}
	return s.Ready()
}

// createPacked begins a chunk that is gathered in memory.
func (s *Store) createPacked(id dfs.ChunkID, size int64) (*Writer, error) {
	err := errNoVolume() // when there is none to try
	for _, v := range s.choose(recordSize(size)) {
		if err = v.hasRoom(id, recordSize(size)); err == nil {
			return &Writer{store: s, volume: v, id: id, size: size, packed: make([]byte, 0, size)}, nil
		}
		if dfs.CodeOf(err) != dfs.NoSpace {
			break
		}
	}
	return nil, err
}

func errNoVolume() error {
	return dfs.Errorf(dfs.Internal, "no disk of this DataNode takes chunks; use another DataNode and look at the log of this one")
}

func (s *Store) createOn(v *volume, id dfs.ChunkID, size int64) (*Writer, error) {
	w := &Writer{
		store:  s,
		volume: v,
		id:     id,
		size:   size,
		path:   filepath.Join(v.tempDir(), fmt.Sprintf("%s-%d", id, v.named.Add(1))),
		blocks: make([]dfs.Checksum, 0, blockCount(size)),
	}
	v.expect(fileSize(size))
	if err := w.attempt("begin a chunk", w.create); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// attempt does a step of writing. After it has failed because the disk does not
// answer, nothing of the Writer is to be touched but lost.
func (w *Writer) attempt(what string, step func() error) error {
	if w.lost {
		return unanswered(w.id)
	}
	err := w.volume.attempt(newTask(w.volume, what, false), writeTimeout, func(*task) error { return step() }, w.abort)
	if errors.As(err, new(*noAnswer)) {
		w.lost = true
		return unanswered(w.id)
	}
	return err
}

func (w *Writer) create() (err error) {
	v := w.volume
	v.allocation.Lock()
	defer v.allocation.Unlock()
	if err := v.writable(); err != nil {
		return err // since it was chosen
	}
	if err := v.makeRoom(w.id, fileSize(w.size)); err != nil {
		return err
	}
	if w.file, err = v.disk.create(w.path); err != nil {
		return w.failed("create a file", err)
	}
	if err := v.disk.allocate(w.file, fileSize(w.size)); err != nil {
		return w.failed("allocate space", err)
	}
	v.mu.Lock()
	v.figures.available -= fileSize(w.size)
	v.mu.Unlock()
	return nil
}

// failed turns an error of the disk into one for the sender.
func (w *Writer) failed(what string, err error) error {
	if isBroken(err) {
		w.volume.fail(what, err)
		w.store.Hurry()
	}
	return writeError(w.id, err)
}

// Write appends data. It fails with Invalid for bytes beyond the announced
// size, and NoSpace, Internal and Unavailable; after these only Abort is of use.
// After Unavailable the disk may go on with p for as long as it hangs: then p
// is not to be used again.
func (w *Writer) Write(p []byte) (int, error) {
	if w.lost {
		return 0, unanswered(w.id)
	}
	if int64(len(p)) > w.size-w.written {
		return 0, dfs.Errorf(dfs.Invalid, "chunk %s has more than the announced %d bytes", w.id, w.size)
	}
	if w.packed != nil {
		w.packed = append(w.packed, p...)
		w.written += int64(len(p))
		w.crc = w.crc.Update(p)
		return len(p), nil
	}
	if w.file == nil {
		return 0, dfs.Errorf(dfs.Internal, "chunk %s is not being written any more", w.id)
	}
	file := w.file
	err := w.attempt("write", func() error {
		if err := w.volume.disk.write(file, p); err != nil {
			return w.failed("write", err)
		}
		return nil
	})
	if err != nil {
		w.Abort()
		return 0, err
	}
	w.crc = w.crc.Update(p)
	for rest := p; len(rest) > 0; {
		n := min(int64(len(rest)), dfs.BlockSize-w.written%dfs.BlockSize)
		w.block = w.block.Update(rest[:n])
		w.written += n
		rest = rest[n:]
		if w.written%dfs.BlockSize == 0 || w.written == w.size {
			w.blocks = append(w.blocks, w.block)
			w.block = 0
		}
	}
	return len(p), nil
}

// Data is what was written of a chunk.
type Data interface {
	io.ReaderAt
	io.Closer
}

// OpenData opens the data for reading while it is being written. What Write
// has accepted can be read; it stays readable after Commit and Abort.
func (w *Writer) OpenData() (Data, error) {
	if w.packed != nil {
		return packedData{bytes.NewReader(w.packed[:w.size])}, nil
	}
	var f *os.File
	path := w.path
	err := w.volume.attempt(newTask(w.volume, "open", false), writeTimeout, func(*task) (err error) {
		f, err = w.volume.disk.open(path)
		return err
	}, func() {
		if f != nil {
			_ = f.Close() // only read from
		}
	})
	if errors.As(err, new(*noAnswer)) {
		return nil, unanswered(w.id)
	}
	if err != nil {
		return nil, w.failed("open", err)
	}
	return f, nil
}

// packedData is the memory of a Writer.
type packedData struct{ *bytes.Reader }

// Close implements io.Closer.
func (packedData) Close() error { return nil }

// Abort gives the chunk up. After Commit it does nothing.
func (w *Writer) Abort() {
	if w.packed != nil || w.lost {
		w.packed = nil
		return
	}
	if w.file == nil && w.path == "" {
		if !w.store.packs(w.size) {
			w.leave()
		}
		return
	}
	err := w.attempt("remove a temporary file", func() error { w.abort(); return nil })
	if err == nil || w.lost {
		return
	}
	w.leave() // the store is closed; tmp is emptied at the next start
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
}

func (w *Writer) leave() {
	if !w.ended {
		w.ended = true
		w.volume.expect(-fileSize(w.size))
	}
}

func (w *Writer) abort() {
	w.leave()
	if w.file != nil {
		_ = w.file.Close() // the file goes away
		w.file = nil
	}
	if w.path == "" {
		return
	}
	if err := w.volume.disk.remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.volume.log.Warn("a temporary file stays until the next start", "path", w.path, "error", err)
	}
	w.path = ""
}

// Commit makes the chunk durable and visible, and returns only then. It fails
// with Invalid when the data is shorter than announced or its checksum is not
// want, Conflict when other content is held under the ID, NoSpace when the disk
// is full, and Internal when it fails; nothing is kept then. It fails with
// Unavailable when the disk does not answer: then the chunk may be held later. A
// chunk that is held already, with the same content, is a success.
func (w *Writer) Commit(want dfs.Checksum) (Info, error) {
	if w.lost {
		return Info{}, unanswered(w.id)
	}
	defer w.Abort()
	info := Info{ID: w.id, Size: w.size, CRC32C: w.crc}
	switch {
	case w.written != w.size:
		return Info{}, dfs.Errorf(dfs.Invalid, "chunk %s ended after %d of %d bytes", w.id, w.written, w.size)
	case w.crc != want:
		return Info{}, wrongChecksum(info, want)
	case w.packed != nil:
		return w.store.Put(w.id, w.packed, want)
	case w.file == nil:
		return Info{}, dfs.Errorf(dfs.Internal, "chunk %s is not being written any more", w.id)
	}
	release, err := w.store.claim(w.id)
	if err != nil {
		return Info{}, err
	}
	if held, ok := w.store.Stat(w.id); ok {
		release()
		return info, sameContent(held, info)
	}
	err = w.attempt("write a chunk", func() error {
		defer release()
		if err := w.publish(); err != nil {
			return err
		}
		return w.hold(info)
	})
	if w.lost {
		return Info{}, err
	}
	release() // the store may have been closed
	if err != nil {
		return Info{}, err
	}
	return info, nil
}

func wrongChecksum(info Info, want dfs.Checksum) error {
	return dfs.Errorf(dfs.Invalid, "the CRC-32C of chunk %s is %s, not the announced %s: it was damaged on the way; send it again", info.ID, info.CRC32C, want)
}

func sameContent(held, info Info) error {
	if held != info {
		return dfs.Errorf(dfs.Conflict, "chunk %s is held already with other content (%d bytes, CRC-32C %s)", info.ID, held.Size, held.CRC32C)
	}
	return nil
}

func (w *Writer) publish() error {
	v := w.volume
	if err := v.failed(); err != nil {
		return err
	}
	if err := w.finishFile(); err != nil {
		return err
	}
	final := v.path(w.id)
	switch err := v.disk.place(w.path, final); {
	case errors.Is(err, fs.ErrExist):
		return dfs.Errorf(dfs.Conflict, "there is a file for chunk %s that does not belong to the index; restart this DataNode to have it examined", w.id)
	case err != nil:
		return w.failed("rename", err)
	}
	w.path = ""
	shard := shardOf(w.id)
	err := v.shards[shard].do(func() error { return v.disk.syncDir(v.shardDir(shard)) })
	if err != nil {
		err = w.unsynced("fsync of a directory", err)
		if err := v.disk.remove(final); err != nil {
			v.log.Warn("a chunk that was refused stays on the disk", "chunk", w.id, "error", err)
		}
		return err
	}
	return nil
}

func (w *Writer) finishFile() error {
	f := footer{id: w.id, size: w.size, crc: w.crc, blocks: w.blocks}
	if err := w.volume.disk.write(w.file, f.encode()); err != nil {
		return w.failed("write", err)
	}
	if err := w.volume.disk.syncFile(w.file); err != nil {
		return w.unsynced("fsync of a file", err)
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return w.unsynced("close", err)
	}
	return nil
}

// unsynced is failed for what was to make the chunk durable: then even an
// error that is not the disk's may have cost data.
func (w *Writer) unsynced(what string, err error) error {
	if isFinal(err) {
		w.volume.fail(what, err)
		w.store.Hurry()
	}
	return writeError(w.id, err)
}

// hold puts a durable chunk into the index. It fails with Internal when the
// volume has been taken out of service meanwhile.
func (w *Writer) hold(info Info) error {
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.volume.serves() {
		return w.volume.failed()
	}
	s.files++
	s.ledger.add(info.ID, fileEntry(info, s.files, w.volume))
	return nil
}
