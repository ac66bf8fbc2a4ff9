package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// MaxEntrySize is how long an entry may be, in bytes: a longer one would hold
// up the heartbeats behind it.
const MaxEntrySize = 256 << 10

// enqueueTimeout bounds the wait for a place in the queue of a leader that is
// overloaded.
const enqueueTimeout = 5 * time.Second

// Apply puts entry into the replicated log, waits until the state machine of
// this node has applied it and returns its answer; an answer that is an error
// comes back as err. Other errors:
//
//   - dfs.NotLeader, dfs.Unavailable, dfs.Timeout, dfs.TooLarge: the entry never
//     entered the log and will not take effect;
//   - dfs.UnknownOutcome: it may or may not take effect, now or later.
//
// Concurrent callers share disk writes and messages.
func (g *Group) Apply(ctx context.Context, entry []byte) (response any, err error) {
	if len(entry) > MaxEntrySize {
		return nil, dfs.Errorf(dfs.TooLarge, "a log entry of %d bytes is too long: at most %d are possible", len(entry), MaxEntrySize)
	}
	if ctx.Err() != nil {
		return nil, dfs.Errorf(dfs.Timeout, "the request ran out of time before it was begun: %w", ctx.Err())
	}
	var future raft.ApplyFuture
	err = g.await(ctx, func() raft.Future {
		future = g.raft.Apply(entry, enqueueWait(ctx))
		return future
	})
	if err != nil {
		return nil, applyError(err)
	}
	response = future.Response()
	if refusal, ok := response.(error); ok {
		return nil, refusal
	}
	return response, nil
}

// Barrier returns after everything that was in the log when it was called has
// been applied on this node. Errors are as for Apply, with dfs.Timeout when ctx
// ends.
func (g *Group) Barrier(ctx context.Context) error {
	err := g.await(ctx, func() raft.Future { return g.raft.Barrier(enqueueWait(ctx)) })
	return leaderError(err)
}

func enqueueWait(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return enqueueTimeout
	}
	// Not zero, which means for ever.
	return max(time.Millisecond, min(enqueueTimeout, time.Until(deadline)))
}

// applyError says what an error of raft means for an entry.
func applyError(err error) error {
	var known *dfs.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead: %w", err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return dfs.Errorf(dfs.Unavailable, "the leader is overloaded; try again later: %w", err)
	}
	// Leadership lost, shut down, out of time, a disk that failed: the entry
	// may lie in the log of somebody who becomes leader.
	return dfs.Errorf(dfs.UnknownOutcome, "it is not known whether the change was made (%w); ask again with the same request ID", err)
}

// leaderError says what an error of raft means for a call that only the leader
// can answer and that changes nothing.
func leaderError(err error) error {
	var known *dfs.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return dfs.Errorf(dfs.Timeout, "the request ran out of time: %w", err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return dfs.Errorf(dfs.Unavailable, "the leader is overloaded; try again later: %w", err)
	}
	return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead: %w", err)
}

// await hands an operation to raft and waits for its end or that of ctx. Raft
// cannot be told to give up, so an operation that nobody waits for any longer
// goes on; Close waits for it.
func (g *Group) await(ctx context.Context, begin func() raft.Future) error {
	done := make(chan error, 1)
	if !g.spawn(func() { done <- begin().Error() }) {
		return errShuttingDown()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-g.lost:
		return raft.ErrRaftShutdown
	}
}

// spawn runs f in the background, unless raft has stopped or is about to. Close
// waits for it.
func (g *Group) spawn(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.isLost() {
		return false
	}
	g.inflight.Go(f)
	return true
}

// errShuttingDown sends the caller on: by the time it asks again, another leads.
func errShuttingDown() error {
	return dfs.Errorf(dfs.NotLeader, "this NameNode is shutting down")
}
