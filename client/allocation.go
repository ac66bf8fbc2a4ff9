package client

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	firstBatch = 4  // chunks asked for at once while nothing is known of the size
	maxBatch   = 64 // chunks asked for at once

	defaultPenalty = 10 * time.Second // that a DataNode is left out for after its first failure
	maxDoublings   = 3                // of the penalty, for a DataNode that fails each new trial
)

// allocated is a chunk to write. Its trial names DataNodes that failed before
// and should get another chance with this chunk.
type allocated struct {
	protocol.AllocatedChunk
	trial []dfs.NodeID
}

// allocator hands out allocated chunks and asks for more in batches. Only the
// goroutine that cuts the stream uses it.
type allocator struct {
	u          *upload
	queue      []protocol.AllocatedChunk
	remaining  int64 // chunks still to be asked for, as far as the size is known
	batch      int64
	failures   int // of nodes, that were known when the queue was filled
	recoveries int // of nodes, likewise
}

// next returns a chunk to write. Chunks are given up for new ones when they
// were allocated before a DataNode failed, and to that one, or before one was
// good again, and so perhaps without it.
func (a *allocator) next(ctx context.Context) (allocated, error) {
	if trial := a.u.nodes.takeTrial(time.Now()); len(trial) > 0 {
		if chunk, ok := a.onTrial(ctx, trial); ok {
			return chunk, nil
		}
	}
	if len(a.queue) > 0 && a.outdated() {
		a.remaining += int64(len(a.queue))
		a.queue = nil
	}
	if len(a.queue) == 0 {
		if err := a.fill(ctx); err != nil {
			return allocated{}, err
		}
	}
	chunk := a.queue[0]
	a.queue = a.queue[1:]
	return allocated{AllocatedChunk: chunk}, nil
}

func (a *allocator) outdated() bool {
	failures, recoveries := a.u.nodes.counts()
	return a.recoveries != recoveries || a.failures != failures && a.u.nodes.anyFailed(a.queue[0].Targets)
}

// onTrial asks for one chunk that may lie on the nodes of a trial. Only this
// one suffers when they still fail.
func (a *allocator) onTrial(ctx context.Context, trial []dfs.NodeID) (allocated, bool) {
	exclude := slices.DeleteFunc(a.u.nodes.failed(), func(id dfs.NodeID) bool { return slices.Contains(trial, id) })
	chunks, err := a.u.addChunks(ctx, 1, exclude...)
	if err != nil || len(chunks) == 0 {
		a.u.c.log.Debug("no chunk for a DataNode that failed before", "nodes", trial, "error", err)
		return allocated{}, false
	}
	a.remaining = max(0, a.remaining-1)
	return allocated{chunks[0], trial}, true
}

func (a *allocator) fill(ctx context.Context) error {
	count := min(a.remaining, maxBatch)
	if count <= 0 { // of unknown length, or longer than announced
		count = a.batch
		a.batch = min(2*a.batch, maxBatch)
	}
	a.failures, a.recoveries = a.u.nodes.counts()
	chunks, err := a.u.allocate(ctx, count)
	if err != nil {
		return err
	}
	a.queue = chunks
	a.remaining = max(0, a.remaining-int64(len(chunks)))
	return nil
}

// allocate asks for chunks on DataNodes that have not failed this upload. When
// there are too few of those, any will do: what failed may have come back.
func (u *upload) allocate(ctx context.Context, count int64) ([]protocol.AllocatedChunk, error) {
	exclude := u.nodes.failed()
	chunks, err := u.addChunks(ctx, count, exclude...)
	if code := dfs.CodeOf(err); len(exclude) > 0 && (code == dfs.Unavailable || code == dfs.NoSpace) && ctx.Err() == nil {
		chunks, err = u.addChunks(ctx, count)
	}
	if err == nil && len(chunks) == 0 {
		err = dfs.Errorf(dfs.Internal, "the NameNode allocated nothing when asked for %d chunks", count)
	}
	return chunks, err
}

// nodeRecord remembers which DataNodes failed a transfer. One that did is bad
// until it succeeds again, for which it gets a trial from time to time.
type nodeRecord struct {
	penalty time.Duration

	mu         sync.Mutex
	bad        map[dfs.NodeID]*badNode // guarded by mu
	failures   int                     // how often a node turned bad; guarded by mu
	recoveries int                     // how often a bad node succeeded; guarded by mu
}

type badNode struct {
	penalty time.Duration // doubles when it fails a trial
	trialAt time.Time
}

func newNodeRecord(penalty time.Duration) *nodeRecord {
	return &nodeRecord{penalty: penalty, bad: make(map[dfs.NodeID]*badNode)}
}

// fail notes a failure, and returns how long the node is left out from now on.
// Chunks that were on their way together fail together: they count as one.
func (r *nodeRecord) fail(id dfs.NodeID, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	node := r.bad[id]
	if node == nil {
		node = &badNode{penalty: r.penalty}
		r.bad[id] = node
		r.failures++
	}
	node.trialAt = now.Add(node.penalty)
	return node.penalty
}

func (r *nodeRecord) succeed(ids ...dfs.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.bad[id] != nil {
			delete(r.bad, id)
			r.recoveries++
		}
	}
}

// takeTrial returns the bad nodes whose time is over, each to one caller: the
// next trial is twice as far away, in case this one fails.
func (r *nodeRecord) takeTrial(now time.Time) []dfs.NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var due []dfs.NodeID
	for _, id := range slices.Sorted(maps.Keys(r.bad)) {
		if node := r.bad[id]; !now.Before(node.trialAt) {
			node.penalty = min(2*node.penalty, r.penalty<<maxDoublings)
			node.trialAt = now.Add(node.penalty)
			due = append(due, id)
		}
	}
	return due
}

// counts returns how often a node turned bad, and good again.
func (r *nodeRecord) counts() (failures, recoveries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures, r.recoveries
}

func (r *nodeRecord) failed() []dfs.NodeID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.bad))
}

func (r *nodeRecord) anyFailed(targets []protocol.Target) bool {
	_, bad := r.split(targets)
	return len(bad) > 0
}

// split keeps the order of targets in both parts.
func (r *nodeRecord) split(targets []protocol.Target) (good, bad []protocol.Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, target := range targets {
		if r.bad[target.ID] != nil {
			bad = append(bad, target)
		} else {
			good = append(good, target)
		}
	}
	return good, bad
}
