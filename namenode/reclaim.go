package namenode

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode/reclaim"
)

const (
	reclaimInterval = time.Second
	reclaimShare    = 10               // a round takes at most one part in so many of the time
	reclaimLook     = 50_000           // pieces of garbage, and orphans, looked at in a round
	deleteTimeout   = 30 * time.Second // then the deletion is ordered anew
)

// deletions are what the leader has ordered to be deleted. They have a lock of
// their own, because planning takes a while when there is much to delete.
type deletions struct {
	underWay atomic.Bool

	mu     sync.Mutex
	ledger *reclaim.Ledger
}

// waiting tells whether there is one that the DataNode has not been told of.
func (d *deletions) waiting(target fsm.NodeNum) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.Waiting(target)
}

// reclaimDuty finds what no file and no upload uses, and orders it to be
// deleted. The orders wait in the leadership's deletions for the heartbeats of
// the DataNodes.
type reclaimDuty struct {
	l      *leadership
	grace  *reclaim.Grace
	cursor reclaim.Cursor
	limits reclaim.Limits
	next   time.Time
}

// reclaimChunks returns the duty.
func (l *leadership) reclaimChunks() func() {
	d := &reclaimDuty{
		l: l, grace: reclaim.NewGrace(max(0, l.n.config.ReclaimGrace)),
		limits: reclaim.Limits{Look: reclaimLook, PerNode: protocol.MaxOrderChunks},
	}
	return d.round
}

func (d *reclaimDuty) round() {
	var applied uint64
	var garbage, orphans int
	d.l.n.machine.Read(func(s *fsm.State) {
		applied = s.AppliedIndex()
		garbage, orphans = s.Reclaimable()
	})
	now := time.Now()
	d.grace.Note(now, applied)
	if now.Before(d.next) || garbage+orphans == 0 && !d.l.deletions.underWay.Load() {
		return
	}
	cutoff := d.grace.Cutoff(now)
	if cutoff == 0 {
		return
	}
	// What is ordered must follow from a state that is not stale.
	if d.l.n.group.ReadIndex(d.l.ctx) != nil {
		return
	}
	d.order(now, cutoff, d.l.n.machine.Freeze())
	d.next = now.Add(reclaimShare * time.Since(now))
}

// order takes note of what was deleted, and plans more.
func (d *reclaimDuty) order(now time.Time, cutoff uint64, state *fsm.State) {
	deletions := &d.l.deletions
	deletions.mu.Lock()
	defer deletions.mu.Unlock()
	ledger := deletions.ledger
	if overdue := ledger.Settle(now, state); overdue > 0 {
		d.l.n.logger.Warn("chunks were not deleted in time and will be ordered to be again", "count", overdue, "after", deleteTimeout)
	}
	plan := reclaim.Plan(state, cutoff, ledger, d.limits, &d.cursor)
	ledger.Add(plan, now)
	deletions.underWay.Store(!ledger.Empty())
	count := 0
	for _, o := range plan {
		count += len(o.Chunks)
	}
	if count > 0 {
		d.l.n.logger.Debug("chunks are ordered to be deleted", "replicas", count, "datanodes", len(plan))
	}
}

// deleteOrders returns what a DataNode is to delete: nothing, or one order. It
// is told only once. The caller has made sure that this NameNode leads.
func (l *leadership) deleteOrders(target fsm.NodeNum) []protocol.Order {
	l.deletions.mu.Lock()
	defer l.deletions.mu.Unlock()
	order := protocol.Order{Kind: protocol.OrderDelete}
	l.n.machine.Read(func(s *fsm.State) {
		order.Chunks = l.deletions.ledger.Take(s, target, protocol.MaxOrderChunks)
	})
	if len(order.Chunks) == 0 {
		return nil
	}
	l.n.metrics.deletes.Add(float64(len(order.Chunks)))
	return []protocol.Order{order}
}
