package namenode

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode/placement"
	"github.com/dfs-go/dfs-go/namenode/repair"
)

const (
	repairInterval = 250 * time.Millisecond
	repairBeat     = 500 * time.Millisecond // between heartbeats while there is something to repair: orders travel with the answers
	surveyPause    = 500 * time.Millisecond // between surveys meanwhile
	surveyShare    = 10                     // a survey takes at most one part in so many of the time
	surveyAnyway   = time.Minute            // when nothing seems to be wrong
	surveyLimit    = 10000                  // problems kept for planning
	copyTimeout    = 60 * time.Second       // then the copy is ordered anew, elsewhere if possible
)

func repairLimits() repair.Limits { return repair.Limits{PerTarget: 4, PerSource: 4, InCluster: 64} }

// repairDuty finds chunks that lack replicas and orders copies. The orders
// wait in the leadership's ledger for the heartbeats of their targets.
type repairDuty struct {
	l          *leadership
	random     *rand.Rand
	began      time.Time
	last, next time.Time // surveys
	report     *repair.Report
}

// repairChunks returns the duty.
func (l *leadership) repairChunks() func() {
	d := &repairDuty{
		l: l, random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		began: time.Now(), report: new(repair.Report),
	}
	return d.round
}

func (d *repairDuty) round() {
	now := time.Now()
	d.settle(now)
	if !d.due(now) {
		return
	}
	// What is ordered must follow from a state that is not stale.
	if err := d.l.n.group.ReadIndex(d.l.ctx); err != nil {
		d.l.unsettled.Store(true)
		return
	}
	report := repair.Survey(repair.ViewOf(d.l.n.machine.Freeze()), surveyLimit, d.random)
	d.log(report)
	d.report = report
	d.l.surveyed.Store(report)
	d.last = now
	d.next = now.Add(max(surveyPause, surveyShare*time.Since(now)))
	d.order(now, report)
}

// settle takes note of what has come of the copies under way.
func (d *repairDuty) settle(now time.Time) {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	d.l.n.machine.Read(func(s *fsm.State) {
		for _, c := range d.l.ledger.Settle(now, repair.NeededIn(s)) {
			target, _ := s.NodeByNum(c.Target)
			d.l.n.logger.Warn("a copy was not made in time and will be ordered anew", "chunk", c.Chunk.ID, "target", target.ID, "after", copyTimeout)
		}
	})
}

// due tells whether it is time to look at all chunks: when there is or may be
// something to repair, and now and then anyway.
func (d *repairDuty) due(now time.Time) bool {
	if now.Before(d.next) {
		return false
	}
	return d.l.unsettled.Swap(false) || d.report.Under > 0 || d.someoneMissing() || now.Sub(d.last) >= surveyAnyway
}

func (d *repairDuty) someoneMissing() (missing bool) {
	d.l.n.machine.Read(func(s *fsm.State) {
		for _, node := range s.Nodes() {
			missing = missing || node.Liveness != fsm.Up
		}
	})
	return missing
}

// order plans copies and puts them down for the heartbeats of their targets.
func (d *repairDuty) order(now time.Time, report *repair.Report) {
	// Nodes that an earlier leader took for dead get the time to show up that a
	// new leader gives to all.
	if report.Under == report.Missing || report.Down > 0 && now.Sub(d.began) < d.l.n.config.DownAfter {
		return
	}
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	plan := repair.Plan(report, d.l.repairView(), d.l.ledger, repairLimits(), d.random)
	d.l.ledger.Add(plan, now)
	if len(plan) > 0 {
		d.l.n.logger.Info("copies are ordered", "count", len(plan), "under_replicated", report.Under)
	}
}

// log tells what has changed since the last survey.
func (d *repairDuty) log(report *repair.Report) {
	logger := d.l.n.logger
	switch before, after := d.report.MassLoss(), report.MassLoss(); {
	case after && !before:
		logger.Error("so many DataNodes are down that it is taken for a partition; only chunks with a single replica left are copied", "down", report.Down, "of", report.InService)
	case before && !after:
		logger.Info("enough DataNodes are back; all chunks are repaired again", "down", report.Down, "of", report.InService)
	}
	if report.Missing != d.report.Missing {
		logger.Warn("the number of chunks without a live replica has changed", "now", report.Missing, "before", d.report.Missing)
	}
	if report.Under == 0 && d.report.Under > 0 {
		logger.Info("all chunks have their replicas again")
	}
}

// repairView is the DataNodes as repair sees them: those that only know the
// short heartbeat take no orders.
func (l *leadership) repairView() []placement.Node {
	nodes := l.view()
	l.n.machine.Read(func(s *fsm.State) {
		for i := range nodes {
			node, _ := s.NodeByNum(fsm.NodeNum(nodes[i].Num))
			nodes[i].Writable = nodes[i].Writable && node.Incarnation > 0
		}
	})
	return nodes
}

// orders returns what a DataNode is to do. It is told only once, and only when
// this NameNode is known to lead still.
func (l *leadership) orders(ctx context.Context, target fsm.NodeNum) []protocol.Order {
	l.mu.Lock()
	waiting := l.ledger.Waiting(target)
	l.mu.Unlock()
	if !waiting && !l.deletions.waiting(target) || l.n.group.ReadIndex(ctx) != nil || l.ctx.Err() != nil {
		return nil
	}
	l.mu.Lock()
	copies := l.ledger.Take(target)
	l.mu.Unlock()
	orders := l.deleteOrders(target)
	l.n.machine.Read(func(s *fsm.State) {
		for i := range copies {
			orders = append(orders, orderOf(s, &copies[i]))
		}
	})
	return orders
}

// beat returns how long a DataNode may wait before its next heartbeat.
func (l *leadership) beat() time.Duration {
	if report := l.surveyed.Load(); l.deletions.underWay.Load() || report != nil && report.Under > report.Missing {
		return min(repairBeat, l.n.config.HeartbeatInterval)
	}
	return l.n.config.HeartbeatInterval
}

func orderOf(s *fsm.State, c *repair.Copy) protocol.Order {
	order := protocol.Order{Kind: protocol.OrderCopy, Chunk: c.Chunk.ID, Size: c.Chunk.Size, CRC32C: c.Chunk.Checksum}
	for _, num := range c.Sources {
		if node, ok := s.NodeByNum(num); ok && node.URL != "" {
			order.Sources = append(order.Sources, protocol.Target{ID: node.ID, URL: node.URL})
		}
	}
	return order
}

func (l *leadership) copiesUnderWay() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ledger.Ongoing())
}

// unsettle has the next round of repair look at all chunks, if this NameNode
// leads.
func (n *NameNode) unsettle() {
	if l := n.lead.Load(); l != nil {
		l.unsettled.Store(true)
	}
}
