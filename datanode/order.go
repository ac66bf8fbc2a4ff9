package datanode

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// orderQueue is how many orders may wait. What does not fit is dropped: the
// leader sees that nothing came of it, and orders again.
const orderQueue = 256

// orders carries out what leaders order: heartbeats take them in, and the
// goroutine of run sees to them, a few at a time.
type orders struct {
	store   *chunkstore.Store
	fetcher *fetcher
	metrics *metrics
	log     hclog.Logger
	limit   int // at a time
	queue   chan order

	mu   sync.Mutex
	open map[task]struct{} // waiting or being carried out; guarded by mu
}

// order is an order with the term of the leader that gave it.
type order struct {
	protocol.Order
	term uint64
}

// task is what makes two orders the same.
type task struct {
	kind  string
	chunk dfs.ChunkID
}

func (o order) task() task { return task{o.Kind, o.Chunk} }

// Results of orders, as /metrics shows them.
const (
	orderDone    = "done"
	orderFailed  = "failed"
	orderRefused = "refused" // not understood, or of a term that is over
	orderDropped = "dropped" // no room
)

func newOrders(config Config, store *chunkstore.Store, fetcher *fetcher, metrics *metrics, log hclog.Logger) *orders {
	return &orders{
		store: store, fetcher: fetcher, metrics: metrics, log: log.Named("orders"),
		limit: config.Limits.Copies, queue: make(chan order, orderQueue), open: make(map[task]struct{}),
	}
}

// take puts the orders of an answer into the queue. It does not wait.
func (o *orders) take(term uint64, list []protocol.Order) {
	dropped := 0
	for _, item := range list {
		if err := checkOrder(item); err != nil {
			o.count(item.Kind, orderRefused)
			o.log.Warn("an order is not obeyed", "kind", item.Kind, "chunk", item.Chunk, "error", err)
			continue
		}
		if !o.enter(order{item, term}) {
			dropped++
			o.count(item.Kind, orderDropped)
		}
	}
	if dropped > 0 {
		o.log.Warn("too many orders at once; some are dropped", "dropped", dropped)
	}
}

// enter tells whether there was room. An order that is open already needs none.
func (o *orders) enter(next order) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.open[next.task()]; known {
		return true
	}
	select {
	case o.queue <- next:
		o.open[next.task()] = struct{}{}
		return true
	default:
		return false
	}
}

func (o *orders) leave(done order) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, done.task())
}

// run carries out orders until ctx ends, and waits for those under way.
func (o *orders) run(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(o.limit)
	defer func() { _ = group.Wait() }() // failures were counted and logged
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-o.queue:
			group.Go(func() error {
				defer o.leave(next)
				o.carryOut(ctx, next)
				return nil
			})
		}
	}
}

func (o *orders) carryOut(ctx context.Context, next order) {
	if ctx.Err() != nil {
		return // the node is being closed
	}
	if now := o.store.Identity().Term; next.term < now {
		o.count(next.Kind, orderRefused)
		o.log.Debug("an order has become void", "kind", next.Kind, "chunk", next.Chunk, "term", next.term, "newest", now)
		return
	}
	var err error
	switch next.Kind {
	case protocol.OrderCopy:
		err = o.fetcher.copy(ctx, next.Order)
	case protocol.OrderVerify:
		err = o.verify(next.Order)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		o.count(next.Kind, orderFailed)
		o.log.Warn("an order could not be carried out", "kind", next.Kind, "chunk", next.Chunk, "error", err)
	default:
		o.count(next.Kind, orderDone)
	}
}

// verify reads a chunk again. To find it damaged is a success: it is out of
// service then, and the next heartbeat says so.
func (o *orders) verify(wanted protocol.Order) error {
	err := o.store.Verify(wanted.Chunk)
	if err != nil && dfs.CodeOf(err) != dfs.Corrupt {
		return err
	}
	return nil
}

func (o *orders) count(kind, result string) {
	if kind != protocol.OrderCopy && kind != protocol.OrderVerify {
		kind = "unknown" // no label is made up by others
	}
	o.metrics.orders.WithLabelValues(kind, result).Inc()
}

// checkOrder finds out whether an order makes sense.
func checkOrder(o protocol.Order) error {
	switch {
	case o.Kind != protocol.OrderCopy && o.Kind != protocol.OrderVerify:
		return dfs.Errorf(dfs.Invalid, "orders of the kind %.40q are not known here; this DataNode may be older than the NameNode", o.Kind)
	case o.Chunk == 0:
		return dfs.Errorf(dfs.Invalid, "the order names no chunk")
	case o.Kind == protocol.OrderVerify:
		return nil
	case o.Size < 1 || o.Size > dfs.MaxChunkSize:
		return dfs.Errorf(dfs.Invalid, "a chunk of %d bytes is not possible", o.Size)
	case len(o.Sources) == 0 || len(o.Sources) > dfs.MaxReplication:
		return dfs.Errorf(dfs.Invalid, "a copy from %d sources is not possible: 1 to %d are", len(o.Sources), dfs.MaxReplication)
	}
	return nil
}
