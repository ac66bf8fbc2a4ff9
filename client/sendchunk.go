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

// send makes data durable on enough DataNodes: on all targets of the allocated
// chunk if that goes, on minReplicas of them at least, and under a new ID on
// other DataNodes when even that fails.
func (u *upload) send(ctx context.Context, chunk protocol.AllocatedChunk, data []byte) (protocol.CommittedChunk, error) {
	sum := dfs.ChecksumOf(data)
	pause := firstReplacePace
	for replaced := 0; ; replaced++ {
		nodes, failures := u.place(ctx, chunk, data, sum)
		if len(nodes) >= u.minReplicas {
			if u.progress != nil {
				u.progress(int64(len(data)))
			}
			return protocol.CommittedChunk{ID: chunk.ID, Size: int64(len(data)), CRC32C: sum, Nodes: nodes}, nil
		}
		if ctx.Err() != nil {
			return protocol.CommittedChunk{}, ctx.Err()
		}
		u.c.log.Warn("a chunk found too few DataNodes", "chunk", chunk.ID, "nodes", nodes, "failures", failures)
		if replaced == maxReplacements {
			return protocol.CommittedChunk{}, dfs.Errorf(dfs.Unavailable,
				"a chunk of %s could be stored on %d DataNodes, but %d are needed; see `dfs nodes` (%s)",
				u.path, len(nodes), u.minReplicas, failures)
		}
		if err := sleep(ctx, pause/2+rand.N(pause)); err != nil {
			return protocol.CommittedChunk{}, err
		}
		pause *= 2
		replacement, err := u.allocate(ctx, 1)
		if err != nil {
			return protocol.CommittedChunk{}, dfs.Errorf(dfs.CodeOf(err), "%w (after these failures: %s)", err, failures)
		}
		chunk = replacement[0]
	}
}

// place sends the chunk until enough nodes hold it, or every target has had its
// turn as the first of a pipeline. It returns those that hold it. Sending one
// chunk twice to a node is fine.
func (u *upload) place(ctx context.Context, chunk protocol.AllocatedChunk, data []byte, sum dfs.Checksum) ([]dfs.NodeID, nodeFailures) {
	var durable []dfs.NodeID
	failures := make(nodeFailures)
	untried := chunk.Targets
	for len(durable) < u.minReplicas && ctx.Err() == nil {
		pipeline := u.pipeline(untried, u.minReplicas-len(durable))
		if len(pipeline) == 0 {
			break
		}
		first := pipeline[0].ID
		reply, err := u.c.data.put(ctx, chunk.ID, pipeline, data, sum)
		if err != nil {
			if ctx.Err() == nil {
				u.nodes.fail(first)
				failures[first] = err
			}
			untried = without(untried, first)
			continue
		}
		for _, node := range reply.Nodes {
			if !slices.Contains(durable, node) {
				durable = append(durable, node)
			}
		}
		u.nodes.succeed(reply.Nodes...)
		u.blame(pipeline, reply, failures)
		untried = without(untried, reply.Nodes...)
	}
	return durable, failures
}

// pipeline chooses whom to send to: those that have not failed this upload, and
// the others as well only when there are not enough without them. One frozen
// node would otherwise hold up every chunk.
func (u *upload) pipeline(targets []protocol.Target, needed int) []protocol.Target {
	good, bad := u.nodes.split(targets)
	if len(good) >= needed {
		return good
	}
	return slices.Concat(good, bad)
}

// blame notes the first node of a pipeline that failed. Those behind it are
// reported as well, but may be fine.
func (u *upload) blame(pipeline []protocol.Target, reply protocol.ChunkReply, failures nodeFailures) {
	blamed := false
	for _, target := range pipeline {
		for _, hop := range reply.Failed {
			if hop.ID != target.ID || slices.Contains(reply.Nodes, hop.ID) {
				continue
			}
			failures[hop.ID] = hop.Error.Err()
			if !blamed {
				u.nodes.fail(hop.ID)
				blamed = true
			}
		}
	}
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
