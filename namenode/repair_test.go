package namenode_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

func (n *nameNode) fsck() (report protocol.FsckReply) {
	n.t.Helper()
	n.must(http.MethodGet, "/fsck", nil, &report)
	return report
}

// fleet is fake DataNodes that report what they hold, as real ones do.
type fleet struct {
	n     *nameNode
	nodes map[dfs.NodeID]*fakeDataNode
	mute  map[dfs.NodeID]bool
}

// quickRepair starts a NameNode that soon takes silent DataNodes for dead, but not
// those whose words a busy machine keeps back for a while.
func quickRepair(t *testing.T, ids ...dfs.NodeID) *fleet {
	t.Helper()
	return quickFleet(t, func(*namenode.Config) {}, ids...)
}

func quickFleet(t *testing.T, change func(*namenode.Config), ids ...dfs.NodeID) *fleet {
	t.Helper()
	config := testConfig(t, "nn1")
	config.Timing = quickTiming()
	config.HeartbeatInterval, config.SuspectAfter, config.DownAfter = 200*time.Millisecond, 3*time.Second, 5*time.Second
	config.TrimDelay = 300 * time.Millisecond
	change(&config)
	n := open(t, config)
	n.waitLeads()
	return &fleet{n, register(t, n, ids...), make(map[dfs.NodeID]bool)}
}

// beat has every node that is not mute send a heartbeat, all at once, and
// returns the orders that were given.
func (f *fleet) beat() map[dfs.NodeID][]protocol.Order {
	f.n.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	orders := make(map[dfs.NodeID][]protocol.Order)
	for id, d := range f.nodes {
		if f.mute[id] {
			continue
		}
		wg.Go(func() {
			reply, failure := d.beat(f.n)
			if failure.Code != "" || reply.Term == 0 {
				f.n.t.Errorf("heartbeat of %s: %+v %+v", id, failure, reply)
			}
			if len(reply.Orders) > 0 {
				mu.Lock()
				defer mu.Unlock()
				orders[id] = reply.Orders
			}
		})
	}
	wg.Wait()
	return orders
}

// report has a node tell that it gained or lost chunks.
func (f *fleet) report(id dfs.NodeID, change func(*protocol.HeartbeatRequest)) {
	f.n.t.Helper()
	d := f.nodes[id]
	change(&d.heartbeat)
	for _, chunk := range d.heartbeat.Added {
		d.heartbeat.ChunkCount++
		d.heartbeat.Digest = d.heartbeat.Digest.Add(chunk)
	}
	for _, chunk := range append(d.heartbeat.Removed, d.heartbeat.Corrupt...) {
		d.heartbeat.ChunkCount--
		d.heartbeat.Digest = d.heartbeat.Digest.Remove(chunk)
	}
	if _, failure := d.beat(f.n); failure.Code != "" {
		f.n.t.Fatalf("report of %s: %+v", id, failure)
	}
	d.heartbeat.Added, d.heartbeat.Removed, d.heartbeat.Corrupt = nil, nil, nil
}

// upload stores a file of one chunk, which its nodes report, and returns it.
func (f *fleet) upload(path string) (chunk dfs.ChunkID, on []dfs.NodeID) {
	f.n.t.Helper()
	f.n.upload(f.nodes, path, "some data")
	var file protocol.File
	f.n.must(http.MethodGet, "/files?path="+path, nil, &file)
	chunk = file.Chunks[0].ID
	for _, l := range file.Chunks[0].Locations {
		f.report(l.ID, func(h *protocol.HeartbeatRequest) { h.Added = []dfs.ChunkID{chunk} })
		on = append(on, l.ID)
	}
	return chunk, on
}

// waitOrders beats until somebody is ordered something.
func (f *fleet) waitOrders() (orders map[dfs.NodeID][]protocol.Order) {
	f.n.t.Helper()
	waitUntil(f.n.t, "an order arrives", func() bool {
		orders = f.beat()
		return len(orders) > 0
	})
	return orders
}

// TestLostDataNodeIsRepaired is the way of an order: to the right node, once,
// until it is carried out.
func TestLostDataNodeIsRepaired(t *testing.T) {
	t.Parallel() // it waits
	f := quickRepair(t, "dn1", "dn2", "dn3", "dn4")
	chunk, on := f.upload("/f")
	if report := f.n.fsck(); !report.Healthy || report.Chunks != 1 || report.Files != 1 || report.Problems == nil {
		t.Fatalf("at first: %+v", report)
	}
	lost := on[0]
	f.mute[lost] = true
	orders := f.waitOrders()
	var free dfs.NodeID
	for id := range f.nodes {
		if !slices.Contains(on, id) {
			free = id
		}
	}
	if len(orders) != 1 || len(orders[free]) != 1 {
		t.Fatalf("the chunk is on %v, %s fell silent, and the orders are %+v", on, lost, orders)
	}
	order := orders[free][0]
	if order.Kind != protocol.OrderCopy || order.Chunk != chunk || order.Size != 9 || order.CRC32C != dfs.ChecksumOf([]byte("some data")) || len(order.Sources) != 2 {
		t.Fatalf("%+v", order)
	}
	for _, source := range order.Sources {
		if source.ID == lost || source.URL != f.nodes[source.ID].server.URL {
			t.Errorf("source %+v", source)
		}
	}
	report := f.n.fsck()
	if report.Healthy || report.UnderReplicated != 1 || report.Repairing != 1 || len(report.Problems) != 1 {
		t.Fatalf("while it is being copied: %+v", report)
	}
	if p := report.Problems[0]; p.Action != "a copy to "+string(free)+" is under way" || p.Kind != protocol.ProblemUnderReplicated || p.Wanted != 3 ||
		len(p.Live) != 2 || !slices.Equal(p.Lost, []dfs.NodeID{lost}) || !slices.Equal(p.Files, []string{"/f"}) {
		t.Errorf("%+v", p)
	}
	if _, metrics := f.n.raw(http.MethodGet, "/metrics", nil); !strings.Contains(string(metrics), "dfs_namenode_copies_under_way 1\n") ||
		!strings.Contains(string(metrics), "dfs_namenode_chunks_under_replicated 1\n") {
		t.Error("the metrics do not show the repair")
	}
	for range 10 {
		if again := f.beat(); len(again) != 0 {
			t.Fatalf("ordered again: %+v", again)
		}
	}
	f.report(free, func(h *protocol.HeartbeatRequest) { h.Added = []dfs.ChunkID{chunk} })
	if report := f.n.fsck(); !report.Healthy || report.Repairing != 0 || len(report.Problems) != 0 {
		t.Fatalf("after it was copied: %+v", report)
	}
	f.mute[lost] = false
	f.beat()
	if report := f.n.fsck(); !report.Healthy || report.OverReplicated != 1 || !strings.HasPrefix(report.Problems[0].Action, "a replica ") && report.Problems[0].Action != "waiting for the inventory of "+string(lost) {
		t.Fatalf("after the lost one came back: %+v", report)
	}
}

// TestFullTargetIsGivenUp has the target of a copy find out that its disk is
// full, and another be ordered to make the copy long before the first would be
// overdue. The same when the target is started anew.
func TestFullTargetIsGivenUp(t *testing.T) {
	tests := []struct {
		name   string
		change func(*protocol.HeartbeatRequest)
	}{
		{"full", func(h *protocol.HeartbeatRequest) { h.Unwritable, h.Free = true, 0 }},
		{"started anew", func(h *protocol.HeartbeatRequest) { h.Incarnation, h.Seq = 2, 0 }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := quickRepair(t, "dn1", "dn2", "dn3", "dn4", "dn5")
			chunk, on := f.upload("/f")
			f.mute[on[0]] = true
			var first dfs.NodeID
			for id := range f.waitOrders() {
				first = id
			}
			test.change(&f.nodes[first].heartbeat)
			deadline := time.Now().Add(patience / 2) // a copy may take all of patience
			for {
				for id, orders := range f.beat() {
					if id == first || slices.Contains(on, id) || len(orders) != 1 || orders[0].Chunk != chunk {
						t.Fatalf("%s was to make the copy, and then %s is ordered %+v", first, id, orders)
					}
					return
				}
				if time.Now().After(deadline) {
					t.Fatal("nobody else is ordered to make the copy")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

func TestDamagedReplicaIsRepaired(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3", "dn4")
	chunk, on := f.upload("/f")
	f.report(on[0], func(h *protocol.HeartbeatRequest) { h.Corrupt = []dfs.ChunkID{chunk} })
	report := f.n.fsck()
	if report.Healthy || report.Corrupt != 1 || report.UnderReplicated != 1 || !strings.HasPrefix(report.Problems[0].Action, "a replica on "+string(on[0])+" was damaged; ") {
		t.Fatalf("%+v", report)
	}
	for id, orders := range f.waitOrders() {
		if id != on[0] && slices.Contains(on, id) || len(orders) != 1 {
			t.Fatalf("an order to %s: %+v", id, orders)
		}
		f.report(id, func(h *protocol.HeartbeatRequest) { h.Added = []dfs.ChunkID{chunk} })
	}
	if report := f.n.fsck(); !report.Healthy || report.Corrupt != 0 {
		t.Fatalf("%+v", report)
	}
}

func TestHigherReplicationIsRepaired(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3", "dn4")
	f.upload("/f")
	f.n.must(http.MethodPost, "/replication", `{"path":"/f","replication":4}`, nil)
	if orders := f.waitOrders(); len(orders) != 1 {
		t.Fatalf("%+v", orders)
	}
}

// What an open upload has stored is its client's business.
func TestOpenUploadIsNotRepaired(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3")
	f.n.store(f.nodes, "/open", "data")
	if report := f.n.fsck(); !report.Healthy || report.Files != 0 || report.Chunks != 0 {
		t.Fatalf("%+v", report)
	}
}

func TestFsckSaysWhatIsMissing(t *testing.T) {
	t.Parallel() // it waits
	f := quickRepair(t, "dn1", "dn2", "dn3")
	chunk, on := f.upload("/f")
	action := func() string {
		t.Helper()
		f.beat()
		if report := f.n.fsck(); len(report.Problems) == 1 {
			return report.Problems[0].Action
		}
		return ""
	}
	wait := func(words string) {
		t.Helper()
		waitUntil(t, "fsck says: "+words, func() bool { return strings.Contains(action(), words) })
	}
	f.mute[on[0]] = true
	wait("waiting for another DataNode")
	f.nodes["dn4"] = newDataNode(t, "dn4")
	f.nodes["dn4"].heartbeat.Unwritable = true // from its first word on, or a copy may be ordered to it
	wait("waiting for a DataNode with room")
	f.mute[on[1]], f.mute["dn4"] = true, true
	f.nodes["dn4"].heartbeat.Unwritable = false
	f.mute[on[2]] = true
	wait("no live replica: bring back ")
	report := f.n.fsck()
	if report.Healthy || report.Missing != 1 || len(report.Problems[0].Lost) != 3 || report.Problems[0].Live == nil {
		t.Fatalf("%+v", report)
	}
	for _, id := range on {
		f.mute[id] = false
		f.report(id, func(h *protocol.HeartbeatRequest) { h.Corrupt = []dfs.ChunkID{chunk} })
	}
	wait("no good replica is left: the damaged ones lie in the quarantine of dn1, dn2 and dn3")
}

// TestMassLossHoldsRepair cuts half of the nodes off: what has two replicas left
// waits, what has one is copied.
func TestMassLossHoldsRepair(t *testing.T) {
	t.Parallel() // it waits
	f := quickRepair(t, "dn1", "dn2", "dn3", "dn4", "dn5", "dn6")
	f.beat()
	for i := range 20 {
		f.n.upload(f.nodes, fmt.Sprintf("/f%d", i), "some data")
	}
	f.beat()
	f.mute["dn1"], f.mute["dn2"], f.mute["dn3"] = true, true, true
	ordered := make(map[dfs.ChunkID]bool)
	beat := func() {
		for _, orders := range f.beat() {
			for _, o := range orders {
				ordered[o.Chunk] = true
			}
		}
	}
	waiting := make(map[dfs.ChunkID]bool)
	var singles []dfs.ChunkID
	waitUntil(t, "fsck speaks of a partition", func() bool {
		beat()
		for _, p := range f.n.fsck().Problems {
			switch {
			case strings.Contains(p.Action, "3 of 6 DataNodes are down, which is taken for a partition"):
				waiting[p.Chunk] = true
			case p.Kind == protocol.ProblemUnderReplicated && len(p.Live) == 1:
				singles = append(singles, p.Chunk)
			}
		}
		return len(waiting) > 0
	})
	waitUntil(t, "chunks with a single replica are copied", func() bool {
		beat()
		return len(singles) == 0 || slices.ContainsFunc(singles, func(chunk dfs.ChunkID) bool { return ordered[chunk] })
	})
	for chunk := range waiting {
		if ordered[chunk] {
			t.Errorf("chunk %s waits, and was copied", chunk)
		}
	}
}

func TestFsckThroughFollowers(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	leader := waitLeader(t, nodes)
	fakes := register(t, leader, "dn1", "dn2", "dn3")
	leader.upload(fakes, "/f", "data")
	for _, follower := range others(nodes, leader) {
		response, _ := follower.raw(http.MethodGet, "/fsck", nil)
		if response.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("status %d", response.StatusCode)
		}
		waitUntil(t, "the follower knows the file", func() bool {
			var report protocol.FsckReply
			follower.must(http.MethodGet, "/fsck?consistency=stale", nil, &report)
			return report.Files == 1
		})
	}
}
