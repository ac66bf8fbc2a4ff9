package chunkstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// makeDataDir makes the data directory and what is missing above it.
func (v *volume) makeDataDir() error {
	dir, err := filepath.Abs(v.dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return v.makeBelow(filepath.Dir(dir), dir)
}

// makeBelow makes dir in parent, which may be missing too. Each directory is
// durable before the next is made, so that a start that dies here leaves at
// most the last one in doubt.
func (v *volume) makeBelow(parent, dir string) error {
	switch _, err := os.Stat(parent); {
	case errors.Is(err, fs.ErrNotExist):
		if err := v.makeBelow(filepath.Dir(parent), parent); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := v.settle(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return v.disk.syncDir(parent)
}

// settle makes the entry of a directory durable that was there already: an
// earlier start may have made it and died. Where this user may not read, it has
// been made by somebody else.
func (v *volume) settle(dir string) error {
	err := v.disk.syncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// makeDirectories makes what is missing inside, and makes it durable before a
// file can be put there. Without an identity nothing is known to be durable:
// an earlier start may have died between making and syncing.
func (v *volume) makeDirectories(isNew bool) error {
	dirs := []string{v.chunksDir(), v.segments.dir(), v.tempDir(), v.quarantineDir(), v.trashDir()}
	for shard := range shardCount {
		dirs = append(dirs, v.shardDir(shard))
	}
	made := isNew
	for _, dir := range dirs {
		err := os.Mkdir(dir, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return unreadable(v.dir, err)
		}
		made = made || err == nil
	}
	if !made {
		return nil
	}
	for _, dir := range []string{v.chunksDir(), v.dir} {
		if err := v.disk.syncDir(dir); err != nil {
			return unreadable(v.dir, err)
		}
	}
	if !isNew {
		return nil
	}
	dir, err := filepath.Abs(v.dir)
	if err == nil {
		err = v.settle(dir)
	}
	if err != nil {
		return unreadable(v.dir, err)
	}
	return nil
}
