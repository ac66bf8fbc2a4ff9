package datanode

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	shortestInterval = 10 * time.Millisecond
	longestInterval  = time.Minute
	minPatience      = 4 * time.Second // with one heartbeat: long enough for an election
	refusedFactor    = 5               // a refused node tries that much less often

	// urgentInterval is how soon after the last heartbeat the next may follow
	// when something should be told at once: what comes together goes together.
	urgentInterval = 200 * time.Millisecond

	// loadPatience is how long the first heartbeat waits for the data
	// directories to be read: too short for anybody to miss it.
	loadPatience = time.Second
)

// heartbeater reports to the NameNodes. All of it belongs to one goroutine.
type heartbeater struct {
	self      protocol.HeartbeatRequest // what stays the same
	store     *chunkstore.Store
	caller    caller
	nodes     *directory
	standing  *standing
	orders    *orders
	metrics   *metrics
	log       hclog.Logger
	limit     int // chunk IDs in a report
	interval  time.Duration
	seq       uint64
	term      uint64 // the highest seen, in earlier runs too
	failures  int    // heartbeats without an answer, in a row
	loading   bool   // the last report was made before the directories had been read
	inventory inventory
}

// inventory is how far the full inventory has got that a NameNode asked for.
type inventory struct {
	running bool
	after   uint64 // the last chunk ID reported
}

func newHeartbeater(config Config, self string, store *chunkstore.Store, caller caller, nodes *directory, standing *standing, orders *orders, metrics *metrics, log hclog.Logger) *heartbeater {
	identity := store.Identity()
	return &heartbeater{
		self: protocol.HeartbeatRequest{
			ID: config.ID, URL: self, Rack: config.Rack,
			Instance: identity.Instance, Incarnation: identity.Incarnation,
		},
		store: store, caller: caller, nodes: nodes, standing: standing, orders: orders, metrics: metrics,
		log: log.Named("heartbeat"), limit: config.Limits.ReportSize, interval: config.HeartbeatInterval, term: identity.Term,
	}
}

// run sends heartbeats until ctx ends, the first at once, or nearly so: a node
// that has little to read says so with its first word.
func (h *heartbeater) run(ctx context.Context) {
	patience, cancel := context.WithTimeout(ctx, loadPatience)
	_ = h.store.WaitLoaded(patience) // each heartbeat asks anew
	cancel()
	for ctx.Err() == nil {
		started := time.Now()
		pause := h.beat(ctx)
		h.rest(ctx, started, pause)
	}
}

// rest waits until pause is over, counted from the beginning of the last
// heartbeat, or a little when there is urgent news; or until ctx ends.
func (h *heartbeater) rest(ctx context.Context, started time.Time, pause time.Duration) {
	timer := time.NewTimer(pause - time.Since(started))
	defer timer.Stop()
	urgent := h.store.Urgent()
	if h.standing.refused() != nil {
		urgent = nil // nobody would listen; it stays to be told
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-urgent:
			timer.Reset(min(pause, urgentInterval) - time.Since(started))
		}
	}
}

// beat sends one heartbeat and returns the time from its beginning to that of
// the next.
func (h *heartbeater) beat(ctx context.Context) time.Duration {
	report := h.report()
	request := h.request(report)
	patience, cancel := context.WithTimeout(ctx, max(minPatience, 2*h.interval))
	defer cancel()
	var reply protocol.HeartbeatReply
	err := h.caller.Do(patience, protocol.Heartbeat, leader.Call{Body: request, Out: &reply})
	if err == nil {
		err = h.accept(reply)
	}
	switch code := dfs.CodeOf(err); {
	case ctx.Err() != nil:
		return h.interval // the node is being closed
	case code == dfs.Conflict || code == dfs.WrongCluster:
		return h.refused(err)
	case err != nil:
		return h.failed(err)
	}
	h.store.Acknowledge(report)
	return h.succeeded(report, reply)
}

func (h *heartbeater) report() *chunkstore.Report {
	h.loading = h.store.Ready() != nil
	if h.inventory.running {
		return h.store.ReportPage(h.inventory.after, h.limit)
	}
	return h.store.Report(h.limit)
}

func (h *heartbeater) request(report *chunkstore.Report) protocol.HeartbeatRequest {
	h.seq++
	request := h.self
	request.Seq = h.seq
	request.Used = h.store.Totals().Used
	request.Unwritable = h.store.Writable() != nil
	if space, err := h.store.Space(); err == nil { // Writable has said the same
		request.Capacity, request.Free = space.Capacity, space.Free
	}
	request.ChunkCount, request.Digest = report.Count, report.Digest
	request.Added, request.Removed, request.Corrupt = report.Added, report.Removed, report.Corrupt
	if page := report.Page; page != nil {
		request.Inventory = &protocol.InventoryPage{After: page.After, Through: page.Through, Last: page.Last, Chunks: page.Chunks}
	}
	return request
}

// accept takes over what an answer says, or finds that it must not be believed.
func (h *heartbeater) accept(reply protocol.HeartbeatReply) error {
	if reply.Term < h.term {
		return dfs.Errorf(dfs.Unavailable, "the answer is of term %d, which term %d has replaced", reply.Term, h.term)
	}
	if reply.ClusterID == "" {
		return dfs.Errorf(dfs.Unavailable, "the answer does not say which cluster it comes from")
	}
	if err := h.store.SetClusterID(reply.ClusterID); err != nil {
		return err
	}
	h.term = reply.Term
	h.nodes.learn(reply.Nodes)
	if interval := time.Duration(reply.Interval) * time.Millisecond; interval > 0 {
		h.interval = min(max(interval, shortestInterval), longestInterval)
	}
	return nil
}

func (h *heartbeater) succeeded(report *chunkstore.Report, reply protocol.HeartbeatReply) time.Duration {
	h.metrics.heartbeats.WithLabelValues("accepted").Inc()
	if h.standing.accept() {
		h.log.Info("accepted by the NameNodes", "cluster", reply.ClusterID, "chunks", report.Count)
	} else if h.failures > 0 {
		h.log.Info("the NameNodes answer again", "missed", h.failures)
	}
	h.failures = 0
	h.obey(reply)
	wasRunning := h.inventory.running
	switch {
	case wasRunning && !report.Page.Last:
		h.inventory.after = report.Page.Through
		return 0
	case wasRunning:
		h.inventory = inventory{running: reply.WantInventory}
		return h.interval // if it was in vain, there is no hurry to repeat it
	case reply.WantInventory && h.loading:
		return h.interval // nothing is known yet, and that must not be taken for nothing held
	case reply.WantInventory:
		h.log.Info("a NameNode asks for the inventory", "chunks", report.Count)
		h.inventory = inventory{running: true}
		return 0
	case report.More:
		return 0
	}
	return h.interval
}

// obey hands the orders of an answer on, once its term is noted where a restart
// finds it: an order of an earlier one is refused from then on.
func (h *heartbeater) obey(reply protocol.HeartbeatReply) {
	err := h.store.RaiseTerm(reply.Term)
	switch {
	case err == nil:
		h.orders.take(reply.Term, reply.Orders)
	case len(reply.Orders) > 0:
		h.log.Warn("the leader's orders are not obeyed, because its term could not be noted", "orders", len(reply.Orders), "term", reply.Term, "error", err)
	}
}

// refused notes that the NameNodes do not accept who this node claims to be.
// It goes on trying, for that can be put right at the other end.
func (h *heartbeater) refused(err error) time.Duration {
	h.metrics.heartbeats.WithLabelValues("refused").Inc()
	if h.standing.refuse(err) {
		h.log.Error("this DataNode is refused and takes no chunks", "error", err)
	}
	return refusedFactor * h.interval
}

func (h *heartbeater) failed(err error) time.Duration {
	h.metrics.heartbeats.WithLabelValues("failed").Inc()
	h.failures++
	if h.failures == 1 {
		h.log.Warn("a heartbeat got no answer; trying on", "error", err)
	}
	return h.interval
}
