package cluster

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Close hands the leadership over, if this node has it, ends Config.Lead, stops
// raft and closes the log last. ctx bounds the wait for each of these; the
// first thing that did not end in time is returned as dfs.Timeout. Only the
// first call does anything; others wait for it.
func (g *Group) Close(ctx context.Context) error {
	g.closeOnce.Do(func() { g.closeErr = g.close(ctx) })
	return g.closeErr
}

func (g *Group) close(ctx context.Context) error {
	g.resign(ctx)
	g.cancel()
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	err := waitFor(ctx, "the duties of the leader", g.tasks.Wait)
	if !g.isLost() {
		// Raft answers all that it was given, but not what lies in its queue
		// when it stops.
		err = errors.Join(err, waitFor(ctx, "operations in the Raft log", g.inflight.Wait))
	}
	stopped := g.stopRaft()
	err = errors.Join(err, g.transport.Close()) // or raft would wait for peers that hang
	stopErr := waitFor(ctx, "raft", func() {
		_ = stopped.Error() // has none to give
		g.stream.wait()
	})
	if stopErr != nil {
		return errors.Join(err, stopErr) // it still uses the store
	}
	var closeErr error
	if hangs := waitFor(ctx, "the Raft log", func() { closeErr = g.store.close() }); hangs != nil {
		return errors.Join(err, hangs)
	}
	return errors.Join(err, closeErr)
}

// resign makes the change of leadership quick for everybody else.
func (g *Group) resign(ctx context.Context) {
	if g.raft.State() != raft.Leader || len(g.otherVoters("")) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*g.cfg.Timing.ElectionTimeout+probeTimeout)
	defer cancel()
	if err := g.Transfer(ctx, ""); err != nil {
		g.logger.Warn("stopping without a handover of the leadership", "error", err)
	}
}

func waitFor(ctx context.Context, what string, end func()) error {
	done := make(chan struct{})
	go func() {
		end()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return dfs.Errorf(dfs.Timeout, "%s did not end in time: %w", what, ctx.Err())
	}
}
