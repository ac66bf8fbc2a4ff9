package client

import (
	"context"
	"sync"
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

// buffers are those of one transfer: at most a fixed number exist at once, and
// that bounds its memory, whatever the size of the file.
type buffers struct {
	pool  *bufferPool
	slots chan struct{}
	size  int // bytes
}

func (p *bufferPool) limit(count int, size int64) *buffers {
	return &buffers{pool: p, slots: make(chan struct{}, count), size: int(size)}
}

// get waits for a buffer. It fails only when ctx ends.
func (b *buffers) get(ctx context.Context) (*[]byte, error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
	<-b.slots
}
