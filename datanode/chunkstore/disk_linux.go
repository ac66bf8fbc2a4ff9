package chunkstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// badStructure is what file systems say of damage of their own.
const badStructure = unix.EUCLEAN

// allocate is fallocate(2), which makes the file longer. File systems without it
// find out later.
func allocate(f *os.File, size int64) error { return fallocate(f, 0, size) }

// reserve is allocate that leaves the length of the file as it is.
func reserve(f *os.File, size int64) error { return fallocate(f, unix.FALLOC_FL_KEEP_SIZE, size) }

func fallocate(f *os.File, mode uint32, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), mode, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		}
		return err
	}
}

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}

// readCached reads what is in memory already, and tells whether all of it was:
// then no disk can hang.
func readCached(f *os.File, p []byte, offset int64) bool {
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{p}, offset, unix.RWF_NOWAIT)
	return err == nil && n == len(p)
}

func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return linkAndUnlink(from, to) // a file system that cannot do it in one step
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
