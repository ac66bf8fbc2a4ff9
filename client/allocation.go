package client

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	firstBatch = 4  // chunks asked for at once while nothing is known of the size
	maxBatch   = 64 // chunks asked for at once
)

// allocator hands out allocated chunks and asks for more in batches. Only the
// goroutine that cuts the stream uses it.
type allocator struct {
	u         *upload
	queue     []protocol.AllocatedChunk
	remaining int64 // chunks still to be asked for, as far as the size is known
	batch     int64
	failures  int // of nodes, that were known when the queue was filled
}

// next returns a chunk to write. Chunks that were allocated before a DataNode
// failed, and to that one, are given up for new ones on others.
func (a *allocator) next(ctx context.Context) (protocol.AllocatedChunk, error) {
	if len(a.queue) > 0 && a.failures != a.u.nodes.failures() && a.u.nodes.anyFailed(a.queue[0].Targets) {
		a.remaining += int64(len(a.queue))
		a.queue = nil
	}
	if len(a.queue) == 0 {
		if err := a.fill(ctx); err != nil {
			return protocol.AllocatedChunk{}, err
		}
	}
	chunk := a.queue[0]
	a.queue = a.queue[1:]
	return chunk, nil
}

func (a *allocator) fill(ctx context.Context) error {
	count := min(a.remaining, maxBatch)
	if count <= 0 { // of unknown length, or longer than announced
		count = a.batch
		a.batch = min(2*a.batch, maxBatch)
	}
	a.failures = a.u.nodes.failures()
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

// nodeRecord remembers which DataNodes failed a transfer.
type nodeRecord struct {
	mu    sync.Mutex
	bad   map[dfs.NodeID]bool // guarded by mu
	count int                 // how often a node turned bad; guarded by mu
}

func newNodeRecord() *nodeRecord { return &nodeRecord{bad: make(map[dfs.NodeID]bool)} }

func (r *nodeRecord) fail(id dfs.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.bad[id] {
		r.bad[id] = true
		r.count++
	}
}

func (r *nodeRecord) succeed(ids ...dfs.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.bad, id)
	}
}

func (r *nodeRecord) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
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
		if r.bad[target.ID] {
			bad = append(bad, target)
		} else {
			good = append(good, target)
		}
	}
	return good, bad
}
