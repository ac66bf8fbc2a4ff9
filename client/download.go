package client

import (
	"context"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// DownloadOptions say how a file is read. The zero value is fine.
type DownloadOptions struct {
	// Start is told the size of the file before the first byte is written.
	Start func(size int64)
	// Progress is told of each bytes that were written.
	Progress func(bytes int64)
}

// Download writes the content of the file path to w. Chunks are fetched ahead,
// several at once, and written in order; nothing is written that was not
// verified. Memory is bounded by the chunk size times the parallelism; from the
// fifth download at once on, they share four times that, down to two chunks each.
//
// The content is that of the moment when Download began, also when the file is
// replaced meanwhile. When ctx ends, Download returns without waiting for a
// Write to w that blocks. Errors: dfs.NotFound when the file, or what a replaced
// file consisted of, is gone; dfs.Corrupt or dfs.Unavailable when no replica of
// a chunk could be read for Config.Patience.
func (c *Client) Download(ctx context.Context, path dfs.Path, w io.Writer, options DownloadOptions) (protocol.File, error) {
	d, err := c.open(ctx, path)
	if err != nil {
		return d.file, err
	}
	if options.Start != nil {
		options.Start(d.file.Size)
	}
	return d.file, d.read(ctx, w, 0, d.file.Size, options.Progress)
}

// open finds out what a file consists of. The file is there also with an error.
func (c *Client) open(ctx context.Context, path dfs.Path) (*download, error) {
	file, err := c.File(ctx, path)
	if err == nil {
		err = checkFile(file)
	}
	return &download{
		c:         c,
		path:      path,
		file:      file,
		nodes:     newNodeRecord(c.penalty),
		locations: make(map[dfs.ChunkID][]protocol.Target),
		gone:      make(map[dfs.ChunkID]bool),
	}, err
}

// checkFile refuses a description that no buffer should be made for.
func checkFile(file protocol.File) error {
	if file.Type == protocol.TypeDirectory {
		return dfs.Errorf(dfs.IsDirectory, "%s is a directory", file.Path)
	}
	left := file.Size
	for _, chunk := range file.Chunks {
		if chunk.Size <= 0 || chunk.Size > dfs.MaxChunkSize {
			return dfs.Errorf(dfs.Internal, "chunk %s of %s is said to be %d bytes long, which is not possible", chunk.ID, file.Path, chunk.Size)
		}
		left -= chunk.Size
	}
	if left != 0 {
		return dfs.Errorf(dfs.Internal, "%s is said to be %d bytes long, but its chunks are not", file.Path, file.Size)
	}
	return nil
}

// download is one under way.
type download struct {
	c       *Client
	path    dfs.Path
	file    protocol.File
	nodes   *nodeRecord
	reports *reports // set by read

	waiting sync.Once // tells the user that a chunk is waited for

	refreshing sync.Mutex // held while the NameNode is asked: one question serves all who wait

	mu        sync.Mutex                        // never held during a call
	locations map[dfs.ChunkID][]protocol.Target // guarded by mu
	gone      map[dfs.ChunkID]bool              // no longer part of the file; guarded by mu
	refreshes int                               // guarded by mu
}

// fetched is a piece on its way: data is there when ready is closed.
type fetched struct {
	ready  chan struct{}
	buffer *[]byte
	data   []byte
}

// read writes the bytes of the file from one offset to another. It is called
// once.
func (d *download) read(ctx context.Context, w io.Writer, from, to int64, progress func(int64)) error {
	list := pieces(d.file, from, to)
	for _, p := range list {
		d.locations[p.ID] = p.Locations
	}
	d.reports = newReports(ctx, d.c)
	defer d.reports.wait()
	err := d.run(ctx, w, list, progress)
	if err != nil && ctx.Err() != nil {
		return interrupted(ctx, "the download of "+d.path.String()+" was interrupted")
	}
	return err
}

func (d *download) run(ctx context.Context, w io.Writer, list []piece, progress func(int64)) error {
	if len(list) == 1 {
		return d.runOne(ctx, w, list[0], progress)
	}
	var largest int64
	for _, p := range list {
		largest = max(largest, p.length())
	}
	d.c.downloads.Add(1)
	defer d.c.downloads.Add(-1)
	buffers := d.c.buffers.limitBy(d.c.ahead, largest)
	queue := make(chan *fetched, d.c.parallelism)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		return d.fetchAll(ctx, list, buffers, queue)
	})
	group.Go(func() error { return writeAll(ctx, w, buffers, queue, progress) })
	return group.Wait()
}

// ahead is how many chunks each download may hold now. A single one is fast only
// with some ahead of its reader; many keep each other's DataNodes busy, and
// memory that was never touched is slow, so they share what four may have.
func (c *Client) ahead() int {
	const sharers = 4
	share := sharers * c.parallelism / max(int(c.downloads.Load()), 1)
	return min(c.parallelism, max(share, 2))
}

// runOne reads what lies in one piece, as small files do: there is nothing to
// fetch ahead, and nobody to hand it over to.
func (d *download) runOne(ctx context.Context, w io.Writer, p piece, progress func(int64)) error {
	buffers := d.c.buffers.limit(1, p.length())
	buffer, err := buffers.get(ctx)
	if err != nil {
		return err
	}
	all := (*buffer)[:p.length()]
	if err := d.fetch(ctx, p, all); err != nil {
		return err
	}
	return writeOut(ctx, w, buffers, &fetched{buffer: buffer, data: p.wanted(all)}, progress)
}

// fetchAll starts fetching the pieces in order, as buffers become free, and
// puts them into the queue in that order.
func (d *download) fetchAll(ctx context.Context, list []piece, buffers *buffers, queue chan<- *fetched) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for _, p := range list {
		buffer, err := buffers.get(groupCtx)
		if err != nil {
			break
		}
		all := (*buffer)[:p.length()]
		f := &fetched{ready: make(chan struct{}), buffer: buffer, data: p.wanted(all)}
		queue <- f // has room for all buffers there are
		group.Go(func() error {
			if err := d.fetch(groupCtx, p, all); err != nil {
				return err
			}
			close(f.ready)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func writeAll(ctx context.Context, w io.Writer, buffers *buffers, queue <-chan *fetched, progress func(int64)) error {
	for f := range queue {
		select {
		case <-f.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := writeOut(ctx, w, buffers, f, progress); err != nil {
			return err
		}
	}
	return nil
}

func writeOut(ctx context.Context, w io.Writer, buffers *buffers, f *fetched, progress func(int64)) error {
	n, err := write(ctx, w, f.data)
	if ctx.Err() != nil {
		return ctx.Err() // the buffer is lost: a Write may still be using it
	}
	if err == nil && n < len(f.data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return dfs.Errorf(dfs.Internal, "the output cannot be written: %w", err)
	}
	if progress != nil {
		progress(int64(n))
	}
	buffers.put(f.buffer)
	return nil
}

// write is w.Write, except that it returns when ctx ends, and leaves a Write
// that blocks (a terminal, a pipe) to end by itself.
func write(ctx context.Context, w io.Writer, data []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := w.Write(data)
		done <- result{n, err}
	}()
	select {
	case got := <-done:
		return got.n, got.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
