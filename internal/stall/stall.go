package stall

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrStalled is the cause of a context that a Guard ended.
var ErrStalled = errors.New("nothing moved for too long")

// Guard ends its context when Moved has not been called for its limit.
type Guard struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

// Watch returns a child of ctx that ends when nothing has moved for limit, or
// when Stop is called. The caller must call Stop.
func Watch(ctx context.Context, limit time.Duration) (context.Context, *Guard) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(ErrStalled) })
	return ctx, &Guard{ctx: ctx, cancel: cancel, timer: timer, limit: limit}
}

// Moved starts the limit anew. It does not revive a context that has ended.
func (g *Guard) Moved() { g.timer.Reset(g.limit) }

// Stalled tells whether it was the Guard that ended the context.
func (g *Guard) Stalled() bool { return errors.Is(context.Cause(g.ctx), ErrStalled) }

// Stop ends the context and releases the timer.
func (g *Guard) Stop() {
	g.cancel(nil)
	g.timer.Stop()
}

// Reader returns r with every byte read counted as movement.
func (g *Guard) Reader(r io.Reader) io.Reader { return &reader{r, g} }

type reader struct {
	r io.Reader
	g *Guard
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.g.Moved()
	}
	return n, err
}
