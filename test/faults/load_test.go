//go:build linux

package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	loadDir   = "/load"
	chunkSize = 96 << 10 // such a chunk has a file of its own; the rest of a file is packed, as a rule
	packLimit = 64 << 10 // of chunks that are packed with others
	readers   = 4        // files read back at a time
)

func mustPath(t testing.TB, format string, args ...any) dfs.Path {
	t.Helper()
	path, err := dfs.ParsePath(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// worker is one client of the load. It has paths of its own, and does one thing
// after the other.
type worker struct {
	t       *testing.T
	c       *client.Client
	l       *ledger
	random  *rand.Rand
	dir     string
	maxSize int
	next    int      // for names that were never used
	files   []string // that are known to be there
}

// load is some workers at work.
type load struct {
	workers []*worker
	step    func(*worker, context.Context) // what a worker does again and again
	group   sync.WaitGroup
	quit    func() // the workers finish what they are doing; returns when they have
	die     func() // what they are doing stays open in the ledger
}

// newLoad makes workers, and their directories: until those are there, nothing
// may be harmed.
func newLoad(t *testing.T, c *client.Client, l *ledger, random *rand.Rand, name string, workers, maxSize int) *load {
	t.Helper()
	all := load{step: (*worker).anything}
	for i := range workers {
		w := &worker{
			t: t, c: c, l: l, maxSize: maxSize, dir: fmt.Sprintf("%s/%s-%d", loadDir, name, i),
			random: rand.New(rand.NewPCG(random.Uint64(), uint64(i))),
		}
		if err := c.MkdirAll(t.Context(), mustPath(t, "%s", w.dir)); err != nil {
			t.Fatalf("mkdir: %v", err)
		}
		l.try(change{loadDir: directory, w.dir: directory}, nil)(t.Context(), nil)
		all.workers = append(all.workers, w)
	}
	return &all
}

// start lets the workers go, until quit or die.
func (a *load) start(ctx context.Context) {
	ctx, a.die = context.WithCancel(ctx)
	going, stop := context.WithCancel(ctx)
	a.quit = func() { stop(); a.group.Wait(); a.die() }
	for _, w := range a.workers {
		a.group.Go(func() {
			for going.Err() == nil {
				a.step(w, ctx)
			}
		})
	}
}

// anything does one thing of all that clients do.
func (w *worker) anything(ctx context.Context) {
	n := w.random.IntN(100)
	switch {
	case len(w.files) == 0 || n < 50:
		w.upload(ctx, w.fresh("f"), false)
	case n < 65:
		w.upload(ctx, w.takeOne(), true)
	case n < 80:
		path := w.takeOne()
		outcome := w.l.try(change{path: nothing}, nil)
		outcome(ctx, w.c.Remove(ctx, mustPath(w.t, "%s", path)))
	case n < 90:
		path := w.fresh("d")
		outcome := w.l.try(change{path: directory}, nil)
		outcome(ctx, w.c.MkdirAll(ctx, mustPath(w.t, "%s", path)))
	default:
		w.rename(ctx)
	}
}

func (w *worker) fresh(kind string) string {
	w.next++
	return fmt.Sprintf("%s/%s%06d", w.dir, kind, w.next)
}

// takeOne returns one of the files and forgets it: after a change with an
// unknown outcome it is left alone.
func (w *worker) takeOne() string {
	i := w.random.IntN(len(w.files))
	path := w.files[i]
	w.files[i] = w.files[len(w.files)-1]
	w.files = w.files[:len(w.files)-1]
	return path
}

func (w *worker) upload(ctx context.Context, path string, overwrite bool) {
	data := randomData(w.random, w.random.IntN(w.maxSize+1))
	if w.put(ctx, path, data, overwrite) == nil {
		w.files = append(w.files, path)
	}
}

func (w *worker) put(ctx context.Context, path string, data []byte, overwrite bool) error {
	outcome := w.l.try(change{path: contentOf(data)}, nil)
	_, err := w.c.Upload(ctx, mustPath(w.t, "%s", path), bytes.NewReader(data),
		client.UploadOptions{Size: int64(len(data)), ChunkSize: chunkSize, Overwrite: overwrite})
	outcome(ctx, err)
	return err
}

func (w *worker) rename(ctx context.Context) {
	from, to := w.takeOne(), w.fresh("r")
	outcome := w.l.try(change{from: nothing, to: w.l.settled(from)}, &move{from, to})
	err := w.c.Rename(ctx, mustPath(w.t, "%s", from), mustPath(w.t, "%s", to))
	outcome(ctx, err)
	if err == nil {
		w.files = append(w.files, to)
	}
}

func randomData(random *rand.Rand, size int) []byte {
	data := make([]byte, size+8)
	for at := 0; at < size; at += 8 {
		binary.LittleEndian.PutUint64(data[at:], random.Uint64())
	}
	return data[:size]
}

// readBack reads all that is in a directory and below it, and the directories
// themselves unless they hold something.
func readBack(t *testing.T, c *client.Client, dir string) map[string]content {
	t.Helper()
	var files []string
	found := make(map[string]content)
	var walk func(string)
	walk = func(dir string) {
		for entry, err := range c.List(t.Context(), mustPath(t, "%s", dir)) {
			switch {
			case err != nil:
				t.Fatalf("list %s: %v", dir, err)
			case entry.Type == "directory":
				found[entry.Path] = directory
				walk(entry.Path)
			default:
				files = append(files, entry.Path)
			}
		}
	}
	walk(dir)
	readFiles(t, c, files, found)
	return found
}

// readFiles reads files, and adds them to what was found. A file that is there
// and cannot be read is a failure in itself; each takes the client a while to
// give up, so after some of them the rest is not tried.
func readFiles(t *testing.T, c *client.Client, files []string, found map[string]content) {
	t.Helper()
	var mu sync.Mutex
	var unreadable []string
	var group errgroup.Group
	group.SetLimit(readers)
	for _, path := range files {
		mu.Lock()
		enough := len(unreadable) >= readers
		mu.Unlock()
		if enough {
			break
		}
		group.Go(func() error {
			hash := sha256.New()
			_, err := c.Download(t.Context(), mustPath(t, "%s", path), hash, client.DownloadOptions{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				unreadable = append(unreadable, fmt.Sprintf("%s cannot be read: %v", path, err))
			}
			found[path] = content(hex.EncodeToString(hash.Sum(nil)))
			return nil
		})
	}
	_ = group.Wait() // the failures are in unreadable
	if len(unreadable) > 0 {
		t.Fatal(strings.Join(unreadable, "\n"))
	}
}
