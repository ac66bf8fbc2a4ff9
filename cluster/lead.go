package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	retryDuties     = time.Second // before a leader that could not hand over tries its duties again
	promoteInterval = 500 * time.Millisecond
	promoteWithin   = 64 // entries behind the leader that count as caught up
	promoteLooks    = 2  // in a row at which a member must have caught up
)

// reign is one stretch of leadership.
type reign struct {
	ctx    context.Context // ends with the leadership
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	effective chan struct{} // closed after the barrier
	term      uint64        // set before effective is closed
}

func (r *reign) isEffective() bool {
	select {
	case <-r.effective:
		return r.ctx.Err() == nil
	default:
		return false
	}
}

// IsLeader tells whether this node leads and its state machine holds everything
// that earlier leaders acknowledged.
func (g *Group) IsLeader() bool {
	r := g.reign.Load()
	return r != nil && r.isEffective() && g.raft.State() == raft.Leader
}

// watchLeadership starts the duties when this node becomes leader and ends
// them, and waits for them, when it no longer is. It must not do anything slow
// besides, because raft waits for it.
func (g *Group) watchLeadership() {
	var current *reign
	end := func() {
		if current != nil {
			g.reign.Store(nil)
			current.cancel()
			current.tasks.Wait()
			current = nil
		}
	}
	defer end()
	for {
		select {
		case leading := <-g.notify:
			end()
			if leading {
				current = g.beginReign()
			}
		case <-g.ctx.Done():
			return
		}
	}
}

func (g *Group) beginReign() *reign {
	r := &reign{effective: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(g.ctx)
	g.reign.Store(r)
	r.tasks.Go(func() { g.rule(r) })
	return r
}

// rule performs the duties of a leader until the reign ends. When they fail,
// another member may have more luck.
func (g *Group) rule(r *reign) {
	for r.ctx.Err() == nil {
		err := g.takeOver(r)
		if err == nil {
			err = g.lead(r)
		}
		if r.ctx.Err() != nil {
			return
		}
		g.logger.Error("cannot perform the duties of the leader; handing over", "term", g.Term(), "error", err)
		if err := g.Transfer(r.ctx, ""); err != nil && r.ctx.Err() == nil {
			g.logger.Warn("cannot hand over; trying again myself", "error", err)
		}
		sleep(r.ctx, retryDuties)
	}
}

// takeOver brings the state machine up to date with all that earlier leaders
// acknowledged.
func (g *Group) takeOver(r *reign) error {
	if r.isEffective() {
		return nil
	}
	term := g.raft.CurrentTerm()
	if err := g.Barrier(r.ctx); err != nil {
		return err
	}
	// Terms only grow: the barrier was committed in this one.
	if g.raft.CurrentTerm() != term || g.raft.State() != raft.Leader {
		return dfs.Errorf(dfs.NotLeader, "the leadership of term %d is over", term)
	}
	r.term = term
	close(r.effective)
	g.logger.Info("leading", "term", term)
	return nil
}

// lead runs Config.Lead and the group's own duty side by side. It returns when
// the reign ends or Lead fails.
func (g *Group) lead(r *reign) error {
	ctx, cancel := context.WithCancel(r.ctx)
	var own sync.WaitGroup
	own.Go(func() { g.promoteNonvoters(ctx) })
	defer own.Wait()
	defer cancel()
	if g.cfg.Lead != nil {
		if err := g.cfg.Lead(ctx, g); err != nil {
			return err
		}
	}
	<-r.ctx.Done() // done with its duties, still the leader
	return nil
}

// promoteNonvoters gives a vote to each member that has caught up. One that has
// not would only make it harder to find a majority.
func (g *Group) promoteNonvoters(ctx context.Context) {
	var caughtUp map[raft.ServerID]int
	for sleep(ctx, promoteInterval) {
		caughtUp = g.promoteCaughtUp(ctx, caughtUp)
	}
}

// promoteCaughtUp looks once at all members without a vote. before says at how
// many looks in a row each of them was found to have caught up; the new counts
// are returned.
func (g *Group) promoteCaughtUp(ctx context.Context, before map[raft.ServerID]int) map[raft.ServerID]int {
	now := make(map[raft.ServerID]int)
	for _, s := range g.servers() {
		if s.Suffrage == raft.Voter || !g.hasCaughtUp(ctx, s) {
			continue
		}
		now[s.ID] = before[s.ID] + 1
		if now[s.ID] >= promoteLooks {
			g.promote(ctx, s)
		}
	}
	return now
}

// hasCaughtUp tells whether the node follows this leader and holds nearly all of
// the log. One that does not take part yet has another term, and a vote would
// raise the quorum by somebody who never answers.
func (g *Group) hasCaughtUp(ctx context.Context, s raft.Server) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	info, err := g.stream.probe(ctx, string(s.Address), dfs.NodeID(s.ID))
	behind := min(info.AppliedIndex, info.LastIndex)+promoteWithin < g.raft.CommitIndex()
	return err == nil && info.Term == g.raft.CurrentTerm() && info.LastIndex > 0 && !behind
}

func (g *Group) promote(ctx context.Context, s raft.Server) {
	err := g.change(ctx, func(c membership) (begin, error) {
		now, ok := c.find(s.ID)
		if !ok || now.Suffrage == raft.Voter || now.Address != s.Address {
			return nil, nil // changed since
		}
		return func() raft.Future { return g.raft.AddVoter(s.ID, s.Address, c.index, changeTimeout) }, nil
	})
	switch {
	case err == nil:
		g.logger.Info("a new member has caught up and votes from now on", "node", s.ID)
	case !errors.Is(err, context.Canceled):
		g.logger.Warn("cannot give a vote to a member that has caught up", "node", s.ID, "error", err)
	}
}
