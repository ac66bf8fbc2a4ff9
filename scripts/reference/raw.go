package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// block is written at a time to a raw file.
const block = mib

// disk is a directory on the disk that everything is measured on.
type disk struct{ dir string }

// rawWrite writes files of size bytes at once, each with fsync, and removes
// them. Bytes count once for each three: they stand for replicas.
func (d disk) rawWrite(ctx context.Context, files int, size int64) (load, error) {
	data := make([]byte, 8*block)
	if _, err := rand.Read(data); err != nil {
		return load{}, err
	}
	dir, err := os.MkdirTemp(d.dir, "write-")
	if err != nil {
		return load{}, err
	}
	defer os.RemoveAll(dir)
	result, err := repeat(ctx, files, 0, int64(files), func(_ context.Context, i int64) (int64, error) {
		return size, writeFile(filepath.Join(dir, fmt.Sprint(i)), data, size)
	})
	result.Bytes /= 3
	result.BytesPerSec /= 3
	return result, err
}

// writeFile writes size bytes, made of data, and fsyncs.
func writeFile(name string, data []byte, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for written := int64(0); written < size && err == nil; {
		at := written % int64(len(data))
		n := min(size-written, int64(len(data))-at, block)
		_, err = f.Write(data[at : at+n])
		written += n
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// rawSmall has writers that make a file durable in three directories, one after
// the other: create, write, fsync, rename, fsync of the directory.
func (d disk) rawSmall(ctx context.Context, writers int, size int, last time.Duration) (load, error) {
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		return load{}, err
	}
	top, err := os.MkdirTemp(d.dir, "small-")
	if err != nil {
		return load{}, err
	}
	defer os.RemoveAll(top)
	var dirs [3]*os.File
	for i := range dirs {
		name := filepath.Join(top, fmt.Sprint(i))
		if err := os.Mkdir(name, 0o755); err != nil {
			return load{}, err
		}
		if dirs[i], err = os.Open(name); err != nil {
			return load{}, err
		}
		defer dirs[i].Close()
	}
	return repeat(ctx, writers, last, 0, func(_ context.Context, i int64) (int64, error) {
		for _, dir := range dirs {
			name := filepath.Join(dir.Name(), fmt.Sprint(i))
			if err := writeFile(name+".tmp", data, int64(size)); err != nil {
				return 0, err
			}
			if err := os.Rename(name+".tmp", name); err != nil {
				return 0, err
			}
			if err := dir.Sync(); err != nil {
				return 0, err
			}
		}
		return int64(size), nil
	})
}

// copied is the size of the files that rawCopy makes: that of chunks.
const copied = 4 * mib

// rawCopy copies bytes from files that are in the page cache to new ones, each
// with fsync, by two at once.
func (d disk) rawCopy(ctx context.Context, bytes int64) (load, error) {
	data := make([]byte, copied)
	if _, err := rand.Read(data); err != nil {
		return load{}, err
	}
	dir, err := os.MkdirTemp(d.dir, "copy-")
	if err != nil {
		return load{}, err
	}
	defer os.RemoveAll(dir)
	files := max(bytes/copied, 1)
	from := func(i int64) string { return filepath.Join(dir, fmt.Sprintf("from-%d", i)) }
	if _, err := repeat(ctx, 2, 0, files, func(_ context.Context, i int64) (int64, error) {
		return 0, writeFile(from(i), data, copied)
	}); err != nil {
		return load{}, err
	}
	return repeat(ctx, 2, 0, files, func(_ context.Context, i int64) (int64, error) {
		return copied, copyFile(from(i), filepath.Join(dir, fmt.Sprintf("to-%d", i)))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // only read from
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	// Not io.Copy, with which some file systems only share the blocks.
	if _, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, block)); err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
