package client

import (
	"context"
	"sync"
)

// bufferPool keeps chunk buffers from one transfer to the next.
type bufferPool struct{ pool sync.Pool }

// buffers are those of one transfer: at most a fixed number exist at once, and
// that bounds its memory, whatever the size of the file.
type buffers struct {
	pool  *sync.Pool
	slots chan struct{}
	size  int64
}

func (p *bufferPool) limit(count int, size int64) *buffers {
	return &buffers{pool: &p.pool, slots: make(chan struct{}, count), size: size}
}

// get waits for a buffer. It fails only when ctx ends.
func (b *buffers) get(ctx context.Context) (*[]byte, error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if buffer, ok := b.pool.Get().(*[]byte); ok && int64(cap(*buffer)) >= b.size {
		*buffer = (*buffer)[:b.size]
		return buffer, nil
	}
	buffer := make([]byte, b.size)
	return &buffer, nil
}

// put gives a buffer back. Nothing may use it any more.
func (b *buffers) put(buffer *[]byte) {
	b.pool.Put(buffer)
	<-b.slots
}
