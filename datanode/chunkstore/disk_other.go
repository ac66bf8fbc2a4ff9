//go:build unix && !linux

package chunkstore

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate does nothing where there is no fallocate(2): a full disk is noticed
// while writing.
func allocate(*os.File, int64) error { return nil }

func reserve(*os.File, int64) error { return nil }

func fdatasync(f *os.File) error { return f.Sync() }

func readCached(*os.File, []byte, int64) bool { return false }

func renameNoReplace(from, to string) error { return linkAndUnlink(from, to) }

// badStructure is what file systems say of damage of their own.
const badStructure = unix.EIO
