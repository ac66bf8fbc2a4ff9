package chunkstore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Op names an operation on the disk.
type Op string

// The operations that a Hook is asked about.
const (
	OpCreate   Op = "create"    // a file
	OpAllocate Op = "allocate"  // space for a chunk
	OpWrite    Op = "write"     // to a file
	OpSyncFile Op = "sync file" // fsync
	OpSyncData Op = "sync data" // fdatasync of a segment
	OpTruncate Op = "truncate"  // a segment
	OpRename   Op = "rename"    // the path is the new one
	OpSyncDir  Op = "sync dir"  // fsync
	OpRemove   Op = "remove"    // a file
	OpOpen     Op = "open"      // a chunk file or a segment, for reading
	OpRead     Op = "read"      // from a chunk file or a segment
	OpStat     Op = "stat"      // a data directory, or its identity.json, by a probe
)

// Hook is called before each operation on the disk. An error is returned
// instead of doing the operation: this is how tests make a disk fail or hang.
// It may be called by several goroutines at once.
type Hook func(op Op, path string) error

// disk is the operating system with the hook in front. It adds nothing else.
type disk struct{ hook Hook }

func (d disk) before(op Op, path string) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op, path)
}

func (d disk) create(path string) (*os.File, error) {
	if err := d.before(OpCreate, path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}

// allocate makes size bytes of f its own, so that a full disk is noticed now.
func (d disk) allocate(f *os.File, size int64) error {
	if err := d.before(OpAllocate, f.Name()); err != nil {
		return err
	}
	return allocate(f, size)
}

// reserve is allocate for a file that grows into its space.
func (d disk) reserve(f *os.File, size int64) error {
	if err := d.before(OpAllocate, f.Name()); err != nil {
		return err
	}
	return reserve(f, size)
}

func (d disk) write(f *os.File, p []byte) error {
	if err := d.before(OpWrite, f.Name()); err != nil {
		return err
	}
	_, err := f.Write(p)
	return err
}

func (d disk) syncFile(f *os.File) error {
	if err := d.before(OpSyncFile, f.Name()); err != nil {
		return err
	}
	return f.Sync()
}

func (d disk) writeAt(f *os.File, p []byte, offset int64) error {
	if err := d.before(OpWrite, f.Name()); err != nil {
		return err
	}
	_, err := f.WriteAt(p, offset)
	return err
}

// syncData is syncFile without what is not needed to read the file again.
func (d disk) syncData(f *os.File) error {
	if err := d.before(OpSyncData, f.Name()); err != nil {
		return err
	}
	return fdatasync(f)
}

func (d disk) truncate(f *os.File, size int64) error {
	if err := d.before(OpTruncate, f.Name()); err != nil {
		return err
	}
	return f.Truncate(size)
}

// place renames a file to a name that must be free.
func (d disk) place(from, to string) error {
	if err := d.before(OpRename, to); err != nil {
		return err
	}
	return renameNoReplace(from, to)
}

func (d disk) replace(from, to string) error {
	if err := d.before(OpRename, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (d disk) syncDir(path string) error {
	if err := d.before(OpSyncDir, path); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d disk) remove(path string) error {
	if err := d.before(OpRemove, path); err != nil {
		return err
	}
	return os.Remove(path)
}

func (d disk) open(path string) (*os.File, error) {
	if err := d.before(OpOpen, path); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// openToMark opens what four bytes of are to be changed.
func (d disk) openToMark(path string) (*os.File, error) {
	if err := d.before(OpOpen, path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func (d disk) readAt(f *os.File, p []byte, offset int64) error {
	if err := d.before(OpRead, f.Name()); err != nil {
		return err
	}
	_, err := f.ReadAt(p, offset)
	return err
}

// readWhole is readAt for what must be there.
func (d disk) readWhole(f *os.File, p []byte, offset int64) error {
	err := d.readAt(f, p, offset)
	if errors.Is(err, io.EOF) {
		return damage("the file has become shorter")
	}
	return err
}

// writeFile replaces path by a file with this content, or leaves it as it was.
func (d disk) writeFile(path string, content []byte) (err error) {
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.create(temp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()       // the first error is the one to tell;
			_ = os.Remove(temp) // what stays is removed by the next attempt
		}
	}()
	if err := d.write(f, content); err != nil {
		return err
	}
	if err := d.syncFile(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := d.replace(temp, path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// reason is err without the path, which is nobody's business outside.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// notBegun tells whether an fsync failed before it began, for want of a file
// descriptor for instance: that says nothing of the disk, unless it is broken.
func notBegun(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Op == "open"
}

// isFinal tells whether a failed fsync leaves it unknown what is on the disk.
// A full disk, and one that could not even be asked, do not.
func isFinal(err error) bool {
	return isBroken(err) || !isFull(err) && !notBegun(err)
}

// isBroken tells whether err speaks of the disk rather than of the request.
func isBroken(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENXIO)
}

// IsUnreadable tells whether err is of one place of the disk, or of a file that
// has gone; and not of the process, or of a disk that does not answer.
func IsUnreadable(err error) bool {
	for _, one := range []error{syscall.EIO, syscall.EBADMSG, badStructure, syscall.ENOENT} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// isBadRead tells whether err is of a disk that does not let itself be read.
func isBadRead(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ESTALE)
}

// isVanished tells whether err, of a data directory as a whole, says that there
// is none any more.
func isVanished(err error) bool {
	return isBadRead(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENODEV)
}

// isShortage tells whether err is of the process or the machine as a whole.
func isShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// writeError says for the sender of a chunk what went wrong on the disk.
func writeError(id dfs.ChunkID, err error) error {
	if isFull(err) {
		return dfs.Errorf(dfs.NoSpace, "the disk is full: chunk %s does not fit; delete files or add a DataNode", id)
	}
	return dfs.Errorf(dfs.Internal, "chunk %s could not be written to the disk (%w); use another DataNode and look at the log of this one", id, reason(err))
}
