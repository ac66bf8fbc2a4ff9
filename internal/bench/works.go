package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// DefaultPerDirectory is how many names a directory gets, so that neither one
// nor many directories are measured.
const DefaultPerDirectory = 1000

// Field is the directory that a measurement works in.
type Field struct {
	c            *client.Client
	root         dfs.Path
	data         []byte // random, for files to be cut from
	crop         int    // of names, since rename and delete use them up
	perDirectory int64
}

// NewField makes a directory of its own below parent. Remove removes it.
func NewField(ctx context.Context, c *client.Client, parent dfs.Path) (*Field, error) {
	root, err := parent.Join("bench-" + dfs.RandomHex()[:8])
	if err != nil {
		return nil, err
	}
	if err := c.MkdirAll(ctx, root); err != nil {
		return nil, err
	}
	f := &Field{c: c, root: root, data: make([]byte, 8<<20), perDirectory: DefaultPerDirectory}
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(f.data) // never fails
	return f, nil
}

// Root returns the directory.
func (f *Field) Root() dfs.Path { return f.root }

// SetPerDirectory lets each directory have count names instead of
// DefaultPerDirectory. It is to be called before any Work is made.
func (f *Field) SetPerDirectory(count int64) { f.perDirectory = max(count, 1) }

// Part is a field of the same data, whose names are not those of others. Its
// directory comes with the first file.
func (f *Field) Part(name string) (*Field, error) {
	root, err := f.root.Join(name)
	if err != nil {
		return nil, err
	}
	return &Field{c: f.c, root: root, data: f.data, perDirectory: f.perDirectory}, nil
}

// Remove removes everything that was made.
func (f *Field) Remove(ctx context.Context) error { return f.c.RemoveAll(ctx, f.root) }

func (f *Field) path(kind string, i int64) (dfs.Path, error) {
	return dfs.ParsePath(fmt.Sprintf("%s/%s/%d/%d", f.root, kind, i/f.perDirectory, i))
}

// content is size bytes, of which no two files have the same.
func (f *Field) content(i, size int64) io.Reader {
	at := int(uint64(i*7919) % uint64(len(f.data)))
	return io.LimitReader(&cycle{data: f.data, at: at}, size)
}

type cycle struct {
	data []byte
	at   int
}

func (c *cycle) Read(p []byte) (int, error) {
	n := copy(p, c.data[c.at:])
	c.at = (c.at + n) % len(c.data)
	return n, nil
}

// Put stores files of size bytes.
func (f *Field) Put(size int64, replication *int) Work {
	return func(ctx context.Context, i int64) (int64, error) {
		path, err := f.path("files", i)
		if err != nil {
			return 0, err
		}
		_, err = f.c.Upload(ctx, path, f.content(i, size), client.UploadOptions{Size: size, Replication: replication})
		return size, err
	}
}

// Get reads files, of which Put has stored count, and throws the bytes away.
func (f *Field) Get(count int64) Work {
	return func(ctx context.Context, i int64) (int64, error) {
		path, err := f.path("files", i%count)
		if err != nil {
			return 0, err
		}
		file, err := f.c.Download(ctx, path, io.Discard, client.DownloadOptions{})
		return file.Size, err
	}
}

// GetPiece reads up to length bytes of files, of which Put has stored count,
// from places all over them.
func (f *Field) GetPiece(count, size, length int64) Work {
	return func(ctx context.Context, i int64) (int64, error) {
		path, err := f.path("files", i%count)
		if err != nil {
			return 0, err
		}
		at := int64(uint64(i*7919*4096) % uint64(max(size-length, 0)+1))
		return f.c.ReadRange(ctx, path, io.Discard, at, length)
	}
}

// MetaKinds are the operations on the namespace that Meta knows.
func MetaKinds() []string { return []string{"mkdir", "create", "stat", "list", "rename", "delete"} }

// Renew lets create begin with new names: rename and delete have used up the
// old ones.
func (f *Field) Renew() { f.crop++ }

// Meta is an operation on the namespace: mkdir makes directories, create empty
// files; stat, list, rename and delete work on files that create has made,
// rename and delete on each only once. Made is how many there are.
func (f *Field) Meta(kind string, made int64) (Work, error) {
	if !slices.Contains(MetaKinds(), kind) {
		return nil, dfs.Errorf(dfs.Invalid, "there is no operation %.40q: choose among %v", kind, MetaKinds())
	}
	return func(ctx context.Context, i int64) (int64, error) {
		names := fmt.Sprintf("names%d", f.crop)
		path, err := f.path(names, i%max(made, 1))
		switch kind {
		case "mkdir":
			path, err = f.path("directories", i)
		case "create":
			path, err = f.path(names, i)
		}
		if err != nil {
			return 0, err
		}
		return 0, f.meta(ctx, kind, path)
	}, nil
}

func (f *Field) meta(ctx context.Context, kind string, path dfs.Path) error {
	switch kind {
	case "mkdir":
		return f.c.MkdirAll(ctx, path)
	case "create":
		_, err := f.c.Upload(ctx, path, f.content(0, 0), client.UploadOptions{})
		return err
	case "list":
		for _, err := range f.c.List(ctx, path.Parent()) {
			if err != nil {
				return err
			}
		}
		return nil
	case "rename":
		to, err := dfs.ParsePath(path.String() + ".moved")
		if err != nil {
			return err
		}
		return f.c.Rename(ctx, path, to)
	case "delete":
		return f.c.Remove(ctx, path)
	}
	_, err := f.c.Stat(ctx, path)
	return err
}
