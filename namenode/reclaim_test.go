package namenode_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

// quickReclaim starts a NameNode with a grace of the given length.
func quickReclaim(t *testing.T, grace time.Duration, ids ...dfs.NodeID) *fleet {
	t.Helper()
	config := testConfig(t, "nn1")
	config.Timing, config.ReclaimGrace = quickTiming(), grace
	n := open(t, config)
	n.waitLeads()
	return &fleet{n, register(t, n, ids...), make(map[dfs.NodeID]bool)}
}

type deletes = map[dfs.NodeID][]dfs.ChunkID

// deletes has every node send a heartbeat and adds what they are told to delete
// to what they were told before.
func (f *fleet) deletes(told deletes) {
	f.n.t.Helper()
	for id, orders := range f.beat() {
		if len(orders) > 1 {
			f.n.t.Errorf("%s got %d orders at once", id, len(orders))
		}
		for _, order := range orders {
			if order.Kind == protocol.OrderDelete && len(order.Chunks) > 0 {
				told[id] = append(told[id], order.Chunks...)
			} else if order.Kind != protocol.OrderCopy {
				f.n.t.Errorf("%s got %+v", id, order)
			}
		}
	}
}

// waitDeletes beats until the nodes were told to delete what is wanted, and
// makes sure that it is nothing else and that nothing is told twice.
func (f *fleet) waitDeletes(want deletes) {
	f.n.t.Helper()
	told := make(deletes)
	same := func() bool { return maps.EqualFunc(told, want, slices.Equal) }
	waitUntil(f.n.t, "all is ordered to be deleted", func() bool {
		f.deletes(told)
		for id := range told {
			slices.Sort(told[id])
			if len(told[id]) > len(want[id]) {
				f.n.t.Fatalf("told to delete: %v; want %v", told, want)
			}
		}
		return same()
	})
	for range 5 {
		f.deletes(told)
	}
	if !same() {
		f.n.t.Fatalf("told to delete in the end: %v; want %v", told, want)
	}
}

// carryOut has the nodes report what they were told to delete as removed.
func (f *fleet) carryOut(told deletes) {
	f.n.t.Helper()
	for id, ids := range told {
		f.report(id, func(h *protocol.HeartbeatRequest) { h.Removed = ids })
	}
}

func (f *fleet) hold(id dfs.NodeID, ids ...dfs.ChunkID) {
	f.n.t.Helper()
	f.report(id, func(h *protocol.HeartbeatRequest) { h.Added = ids })
}

func (f *fleet) wantMetrics(lines ...string) {
	f.n.t.Helper()
	_, metrics := f.n.raw(http.MethodGet, "/metrics", nil)
	for _, line := range lines {
		if !strings.Contains(string(metrics), "\ndfs_namenode_"+line+"\n") {
			f.n.t.Errorf("the metrics do not have %q", line)
		}
	}
}

// TestDeletedFileIsReclaimed is the whole way: every holder is told once, after
// the grace, and the chunk is forgotten when all have reported.
func TestDeletedFileIsReclaimed(t *testing.T) {
	const grace = 1500 * time.Millisecond
	f := quickReclaim(t, grace, "dn1", "dn2", "dn3", "dn4")
	chunk, on := f.upload("/f")
	f.upload("/kept")
	f.wantMetrics("chunks_garbage 0", "replicas_orphaned 0", "deletes_ordered_total 0")
	began := time.Now()
	f.n.must(http.MethodDelete, "/files?path=/f", nil, nil)
	if report := f.n.fsck(); !report.Healthy || report.Orphaned != 3 {
		t.Fatalf("after the file was deleted: %+v", report)
	}
	f.wantMetrics("chunks_garbage 1")
	want := make(deletes)
	for _, id := range on {
		want[id] = []dfs.ChunkID{chunk}
	}
	f.waitDeletes(want)
	if waited := time.Since(began); waited < grace {
		t.Errorf("it was ordered after %s; the grace is %s", waited, grace)
	}
	if reply, _ := f.nodes[on[0]].beat(f.n); reply.Interval != 500 {
		t.Errorf("while chunks are being deleted, the next heartbeat is due after %d ms", reply.Interval)
	}
	f.wantMetrics("chunks_garbage 1", "deletes_ordered_total 3")
	f.carryOut(want)
	if report := f.n.fsck(); !report.Healthy || report.Orphaned != 0 || report.Chunks != 1 {
		t.Errorf("after it was deleted: %+v", report)
	}
	f.wantMetrics("chunks 1", "chunks_garbage 0")
	waitUntil(t, "heartbeats are not needed so often any more", func() bool {
		reply, _ := f.nodes[on[0]].beat(f.n)
		return reply.Interval == 2000
	})
}

// What an upload has stored is safe while it is open, whoever reports it, and
// garbage when it is given up: also what arrives only then.
func TestUploadsAreReclaimedWhenTheyAreOver(t *testing.T) {
	f := quickReclaim(t, namenode.AtOnce, "dn1", "dn2")
	marker, on := f.upload("/marker")
	allocation, _ := f.n.store(f.nodes, "/open", "one", "two", "three")
	first, second, third := allocation.Chunks[0].ID, allocation.Chunks[1].ID, allocation.Chunks[2].ID
	f.hold("dn1", first, second)
	f.n.must(http.MethodDelete, "/files?path=/marker", nil, nil)
	want := make(deletes)
	for _, id := range on {
		want[id] = []dfs.ChunkID{marker}
	}
	f.waitDeletes(want)
	f.carryOut(want)
	f.n.must(http.MethodDelete, "/uploads/"+allocation.UploadID.String(), nil, nil)
	want = deletes{"dn1": {first, second}}
	f.waitDeletes(want)
	f.carryOut(want)
	f.hold("dn2", third, second)
	f.wantMetrics("replicas_orphaned 2")
	want = deletes{"dn2": {second, third}}
	f.waitDeletes(want)
	f.carryOut(want)
	f.wantMetrics("replicas_orphaned 0", "chunks 0")
}

func TestExpiredUploadIsReclaimed(t *testing.T) {
	config := testConfig(t, "nn1")
	config.Timing, config.ReclaimGrace, config.UploadExpiry = quickTiming(), namenode.AtOnce, time.Second
	n := open(t, config)
	n.waitLeads()
	f := &fleet{n, register(t, n, "dn1", "dn2"), make(map[dfs.NodeID]bool)}
	allocation, _ := n.store(f.nodes, "/f", "data")
	f.hold("dn1", allocation.Chunks[0].ID)
	f.waitDeletes(deletes{"dn1": {allocation.Chunks[0].ID}})
}

// TestWhoIsNotTold: a node that came back and has not shown what it holds, and
// chunks that the namespace has yet to come to.
func TestWhoIsNotTold(t *testing.T) {
	f := quickReclaim(t, namenode.AtOnce, "dn1", "dn2")
	chunk, _ := f.upload("/f")
	f.hold("dn2", chunk+1, 1<<40)
	back := f.nodes["dn1"]
	back.heartbeat.Incarnation, back.heartbeat.Seq = 2, 0
	back.heartbeat.Digest++ // it holds something that is not known yet
	if reply, _ := back.beat(f.n); !reply.WantInventory {
		t.Fatalf("%+v", reply)
	}
	f.n.must(http.MethodDelete, "/files?path=/f", nil, nil)
	f.waitDeletes(deletes{"dn2": {chunk}})
	back.heartbeat.Digest--
	f.waitDeletes(deletes{"dn1": {chunk}})
	f.carryOut(deletes{"dn1": {chunk}, "dn2": {chunk}})
	f.n.upload(f.nodes, "/g", "data")
	if got := f.n.firstChunk("/g"); got != chunk+2 {
		t.Errorf("a new file got chunk %s, which may be that on dn2", got)
	}
}

// TestNewLeaderWaitsForTheGrace: what a leader noted about the past goes with it,
// and followers order nothing.
func TestNewLeaderWaitsForTheGrace(t *testing.T) {
	t.Parallel() // it waits
	const grace = 2 * time.Second
	nodes := group(t, func(c *namenode.Config) { c.ReclaimGrace = grace })
	leader := waitLeader(t, nodes)
	f := &fleet{leader, register(t, leader, "dn1", "dn2"), make(map[dfs.NodeID]bool)}
	chunk, _ := f.upload("/f")
	leader.must(http.MethodDelete, "/files?path=/f", nil, nil)
	told := make(deletes)
	waitUntil(t, "the first leader orders it to be deleted", func() bool {
		f.deletes(told)
		return len(told) > 0
	})
	heir := others(nodes, leader)[0]
	began := time.Now()
	leader.must(http.MethodPost, "/cluster/transfer", protocol.MemberRequest{ID: heir.ID()}, nil)
	waitUntil(t, "the heir leads", func() bool { return leaderOf(nodes) == heir })
	if reply, failure := f.nodes["dn1"].beat(leader); failure.Code == "" || len(reply.Orders) != 0 {
		t.Errorf("a NameNode that leads no more answers %+v", reply)
	}
	f.n = heir
	f.waitDeletes(deletes{"dn1": {chunk}, "dn2": {chunk}})
	if waited := time.Since(began); waited < grace {
		t.Errorf("the new leader ordered it after %s; the grace is %s", waited, grace)
	}
}

// A leader that cannot make sure that it leads orders nothing.
func TestLonelyLeaderOrdersNothing(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, func(c *namenode.Config) { c.ReclaimGrace = time.Second })
	leader := waitLeader(t, nodes)
	f := &fleet{leader, register(t, leader, "dn1", "dn2"), make(map[dfs.NodeID]bool)}
	f.upload("/f")
	leader.must(http.MethodDelete, "/files?path=/f", nil, nil)
	for _, n := range others(nodes, leader) {
		n.stop()
	}
	if reply, failure := f.nodes["dn1"].beat(leader); failure.Code == "" || len(reply.Orders) != 0 {
		t.Errorf("%+v", reply)
	}
}

func TestNegativeDelaysAreRefused(t *testing.T) {
	config := testConfig(t, "nn1")
	config.ReclaimGrace = -time.Second
	if _, err := namenode.New(config); dfs.CodeOf(err) != dfs.Invalid || !strings.Contains(err.Error(), "grace") {
		t.Errorf("%v", err)
	}
	config = testConfig(t, "nn1")
	config.TrimDelay = -time.Second
	if _, err := namenode.New(config); dfs.CodeOf(err) != dfs.Invalid || !strings.Contains(err.Error(), "trim delay") {
		t.Errorf("%v", err)
	}
}
