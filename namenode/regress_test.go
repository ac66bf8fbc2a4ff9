package namenode_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

// keep remembers the configurations of a group, to start members again.
func keep(configs map[dfs.NodeID]namenode.Config) func(*namenode.Config) {
	return func(c *namenode.Config) { configs[c.ID] = *c }
}

// again starts a stopped member from the same meta-dir at the given addresses.
func again(t *testing.T, config namenode.Config, url, raftAddr string) *nameNode {
	t.Helper()
	config.Listener, config.RaftListener = nil, nil
	config.Addr, config.RaftAddr, config.RaftAdvertise = strings.TrimPrefix(url, "http://"), raftAddr, raftAddr
	peers := append([]cluster.Peer(nil), config.Peers...)
	for i := range peers {
		if peers[i].ID == config.ID {
			peers[i].RaftAddr = raftAddr
		}
	}
	config.Peers = peers
	return open(t, config)
}

func mustFail(t *testing.T, n *nameNode, says string) {
	t.Helper()
	select {
	case <-n.Failed():
		if err := n.Wait(); !strings.Contains(err.Error(), says) {
			t.Fatalf("the NameNode ends with %v, not with %q", err, says)
		}
	case <-time.After(patience):
		t.Fatalf("the NameNode goes on; it should end with %q", says)
	}
}

// TestRequestIDOfAnotherKindOfCall: one ID for a whole upload must not make the
// commit look done.
func TestRequestIDOfAnotherKindOfCall(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	var allocation protocol.Allocation
	n.must(http.MethodPost, "/files", `{"path":"/f","num_chunks":1}`, &allocation, protocol.HeaderRequestID, "r1")
	nodes["dn1"].hold(allocation.Chunks[0].ID, "data")
	for _, route := range []string{"/commit", "/chunks"} {
		status, failure := n.call(http.MethodPost, "/uploads/"+allocation.UploadID.String()+route, `{}`, nil, protocol.HeaderRequestID, "r1")
		if status != 400 || failure.Code != dfs.Invalid || !strings.Contains(failure.Message, "another kind of call") {
			t.Errorf("%s: %d %+v", route, status, failure)
		}
	}
}

// TestRetryOfLargeCommitUnderWay: the first try of a commit that takes several
// log entries is still under way when the client tries again.
func TestRetryOfLargeCommitUnderWay(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	parts := make([]string, 1600)
	for i := range parts {
		parts[i] = strconv.Itoa(i)
	}
	allocation, commit := n.store(nodes, "/big", parts...)
	var asked atomic.Int64
	release := make(chan struct{})
	for _, d := range nodes {
		inner := d.server.Config.Handler
		d.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			<-release
			inner.ServeHTTP(w, r)
		})
	}
	route := "/uploads/" + allocation.UploadID.String() + "/commit"
	var statuses [2]int
	var tries sync.WaitGroup
	try := func(i int) {
		statuses[i], _ = n.call(http.MethodPost, route, commit, nil, protocol.HeaderRequestID, "r7")
	}
	tries.Go(func() { try(0) })
	waitUntil(t, "the first try asks the DataNodes", func() bool { return asked.Load() >= 3 })
	tries.Go(func() { try(1) })
	close(release)
	tries.Wait()
	if statuses != [2]int{200, 200} {
		t.Fatalf("the two tries were answered %v", statuses)
	}
}

// TestRaftDirectoryGone: half a meta-dir is worse than none. The member would
// vote again without its log, or serve an empty namespace as the old cluster.
func TestRaftDirectoryGone(t *testing.T) {
	config := testConfig(t, "nn1")
	config.Timing = quickTiming()
	n := open(t, config)
	n.waitLeads()
	n.must(http.MethodPost, "/mkdir", `{"path":"/precious"}`, nil)
	n.stop()
	if err := os.RemoveAll(filepath.Join(config.MetaDir, "raft")); err != nil {
		t.Fatal(err)
	}
	mustFail(t, open(t, config), "its Raft log is gone")
}

// TestNoVoteBeforeAdmission: a joiner that cannot reach the group it was told to
// join must not raise the quorum of the group that lets it in.
func TestNoVoteBeforeAdmission(t *testing.T) {
	t.Parallel() // it waits
	n := single(t)
	dead := port(t)
	config := testConfig(t, "nn2")
	config.Join = "http://" + dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	stuck := open(t, config)
	n.must(http.MethodPost, "/cluster/join", protocol.JoinRequest{ID: "nn2", RaftAddr: stuck.RaftAddr(), URL: stuck.URL()}, nil)
	// Long enough for a promotion: two looks, half a second apart.
	deadline := time.Now().Add(3 * time.Second)
	for i := 0; time.Now().Before(deadline); i++ {
		n.must(http.MethodPost, "/mkdir", protocol.MkdirRequest{Path: "/d" + strconv.Itoa(i)}, nil)
		var reply protocol.LeaderReply
		n.must(http.MethodGet, "/leader", nil, &reply)
		if len(reply.Members) != 2 || reply.Members[1].Role != protocol.RoleNonvoter {
			t.Fatalf("%+v", reply.Members)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestMovedRaftAddress: the leader cannot reach a member that was started again
// at another address; the member has to say where it is.
func TestMovedRaftAddress(t *testing.T) {
	t.Parallel() // it waits
	configs := make(map[dfs.NodeID]namenode.Config)
	nodes := group(t, keep(configs))
	leader := waitLeader(t, nodes)
	member := others(nodes, leader)[0]
	id, url := member.ID(), member.URL()
	waitUntil(t, "the member has been announced", func() bool { return announced(t, leader, id) })
	member.stop()
	free := port(t)
	moved := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	again(t, configs[id], url, moved)
	waitUntil(t, "the leader knows the new address", func() bool {
		var reply protocol.LeaderReply
		leader.must(http.MethodGet, "/leader", nil, &reply)
		for _, m := range reply.Members {
			if m.ID == id && m.RaftAddr == moved {
				return true
			}
		}
		return false
	})
}

// TestRestartedAfterRemoval: a NameNode that was stopped when it was removed
// learns of it when it starts again, and its meta-dir cannot be used to rejoin.
func TestRestartedAfterRemoval(t *testing.T) {
	t.Parallel() // it waits
	configs := make(map[dfs.NodeID]namenode.Config)
	nodes := group(t, keep(configs))
	leader := waitLeader(t, nodes)
	member := others(nodes, leader)[0]
	id, url, raftAddr := member.ID(), member.URL(), member.RaftAddr()
	waitUntil(t, "the member has been announced", func() bool { return announced(t, leader, id) })
	member.stop()
	leader.must(http.MethodPost, "/cluster/remove", protocol.MemberRequest{ID: id}, nil)
	mustFail(t, again(t, configs[id], url, raftAddr), "was removed from the group")
}

// TestGracefulStopSendsCallersOn: what a leader that is stopping cannot finish
// is tried again elsewhere, not given up.
func TestGracefulStopSendsCallersOn(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	allocation, commit := n.store(nodes, "/f", "data")
	asked := make(chan struct{}, 3)
	release := make(chan struct{})
	for _, d := range nodes {
		inner := d.server.Config.Handler
		d.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-release
			inner.ServeHTTP(w, r)
		})
	}
	url := n.URL()
	var calls sync.WaitGroup
	calls.Go(func() {
		response, err := plain.Post(url+"/uploads/"+allocation.UploadID.String()+"/commit", "application/json", strings.NewReader(string(encode(t, commit))))
		if err != nil {
			t.Errorf("the call was cut: %v", err)
			return
		}
		defer response.Body.Close()
		if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
			t.Error("a call during a graceful stop was refused for good")
		}
	})
	<-asked
	calls.Go(n.stop)
	waitUntil(t, "it no longer leads", func() bool {
		response, err := plain.Get(url + "/nodes")
		if err != nil {
			return true
		}
		defer response.Body.Close()
		return response.StatusCode != http.StatusOK
	})
	close(release)
	calls.Wait()
}
