package datanode

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dfs-go/dfs-go/internal/stall"
)

// tail is data of known size that is still coming. Any number of readers may
// follow it from the beginning.
type tail struct {
	data io.ReaderAt
	size int64

	readers atomic.Int64 // that are not closed

	mu        sync.Mutex
	available int64         // bytes that can be read; guarded by mu
	changed   chan struct{} // closed when available grows; guarded by mu
}

func newTail(data io.ReaderAt, size int64) *tail {
	return &tail{data: data, size: size, changed: make(chan struct{})}
}

// follow returns a reader, which must be closed.
func (t *tail) follow(ctx context.Context, guard *stall.Guard, limit time.Duration) *tailReader {
	t.readers.Add(1)
	return &tailReader{ctx: ctx, tail: t, guard: guard, limit: limit}
}

func (t *tail) grow(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.available += n
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tail) state() (available int64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.available, t.changed
}

// tailReader is a request body. It ends with ctx. Each Read is a sign of life
// of the receiver, and waiting for the writer is not the receiver's fault.
type tailReader struct {
	ctx    context.Context
	tail   *tail
	guard  *stall.Guard
	limit  time.Duration // of guard
	offset int64
	closed atomic.Bool
}

// Read implements io.Reader.
func (r *tailReader) Read(p []byte) (int, error) {
	r.guard.Moved()
	if r.offset == r.tail.size {
		return 0, io.EOF
	}
	available, err := r.await()
	if err != nil {
		return 0, err
	}
	n, err := r.tail.data.ReadAt(p[:min(int64(len(p)), available-r.offset)], r.offset)
	r.offset += int64(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return n, err
}

// Close implements io.Closer. The data is the transfer's.
func (r *tailReader) Close() error {
	if r.closed.CompareAndSwap(false, true) {
		r.tail.readers.Add(-1)
	}
	return nil
}

// await waits until there is something to read.
func (r *tailReader) await() (available int64, err error) {
	for {
		available, changed := r.tail.state()
		if available > r.offset {
			return available, nil
		}
		select {
		case <-changed:
		case <-time.After(r.limit / 2):
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
		r.guard.Moved()
	}
}
