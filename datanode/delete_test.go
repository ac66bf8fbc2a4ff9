package datanode_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func deleteOrder(ids ...dfs.ChunkID) protocol.Order {
	return protocol.Order{Kind: protocol.OrderDelete, Chunks: ids}
}

// came waits until so many orders of a kind have come to a result.
func came(t *testing.T, d *datanode.DataNode, kind, result string, count int) {
	t.Helper()
	waitUntil(t, fmt.Sprintf("%d orders to %s that are %s on %s", count, kind, result, d.ID()), func() bool {
		return metric(t, d, fmt.Sprintf("dfs_datanode_orders_total{kind=%q,result=%q} %d", kind, result, count))
	})
}

// What is deleted is gone and told at once; what is not held is no trouble.
func TestDeleteOrder(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	data := content(1, 1000)
	for id := range dfs.ChunkID(4) {
		put(t, d, id+1, data, "")
	}
	n.reported(t, "dn1", 4, true)
	n.set(func(n *nameNode) {
		n.interval = time.Minute.Milliseconds() // longer than anything here waits
		n.orders["dn1"] = []protocol.Order{deleteOrder(1, 99, 3, 1), deleteOrder(77)}
	})
	for id, held := range map[dfs.ChunkID]bool{1: false, 2: true, 3: false, 4: true} {
		n.reported(t, "dn1", id, held)
		if held {
			checkHolds(t, d, id, data)
		} else {
			checkHoldsNot(t, d, id)
		}
	}
	came(t, d, "delete", "done", 2)
	if !metric(t, d, "dfs_datanode_deleted_chunks_total 2") {
		t.Error("not two chunks count as deleted")
	}
	n.set(func(n *nameNode) {
		if len(n.corrupt["dn1"]) > 0 {
			t.Errorf("reported as damaged: %v", n.corrupt["dn1"])
		}
	})
	put(t, d, 1, data, "") // the ID is free, as after a retry that came late
	checkHolds(t, d, 1, data)
}

// A chunk that cannot be removed stays, and does not stand in the way.
func TestDeleteThatFails(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	var broken atomic.Bool
	c.DiskHook = func(op chunkstore.Op, path string) error {
		if broken.Load() && (op == chunkstore.OpRemove || op == chunkstore.OpRename) && strings.Contains(path, dfs.ChunkID(2).String()) {
			return http.ErrAbortHandler // any error
		}
		return nil
	}
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	for id := range dfs.ChunkID(3) {
		put(t, d, id+1, data, "")
	}
	n.reported(t, "dn1", 3, true)
	broken.Store(true)
	n.order(t, "dn1", deleteOrder(1, 2, 3))
	came(t, d, "delete", "failed", 1)
	n.reported(t, "dn1", 3, false)
	checkHolds(t, d, 2, data)
	n.reported(t, "dn1", 2, true)
	broken.Store(false)
	n.order(t, "dn1", deleteOrder(1, 2, 3))
	came(t, d, "delete", "done", 1)
	n.reported(t, "dn1", 2, false)
}

// Copies that hang do not hold up deletes, and deletes that hang no copies.
func TestDeletesAndCopiesDoNotWaitForEachOther(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.Copies = 1
	release := make(chan struct{})
	var armed atomic.Bool
	c.DiskHook = func(op chunkstore.Op, path string) error {
		if armed.Load() && (op == chunkstore.OpRemove || op == chunkstore.OpRename) && strings.Contains(path, dfs.ChunkID(3).String()) {
			<-release
		}
		return nil
	}
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	for id := range dfs.ChunkID(3) {
		put(t, d, id+1, data, "")
	}
	armed.Store(true)
	hangs := newSource(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		sends(data, data)(w, r)
	})
	n.order(t, "dn1", copyOrder(10, data, hangs.target()), deleteOrder(1, 2), deleteOrder(3))
	waitUntil(t, "the copy to hang", func() bool { return len(hangs.questions()) > 0 })
	n.reported(t, "dn1", 1, false)
	n.reported(t, "dn1", 2, false)
	came(t, d, "delete", "done", 1) // and the other hangs now
	if metric(t, d, `dfs_datanode_orders_total{kind="copy",result="done"} 1`) {
		t.Error("the copy does not hang")
	}
	close(release)
	came(t, d, "copy", "done", 1)
	came(t, d, "delete", "done", 2)
}

func TestHangingDeleteHoldsUpNoCopy(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	release := make(chan struct{})
	var armed atomic.Bool
	hanging := make(chan struct{}, 10)
	c.DiskHook = func(op chunkstore.Op, path string) error {
		if armed.Load() && (op == chunkstore.OpRemove || op == chunkstore.OpRename) && strings.Contains(path, dfs.ChunkID(1).String()) {
			hanging <- struct{}{}
			<-release
		}
		return nil
	}
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	put(t, d, 1, data, "")
	armed.Store(true)
	n.order(t, "dn1", deleteOrder(1))
	<-hanging
	n.order(t, "dn1", copyOrder(2, data, newSource(t, sends(data, data)).target()))
	n.reported(t, "dn1", 2, true)
	armed.Store(false)
	close(release)
	came(t, d, "delete", "done", 1)
	checkHoldsNot(t, d, 1)
}

// An old leader that comes back deletes nothing, not even on a node that has
// been restarted meanwhile.
func TestDeletionsOfAnEarlierTerm(t *testing.T) {
	n := newNameNode(t)
	n.set(func(n *nameNode) { n.term = 5 })
	c := config(t, n, "dn1")
	keeper := start(t, config(t, n, "dn2"))
	d := start(t, c)
	ready(t, n, d, keeper)
	data := content(1, 1000)
	for id := range dfs.ChunkID(4) {
		put(t, d, id+1, data, "dn2")
	}
	replay := func(deleted dfs.ChunkID) {
		t.Helper()
		n.set(func(n *nameNode) { n.term = 4 })
		n.order(t, "dn1", deleteOrder(1), trimOrder(2, data, 1, target(keeper)))
		n.set(func(n *nameNode) { n.term = 5 })
		n.order(t, "dn1", deleteOrder(deleted)) // would be carried out later
		n.reported(t, "dn1", deleted, false)
		checkHolds(t, d, 1, data)
		checkHolds(t, d, 2, data)
	}
	replay(3)
	stop(t, d)
	n.set(func(n *nameNode) { n.term = 4 }) // the old leader is the first to answer
	d = start(t, c)
	n.heard(t, "dn1", "the restarted node", func(h heartbeat) bool { return h.Incarnation == 2 && h.Seq > 1 })
	replay(4)
	if metric(t, keeper, `dfs_datanode_confirmations_total{result="confirmed"} 1`) {
		t.Error("the keeper was asked")
	}
}

// Orders that make no sense are refused, and nothing comes to harm.
func TestHostileDeletions(t *testing.T) {
	n, nodes := three(t, nil)
	d := nodes[0]
	data := content(1, 1000)
	put(t, d, 1, data, "dn2,dn3")
	n.reported(t, "dn3", 1, true)
	with := func(change func(*protocol.Order)) protocol.Order {
		o := trimOrder(1, data, 1, target(nodes[1]), target(nodes[2]))
		change(&o)
		return o
	}
	n.order(t, "dn1",
		deleteOrder(),
		deleteOrder(fill(protocol.MaxOrderChunks+1)...),
		protocol.Order{Kind: protocol.OrderDelete, Chunk: 1}, // of the wrong field
	)
	came(t, d, "delete", "refused", 3)
	hostile := []protocol.Order{
		with(func(o *protocol.Order) { o.Chunk = 0 }),
		with(func(o *protocol.Order) { o.Size = 0 }),
		with(func(o *protocol.Order) { o.Size = -1 }),
		with(func(o *protocol.Order) { o.Size = dfs.MaxChunkSize + 1 }),
		with(func(o *protocol.Order) { o.Keep = 0 }),
		with(func(o *protocol.Order) { o.Keep = -1 }),
		with(func(o *protocol.Order) { o.Keep = 3 }),
		with(func(o *protocol.Order) { o.Keepers = nil }),
		with(func(o *protocol.Order) { o.Keep, o.Keepers = 0, nil }),
		with(func(o *protocol.Order) { o.Keepers[1] = o.Keepers[0] }),
		with(func(o *protocol.Order) { o.Keepers[1].ID = "dn2" }), // at another address
		with(func(o *protocol.Order) { o.Keepers[1] = target(d) }),
		with(func(o *protocol.Order) { o.Keepers[0].ID = "" }),
		with(func(o *protocol.Order) { o.Keepers[0].ID = "a/b" }),
		with(func(o *protocol.Order) {
			o.Keepers = nil
			for i := range dfs.MaxReplication + 1 {
				o.Keepers = append(o.Keepers, protocol.Target{ID: dfs.NodeID(fmt.Sprint("k", i)), URL: nodes[1].URL()})
			}
		}),
	}
	n.order(t, "dn1", hostile...)
	came(t, d, "trim", "refused", len(hostile))
	for _, node := range nodes {
		checkHolds(t, node, 1, data)
	}
}

func fill(count int) (ids []dfs.ChunkID) {
	for id := range dfs.ChunkID(count) {
		ids = append(ids, id+1)
	}
	return ids
}
