package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	firstBusyPause   = 200 * time.Millisecond
	longestBusyPause = 2 * time.Second

	// fanOutLimit is how long a chunk is at most that is sent to all its targets
	// at once instead of through a pipeline: of so little, the way counts and not
	// the bytes, and what goes to the same DataNodes shares its requests.
	fanOutLimit = bundle.MaxBody // bytes
)

// placement is one chunk on its way to its targets.
type placement struct {
	u        *upload
	chunk    allocated
	data     []byte
	sum      dfs.Checksum
	untried  []protocol.Target // have not had their turn as the first of a pipeline
	durable  []dfs.NodeID      // hold the chunk
	failures nodeFailures
	busy     map[dfs.NodeID]protocol.Target // have no slot free; not in untried
	wait     time.Duration                  // that a busy node asked for
}

// place sends the chunk until all good targets hold it, and when those are
// fewer than must, until every target has had its turn as the first of a
// pipeline. It returns those that hold it. Sending one chunk twice to a node is
// fine. A node that is busy is waited for: it is there, and what it lacks
// another chunk would not find either.
func (u *upload) place(ctx context.Context, chunk allocated, data []byte, sum dfs.Checksum) ([]dfs.NodeID, nodeFailures) {
	p := &placement{
		u: u, chunk: chunk, data: data, sum: sum,
		untried: chunk.Targets, failures: make(nodeFailures), busy: make(map[dfs.NodeID]protocol.Target),
	}
	until := time.Now().Add(u.c.patience)
	for pause := firstBusyPause; ; pause = min(2*pause, longestBusyPause) {
		p.round(ctx)
		if len(p.busy) == 0 || ctx.Err() != nil {
			return p.durable, p.failures
		}
		if time.Now().After(until) {
			for id := range p.busy {
				u.blame(chunk.ID, id, p.failures[id])
			}
			return p.durable, p.failures
		}
		wait := max(pause, p.wait)
		if sleep(ctx, wait+rand.N(wait/2)) != nil {
			return p.durable, p.failures
		}
		p.retryBusy()
	}
}

// round gives every target that is worth it a turn.
func (p *placement) round(ctx context.Context) {
	if len(p.data) <= p.u.c.fanOut {
		p.fanOut(ctx)
		if len(p.durable)+len(p.busy) >= p.u.minReplicas {
			return
		}
		// What cannot be reached from here may be reached from another DataNode.
		reached := p.durable
		p.durable = nil
		p.untried = slices.DeleteFunc(slices.Clone(p.chunk.Targets), func(t protocol.Target) bool { _, busy := p.busy[t.ID]; return busy })
		defer func() { p.hold(reached) }()
	}
	for ctx.Err() == nil {
		pipeline := p.pipeline()
		if len(pipeline) == 0 {
			return
		}
		first := pipeline[0]
		reply, err := p.u.c.data.put(ctx, p.chunk.ID, pipeline, p.data, p.sum)
		if err != nil {
			p.untried = without(p.untried, first.ID)
			if ctx.Err() == nil {
				p.failed(first, err)
			}
			continue
		}
		p.hold(reply.Nodes)
		p.u.nodes.succeed(reply.Nodes...)
		p.untried = without(p.untried, reply.Nodes...)
		p.judge(pipeline, reply)
	}
}

// hold notes nodes that hold the chunk.
func (p *placement) hold(nodes []dfs.NodeID) {
	for _, node := range nodes {
		if !slices.Contains(p.durable, node) {
			p.durable = append(p.durable, node)
		}
	}
}

// fanOut sends the chunk to all targets that are worth it at the same time.
func (p *placement) fanOut(ctx context.Context) {
	targets := p.pipeline()
	errs := make([]error, len(targets))
	send := func(i int) {
		_, errs[i] = p.u.c.data.put(ctx, p.chunk.ID, targets[i:i+1], p.data, p.sum)
	}
	var sending sync.WaitGroup
	for i := 1; i < len(targets); i++ {
		sending.Go(func() { send(i) })
	}
	if len(targets) > 0 {
		send(0)
	}
	sending.Wait()
	for i, target := range targets {
		p.untried = without(p.untried, target.ID)
		switch {
		case errs[i] == nil:
			p.hold([]dfs.NodeID{target.ID})
			p.u.nodes.succeed(target.ID)
		case ctx.Err() == nil:
			p.failed(target, errs[i])
		}
	}
}

// pipeline chooses whom to send to: those that have not failed this upload,
// then those on trial, and the others as well only when there are not enough
// without them. One frozen node would otherwise hold up every chunk.
func (p *placement) pipeline() []protocol.Target {
	good, bad := p.u.nodes.split(p.untried)
	var trial []protocol.Target
	for _, target := range bad {
		if slices.Contains(p.chunk.trial, target.ID) && p.failures[target.ID] == nil {
			trial = append(trial, target)
			bad = without(bad, target.ID)
		}
	}
	good = slices.Concat(good, trial)
	if len(p.durable)+len(good)+len(p.busy) >= p.u.minReplicas {
		return good
	}
	return slices.Concat(good, bad)
}

// judge notes the first node of a pipeline that failed. Those behind it are
// reported as well, but may be fine.
func (p *placement) judge(pipeline []protocol.Target, reply protocol.ChunkReply) {
	blamed := false
	for _, target := range pipeline {
		for _, hop := range reply.Failed {
			if hop.ID != target.ID || slices.Contains(reply.Nodes, hop.ID) {
				continue
			}
			if !blamed {
				p.failed(target, hop.Error.Err())
				blamed = true
			} else if _, there := p.failures[hop.ID]; !there && !slices.Contains(p.chunk.trial, hop.ID) {
				p.failures[hop.ID] = hop.Error.Err()
			}
		}
	}
}

// failed notes that a target did not take the chunk, for which being busy is no
// fault of its own.
func (p *placement) failed(target protocol.Target, err error) {
	p.failures[target.ID] = err
	if dfs.CodeOf(err) != dfs.OverLimit {
		p.u.blame(p.chunk.ID, target.ID, err)
		return
	}
	var busy *busyError
	if errors.As(err, &busy) {
		p.wait = max(p.wait, busy.after)
	}
	p.busy[target.ID] = target
	p.untried = without(p.untried, target.ID)
}

// retryBusy puts the nodes that were busy back in their place.
func (p *placement) retryBusy() {
	for _, target := range p.chunk.Targets {
		if _, busy := p.busy[target.ID]; busy {
			delete(p.failures, target.ID)
			p.untried = append(p.untried, target)
		}
	}
	clear(p.busy)
	p.wait = 0
}

// blame leaves a DataNode out for a while.
func (u *upload) blame(chunk dfs.ChunkID, id dfs.NodeID, err error) {
	penalty := u.nodes.fail(id, time.Now())
	u.c.log.Warn("a DataNode failed and is left out for a while", "node", id, "chunk", chunk, "for", penalty, "error", err)
}
