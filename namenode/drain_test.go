package namenode_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

// obey has the fleet carry out what it is ordered, and returns how much that
// was.
func (f *fleet) obey() (copies, trims int) {
	f.n.t.Helper()
	for id, orders := range f.beat() {
		var added, removed []dfs.ChunkID
		for _, o := range orders {
			switch o.Kind {
			case protocol.OrderCopy:
				f.nodes[id].hold(o.Chunk, "some data")
				added = append(added, o.Chunk)
			case protocol.OrderTrim:
				f.trim(id, o)
				removed = append(removed, o.Chunk)
			default:
				f.n.t.Errorf("an order to %s: %+v", id, o)
			}
		}
		f.report(id, func(h *protocol.HeartbeatRequest) { h.Added, h.Removed = added, removed })
		copies, trims = copies+len(added), trims+len(removed)
	}
	return copies, trims
}

// trim takes a replica away from a node, after a look at its keepers.
func (f *fleet) trim(victim dfs.NodeID, o protocol.Order) {
	f.n.t.Helper()
	confirmed := 0
	for _, keeper := range o.Keepers {
		if keeper.ID != victim && f.nodes[keeper.ID].holds(o.Chunk) {
			confirmed++
		}
	}
	if o.Keep < 1 || confirmed < o.Keep || confirmed != len(o.Keepers) || o.Size != 9 || o.CRC32C != dfs.ChecksumOf([]byte("some data")) {
		f.n.t.Errorf("an order to %s: %+v", victim, o)
	}
	f.nodes[victim].drop(o.Chunk)
}

func (d *fakeDataNode) holds(id dfs.ChunkID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, held := d.held[id]
	return held
}

func (d *fakeDataNode) drop(id dfs.ChunkID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.held, id)
}

func (n *nameNode) drain(id dfs.NodeID) (node protocol.NodeInfo) {
	n.t.Helper()
	n.must(http.MethodPost, "/nodes/drain", protocol.DrainRequest{ID: id}, &node)
	return node
}

func (n *nameNode) undrain(id dfs.NodeID) (node protocol.NodeInfo) {
	n.t.Helper()
	n.must(http.MethodPost, "/nodes/undrain", protocol.DrainRequest{ID: id}, &node)
	return node
}

// patient is for tests in which nobody is to be taken for silent.
func patient(config *namenode.Config) {
	config.SuspectAfter, config.DownAfter = time.Minute, 2*time.Minute
}

// TestDrain empties a DataNode that holds a replica of each of ten chunks.
func TestDrain(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3", "dn4")
	held := 0
	for i := range 10 {
		if _, on := f.upload(fmt.Sprintf("/f%d", i)); slices.Contains(on, "dn2") {
			held++
		}
	}
	if node := f.n.drain("dn2"); node.ID != "dn2" || node.State != protocol.StateDraining || node.Service != protocol.StateDraining || node.Chunks != int64(held) {
		t.Fatalf("%+v", node)
	}
	if node := f.n.drain("dn2"); node.State != protocol.StateDraining {
		t.Fatalf("the second time: %+v", node)
	}
	report := f.n.fsck()
	if !report.Healthy || report.Draining != int64(held) || report.UnderReplicated != 0 || len(report.Problems) != held {
		t.Fatalf("%+v", report)
	}
	if p := report.Problems[0]; p.Kind != protocol.ProblemDraining || len(p.Live) != 3 || !strings.HasPrefix(p.Action, "it is to leave dn2; ") || p.Stuck {
		t.Fatalf("%+v", p)
	}
	copies, trims := 0, 0
	waitUntil(t, "dn2 is empty", func() bool {
		c, tr := f.obey()
		copies, trims = copies+c, trims+tr
		return f.n.node("dn2").State == protocol.StateDrained
	})
	if copies != held || trims != held || f.nodes["dn2"].heartbeat.ChunkCount != 0 {
		t.Errorf("%d chunks were copied and %d trimmed, of %d; %d are left", copies, trims, held, f.nodes["dn2"].heartbeat.ChunkCount)
	}
	if report := f.n.fsck(); !report.Healthy || report.Draining+report.OverReplicated != 0 {
		t.Errorf("%+v", report)
	}
	for i := range 5 {
		if _, on := f.upload(fmt.Sprintf("/later%d", i)); slices.Contains(on, "dn2") {
			t.Error("a chunk was placed on the drained node")
		}
	}
	f.beat()
	if node := f.n.drain("dn2"); node.State != protocol.StateDrained {
		t.Errorf("to drain it again made it %s", node.State)
	}

	// It stays drained when it is started anew.
	f.nodes["dn2"].heartbeat.Incarnation, f.nodes["dn2"].heartbeat.Seq = 2, 0
	f.beat()
	if node := f.n.node("dn2"); node.State != protocol.StateDrained || node.Incarnation != 2 {
		t.Errorf("after a restart: %+v", node)
	}
	// What appears on it is taken away again.
	f.report("dn2", func(h *protocol.HeartbeatRequest) { h.Added = []dfs.ChunkID{1} })
	waitUntil(t, "it is draining again, and then drained", func() bool { return f.n.node("dn2").State == protocol.StateDraining })
	f.nodes["dn2"].hold(1, "some data")
	waitUntil(t, "it is drained again", func() bool {
		f.obey()
		return f.n.node("dn2").State == protocol.StateDrained
	})
	if node := f.n.undrain("dn2"); node.State != protocol.StateUp || node.Service != protocol.InService {
		t.Errorf("%+v", node)
	}
}

// TestDrainBesideRestlessNode empties a DataNode while another, which has nothing
// to do with it, is started again and again.
func TestDrainBesideRestlessNode(t *testing.T) {
	f := quickFleet(t, func(config *namenode.Config) {
		patient(config)
		config.TrimDelay = 3 * time.Second // longer than between two starts
	}, "dn1", "dn2", "dn3", "dn4")
	for i := range 10 {
		f.upload(fmt.Sprintf("/f%d", i))
	}
	restless := newDataNode(t, "dn5")
	restless.heartbeat.Unwritable = true
	f.nodes["dn5"] = restless
	f.n.drain("dn2")
	waitUntil(t, "dn2 is empty", func() bool {
		f.obey()
		restless.heartbeat.Incarnation++
		return f.n.node("dn2").State == protocol.StateDrained
	})
}

func TestDrainRefusals(t *testing.T) {
	f := quickFleet(t, patient, "dn1")
	for _, route := range []string{"/nodes/drain", "/nodes/undrain"} {
		for body, code := range map[string]dfs.Code{
			`{"id":"dn9"}`: dfs.NotFound, `{"id":"a/b"}`: dfs.Invalid, `{}`: dfs.Invalid, `{"id":"dn1","x":1}`: dfs.Invalid, `{`: dfs.Invalid,
		} {
			if _, failure := f.n.call(http.MethodPost, route, body, nil); failure.Code != code {
				t.Errorf("%s %s: %+v, want %s", route, body, failure, code)
			}
		}
	}
	// A retry of a request that was answered changes nothing.
	f.n.must(http.MethodPost, "/nodes/drain", `{"id":"dn1"}`, nil, protocol.HeaderRequestID, "one")
	f.n.undrain("dn1")
	var node protocol.NodeInfo
	f.n.must(http.MethodPost, "/nodes/drain", `{"id":"dn1"}`, &node, protocol.HeaderRequestID, "one")
	if node.Service != protocol.InService {
		t.Errorf("a late retry drained the node again: %+v", node)
	}
}

// TestDrainWithoutTarget has nowhere to put the chunks, until there is.
func TestDrainWithoutTarget(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3")
	f.upload("/f")
	f.n.drain("dn1")
	for range 5 {
		f.obey()
	}
	report := f.n.fsck()
	if p := report.Problems[0]; !report.Healthy || p.Kind != protocol.ProblemDraining || !p.Stuck || !strings.Contains(p.Action, "waiting for another DataNode") {
		t.Fatalf("%+v", report)
	}
	f.nodes["dn4"] = newDataNode(t, "dn4")
	waitUntil(t, "dn1 is empty", func() bool { f.obey(); return f.n.node("dn1").State == protocol.StateDrained })
}

// A node that is down when it is to be emptied, or goes down meanwhile, is
// repaired like any other, and trimmed when it comes back.
func TestDrainOfLostNode(t *testing.T) {
	t.Parallel() // it waits
	f := quickRepair(t, "dn1", "dn2", "dn3", "dn4")
	_, on := f.upload("/f")
	lost := on[0]
	f.n.drain(lost)
	f.mute[lost] = true
	waitUntil(t, "the chunk is repaired", func() bool {
		f.obey()
		report := f.n.fsck()
		return f.n.node(lost).State == protocol.StateDown && report.Healthy && report.Draining == 0
	})
	if node := f.n.node(lost); node.Service != protocol.StateDraining {
		t.Fatalf("%+v", node)
	}
	f.mute[lost] = false
	waitUntil(t, "it is empty", func() bool { f.obey(); return f.n.node(lost).State == protocol.StateDrained })
}

// An upload that was begun before may finish; until then the node is not empty.
func TestDrainWaitsForUploads(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3", "dn4")
	allocation, _ := f.n.store(f.nodes, "/open", "data")
	target := allocation.Chunks[0].Targets[0].ID
	f.n.drain(target)
	other := slices.IndexFunc([]dfs.NodeID{"dn1", "dn2", "dn3", "dn4"}, func(id dfs.NodeID) bool {
		return !slices.ContainsFunc(allocation.Chunks[0].Targets, func(t protocol.Target) bool { return t.ID == id })
	})
	free := dfs.NodeID(fmt.Sprintf("dn%d", other+1))
	f.n.drain(free)
	waitUntil(t, "the node without upload is drained", func() bool { f.obey(); return f.n.node(free).State == protocol.StateDrained })
	if node := f.n.node(target); node.State != protocol.StateDraining {
		t.Fatalf("an upload is to put a chunk on it: %+v", node)
	}
	f.n.must(http.MethodDelete, "/uploads/"+allocation.UploadID.String(), nil, nil)
	waitUntil(t, "the other is drained, too", func() bool { f.obey(); return f.n.node(target).State == protocol.StateDrained })
}

// TestReturnIsTrimmed brings a node back whose chunk has been repaired: nothing
// is trimmed before its inventory is in, and then one replica is.
func TestReturnIsTrimmed(t *testing.T) {
	t.Parallel() // it waits
	f := quickRepair(t, "dn1", "dn2", "dn3", "dn4")
	chunk, on := f.upload("/f")
	lost := on[0]
	f.mute[lost] = true
	waitUntil(t, "the chunk is repaired", func() bool { f.obey(); return f.n.fsck().Healthy && f.n.node(lost).State == protocol.StateDown })
	d := f.nodes[lost]
	d.heartbeat.Incarnation, d.heartbeat.Seq = 2, 0
	d.heartbeat.ChunkCount++ // it speaks of a chunk that the state does not know
	f.mute[lost] = false
	waitUntil(t, "fsck says what it is waiting for", func() bool {
		for id, orders := range f.beat() {
			t.Fatalf("an order to %s: %+v", id, orders)
		}
		report := f.n.fsck()
		return len(report.Problems) == 1 && report.Problems[0].Action == "waiting for the inventory of "+string(lost)
	})
	for range 10 {
		if orders := f.beat(); len(orders) != 0 {
			t.Fatalf("trimmed without the inventory: %+v", orders)
		}
		time.Sleep(50 * time.Millisecond) // longer in all than the delay of trims: what must not happen cannot be waited for
	}
	d.heartbeat.ChunkCount--
	for id, orders := range f.waitOrders() {
		o := orders[0]
		if len(orders) != 1 || o.Kind != protocol.OrderTrim || o.Chunk != chunk || o.Keep != 3 || len(o.Keepers) != 3 {
			t.Fatalf("%+v", orders)
		}
		if report := f.n.fsck(); report.OverReplicated != 1 || report.Problems[0].Action != "a replica on "+string(id)+" is being removed" {
			t.Fatalf("%+v", report)
		}
		if again := f.beat(); len(again) != 0 {
			t.Fatalf("ordered again at once: %+v", again)
		}
		f.trim(id, o)
		f.report(id, func(h *protocol.HeartbeatRequest) { h.Removed = []dfs.ChunkID{chunk} })
	}
	if report := f.n.fsck(); !report.Healthy || report.OverReplicated != 0 || len(report.Problems) != 0 {
		t.Fatalf("%+v", report)
	}
}

// Lower replication makes surplus like any other.
func TestLowerReplicationIsTrimmed(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3")
	f.upload("/f")
	f.n.must(http.MethodPost, "/replication", `{"path":"/f","replication":1}`, nil)
	trims := 0
	waitUntil(t, "one replica is left", func() bool {
		_, more := f.obey()
		trims += more
		return trims == 2
	})
	if report := f.n.fsck(); !report.Healthy || report.OverReplicated != 0 {
		t.Fatalf("%+v", report)
	}
}

// TestBalanceMovesChunks adds an empty node to full ones.
func TestBalanceMovesChunks(t *testing.T) {
	for _, off := range []bool{false, true} {
		f := quickFleet(t, func(config *namenode.Config) { patient(config); config.NoBalance = off }, "dn1", "dn2", "dn3")
		for i := range 4 {
			f.upload(fmt.Sprintf("/f%d", i))
		}
		for _, d := range f.nodes {
			d.heartbeat.Used, d.heartbeat.Free = 1<<30, 1<<30
		}
		f.beat()
		f.nodes["dn4"] = newDataNode(t, "dn4")
		f.nodes["dn4"].heartbeat.Free = 2 << 30
		if off {
			for range 20 {
				if orders := f.beat(); len(orders) != 0 {
					t.Errorf("balancing is off, and yet: %+v", orders)
				}
			}
			continue
		}
		moved := 0
		waitUntil(t, "chunks are moved to the empty node", func() bool {
			for id, orders := range f.beat() {
				for _, o := range orders {
					if o.Kind != protocol.OrderCopy || id != "dn4" {
						t.Errorf("an order to %s: %+v", id, o)
					}
					moved++
				}
			}
			return moved > 0
		})
		if report := f.n.fsck(); !report.Healthy || report.Repairing == 0 {
			t.Errorf("%+v", report)
		}
	}
}
