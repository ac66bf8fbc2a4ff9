//go:build !linux

package wal

import "os"

// allocate only sets the length: that the disk is full is noticed by writing.
func allocate(f *os.File, size int64) error { return f.Truncate(size) }

func syncData(f *os.File) error { return f.Sync() }
