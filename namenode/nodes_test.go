package namenode_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (n *nameNode) node(id dfs.NodeID) protocol.NodeInfo {
	n.t.Helper()
	var reply protocol.NodesReply
	n.must(http.MethodGet, "/nodes", nil, &reply)
	for _, node := range reply.Nodes {
		if node.ID == id {
			return node
		}
	}
	n.t.Fatalf("GET /nodes does not show %s: %+v", id, reply)
	return protocol.NodeInfo{}
}

func (n *nameNode) locations(path string) string {
	n.t.Helper()
	var file protocol.File
	n.must(http.MethodGet, "/files?path="+path, nil, &file)
	var found [4]bool
	for _, l := range file.Chunks[0].Locations {
		found[l.ID[2]-'0'] = true
	}
	return fmt.Sprint(found[1:])
}

func TestHeartbeatLongForm(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	node := n.node("dn1")
	if node.State != protocol.StateUp || node.URL != nodes["dn1"].server.URL || node.Capacity != 1<<40 || !node.Writable {
		t.Fatalf("%+v", node)
	}
	reply, _ := nodes["dn1"].beat(n)
	if len(reply.Nodes) != 3 || reply.ClusterID == "" || reply.Term == 0 || reply.Interval != 2000 || reply.WantInventory {
		t.Fatalf("%+v", reply)
	}
	n.upload(nodes, "/f", "data")
	if got := n.locations("/f"); got != "[true true true]" {
		t.Fatalf("after the commit: %s", got)
	}
	chunk := n.firstChunk("/f")
	added := func(h *protocol.HeartbeatRequest) { h.Added, h.ChunkCount = []dfs.ChunkID{chunk}, 1 }
	nodes["dn1"].heartbeat.Digest = dfs.Digest(0).Add(chunk)
	if reply, _ := nodes["dn1"].beat(n, added); reply.WantInventory {
		t.Fatal("a report that adds up led to a request for the inventory")
	}
	nodes["dn1"].heartbeat.ChunkCount = 1
	if reply, _ := nodes["dn1"].beat(n, func(h *protocol.HeartbeatRequest) { h.Digest++ }); !reply.WantInventory {
		t.Fatal("a digest that does not match led to no request for the inventory")
	}
	nodes["dn1"].heartbeat.Digest, nodes["dn1"].heartbeat.ChunkCount = 0, 0
	nodes["dn1"].beat(n, func(h *protocol.HeartbeatRequest) { h.Corrupt = []dfs.ChunkID{chunk} })
	if got := n.locations("/f"); got != "[false true true]" {
		t.Fatalf("after dn1 reported the chunk as corrupt: %s", got)
	}
}

func (n *nameNode) firstChunk(path string) dfs.ChunkID {
	n.t.Helper()
	var file protocol.File
	n.must(http.MethodGet, "/files?path="+path, nil, &file)
	return file.Chunks[0].ID
}

func TestInventoryPages(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	for i := range 4 {
		n.upload(nodes, fmt.Sprintf("/f%d", i), "data")
	}
	// dn1 reports chunks 1, 2 and 4 and an orphan; 3 was reported before and
	// has been lost since.
	d := nodes["dn1"]
	d.beat(n, func(h *protocol.HeartbeatRequest) { h.Added = []dfs.ChunkID{3} })
	digest := dfs.Digest(0)
	for _, id := range []dfs.ChunkID{1, 2, 4, 99} {
		digest = digest.Add(id)
	}
	d.heartbeat.Digest, d.heartbeat.ChunkCount = digest, 4
	if reply, _ := d.beat(n); !reply.WantInventory {
		t.Fatal("no inventory was asked for")
	}
	page := func(after, through uint64, last bool, ids ...dfs.ChunkID) protocol.HeartbeatReply {
		reply, failure := d.beat(n, func(h *protocol.HeartbeatRequest) {
			h.Inventory = &protocol.InventoryPage{After: after, Through: through, Last: last, Chunks: ids}
		})
		if failure.Code != "" {
			t.Fatalf("page: %+v", failure)
		}
		return reply
	}
	page(0, 2, false, 1, 2)
	if reply := page(2, ^uint64(0), true, 4, 99); reply.WantInventory {
		t.Fatal("after the whole inventory the state still differs")
	}
	for path, want := range map[string]string{"/f0": "[true true true]", "/f2": "[false true true]", "/f3": "[true true true]"} {
		if got := n.locations(path); got != want {
			t.Errorf("%s is on %s, want %s", path, got, want)
		}
	}
	_, failure := d.beat(n, func(h *protocol.HeartbeatRequest) {
		h.Inventory = &protocol.InventoryPage{After: 5, Through: 9, Chunks: []dfs.ChunkID{4}}
	})
	if failure.Code != dfs.Invalid {
		t.Errorf("a page out of order: %+v", failure)
	}
}

func TestHeartbeatShortForm(t *testing.T) {
	n := single(t)
	beat := func(body string) protocol.ErrorBody {
		_, failure := n.call(http.MethodPost, "/heartbeat", body, nil)
		return failure
	}
	if failure := beat(`{"id":"old","chunks":["0000000000000001","0000000000000002"],"capacity":1000}`); failure.Code != "" {
		t.Fatalf("%+v", failure)
	}
	if node := n.node("old"); node.Chunks != 2 || node.Capacity != 1000 || node.State != protocol.StateUp || node.Writable {
		t.Fatalf("%+v", node)
	}
	beat(`{"id":"old","chunks":[],"capacity":1000}`)
	if node := n.node("old"); node.Chunks != 0 {
		t.Fatalf("after an empty inventory: %+v", node)
	}
	register(t, n, "dn1")
	if failure := beat(`{"id":"dn1","chunks":[],"capacity":1000}`); failure.Code != dfs.Conflict || !strings.Contains(failure.Message, "incarnation") {
		t.Fatalf("a short heartbeat for a node that sends long ones: %+v", failure)
	}
}

// TestNullChunkIDs: JSON's null leaves an ID zero, which the log cannot hold. The
// reports of all DataNodes, and other changes, share log entries.
func TestNullChunkIDs(t *testing.T) {
	n := single(t)
	node := register(t, n, "dn1")["dn1"]
	node.heartbeat.Seq++
	long, err := json.Marshal(node.heartbeat)
	if err != nil {
		t.Fatal(err)
	}
	bodies := []string{
		`{"id":"old","chunks":[null],"capacity":1000}`,
		`{"id":"old","chunks":["0000000000000001",null],"capacity":1000}`,
	}
	for _, list := range []string{"added", "removed", "corrupt"} {
		bodies = append(bodies, fmt.Sprintf(`%s,"%s":[null]}`, bytes.TrimSuffix(long, []byte("}")), list))
	}
	for _, body := range bodies {
		_, failure := n.call(http.MethodPost, "/heartbeat", body, nil)
		if failure.Code != dfs.Invalid || !strings.Contains(failure.Message, "chunk ID") {
			t.Errorf("%s: %+v", body, failure)
		}
	}
}

// TestClonedDataNode is the race of a copied or moved data directory: two
// processes under one ID.
func TestClonedDataNode(t *testing.T) {
	n := single(t)
	d := register(t, n, "dn1")["dn1"]
	tests := []struct {
		name   string
		change func(*protocol.HeartbeatRequest)
		code   dfs.Code
		says   string
	}{
		{"another directory, same ID", func(h *protocol.HeartbeatRequest) { h.Instance = dfs.RandomHex() }, dfs.Conflict, "another DataNode calls itself dn1"},
		{"a copy, started later", func(h *protocol.HeartbeatRequest) { h.URL, h.Incarnation = "http://127.0.0.1:1", 2 }, dfs.Conflict, "copy of its data directory"},
		{"a copy, same start", func(h *protocol.HeartbeatRequest) { h.URL = "http://127.0.0.1:1" }, dfs.Conflict, "copy of its data directory"},
		{"an earlier start", func(h *protocol.HeartbeatRequest) { h.Incarnation = 0; h.Chunks = nil }, dfs.Conflict, "incarnation"},
		{"a new start in place", func(h *protocol.HeartbeatRequest) { h.Incarnation = 5 }, "", ""},
		{"an earlier start, late", func(h *protocol.HeartbeatRequest) { h.Incarnation = 4 }, dfs.Conflict, "started again since"},
	}
	for _, test := range tests {
		_, failure := d.beat(n, test.change)
		if failure.Code != test.code || !strings.Contains(failure.Message, test.says) {
			t.Errorf("%s: %+v", test.name, failure)
		}
	}
	if node := n.node("dn1"); node.URL != d.server.URL || node.Incarnation != 5 {
		t.Errorf("%+v", node)
	}
}

func TestSilentDataNodes(t *testing.T) {
	t.Parallel() // it waits
	config := testConfig(t, "nn1")
	config.Timing = quickTiming()
	config.HeartbeatInterval, config.SuspectAfter, config.DownAfter = 200*time.Millisecond, 2*time.Second, 8*time.Second
	n := open(t, config)
	n.waitLeads()
	nodes := register(t, n, "dn1", "dn2", "dn3")
	n.upload(nodes, "/f", "data")
	silent := func(state string) func() bool {
		return func() bool {
			for _, id := range []dfs.NodeID{"dn1", "dn2"} {
				if _, failure := nodes[id].beat(n); failure.Code != "" {
					t.Fatalf("%+v", failure)
				}
			}
			return n.node("dn3").State == state
		}
	}
	waitUntil(t, "dn3 is suspect", silent(protocol.StateSuspect))
	var allocation protocol.Allocation
	n.must(http.MethodPost, "/files", `{"path":"/g","num_chunks":8}`, &allocation)
	for _, chunk := range allocation.Chunks {
		for _, target := range chunk.Targets {
			if target.ID == "dn3" {
				t.Fatal("a suspect node was chosen")
			}
		}
	}
	var file protocol.File
	n.must(http.MethodGet, "/files?path=/f", nil, &file)
	if l := file.Chunks[0].Locations; len(l) == 3 && l[2].ID != "dn3" {
		t.Fatalf("a suspect node is not the last to read from: %+v", l)
	}
	waitUntil(t, "dn3 is down", silent(protocol.StateDown))
	if got := n.locations("/f"); got != "[true true false]" {
		t.Fatalf("locations: %s", got)
	}
	nodes["dn3"].beat(n)
	if state := n.node("dn3").State; state != protocol.StateUp {
		t.Fatalf("after a heartbeat dn3 is %s", state)
	}
}

func TestUnwritableDataNode(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	nodes["dn2"].beat(n, func(h *protocol.HeartbeatRequest) { h.Unwritable, h.Free = true, 0 })
	nodes["dn3"].beat(n, func(h *protocol.HeartbeatRequest) { h.Free = 100 })
	status, failure := n.call(http.MethodPost, "/files", `{"path":"/f","num_chunks":1}`, nil)
	if status != http.StatusInsufficientStorage || failure.Code != dfs.NoSpace {
		t.Fatalf("%d %+v", status, failure)
	}
	nodes["dn2"].beat(n, func(h *protocol.HeartbeatRequest) { h.Unwritable = true }) // it has not read its directories yet
	response, _ := n.raw(http.MethodPost, "/files", []byte(`{"path":"/f","num_chunks":1}`))
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Fatalf("one that starts is not waited for: %d %v", response.StatusCode, response.Header)
	}
}
