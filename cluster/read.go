package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// ReadIndex returns nil when the state machine of this node may be read now and
// the answer is linearizable. It returns dfs.NotLeader when this node does not
// lead, and dfs.Timeout when ctx ends first.
//
// It makes sure that this node was the leader at some moment after the call
// began. Then everything that had been acknowledged by then has been applied
// here: entries of this term are acknowledged only after they were applied on
// this node, and all earlier ones were applied by the barrier that made
// leadership effective. There is no index left to wait for.
func (g *Group) ReadIndex(ctx context.Context) error {
	r := g.reign.Load()
	if r == nil || g.raft.State() != raft.Leader {
		return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead")
	}
	select {
	case <-r.effective:
	case <-r.ctx.Done():
		return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead any longer")
	case <-ctx.Done():
		return dfs.Errorf(dfs.Timeout, "the leader is not up to date yet: %w", ctx.Err())
	}
	return g.reads.join(ctx)
}

// LeaderTerm returns the term in which this node leads, 0 when it does not.
// Unlike Term it does not rise when the node hears of its successor, so it is
// what orders of this leader are to be fenced with.
func (g *Group) LeaderTerm() uint64 {
	if r := g.reign.Load(); r != nil {
		return r.term
	}
	return 0
}

// confirmLeadership returns nil when a majority has confirmed, after the call
// began, that this node leads in the term of an effective reign.
//
// VerifyLeader makes heartbeats go out at once, and that is what it is called
// for: what it waits for may be the answers to earlier ones. To call it again
// until it waited for the right ones would send more of them each time, so the
// answers are looked at as they come.
func (g *Group) confirmLeadership() error {
	since := g.transport.now()
	r := g.reign.Load()
	if r == nil || !r.isEffective() {
		return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead any longer")
	}
	heard := g.transport.heard()
	asked := make(chan error, 1)
	if !g.spawn(func() { asked <- g.raft.VerifyLeader().Error() }) {
		return errShuttingDown()
	}
	for answer := asked; ; {
		var err error
		select {
		case <-heard:
		case err = <-answer:
			answer = nil // once is enough: what was asked for is on its way
		case <-r.ctx.Done():
			err = r.ctx.Err()
		case <-g.lost:
			err = raft.ErrRaftShutdown
		}
		if err != nil {
			return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead any longer: %w", err)
		}
		if g.raft.CurrentTerm() != r.term || g.raft.State() != raft.Leader {
			return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead any longer")
		}
		heard = g.transport.heard() // before looking, so that nothing is missed
		voters := g.raft.GetConfiguration().Configuration()
		if g.transport.majoritySince(since, r.term, raft.ServerID(g.cfg.ID), voters) {
			return nil
		}
	}
}

// readRounds lets concurrent reads share one confirmation. A read only ever
// shares one that starts after the read did: it waits for the next round while
// one is under way.
type readRounds struct {
	check func() error
	spawn func(func()) bool // runs a function in the background, unless shutting down

	mu      sync.Mutex
	running bool
	next    *readRound
}

type readRound struct {
	done chan struct{}
	err  error // set before done is closed
}

// join takes part in the next round and waits for its end, or for that of ctx.
func (q *readRounds) join(ctx context.Context) error {
	round := q.enlist()
	if round == nil {
		return errShuttingDown()
	}
	select {
	case <-round.done:
		return round.err
	case <-ctx.Done():
		return dfs.Errorf(dfs.Timeout, "the leader could not confirm in time that it leads: %w", ctx.Err())
	}
}

func (q *readRounds) enlist() *readRound {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running && !q.spawn(q.run) {
		return nil
	}
	q.running = true
	if q.next == nil {
		q.next = &readRound{done: make(chan struct{})}
	}
	return q.next
}

// run holds rounds for as long as somebody waits for one.
func (q *readRounds) run() {
	for {
		q.mu.Lock()
		round := q.next
		q.next = nil
		q.running = round != nil
		q.mu.Unlock()
		if round == nil {
			return
		}
		round.err = q.check()
		close(round.done)
	}
}
