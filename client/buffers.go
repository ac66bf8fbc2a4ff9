package client

import (
	"context"
	"sync"
	"sync/atomic"
)

// smallBuffer is the size, in bytes, of the smallest buffers that are made, so
// that those of small files and pieces do for each other. The end of a small file
// has to be seen, too.
const smallBuffer = maxSmall + 1

// bufferPool keeps buffers from one transfer to the next: small and large ones
// apart, or small files would throw away what large ones need.
type bufferPool struct{ small, large sync.Pool }

func (p *bufferPool) of(size int) *sync.Pool {
	if size <= smallBuffer {
		return &p.small
	}
	return &p.large
}

// buffers are those of one transfer: only so many exist at once, and that bounds
// its memory, whatever the size of the file. One goroutine takes them; any may
// give them back.
type buffers struct {
	pool  *bufferPool
	most  func() int // that may exist at once; may change
	size  int        // bytes
	taken atomic.Int32
	freed chan struct{} // has something when one was given back
}

func (p *bufferPool) limit(count int, size int64) *buffers {
	return p.limitBy(func() int { return count }, size)
}

func (p *bufferPool) limitBy(most func() int, size int64) *buffers {
	return &buffers{pool: p, most: most, size: int(size), freed: make(chan struct{}, 1)}
}

// get waits for a buffer. It fails only when ctx ends.
func (b *buffers) get(ctx context.Context) (*[]byte, error) {
	for int(b.taken.Load()) >= b.most() {
		select {
		case <-b.freed:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	b.taken.Add(1)
	if buffer, ok := b.pool.of(b.size).Get().(*[]byte); ok && cap(*buffer) >= b.size {
		*buffer = (*buffer)[:b.size]
		return buffer, nil
	}
	buffer := make([]byte, max(b.size, smallBuffer))[:b.size]
	return &buffer, nil
}

// put gives a buffer back. Nothing may use it any more.
func (b *buffers) put(buffer *[]byte) {
	b.pool.of(cap(*buffer)).Put(buffer)
	b.taken.Add(-1)
	select {
	case b.freed <- struct{}{}:
	default:
	}
}
