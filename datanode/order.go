package datanode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	// orderQueue is how many orders may wait in a lane. What does not fit is
	// dropped: the leader sees that nothing came of it, and orders again.
	orderQueue = 256

	deletesAtATime = 1 // the disk does one after the other anyway
	trimsAtATime   = 2
)

// orders carries out what leaders order: heartbeats take them in, and the
// goroutine of run sees to them. Copies (and verifying), deletes and trims have
// a lane each: a copy that is slow does not hold up what makes room for it.
type orders struct {
	store      *chunkstore.Store
	fetcher    *fetcher
	trimmer    *trimmer
	suspicions *suspicions
	metrics    *metrics
	log        hclog.Logger

	copies, deletes, trims *lane[task, order]

	taken uint64 // orders so far; take alone uses it, and heartbeats come one at a time
}

// order is an order with what is known of where it came from.
type order struct {
	protocol.Order
	term     uint64    // of the leader that gave it
	received time.Time // with a monotonic reading: no clock that is set changes its age
	number   uint64
}

// task is what makes two orders the same.
type task struct {
	kind   string
	chunk  dfs.ChunkID
	number uint64 // of a delete: its chunks are too many to compare, and to delete them twice does no harm
}

func (o order) task() task {
	if o.Kind == protocol.OrderDelete {
		return task{kind: o.Kind, number: o.number}
	}
	return task{kind: o.Kind, chunk: o.Chunk}
}

// perishable tells whether the order is void after protocol.OrderLifetime.
func (o order) perishable() bool {
	return o.Kind == protocol.OrderDelete || o.Kind == protocol.OrderTrim
}

// Results of orders, as /metrics shows them.
const (
	orderDone    = "done"
	orderFailed  = "failed"
	orderRefused = "refused" // not understood, or of a term that is over
	orderDropped = "dropped" // no room
	orderExpired = "expired" // waited for longer than it holds
)

// voidError says why an order must not be carried out any more.
type voidError struct {
	result string
	reason string
}

func (e *voidError) Error() string { return e.reason }

func newOrders(config Config, store *chunkstore.Store, fetcher *fetcher, trimmer *trimmer, suspicions *suspicions, metrics *metrics, log hclog.Logger) *orders {
	return &orders{
		store: store, fetcher: fetcher, trimmer: trimmer, suspicions: suspicions, metrics: metrics, log: log.Named("orders"),
		copies:  newLane[task, order](orderQueue, config.Limits.Copies),
		deletes: newLane[task, order](orderQueue, deletesAtATime),
		trims:   newLane[task, order](orderQueue, trimsAtATime),
	}
}

func (o *orders) lane(kind string) *lane[task, order] {
	switch kind {
	case protocol.OrderDelete:
		return o.deletes
	case protocol.OrderTrim:
		return o.trims
	}
	return o.copies
}

// take puts the orders of an answer into their lanes. It does not wait.
func (o *orders) take(term uint64, list []protocol.Order) {
	received := time.Now()
	dropped := 0
	for _, item := range list {
		if err := checkOrder(item, o.trimmer.self); err != nil {
			o.count(item.Kind, orderRefused)
			o.log.Warn("an order is not obeyed", "kind", item.Kind, "chunk", item.Chunk, "error", err)
			continue
		}
		o.taken++
		next := order{Order: item, term: term, received: received, number: o.taken}
		if !o.lane(item.Kind).enter(next.task(), next) {
			dropped++
			o.count(item.Kind, orderDropped)
		}
	}
	if dropped > 0 {
		o.log.Warn("too many orders at once; some are dropped", "dropped", dropped)
	}
}

// run carries out orders, and looks into what readers suspect, until ctx ends,
// and waits for what is under way.
func (o *orders) run(ctx context.Context) {
	var lanes sync.WaitGroup
	for _, l := range []*lane[task, order]{o.copies, o.deletes, o.trims} {
		lanes.Go(func() { l.run(ctx, o.carryOut) })
	}
	lanes.Go(func() { o.suspicions.run(ctx) })
	lanes.Wait()
}

func (o *orders) carryOut(ctx context.Context, next order) {
	if ctx.Err() != nil {
		return // the node is being closed
	}
	err := o.fence(next)
	if err == nil {
		err = o.obey(ctx, next)
	}
	var void *voidError
	switch {
	case err == nil:
		o.count(next.Kind, orderDone)
	case errors.As(err, &void):
		o.count(next.Kind, void.result)
		o.log.Debug("an order has become void", "kind", next.Kind, "chunk", next.Chunk, "reason", void)
	case ctx.Err() != nil:
	default:
		o.count(next.Kind, orderFailed)
		o.log.Warn("an order could not be carried out", "kind", next.Kind, "chunk", next.Chunk, "error", err)
	}
}

// fence fails with a voidError when an order must not be carried out any more.
// What cannot be undone asks right before it does it, and not only when the
// order's turn comes.
func (o *orders) fence(next order) error {
	if now := o.store.Identity().Term; next.term < now {
		return &voidError{orderRefused, fmt.Sprintf("it is of term %d, which term %d has replaced", next.term, now)}
	}
	if age := time.Since(next.received); next.perishable() && age >= protocol.OrderLifetime {
		return &voidError{orderExpired, fmt.Sprintf("it came %s ago and holds for %s", age, protocol.OrderLifetime)}
	}
	return nil
}

func (o *orders) obey(ctx context.Context, next order) error {
	fence := func() error { return o.fence(next) }
	switch next.Kind {
	case protocol.OrderCopy:
		return o.fetcher.copy(ctx, next.Order)
	case protocol.OrderVerify:
		return o.verify(next.Order, fence)
	case protocol.OrderDelete:
		return o.delete(ctx, next.Chunks, fence)
	case protocol.OrderTrim:
		return o.trimmer.trim(ctx, next.Order, fence)
	}
	return dfs.Errorf(dfs.Internal, "an order of the kind %.40q was let in", next.Kind)
}

// verify reads a chunk again. To find it damaged is a success: it is out of
// service then, and the next heartbeat says so. A replica can be all that was
// once written and yet not be what the namespace knows; the leader's word on
// that is enough to take it out of service, for nothing is lost: the file is
// kept in quarantine.
func (o *orders) verify(wanted protocol.Order, fence func() error) error {
	err := o.store.Verify(wanted.Chunk)
	switch {
	case dfs.CodeOf(err) == dfs.Corrupt:
		return nil
	case err != nil || wanted.Size == 0: // a leader that does not say what it should be
		return err
	}
	want := infoOf(wanted)
	held, ok := o.store.Stat(wanted.Chunk)
	if !ok || held == want {
		return nil // removed meanwhile, or good
	}
	if err := fence(); err != nil {
		return err
	}
	err = o.store.Quarantine(wanted.Chunk, fmt.Sprintf("it is not the chunk that the namespace knows (%d bytes, CRC-32C %s; %d, %s are wanted)",
		held.Size, held.CRC32C, want.Size, want.CRC32C))
	if dfs.CodeOf(err) == dfs.NotFound {
		return nil // removed meanwhile
	}
	return err
}

// infoOf is the chunk of an order as the namespace knows it.
func infoOf(o protocol.Order) chunkstore.Info {
	return chunkstore.Info{ID: o.Chunk, Size: o.Size, CRC32C: o.CRC32C}
}

func (o *orders) count(kind, result string) {
	switch kind {
	case protocol.OrderCopy, protocol.OrderVerify, protocol.OrderDelete, protocol.OrderTrim:
	default:
		kind = "unknown" // no label is made up by others
	}
	o.metrics.orders.WithLabelValues(kind, result).Inc()
}

// checkOrder finds out whether an order to the node self makes sense.
func checkOrder(o protocol.Order, self dfs.NodeID) error {
	switch o.Kind {
	case protocol.OrderDelete:
		return checkDelete(o)
	case protocol.OrderCopy, protocol.OrderVerify, protocol.OrderTrim:
	default:
		return dfs.Errorf(dfs.Invalid, "orders of the kind %.40q are not known here; this DataNode may be older than the NameNode", o.Kind)
	}
	unsized := o.Kind == protocol.OrderVerify && o.Size == 0
	switch {
	case o.Chunk == 0:
		return dfs.Errorf(dfs.Invalid, "the order names no chunk")
	case !unsized && (o.Size < 1 || o.Size > dfs.MaxChunkSize):
		return dfs.Errorf(dfs.Invalid, "a chunk of %d bytes is not possible", o.Size)
	case o.Kind == protocol.OrderCopy:
		return checkSources(o)
	case o.Kind == protocol.OrderTrim:
		return checkKeepers(o, self)
	}
	return nil
}

func checkSources(o protocol.Order) error {
	if len(o.Sources) == 0 || len(o.Sources) > dfs.MaxReplication {
		return dfs.Errorf(dfs.Invalid, "a copy from %d sources is not possible: 1 to %d are", len(o.Sources), dfs.MaxReplication)
	}
	return nil
}
