package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// patience is for things that must happen, on a machine that may be slow.
const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTiming is for tests that go on with whoever leads.
func testTiming() Timing { return timing(time.Second) }

// calmTiming is for tests that go on with the first leader: no hiccup of a busy
// machine is so long.
func calmTiming() Timing { return timing(5 * time.Second) }

func timing(all time.Duration) Timing {
	return Timing{HeartbeatTimeout: all, ElectionTimeout: all, LeaderLease: all, CommitTimeout: 20 * time.Millisecond}
}

var errRefusedByFSM = dfs.Errorf(dfs.Exists, "refused by the state machine")

// journal is a state machine that keeps every entry. "cluster ID" sets the
// cluster ID, "refuse" is refused.
type journal struct {
	mu    sync.Mutex
	state journalState
	fail  bool // refuse to restore
}

type journalState struct {
	Cluster dfs.ClusterID
	Entries []string
}

func (j *journal) Apply(entry *raft.Log) any {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := string(entry.Data)
	if id, ok := strings.CutPrefix(text, "cluster "); ok {
		if j.state.Cluster == "" {
			j.state.Cluster = dfs.ClusterID(id)
		}
		return nil
	}
	if text == "refuse" {
		return errRefusedByFSM
	}
	j.state.Entries = append(j.state.Entries, text)
	return len(j.state.Entries)
}

func (j *journal) Snapshot() (raft.FSMSnapshot, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	data, err := json.Marshal(j.state)
	return journalSnapshot(data), err
}

func (j *journal) Restore(r io.ReadCloser) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail {
		return errors.New("not today")
	}
	var state journalState
	if err := json.NewDecoder(r).Decode(&state); err != nil {
		return err
	}
	j.state = state
	return nil
}

func (j *journal) entries() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.state.Entries)
}

func (j *journal) clusterID() dfs.ClusterID {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.Cluster
}

type journalSnapshot []byte

func (s journalSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return err
	}
	return sink.Close()
}

func (s journalSnapshot) Release() {}

// node is one member under test.
type node struct {
	*Group
	t       *testing.T
	cfg     Config
	machine *journal
	fatal   chan error
}

// newNode prepares a member on a port of its own, not started yet.
func newNode(t *testing.T, id dfs.NodeID) *node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, fatal: make(chan error, 1)}
	n.cfg = Config{
		ID: id, Instance: dfs.RandomHex(), Dir: filepath.Join(t.TempDir(), "raft"),
		RaftAddr: listener.Addr().String(), Listener: listener,
		Admit:  func(context.Context, dfs.ClusterID) error { return nil },
		Timing: testTiming(), BootstrapWait: patience,
		Fatal:  func(err error) { n.fatal <- err },
		Logger: testLogger(t, string(id)),
	}
	t.Cleanup(func() {
		if n.Group != nil && n.Group.raft.State() == raft.Leader && len(n.servers()) > 1 {
			n.Group.fatal(errors.New("the test is over")) // or Close waits until it steps down
		}
		n.stop()
		listener.Close()
	})
	return n
}

// testLogger shows its lines when the test has failed.
func testLogger(t *testing.T, name string) hclog.Logger {
	out := &lockedBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, out)
		}
	})
	return hclog.New(&hclog.LoggerOptions{Name: name, Output: out, Level: hclog.Info})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// open starts the member with an empty state machine.
func (n *node) open() error {
	n.machine = &journal{}
	n.cfg.FSM = n.machine
	n.cfg.ClusterID = n.machine.clusterID
	if n.cfg.Lead == nil {
		n.cfg.Lead = n.mintClusterID
	}
	g, err := Open(context.Background(), n.cfg)
	n.cfg.Listener = nil // the next start listens again
	if err != nil {
		return err
	}
	n.Group = g
	return nil
}

func (n *node) start() *node {
	n.t.Helper()
	if err := n.open(); err != nil {
		n.t.Fatalf("cannot start %s: %v", n.cfg.ID, err)
	}
	return n
}

func (n *node) mintClusterID(ctx context.Context, g *Group) error {
	if n.machine.clusterID() != "" {
		return nil
	}
	_, err := g.Apply(ctx, []byte("cluster "+dfs.NewClusterID()))
	return err
}

func (n *node) stop() {
	n.t.Helper()
	if n.Group == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		n.t.Errorf("close %s: %v", n.cfg.ID, err)
	}
	n.Group = nil
}

// crash stops the member without a handover.
func (n *node) crash() {
	n.t.Helper()
	n.stream.Close()
	waitUntil(n.t, "the cut-off leader to step down", func() bool { return n.raft.State() != raft.Leader || len(n.servers()) == 1 })
	n.stop()
}

// stopElections makes a follower wait for ever for its leader, so that only a
// handover can make it lead.
func (n *node) stopElections(t *testing.T) {
	t.Helper()
	c := n.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = 10*patience, 10*patience
	if err := n.raft.ReloadConfig(c); err != nil {
		t.Fatal(err)
	}
}

// wipe makes the member forget everything, like a new disk.
func (n *node) wipe() {
	n.cfg.Dir = filepath.Join(n.t.TempDir(), "raft")
	n.cfg.Instance = dfs.RandomHex()
}

// newPeers prepares members that know each other, not started yet.
func newPeers(t *testing.T, count int) []*node {
	t.Helper()
	var nodes []*node
	var peers []Peer
	for i := range count {
		n := newNode(t, dfs.NodeID(fmt.Sprintf("nn%d", i+1)))
		nodes = append(nodes, n)
		peers = append(peers, Peer{ID: n.cfg.ID, RaftAddr: n.cfg.RaftAddr, URL: fmt.Sprintf("http://127.0.0.1:%d", 1+i)})
	}
	for i, n := range nodes {
		// Not in the same order on all of them.
		n.cfg.Peers = append(slices.Clone(peers[i:]), peers[:i]...)
	}
	return nodes
}

// newGroup starts a group that has elected a leader, who stays, and minted its
// cluster ID.
func newGroup(t *testing.T, count int, configure ...func(*Config)) []*node {
	t.Helper()
	nodes := newPeers(t, count)
	for _, n := range nodes {
		if count > 1 { // nobody deposes one who is alone
			n.cfg.Timing = calmTiming()
		}
		for _, f := range configure {
			f(&n.cfg)
		}
		n.start()
	}
	if count > 1 {
		elect(t, nodes)
	}
	awaitCluster(t, nodes...)
	return nodes
}

// elect has a member of a group that was just formed stand for election at once,
// as a leader does that hands over: calmTiming would take its time.
func elect(t *testing.T, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		waitUntil(t, string(n.cfg.ID)+" to take part", n.ready.Load)
	}
	candidate, speaker := nodes[0], nodes[1]
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(speaker.cfg.ID), Addr: []byte(speaker.cfg.RaftAddr),
	}}
	err := speaker.transport.TimeoutNow(raft.ServerID(candidate.cfg.ID), raft.ServerAddress(candidate.cfg.RaftAddr), request, new(raft.TimeoutNowResponse))
	if err != nil {
		t.Logf("an election will come by itself: %v", err)
	}
}

func awaitCluster(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		waitUntil(t, string(n.cfg.ID)+" to know its cluster", func() bool { return n.machine.clusterID() != "" })
	}
}

// leaderOf waits until one of nodes leads.
func leaderOf(t *testing.T, nodes ...*node) *node {
	t.Helper()
	var leader *node
	waitUntil(t, "a leader", func() bool {
		i := slices.IndexFunc(nodes, func(n *node) bool { return n.Group != nil && n.IsLeader() })
		if i >= 0 {
			leader = nodes[i]
		}
		return i >= 0
	})
	return leader
}

func others(nodes []*node, not *node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == not })
}

// apply gets entry into the group, through whoever leads. Entries that are
// given more than once count once.
func apply(t *testing.T, nodes []*node, entry string) {
	t.Helper()
	waitUntil(t, "entry "+entry+" to be applied", func() bool {
		ctx, cancel := testContext()
		defer cancel()
		_, err := leaderOf(t, nodes...).Apply(ctx, []byte(entry))
		return err == nil
	})
}

func awaitEntry(t *testing.T, n *node, entry string) {
	t.Helper()
	waitUntil(t, fmt.Sprintf("%s to hold %q", n.cfg.ID, entry), func() bool { return slices.Contains(n.machine.entries(), entry) })
}

func testContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func wantCode(t *testing.T, err error, want dfs.Code) {
	t.Helper()
	if got := dfs.CodeOf(err); got != want {
		t.Fatalf("error %v has code %q instead of %q", err, got, want)
	}
}
