package datanode

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/stall"
)

// tail is data of known size that is still coming. It may be followed from the
// beginning several times, one after the other.
type tail struct {
	data   io.ReaderAt
	memory []byte // all of the data, when it lies in memory
	size   int64

	mu        sync.Mutex
	available int64         // bytes that can be read; guarded by mu
	changed   chan struct{} // closed when available grows; guarded by mu
}

func newTail(data io.ReaderAt, size int64) *tail {
	return &tail{data: data, size: size, changed: make(chan struct{})}
}

// wholeTail is a tail that has come already.
func wholeTail(data []byte) *tail {
	size := int64(len(data))
	return &tail{data: bytes.NewReader(data), memory: data, size: size, available: size, changed: make(chan struct{})}
}

func (t *tail) follow(ctx context.Context, guard *stall.Guard, limit time.Duration) *tailReader {
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

// WriteTo implements io.WriterTo: what lies in a file is sent by the kernel.
func (r *tailReader) WriteTo(w io.Writer) (all int64, err error) {
	for r.guard.Moved(); r.offset < r.tail.size && err == nil; r.guard.Moved() {
		available, waitErr := r.await()
		if waitErr != nil {
			return all, waitErr
		}
		var n int64
		n, err = r.tail.send(w, r.offset, min(available-r.offset, transferBuffer))
		r.offset += n
		all += n
	}
	return all, err
}

func (t *tail) send(w io.Writer, offset, n int64) (int64, error) {
	if t.memory != nil {
		written, err := w.Write(t.memory[offset : offset+n])
		return int64(written), err
	}
	file, ok := t.data.(*os.File)
	if !ok {
		return io.Copy(w, io.NewSectionReader(t.data, offset, n))
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	return io.CopyN(w, file, n)
}

// Close implements io.Closer. The data is the transfer's.
func (r *tailReader) Close() error { return nil }

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
