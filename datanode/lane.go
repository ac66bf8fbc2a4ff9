package datanode

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// lane is work that waits for its turn, and those who see to it, a few pieces
// at a time. Work that must not wait for work of another kind has a lane of its
// own. The key says which pieces of work are the same.
type lane[K comparable, W any] struct {
	limit int // at a time
	queue chan K

	mu   sync.Mutex
	open map[K]W // waiting or being seen to; guarded by mu
}

// newLane makes a lane with room for as many pieces as may wait.
func newLane[K comparable, W any](room, limit int) *lane[K, W] {
	return &lane[K, W]{limit: limit, queue: make(chan K, room), open: make(map[K]W)}
}

// enter tells whether there was room. It does not wait. Work that is open
// already needs none, and stays as it is.
func (l *lane[K, W]) enter(key K, work W) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.open[key]; known {
		return true
	}
	select {
	case l.queue <- key:
		l.open[key] = work
		return true
	default:
		return false
	}
}

func (l *lane[K, W]) leave(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, key)
}

func (l *lane[K, W]) work(key K) W {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[key]
}

// run lets do see to the work until ctx ends, and waits for what is under way.
func (l *lane[K, W]) run(ctx context.Context, do func(context.Context, W)) {
	var group errgroup.Group
	group.SetLimit(l.limit)
	defer func() { _ = group.Wait() }() // nobody returns an error
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-l.queue:
			group.Go(func() error {
				defer l.leave(key)
				do(ctx, l.work(key))
				return nil
			})
		}
	}
}
