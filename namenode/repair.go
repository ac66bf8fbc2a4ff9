package namenode

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode/placement"
	"github.com/dfs-go/dfs-go/namenode/repair"
)

const (
	repairInterval = 250 * time.Millisecond
	repairBeat     = 500 * time.Millisecond // between heartbeats while there is something to repair: orders travel with the answers
	surveyPause    = 500 * time.Millisecond // between surveys meanwhile
	surveyCalm     = 2 * time.Second        // between them when only replicas are to be removed or moved
	surveyShare    = 10                     // a survey takes at most one part in so many of the time
	surveyAnyway   = time.Minute            // when nothing seems to be wrong
	surveyLimit    = 10000                  // problems kept for planning
	refillPause    = 100 * time.Millisecond // between plans that reports of copies give rise to
	copyTimeout    = 60 * time.Second       // then the copy is ordered anew, elsewhere if possible
	trimAgain      = 15 * time.Second       // then the victim is told again, longer than an order may wait
	balanceSlack   = 4 * dfs.DefaultChunkSize
)

// repairLimits lets a DataNode have orders in hand for as long as its report of
// the first takes to be answered: it carries out few at a time.
func repairLimits() repair.Limits {
	return repair.Limits{PerTarget: 16, PerSource: 16, InCluster: 256, TargetBytes: 128 << 20}
}

func balanceLimits() repair.Limits {
	return repair.Limits{PerTarget: 2, PerSource: 4, InCluster: 8}
}

// repairDuty finds chunks that have too few replicas, or too many, or have them
// in the wrong places, and orders copies and trims. The orders wait in the
// leadership's ledgers for the heartbeats of the DataNodes.
type repairDuty struct {
	l          *leadership
	began      time.Time
	random     *rand.Rand // for surveys
	last, next time.Time  // surveys

	mu       sync.Mutex     // taken before that of the leadership
	report   *repair.Report // of the last survey, without what has been solved since
	planned  time.Time
	ordered  struct{ copies, moves, trims int } // since the last survey
	dice     *rand.Rand
	nodes    watchedNodes
	watch    *repair.Watch
	balancer *repair.Balancer
	seeking  bool      // the last survey looked for chunks to move, and no move has been planned since
	futile   time.Time // when nothing was found that could be moved
}

func newRepairDuty(l *leadership) *repairDuty {
	return &repairDuty{
		l: l, began: time.Now(), random: newDice(), dice: newDice(),
		report: new(repair.Report), watch: repair.NewWatch(l.n.config.TrimDelay), balancer: repair.NewBalancer(balanceSlack),
	}
}

func newDice() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }

func (d *repairDuty) round() {
	now := time.Now()
	d.mu.Lock()
	if d.nodes.look(d.l.n.nodeTable(), now) {
		d.l.unsettled.Store(true) // what was too few may be too many
	}
	d.settle(now, d.l.repairState())
	due := d.due(now)
	idle := !due && len(d.report.Problems)+len(d.report.Surplus)+len(d.report.Movable) == 0
	d.mu.Unlock()
	if idle {
		return
	}
	// What is ordered must follow from a state that is not stale.
	if err := d.l.n.group.ReadIndex(d.l.ctx); err != nil {
		d.l.unsettled.Store(true)
		return
	}
	if due {
		d.survey(now)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan(time.Now(), true)
}

// refill plans again when a DataNode has reported what it gained: there may be
// room for more orders, and its answer can carry them.
func (d *repairDuty) refill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if now.Sub(d.planned) < refillPause || len(d.report.Problems)+len(d.report.Movable) == 0 {
		return
	}
	d.settle(now, d.l.repairState())
	d.plan(now, false)
}

// settle takes note of what has come of the copies and trims under way. The
// caller holds mu.
func (d *repairDuty) settle(now time.Time, view repair.View) {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	for _, c := range d.l.ledger.Settle(now, repair.NeededIn(view), repair.TargetsIn(view)) {
		d.l.n.logger.Warn("a copy is not expected any more and will be ordered anew", "chunk", c.Chunk.ID, "target", d.l.n.nodeID(c.Target), "reason", c.Reason)
	}
	vain := d.l.trims.Settle(now, repair.DoomedIn(view), repair.MissedIn(view))
	if len(vain) > 0 {
		d.l.n.logger.Warn("replicas too many were not given up, although that was ordered again and again; their other holders may not confirm theirs", "count", len(vain),
			"chunk", vain[0].Chunk.ID, "datanode", d.l.n.nodeID(vain[0].Victim))
		d.watch.Forget(vain)
	}
}

// due tells whether it is time to look at all chunks: when there is or may be
// something to do, and now and then anyway. The caller holds mu.
func (d *repairDuty) due(now time.Time) bool {
	if now.Before(d.next) {
		return false
	}
	if d.l.unsettled.Swap(false) || d.report.Under > 0 || d.report.Draining > 0 || d.l.someoneMissing() {
		return true
	}
	since := now.Sub(d.last)
	calm := d.report.Over > 0 || d.report.Misplaced > 0 || d.imbalance(d.l.repairState()) != nil && now.Sub(d.futile) >= surveyAnyway
	return calm && since >= surveyCalm || since >= surveyAnyway
}

// imbalance finds out whether chunks are to be moved. The caller holds mu.
func (d *repairDuty) imbalance(view repair.View) *repair.Imbalance {
	if d.l.n.config.NoBalance {
		return nil
	}
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return d.balancer.Look(view, d.l.ledger, d.l.trims)
}

// survey looks at all chunks. Nothing waits for it.
func (d *repairDuty) survey(now time.Time) {
	view := d.l.repairState()
	d.mu.Lock()
	view.Watched = d.watch.Holds(now)
	view.Imbalance = d.imbalance(view)
	d.mu.Unlock()
	began := time.Now()
	report := repair.Survey(view, surveyLimit, d.random)
	took := time.Since(began)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log(report)
	d.report, d.seeking = report, view.Imbalance != nil
	d.watch.Note(report.Surplus, now)
	d.l.surveyed.Store(report)
	d.l.mu.Lock()
	d.l.trims.Want(report.WantedOf)
	d.l.mu.Unlock()
	d.last, d.next = now, began.Add(surveyRest(took))
}

// surveyRest is how long after the beginning of a survey the next may begin,
// when looking at all chunks took so long. Waiting for other members or for a
// disk is no part of that: then the next one is needed all the sooner.
func surveyRest(took time.Duration) time.Duration {
	return min(max(surveyPause, surveyShare*took), surveyAnyway)
}

// plan puts orders down for the heartbeats of the DataNodes. Trims are planned
// only right after this NameNode is known to lead. The caller holds mu.
func (d *repairDuty) plan(now time.Time, trims bool) {
	d.planned = now
	view := d.l.repairState()
	d.report = repair.Refresh(d.report, view)
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	// Nodes that an earlier leader took for dead get the time to show up that a
	// new leader gives to all.
	if d.report.Down == 0 || now.Sub(d.began) >= d.l.n.config.DownAfter {
		copies := repair.Plan(d.report, d.l.repairView(), d.l.ledger, repairLimits(), d.dice)
		d.l.ledger.Add(copies, now)
		d.ordered.copies += len(copies)
	}
	if trims {
		planned := repair.PlanTrims(d.trimView(view, now))
		d.l.trims.Add(planned)
		d.ordered.trims += len(planned)
		view.Doomed = d.l.trims.Doomed()
	}
	if !d.l.n.config.NoBalance {
		moves := d.balancer.PlanMoves(d.trimView(view, now), d.l.repairView(), balanceLimits(), d.dice)
		d.l.ledger.Add(moves, now)
		d.ordered.moves += len(moves)
		if d.seeking && len(moves) == 0 && d.balancer.Moving() == 0 && d.report.Under+d.report.Draining+d.report.Over == 0 {
			d.report.Movable, d.futile = nil, now // racks may forbid what fullness asks for
		}
		d.seeking = false
	}
}

// trimView is what trims are planned by. The caller holds mu and that of the
// leadership.
func (d *repairDuty) trimView(view repair.View, now time.Time) *repair.TrimView {
	watch := *d.watch
	return &repair.TrimView{
		View: view, Report: d.report, Clock: now, Delay: d.l.n.config.TrimDelay, Changed: d.nodes.changes(),
		Watch: &watch, Copies: d.l.ledger, Trims: d.l.trims,
		Flapping: func(num fsm.NodeNum) bool { return d.nodes.flapping(num, now) },
	}
}

// log tells what has changed since the last survey. The caller holds mu.
func (d *repairDuty) log(report *repair.Report) {
	logger, before := d.l.n.logger, d.l.surveyed.Load()
	if before == nil {
		before = new(repair.Report)
	}
	switch {
	case report.MassLoss() && !before.MassLoss():
		logger.Error("so many DataNodes are down that it is taken for a partition; only chunks with a single replica left are copied", "down", report.Down, "of", report.InService)
	case before.MassLoss() && !report.MassLoss():
		logger.Info("enough DataNodes are back; all chunks are repaired again", "down", report.Down, "of", report.InService)
	}
	if report.Missing != before.Missing {
		logger.Warn("the number of chunks without a live replica has changed", "now", report.Missing, "before", before.Missing)
	}
	if report.Under == 0 && before.Under > 0 {
		logger.Info("all chunks have their replicas again")
	}
	if o := d.ordered; o.copies+o.moves+o.trims > 0 {
		logger.Info("replicas are being made, moved or removed", "copies", o.copies, "moves", o.moves, "trims", o.trims,
			"under_replicated", report.Under, "draining", report.Draining, "misplaced", report.Misplaced, "over_replicated", report.Over)
		d.ordered.copies, d.ordered.moves, d.ordered.trims = 0, 0, 0
	}
}

// repairState is the state as repair looks at it, which does not change any more.
func (l *leadership) repairState() repair.View {
	view := repair.ViewOf(l.n.machine.Freeze())
	l.mu.Lock()
	defer l.mu.Unlock()
	view.Doomed = l.trims.Doomed()
	return view
}

// someoneMissing tells whether a DataNode that is to hold something is not up.
func (l *leadership) someoneMissing() bool {
	for _, node := range l.n.nodeTable() {
		if node.Liveness != fsm.Up && node.Service != fsm.Drained {
			return true
		}
	}
	return false
}

// repairView is the DataNodes as repair sees them: those that only know the
// short heartbeat take no orders. The caller holds mu.
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

// beat returns how long a DataNode may wait before its next heartbeat.
func (l *leadership) beat() time.Duration {
	copies, trims := l.underWay()
	report := l.surveyed.Load()
	if copies+trims > 0 || l.deletions.underWay.Load() || report != nil && (report.Under > report.Missing || report.Draining > 0) {
		return min(repairBeat, l.n.config.HeartbeatInterval)
	}
	return l.n.config.HeartbeatInterval
}

// underWay returns how many copies and trims have been ordered and are not
// reported yet.
func (l *leadership) underWay() (copies, trims int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ledger.Ongoing()), l.trims.Outstanding()
}

// orders returns what a DataNode is to do. It is told only when this NameNode
// is known to lead still: of a copy once, of a trim again and again.
func (l *leadership) orders(ctx context.Context, target fsm.NodeNum, incarnation uint64) []protocol.Order {
	now := time.Now()
	l.mu.Lock()
	copying, trimming := l.ledger.Waiting(target), l.trims.Waiting(target, now)
	l.mu.Unlock()
	if !copying && !trimming && !l.deletions.waiting(target) || l.n.group.ReadIndex(ctx) != nil || l.ctx.Err() != nil {
		return nil
	}
	view := l.repairState()
	l.mu.Lock()
	copies := l.ledger.Take(target, incarnation, now)
	trims := l.trims.Take(target, now, repair.KeepersIn(view))
	l.mu.Unlock()
	locate := newLocator(view.Nodes)
	orders := l.deleteOrders(target)
	for i := range copies {
		c := &copies[i]
		order := orderFor(protocol.OrderCopy, &c.Chunk)
		order.Sources = locate.targets(c.Sources)
		orders = append(orders, order)
	}
	for i := range trims {
		t := &trims[i]
		order := orderFor(protocol.OrderTrim, &t.Chunk)
		order.Keepers, order.Keep = locate.targets(t.Keepers), t.Wanted
		orders = append(orders, order)
	}
	return orders
}

func orderFor(kind string, chunk *fsm.Chunk) protocol.Order {
	return protocol.Order{Kind: kind, Chunk: chunk.ID, Size: chunk.Size, CRC32C: chunk.Checksum}
}

// unsettle has the next round of repair look at all chunks, if this NameNode
// leads.
func (n *NameNode) unsettle() {
	if l := n.lead.Load(); l != nil {
		l.unsettled.Store(true)
	}
}

func (n *NameNode) nodeTable() (nodes []fsm.Node) {
	n.machine.Read(func(s *fsm.State) { nodes = s.Nodes() })
	return nodes
}

func (n *NameNode) nodeID(num fsm.NodeNum) (id dfs.NodeID) {
	n.machine.Read(func(s *fsm.State) {
		node, _ := s.NodeByNum(num)
		id = node.ID
	})
	return id
}
