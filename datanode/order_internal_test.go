package datanode

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func ordered(term uint64, list ...protocol.Order) func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
	return func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
		return protocol.HeartbeatReply{ClusterID: clusterA, Term: term, Orders: list}, nil
	}
}

func verifyOrders(ids ...dfs.ChunkID) (list []protocol.Order) {
	for _, id := range ids {
		list = append(list, protocol.Order{Kind: protocol.OrderVerify, Chunk: id})
	}
	return list
}

// openAt opens a store that outlives nothing, so that a test may restart it.
func openAt(t *testing.T, dir string, hook chunkstore.Hook) *chunkstore.Store {
	t.Helper()
	s, err := chunkstore.Open(chunkstore.Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1, Hook: hook, Unpacked: true})
	if err != nil {
		t.Fatal(err)
	}
	awaitLoaded(t, s)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestTermIsNotedBeforeItsOrders(t *testing.T) {
	var writes int
	var fault error
	hook := func(op chunkstore.Op, path string) error {
		if op != chunkstore.OpRename || filepath.Base(path) != "identity.json" {
			return nil
		}
		writes++
		return fault
	}
	dir := t.TempDir()
	st := openAt(t, dir, hook)
	h, s := heartbeaterOn(t, st)
	beat := func(term uint64, wantWrites, wantQueued int, ids ...dfs.ChunkID) {
		t.Helper()
		writes = 0
		s.answer = ordered(term, verifyOrders(ids...)...)
		h.beat(t.Context())
		if writes != wantWrites || len(h.orders.copies.queue) != wantQueued {
			t.Errorf("term %d: %d writes, %d orders in the queue; want %d, %d", term, writes, len(h.orders.copies.queue), wantWrites, wantQueued)
		}
	}
	beat(3, 2, 0) // the cluster's ID, too
	beat(3, 0, 1, 1)
	beat(3, 0, 2, 2)
	beat(2, 0, 2, 3)
	fault = syscall.ENOSPC
	beat(4, 1, 2, 3) // a term that could not be noted gives no orders
	beat(4, 1, 2, 3)
	if h.failures > 0 || h.standing.check() != nil {
		t.Error("the heartbeats count as failed")
	}
	beat(3, 0, 2, 3) // and yet has replaced the one before
	fault = nil
	beat(4, 1, 3, 3)
	beat(4, 0, 4, 4)
	beat(9, 1, 4)

	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	h, s = heartbeaterOn(t, openAt(t, dir, hook))
	beat(8, 0, 0, 1)
	if h.failures != 1 || dfs.CodeOf(h.standing.check()) != dfs.Unavailable {
		t.Error("an answer of an earlier term is believed after a restart")
	}
	beat(9, 0, 1, 1)
	beat(10, 1, 2, 2)
}

func TestOrdersOfAReplacedTermAreVoid(t *testing.T) {
	h, s, st := newTestHeartbeater(t)
	store(t, st, 1, 2)
	s.answer = ordered(3, verifyOrders(1)...)
	h.beat(t.Context())
	s.answer = ordered(4, verifyOrders(2)...)
	h.beat(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.orders.run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); h.orders.copies.waiting() > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the orders are not carried out")
		}
		time.Sleep(time.Millisecond) // between polls
	}
	cancel()
	<-ended
	checkMetric(t, h.metrics, `dfs_datanode_orders_total{kind="verify",result="refused"} 1`)
	checkMetric(t, h.metrics, `dfs_datanode_orders_total{kind="verify",result="done"} 1`)
}

func (l *lane[K, W]) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

func TestOrderQueueIsBounded(t *testing.T) {
	h, s, _ := newTestHeartbeater(t)
	check := func() {
		t.Helper()
		if len(h.orders.copies.queue) != orderQueue {
			t.Errorf("%d orders in the queue", len(h.orders.copies.queue))
		}
		checkMetric(t, h.metrics, `dfs_datanode_orders_total{kind="verify",result="dropped"} 44`)
	}
	var ids []dfs.ChunkID
	for id := range dfs.ChunkID(orderQueue + 44) {
		ids = append(ids, id+1)
	}
	s.answer = ordered(3, verifyOrders(ids...)...)
	h.beat(t.Context())
	check()
	s.answer = ordered(3, verifyOrders(1, 2, 3)...) // known: there is no need of room
	h.beat(t.Context())
	check()
}

// Urgent news go at once, but together; and not to those who do not listen.
func TestUrgentHeartbeats(t *testing.T) {
	refusal := func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
		return protocol.HeartbeatReply{}, dfs.Errorf(dfs.Conflict, "dn1 is alive elsewhere")
	}
	for name, c := range map[string]struct {
		answer func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error)
		news   []time.Duration
		want   []time.Duration // when heartbeats are sent
	}{
		"none":          {yes, nil, []time.Duration{0, 2 * time.Second, 4 * time.Second}},
		"together":      {yes, []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 199 * time.Millisecond}, []time.Duration{0, urgentInterval, urgentInterval + 2*time.Second, urgentInterval + 4*time.Second}},
		"later":         {yes, []time.Duration{time.Second}, []time.Duration{0, time.Second, 3 * time.Second}},
		"not answered":  {lost, []time.Duration{10 * time.Millisecond}, []time.Duration{0, urgentInterval, urgentInterval + 2*time.Second, urgentInterval + 4*time.Second}},
		"while refused": {refusal, []time.Duration{10 * time.Millisecond}, []time.Duration{0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, s, st := newTestHeartbeater(t)
				began := time.Now()
				var sent []time.Duration
				s.answer = func(n int, r protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
					sent = append(sent, time.Since(began))
					return c.answer(n, r)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 4900*time.Millisecond)
				defer cancel()
				for _, at := range c.news {
					time.AfterFunc(at, st.Hurry)
				}
				h.run(ctx)
				if len(sent) != len(c.want) {
					t.Fatalf("sent at %v; want %v", sent, c.want)
				}
				for i := range sent {
					if sent[i] != c.want[i] {
						t.Errorf("sent at %v; want %v", sent, c.want)
					}
				}
			})
		})
	}
}
