package namenode

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/dfs-go/dfs-go/internal/bundle"
)

// batcher lets those who ask for something at the same time share the way there.
// Nobody waits for company: as long as fewer batches than the limit are under
// way, a question goes off at once. What comes while they are is gathered, and
// goes off together as soon as one of them is done, first come, first served.
type batcher[Q, A any] struct {
	start func(func()) bool     // runs a function in the background; false when that is over
	limit int                   // batches under way at once
	fit   func(waiting []Q) int // how many, from the first on, can share a batch; at least one
	carry func(batch []Q) []A   // an answer for each question; ends by itself, in bounded time

	mu      sync.Mutex
	waiting []Q         // guarded by mu
	askers  []*asker[A] // of those, in the same order; guarded by mu
	senders int         // goroutines in send; guarded by mu
}

// asker is whoever waits for the answer to a question.
type asker[A any] struct {
	begun  bool   // guarded by the mutex of the batcher
	answer chan A // buffered
}

var errClosed = errors.New("closed")

// ask returns the answer to question. It fails with the error of ctx, and then
// begun tells whether the question is or was under way, and with errClosed when
// the process is about to end.
func (b *batcher[Q, A]) ask(ctx context.Context, question Q) (answer A, begun bool, err error) {
	if ctx.Err() != nil {
		return answer, false, ctx.Err()
	}
	a := &asker[A]{answer: make(chan A, 1)}
	if !b.enlist(question, a, bundle.Shared(ctx)) {
		return answer, false, errClosed
	}
	select {
	case answer = <-a.answer:
		return answer, true, nil
	case <-ctx.Done():
	}
	if b.withdraw(a) {
		return answer, false, ctx.Err()
	}
	select {
	case answer = <-a.answer: // came at the same moment
		return answer, true, nil
	default:
		return answer, true, ctx.Err()
	}
}

// enlist puts a question into the queue, and begins to send when there is room
// for another batch; with company, after those who came with it had a chance to
// ask, too. It returns false when nothing can be begun any more.
func (b *batcher[Q, A]) enlist(question Q, a *asker[A], company bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.senders < b.limit {
		send := func() {
			if company {
				runtime.Gosched()
			}
			b.send()
		}
		if !b.start(send) {
			return false
		}
		b.senders++
	}
	b.waiting, b.askers = append(b.waiting, question), append(b.askers, a)
	return true
}

// withdraw takes a question out of the queue, and tells whether it was there
// still.
func (b *batcher[Q, A]) withdraw(a *asker[A]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.begun {
		return false
	}
	for i := range b.askers {
		if b.askers[i] == a {
			b.waiting = append(b.waiting[:i:i], b.waiting[i+1:]...)
			b.askers = append(b.askers[:i:i], b.askers[i+1:]...)
			break
		}
	}
	return true
}

// send carries what waits, batch by batch, until nothing does.
func (b *batcher[Q, A]) send() {
	for {
		batch, askers := b.take()
		if len(batch) == 0 {
			return
		}
		for i, answer := range b.carry(batch) {
			askers[i].answer <- answer
		}
	}
}

// take returns the next batch. When there is none, the sender that asks is no
// more.
func (b *batcher[Q, A]) take() ([]Q, []*asker[A]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		b.senders--
		return nil, nil
	}
	count := b.fit(b.waiting)
	batch, askers := b.waiting[:count:count], b.askers[:count:count]
	b.waiting, b.askers = append([]Q(nil), b.waiting[count:]...), append([]*asker[A](nil), b.askers[count:]...)
	for _, a := range askers {
		a.begun = true
	}
	return batch, askers
}

// workers are goroutines that are begun when there is something to do. The zero
// value is ready.
type workers struct {
	mu      sync.Mutex
	closed  bool // guarded by mu
	running sync.WaitGroup
}

// start runs f in the background, and returns false after close.
func (w *workers) start(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.running.Go(f)
	return true
}

// close waits for those that are running.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.running.Wait()
}
