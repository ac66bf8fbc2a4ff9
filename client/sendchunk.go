package client

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	maxReplacements  = 5 // chunk IDs asked for because nobody took the last one
	firstReplacePace = 200 * time.Millisecond
)

// send stores data and says so.
func (u *upload) send(ctx context.Context, chunk allocated, data []byte) (protocol.CommittedChunk, error) {
	stored, err := u.store(ctx, chunk, data)
	if err == nil && u.progress != nil {
		u.progress(int64(len(data)))
	}
	return stored, err
}

// store makes data durable on enough DataNodes: on all targets of the allocated
// chunk if that goes, on minReplicas of them at least, and under a new ID on
// other DataNodes when even that fails.
func (u *upload) store(ctx context.Context, chunk allocated, data []byte) (protocol.CommittedChunk, error) {
	pause := firstReplacePace
	for replaced := 0; ; replaced++ {
		stored, failures := u.storeOnce(ctx, chunk, data)
		if len(stored.Nodes) >= u.minReplicas {
			return stored, nil
		}
		if ctx.Err() != nil {
			return protocol.CommittedChunk{}, ctx.Err()
		}
		if replaced == maxReplacements {
			return protocol.CommittedChunk{}, u.tooFewNodes(stored.Nodes, failures)
		}
		if err := sleep(ctx, pause/2+rand.N(pause)); err != nil {
			return protocol.CommittedChunk{}, err
		}
		pause *= 2
		replacement, err := u.allocate(ctx, 1)
		if err != nil {
			return protocol.CommittedChunk{}, dfs.Errorf(dfs.CodeOf(err), "%w (after these failures: %s)", err, failures)
		}
		chunk = allocated{AllocatedChunk: replacement[0]}
	}
}

// storeOnce makes data durable on the targets of the chunk, as far as that goes.
// It is for the caller to see whether those are enough.
func (u *upload) storeOnce(ctx context.Context, chunk allocated, data []byte) (protocol.CommittedChunk, nodeFailures) {
	sum := dfs.ChecksumOf(data)
	nodes, failures := u.place(ctx, chunk, data, sum)
	if len(nodes) < u.minReplicas && ctx.Err() == nil {
		u.c.log.Warn("a chunk found too few DataNodes", "chunk", chunk.ID, "nodes", nodes, "failures", failures)
	}
	return protocol.CommittedChunk{ID: chunk.ID, Size: int64(len(data)), CRC32C: sum, Nodes: nodes}, failures
}

func (u *upload) tooFewNodes(nodes []dfs.NodeID, failures nodeFailures) error {
	return dfs.Errorf(dfs.Unavailable, "a chunk of %s could be stored on %d DataNodes, but %d are needed; see `dfs nodes` (%s)",
		u.path, len(nodes), u.minReplicas, failures)
}

func without(targets []protocol.Target, ids ...dfs.NodeID) []protocol.Target {
	return slices.DeleteFunc(slices.Clone(targets), func(t protocol.Target) bool { return slices.Contains(ids, t.ID) })
}

// nodeFailures is what went wrong at which DataNode.
type nodeFailures map[dfs.NodeID]error

// String lists the failures in the order of node IDs.
func (f nodeFailures) String() string {
	if len(f) == 0 {
		return "no DataNode to ask"
	}
	var list []string
	for _, id := range slices.Sorted(maps.Keys(f)) {
		list = append(list, fmt.Sprintf("%s: %s", id, dfs.MessageOf(f[id])))
	}
	return strings.Join(list, "; ")
}

// only tells whether all failures have one of the codes.
func (f nodeFailures) only(codes ...dfs.Code) bool {
	for _, err := range f {
		if !slices.Contains(codes, dfs.CodeOf(err)) {
			return false
		}
	}
	return true
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
