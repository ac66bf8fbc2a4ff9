package namenode_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// calmTiming keeps the first leader: no hiccup of a busy machine is so long.
func calmTiming() cluster.Timing { return timing(4 * time.Second) }

// quickTiming is for a group of one, which nobody can depose.
func quickTiming() cluster.Timing { return timing(100 * time.Millisecond) }

func timing(all time.Duration) cluster.Timing {
	timing := cluster.DefaultTiming()
	timing.HeartbeatTimeout, timing.ElectionTimeout, timing.LeaderLease = all, all, all
	return timing
}

// nameNode is a NameNode under test and a way to talk to it.
type nameNode struct {
	*namenode.NameNode
	t *testing.T
}

// testConfig takes nobody for silent: most fake DataNodes send a heartbeat only
// now and then.
func testConfig(t *testing.T, id dfs.NodeID) namenode.Config {
	return namenode.Config{
		ID: id, Addr: "127.0.0.1:0", RaftAddr: "127.0.0.1:0", MetaDir: t.TempDir(),
		Timing: calmTiming(), SuspectAfter: time.Hour, DownAfter: 2 * time.Hour, Logger: testLogger(t),
	}
}

func testLogger(t *testing.T) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &testWriter{t: t}})
}

// testWriter passes log lines to the test, so that only failing tests print.
type testWriter struct {
	mu   sync.Mutex
	t    *testing.T
	done bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		if w.t.Context().Err() != nil {
			w.done = true
		} else {
			w.t.Log(string(bytes.TrimSpace(p)))
		}
	}
	return len(p), nil
}

// open starts a NameNode; the test's end closes it unless stop was called.
func open(t *testing.T, config namenode.Config) *nameNode {
	t.Helper()
	n, err := namenode.New(config)
	if err == nil {
		err = n.Open(t.Context())
	}
	if err != nil {
		t.Fatalf("start NameNode %s: %v", config.ID, err)
	}
	node := &nameNode{n, t}
	t.Cleanup(node.stop)
	return node
}

func (n *nameNode) stop() {
	if n.NameNode == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		n.t.Errorf("close NameNode %s: %v", n.ID(), err)
	}
	n.NameNode = nil
}

// single starts a one-node group and waits until it leads.
func single(t *testing.T) *nameNode {
	t.Helper()
	config := testConfig(t, "nn1")
	config.Timing = quickTiming()
	n := open(t, config)
	n.waitLeads()
	return n
}

func (n *nameNode) waitLeads() {
	n.t.Helper()
	waitUntil(n.t, "the NameNode leads", func() bool {
		status, _ := n.call(http.MethodGet, "/nodes", nil, nil)
		return status == http.StatusOK
	})
}

// group starts three NameNodes with the same list of peers.
func group(t *testing.T, change func(*namenode.Config)) []*nameNode {
	t.Helper()
	var peers []cluster.Peer
	configs := make([]namenode.Config, 3)
	for i := range configs {
		configs[i] = testConfig(t, dfs.NodeID([]string{"nn1", "nn2", "nn3"}[i]))
		configs[i].Listener, configs[i].RaftListener = port(t), port(t)
		peers = append(peers, cluster.Peer{
			ID: configs[i].ID, URL: "http://" + configs[i].Listener.Addr().String(),
			RaftAddr: configs[i].RaftListener.Addr().String(),
		})
	}
	var nodes []*nameNode
	for i := range configs {
		configs[i].Peers = peers
		if change != nil {
			change(&configs[i])
		}
		nodes = append(nodes, open(t, configs[i]))
	}
	waitUntil(t, "one of three leads", func() bool { return leaderOf(nodes) != nil })
	return nodes
}

func port(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leaderOf returns the NameNode that answers as the leader, or nil.
func leaderOf(nodes []*nameNode) *nameNode {
	for _, n := range nodes {
		if n.NameNode == nil {
			continue
		}
		if status, _ := n.call(http.MethodGet, "/nodes", nil, nil); status == http.StatusOK {
			return n
		}
	}
	return nil
}

// call makes one call, without following redirects, and decodes the answer.
func (n *nameNode) call(method, path string, body, out any, headers ...string) (status int, failure protocol.ErrorBody) {
	n.t.Helper()
	response, content := n.raw(method, path, encode(n.t, body), headers...)
	if response.StatusCode >= 300 {
		var reply protocol.ErrorReply
		if err := json.Unmarshal(content, &reply); err != nil || reply.Error.Code == "" || reply.Error.Message == "" {
			n.t.Fatalf("%s %s: status %d with a body that is no error: %q", method, path, response.StatusCode, content)
		}
		return response.StatusCode, reply.Error
	}
	if out != nil {
		if err := json.Unmarshal(content, out); err != nil {
			n.t.Fatalf("%s %s: %v in %q", method, path, err, content)
		}
	}
	return response.StatusCode, protocol.ErrorBody{}
}

func encode(t *testing.T, body any) []byte {
	t.Helper()
	switch b := body.(type) {
	case nil:
		return nil
	case string:
		return []byte(b)
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

var plain = &http.Client{
	Timeout:       patience,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (n *nameNode) raw(method, path string, body []byte, headers ...string) (*http.Response, []byte) {
	n.t.Helper()
	request, err := http.NewRequest(method, n.URL()+path, bytes.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := plain.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response, content
}

// must makes a call that has to succeed.
func (n *nameNode) must(method, path string, body, out any, headers ...string) {
	n.t.Helper()
	if status, failure := n.call(method, path, body, out, headers...); status >= 300 {
		n.t.Fatalf("%s %s: %d %s: %s", method, path, status, failure.Code, failure.Message)
	}
}

// fakeDataNode answers for the chunks it is given, and sends heartbeats by hand.
type fakeDataNode struct {
	t      *testing.T
	id     dfs.NodeID
	server *httptest.Server

	mu        sync.Mutex
	held      map[dfs.ChunkID]protocol.ChunkInfo
	heartbeat protocol.HeartbeatRequest
}

func newDataNode(t *testing.T, id dfs.NodeID) *fakeDataNode {
	t.Helper()
	d := &fakeDataNode{t: t, id: id, held: make(map[dfs.ChunkID]protocol.ChunkInfo)}
	d.server = httptest.NewServer(http.HandlerFunc(d.stat))
	t.Cleanup(d.server.Close)
	d.heartbeat = protocol.HeartbeatRequest{
		ID: id, URL: d.server.URL, Instance: dfs.RandomHex(), Incarnation: 1,
		Capacity: 1 << 40, Free: 1 << 40,
	}
	return d
}

func (d *fakeDataNode) stat(w http.ResponseWriter, r *http.Request) {
	var request protocol.StatChunksRequest
	if err := protocol.DecodeJSON(r.Body, 1<<20, false, &request); err != nil {
		protocol.WriteError(w, err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := protocol.StatChunksReply{Chunks: []protocol.ChunkInfo{}}
	for _, id := range request.IDs {
		if info, ok := d.held[id]; ok {
			answer.Chunks = append(answer.Chunks, info)
		}
	}
	protocol.WriteJSON(w, http.StatusOK, answer)
}

func (d *fakeDataNode) hold(id dfs.ChunkID, data string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[id] = protocol.ChunkInfo{ID: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf([]byte(data))}
}

// beat sends the next heartbeat, with change made to it.
func (d *fakeDataNode) beat(n *nameNode, change ...func(*protocol.HeartbeatRequest)) (protocol.HeartbeatReply, protocol.ErrorBody) {
	d.t.Helper()
	d.heartbeat.Seq++
	request := d.heartbeat
	for _, c := range change {
		c(&request)
	}
	var reply protocol.HeartbeatReply
	_, failure := n.call(http.MethodPost, "/heartbeat", request, &reply)
	return reply, failure
}

// register starts fake DataNodes and makes them known to the leader.
func register(t *testing.T, leader *nameNode, ids ...dfs.NodeID) map[dfs.NodeID]*fakeDataNode {
	t.Helper()
	nodes := make(map[dfs.NodeID]*fakeDataNode)
	for _, id := range ids {
		nodes[id] = newDataNode(t, id)
		if _, failure := nodes[id].beat(leader); failure.Code != "" {
			t.Fatalf("heartbeat of %s: %s", id, failure.Message)
		}
	}
	return nodes
}

// upload stores a file of one chunk for each of the parts.
func (n *nameNode) upload(nodes map[dfs.NodeID]*fakeDataNode, path string, parts ...string) {
	n.t.Helper()
	allocation, commit := n.store(nodes, path, parts...)
	n.must(http.MethodPost, "/uploads/"+allocation.UploadID.String()+"/commit", commit, nil)
}

// store does all of an upload but the commit.
func (n *nameNode) store(nodes map[dfs.NodeID]*fakeDataNode, path string, parts ...string) (protocol.Allocation, protocol.CommitRequest) {
	n.t.Helper()
	var allocation protocol.Allocation
	n.must(http.MethodPost, "/files", protocol.CreateRequest{Path: path, NumChunks: int64(len(parts))}, &allocation)
	commit := protocol.CommitRequest{Chunks: []protocol.CommittedChunk{}}
	for i, data := range parts {
		chunk := allocation.Chunks[i]
		stored := protocol.CommittedChunk{ID: chunk.ID, Size: int64(len(data)), CRC32C: dfs.ChecksumOf([]byte(data))}
		for _, target := range chunk.Targets {
			nodes[target.ID].hold(chunk.ID, data)
			stored.Nodes = append(stored.Nodes, target.ID)
		}
		commit.Chunks = append(commit.Chunks, stored)
	}
	return allocation, commit
}
