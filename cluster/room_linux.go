package cluster

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// takeBlocks gives a file its blocks up to length, without making it longer.
func takeBlocks(path string, length int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, length), f.Close())
}

// freeBytes returns what this user may still write to the disk of dir.
func freeBytes(dir string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}
