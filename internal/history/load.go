package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Load is clients at work on one world.
type Load struct {
	Root     string           // directory of the world, which Run makes
	Clients  []*client.Client // one goroutine works with each
	Seed     uint64
	Pause    time.Duration // between two calls of a client
	Only     []Kind        // nil means all kinds
	Recorder *Recorder

	last atomic.Int64 // tag
}

var kinds = []Kind{Create, Create, Create, Replace, Replace, Delete, Delete, Rename, Rename, Stat, Stat, Stat, Stat, Read, List, List}

// Prepare makes the directories of the world. The checker takes it for empty, so
// one that exists is refused with dfs.Exists.
func (l *Load) Prepare(ctx context.Context) error {
	paths := []string{l.Root}
	for dir := range Dirs {
		paths = append(paths, l.Root+"/"+DirName(dir))
	}
	for _, text := range paths {
		path, err := dfs.ParsePath(text)
		if err != nil {
			return err
		}
		if err := l.Clients[0].Mkdir(ctx, path); err != nil {
			return fmt.Errorf("prepare the world %s: %w", l.Root, err)
		}
	}
	return nil
}

// Run lets the clients work until ctx ends. A call that was begun by then is
// finished, however that ends.
func (l *Load) Run(ctx context.Context) {
	choice := kinds
	if l.Only != nil {
		choice = l.Only
	}
	var wg sync.WaitGroup
	for i, c := range l.Clients {
		random := rand.New(rand.NewPCG(l.Seed, uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				call := l.next(choice[random.IntN(len(choice))], random)
				// The call has the client's own timeout: to cut it off here
				// would only add unknown outcomes.
				l.Recorder.Do(i, call, func() Answer { return l.make(context.WithoutCancel(ctx), c, call) })
				select {
				case <-ctx.Done():
				case <-time.After(l.Pause):
				}
			}
		})
	}
	wg.Wait()
}

func (l *Load) next(kind Kind, random *rand.Rand) Call {
	call := Call{Kind: kind, Path: Path(random.IntN(Paths))}
	switch kind {
	case Rename:
		call.To = (call.Path + 1 + Path(random.IntN(Paths-1))) % Paths
	case Create, Replace:
		call.Tag = Tag(l.last.Add(1))
	case List:
		call.Path, call.Dir = 0, random.IntN(Dirs)
	}
	return call
}

func (l *Load) path(relative string) dfs.Path {
	path, err := dfs.ParsePath(l.Root + "/" + relative)
	if err != nil {
		return dfs.Path{} // Prepare has parsed the root; the rest is ours
	}
	return path
}

func (l *Load) make(ctx context.Context, c *client.Client, call Call) Answer {
	path := l.path(call.Path.String())
	switch call.Kind {
	case Create, Replace:
		_, err := c.Upload(ctx, path, bytes.NewReader(l.Content(call.Tag)), client.UploadOptions{
			Size: int64(call.Tag), Overwrite: call.Kind == Replace,
		})
		// Any other error means that nothing was stored.
		return mutation(err, dfs.CodeOf(err) == dfs.UnknownOutcome)
	case Delete:
		err := c.Remove(ctx, path)
		return mutation(err, lost(err))
	case Rename:
		err := c.Rename(ctx, path, l.path(call.To.String()))
		return mutation(err, lost(err))
	case Read:
		return l.read(ctx, c, path)
	case List:
		return l.list(ctx, c, call.Dir)
	}
	entry, err := c.Stat(ctx, path)
	return reading(Tag(entry.Size), err)
}

// lost tells whether it is unknown what became of a mutation.
func lost(err error) bool {
	switch dfs.CodeOf(err) {
	case "", dfs.NotFound, dfs.Exists, dfs.Conflict, dfs.Invalid, dfs.IsDirectory, dfs.NotDirectory, dfs.NotEmpty:
		return false
	}
	return true
}

func mutation(err error, unknown bool) Answer {
	if unknown {
		return Answer{Unknown: true}
	}
	return Answer{Code: dfs.CodeOf(err)}
}

func reading(tag Tag, err error) Answer {
	if err == nil {
		return Answer{Tag: tag}
	}
	if dfs.CodeOf(err) == dfs.NotFound {
		return Answer{Code: dfs.NotFound}
	}
	return Answer{Unknown: true}
}

func (l *Load) read(ctx context.Context, c *client.Client, path dfs.Path) Answer {
	var content bytes.Buffer
	_, err := c.Download(ctx, path, &content, client.DownloadOptions{})
	if err != nil {
		// A file that goes away while it is read is reported as not found, too,
		// and that says nothing of any one moment.
		return Answer{Unknown: true}
	}
	if want := l.Content(Tag(content.Len())); !bytes.Equal(content.Bytes(), want) {
		return Answer{Tag: -1} // no call has written this
	}
	return Answer{Tag: Tag(content.Len())}
}

func (l *Load) list(ctx context.Context, c *client.Client, dir int) Answer {
	var answer Answer
	for entry, err := range c.List(ctx, l.path(DirName(dir))) {
		if err != nil {
			return Answer{Unknown: true}
		}
		for name := range Names {
			if entry.Name == fmt.Sprintf("f%d", name) {
				answer.Listing[name] = Tag(entry.Size)
			}
		}
	}
	return answer
}

// Content returns what the file with a tag contains: as many bytes as the tag
// says, different ones in each world.
func (l *Load) Content(tag Tag) []byte {
	content := make([]byte, tag)
	var seed [32]byte
	copy(seed[:], l.Root)
	binary.LittleEndian.PutUint64(seed[24:], uint64(tag))
	_, _ = rand.NewChaCha8(seed).Read(content) // never fails
	return content
}
