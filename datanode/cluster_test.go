package datanode_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	clusterA = dfs.ClusterID("0123456789abcdef0123456789abcdef")
	clusterB = dfs.ClusterID("fedcba9876543210fedcba9876543210")
	patience = 45 * time.Second
)

// nameNode is as much of a NameNode as a DataNode sees.
type nameNode struct {
	*httptest.Server
	mu       sync.Mutex
	cluster  dfs.ClusterID
	nodes    map[dfs.NodeID]string            // addresses as heartbeats announced them
	last     map[dfs.NodeID]heartbeat         // newest heartbeat of each node
	override map[dfs.NodeID]string            // addresses that the test wants told instead
	refuse   map[dfs.NodeID]error             // what heartbeats are answered with
	want     map[dfs.NodeID]bool              // whose inventory is asked for, once
	held     map[dfs.NodeID]map[uint64]bool   // what inventories and changes told
	pages    map[dfs.NodeID][]inventoryResult // inventories as they came in
	orders   map[dfs.NodeID][]protocol.Order  // for the next answer
	corrupt  map[dfs.NodeID][]dfs.ChunkID     // what was reported so, ever
	term     uint64
	interval int64 // ms, that nodes are told
}

type (
	heartbeat       = protocol.HeartbeatRequest
	inventoryResult struct{ chunks, after uint64 }
)

func newNameNode(t testing.TB) *nameNode {
	n := &nameNode{
		cluster: clusterA, nodes: map[dfs.NodeID]string{}, last: map[dfs.NodeID]heartbeat{},
		override: map[dfs.NodeID]string{}, refuse: map[dfs.NodeID]error{}, want: map[dfs.NodeID]bool{},
		held: map[dfs.NodeID]map[uint64]bool{}, pages: map[dfs.NodeID][]inventoryResult{},
		orders: map[dfs.NodeID][]protocol.Order{}, corrupt: map[dfs.NodeID][]dfs.ChunkID{}, term: 1, interval: 20,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /heartbeat", n.heartbeat)
	mux.HandleFunc("GET /nodes", n.list)
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// By these a caller knows a NameNode.
		w.Header().Set(protocol.HeaderNodeID, "nn1")
		w.Header().Set(protocol.HeaderAppliedIndex, "1")
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(n.Close)
	return n
}

func (n *nameNode) heartbeat(w http.ResponseWriter, r *http.Request) {
	var h heartbeat
	if err := protocol.DecodeJSON(r.Body, protocol.Heartbeat.MaxBody, true, &h); err != nil {
		protocol.WriteError(w, err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.refuse[h.ID]; err != nil {
		protocol.WriteError(w, err)
		return
	}
	n.nodes[h.ID], n.last[h.ID] = h.URL, h
	n.take(h)
	reply := protocol.HeartbeatReply{
		ClusterID: n.cluster, Term: n.term, Interval: n.interval, WantInventory: n.want[h.ID], Nodes: n.targets(), Orders: n.orders[h.ID],
	}
	delete(n.want, h.ID)
	delete(n.orders, h.ID)
	w.Header().Set(protocol.HeaderClusterID, string(n.cluster))
	protocol.WriteJSON(w, http.StatusOK, reply)
}

func (n *nameNode) take(h heartbeat) {
	held := n.held[h.ID]
	if held == nil {
		held = map[uint64]bool{}
		n.held[h.ID] = held
	}
	for _, id := range h.Added {
		held[uint64(id)] = true
	}
	n.corrupt[h.ID] = append(n.corrupt[h.ID], h.Corrupt...)
	for _, id := range append(h.Removed, h.Corrupt...) {
		delete(held, uint64(id))
	}
	if p := h.Inventory; p != nil {
		n.pages[h.ID] = append(n.pages[h.ID], inventoryResult{uint64(len(p.Chunks)), p.After})
		for id := range held {
			if id > p.After && id <= p.Through {
				delete(held, id)
			}
		}
		for _, id := range p.Chunks {
			held[uint64(id)] = true
		}
	}
}

func (n *nameNode) targets() (list []protocol.Target) {
	for id, url := range n.nodes {
		if n.override[id] != "" {
			url = n.override[id]
		}
		list = append(list, protocol.Target{ID: id, URL: url})
	}
	return list
}

func (n *nameNode) list(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var reply protocol.NodesReply
	for _, target := range n.targets() {
		reply.Nodes = append(reply.Nodes, protocol.NodeInfo{ID: target.ID, URL: target.URL})
	}
	protocol.WriteJSON(w, http.StatusOK, reply)
}

// set changes something under the lock.
func (n *nameNode) set(change func(*nameNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

// heard waits for a heartbeat of a node that is as wanted.
func (n *nameNode) heard(t testing.TB, id dfs.NodeID, what string, wanted func(heartbeat) bool) heartbeat {
	t.Helper()
	var last heartbeat
	waitUntil(t, what, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		last = n.last[id]
		return last.ID == id && wanted(last)
	})
	return last
}

// order puts orders into the next answer to a node, and waits until that node
// has sent another heartbeat, so has read them.
func (n *nameNode) order(t testing.TB, id dfs.NodeID, orders ...protocol.Order) {
	t.Helper()
	var seq uint64
	n.set(func(n *nameNode) { n.orders[id], seq = orders, n.last[id].Seq })
	n.heard(t, id, "a heartbeat after the orders", func(h heartbeat) bool { return n.orders[id] == nil && h.Seq > seq+1 })
}

// reported waits until a node has told that it holds a chunk, or that it does
// not.
func (n *nameNode) reported(t testing.TB, id dfs.NodeID, chunk dfs.ChunkID, held bool) {
	t.Helper()
	waitUntil(t, "the report of a chunk", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.held[id][uint64(chunk)] == held
	})
}

// told says a node's address from now on, and waits until all others know it.
func (n *nameNode) told(t *testing.T, id dfs.NodeID, url string) {
	t.Helper()
	seen := map[dfs.NodeID]uint64{}
	n.set(func(n *nameNode) {
		n.override[id] = url
		if n.nodes[id] == "" {
			n.nodes[id] = url
		}
		for other, h := range n.last {
			seen[other] = h.Seq
		}
	})
	for other, seq := range seen {
		n.heard(t, other, "a heartbeat", func(h heartbeat) bool { return h.Seq > seq+1 || other == id })
	}
}

func waitUntil(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond) // between polls
	}
}

// inTime tries again what a busy machine may have kept from being done in time.
func inTime(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// config gives every chunk a file of its own, which tests can harm.
func config(t testing.TB, n *nameNode, id dfs.NodeID) datanode.Config {
	return datanode.Config{
		ID: id, Addr: "127.0.0.1:0", NameNodes: []string{n.URL}, DataDirs: []string{t.TempDir()}, Reserve: 1,
		HeartbeatInterval: 20 * time.Millisecond, Unpacked: true,
	}
}

func start(t testing.TB, c datanode.Config) *datanode.DataNode {
	t.Helper()
	d, err := datanode.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, d) })
	return d
}

func stop(t testing.TB, d *datanode.DataNode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

// ready waits until a node is a part of the cluster and knows the others.
func ready(t testing.TB, n *nameNode, nodes ...*datanode.DataNode) {
	t.Helper()
	for _, d := range nodes {
		waitUntil(t, "a ready node", func() bool {
			a, err := try(request(t, http.MethodGet, d.URL()+"/ready", nil, nil))
			return err == nil && a.status == http.StatusOK // a node with little patience may cut itself off
		})
	}
	for _, d := range nodes {
		seq := n.heard(t, d.ID(), "a heartbeat", func(heartbeat) bool { return true }).Seq
		n.heard(t, d.ID(), "another heartbeat", func(h heartbeat) bool { return h.Seq > seq+1 })
	}
}

// three starts a pipeline's worth of nodes, which pack small chunks as all nodes
// do that are not tested.
func three(t *testing.T, change func(*datanode.Config)) (*nameNode, []*datanode.DataNode) {
	t.Helper()
	n := newNameNode(t)
	var nodes []*datanode.DataNode
	for _, id := range []dfs.NodeID{"dn1", "dn2", "dn3"} {
		c := config(t, n, id)
		c.Unpacked = false
		if change != nil {
			change(&c) // it may keep c
		}
		nodes = append(nodes, start(t, c))
	}
	ready(t, n, nodes...)
	return n, nodes
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) code(t *testing.T) dfs.Code {
	t.Helper()
	if a.status < 400 {
		return ""
	}
	var reply protocol.ErrorReply
	if err := json.Unmarshal(a.body, &reply); err != nil || reply.Error.Message == "" || !strings.Contains(reply.Error.Message, " ") {
		t.Errorf("status %d without a sentence: %q", a.status, a.body)
	}
	return reply.Error.Code
}

func do(t testing.TB, r *http.Request) answer {
	t.Helper()
	a, err := try(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func try(r *http.Request) (answer, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body}, err
}

func request(t testing.TB, method, url string, header http.Header, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	return r
}

func get(t testing.TB, url string, header http.Header) answer {
	t.Helper()
	return do(t, request(t, http.MethodGet, url, header, nil))
}

func chunkURL(d *datanode.DataNode, id dfs.ChunkID) string { return d.URL() + "/chunks/" + id.String() }

func putRequest(t testing.TB, d *datanode.DataNode, id dfs.ChunkID, data []byte, pipeline string) *http.Request {
	t.Helper()
	r := request(t, http.MethodPut, chunkURL(d, id), nil, data)
	r.Header.Set(protocol.HeaderChecksum, dfs.ChecksumOf(data).String())
	if pipeline != "" {
		r.Header.Set(protocol.HeaderPipeline, pipeline)
	}
	return r
}

func put(t testing.TB, d *datanode.DataNode, id dfs.ChunkID, data []byte, pipeline string) protocol.ChunkReply {
	t.Helper()
	a := do(t, putRequest(t, d, id, data, pipeline))
	var reply protocol.ChunkReply
	if a.status != http.StatusCreated {
		t.Fatalf("PUT answered %d %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &reply); err != nil {
		t.Fatal(err)
	}
	if reply.ID != id || reply.Size != int64(len(data)) || reply.CRC32C != dfs.ChecksumOf(data) {
		t.Fatalf("PUT answered %+v", reply)
	}
	return reply
}

func content(seed byte, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data) // never fails
	return data
}

func checkHolds(t *testing.T, d *datanode.DataNode, id dfs.ChunkID, data []byte) {
	t.Helper()
	a := get(t, chunkURL(d, id), nil)
	if a.status != http.StatusOK || !bytes.Equal(a.body, data) || a.header.Get(protocol.HeaderChecksum) != dfs.ChecksumOf(data).String() {
		t.Errorf("%s: status %d, %d bytes, header %v", d.ID(), a.status, len(a.body), a.header)
	}
}

func checkHoldsNot(t *testing.T, d *datanode.DataNode, id dfs.ChunkID) {
	t.Helper()
	if a := get(t, chunkURL(d, id), nil); a.code(t) != dfs.NotFound {
		t.Errorf("%s: status %d", d.ID(), a.status)
	}
}
