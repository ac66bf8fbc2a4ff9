package namenode_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

func others(nodes []*nameNode, not *nameNode) (rest []*nameNode) {
	for _, n := range nodes {
		if n != not && n.NameNode != nil {
			rest = append(rest, n)
		}
	}
	return rest
}

func waitLeader(t *testing.T, nodes []*nameNode) (leader *nameNode) {
	t.Helper()
	waitUntil(t, "someone leads", func() bool {
		leader = leaderOf(nodes)
		return leader != nil
	})
	return leader
}

func TestFollowersRedirect(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	leader := waitLeader(t, nodes)
	leader.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil)
	for _, follower := range others(nodes, leader) {
		waitUntil(t, "the follower knows the leader", func() bool {
			var reply protocol.LeaderReply
			follower.must(http.MethodGet, "/leader", nil, &reply)
			return reply.Leader != nil && reply.Leader.ID == leader.ID()
		})
		response, _ := follower.raw(http.MethodPost, "/mkdir", []byte(`{"path":"/b"}`))
		if response.StatusCode != http.StatusTemporaryRedirect ||
			response.Header.Get(protocol.HeaderLeader) != leader.URL() ||
			response.Header.Get("Location") != leader.URL()+"/mkdir" {
			t.Fatalf("%s %v", response.Status, response.Header)
		}
		if status, _ := follower.call(http.MethodGet, "/stat?path=/a", nil, nil); status != http.StatusTemporaryRedirect {
			t.Fatalf("a linearizable read at a follower: %d", status)
		}
		waitUntil(t, "the follower has it too", func() bool {
			status, _ := follower.call(http.MethodGet, "/stat?path=/a&consistency=stale", nil, nil)
			return status == http.StatusOK
		})
	}
}

func TestExactlyOnceAcrossLeaders(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	leader := waitLeader(t, nodes)
	leader.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil, protocol.HeaderRequestID, "one")
	var members protocol.LeaderReply
	leader.must(http.MethodGet, "/leader", nil, &members)
	if members.ClusterID == "" || len(members.Members) != 3 || members.Leader.ID != leader.ID() {
		t.Fatalf("%+v", members)
	}
	leader.stop()
	next := waitLeader(t, others(nodes, leader))
	next.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil, protocol.HeaderRequestID, "one")
	if status, failure := next.call(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil, protocol.HeaderRequestID, "two"); status != 409 {
		t.Fatalf("%d %+v", status, failure)
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	leader := waitLeader(t, nodes)
	heir := others(nodes, leader)[0]
	leader.must(http.MethodPost, "/cluster/transfer", protocol.MemberRequest{ID: heir.ID()}, nil)
	waitUntil(t, "the heir leads", func() bool { return leaderOf(nodes) == heir })
	if status, _ := heir.call(http.MethodPost, "/cluster/transfer", `{"id":"nn9"}`, nil); status < 400 {
		t.Fatalf("transfer to a stranger: %d", status)
	}
}

// TestJoinAndRemove grows the group to four, then removes the leader of the
// time, which says so and ends.
func TestJoinAndRemove(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	leader := waitLeader(t, nodes)
	leader.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil)

	config := testConfig(t, "nn4")
	config.Join = leader.URL()
	joiner := open(t, config)
	response, body := joiner.raw(http.MethodGet, "/ready", nil)
	if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "dfs admin join nn4") {
		t.Fatalf("before it is let in: %s %s", response.Status, body)
	}
	join := protocol.JoinRequest{ID: "nn4", RaftAddr: joiner.RaftAddr(), URL: joiner.URL()}
	wrong := join
	wrong.RaftAddr = "127.0.0.1:1"
	if status, failure := leader.call(http.MethodPost, "/cluster/join", wrong, nil); status < 400 {
		t.Fatalf("a join that cannot be reached: %d %+v", status, failure)
	}
	leader.must(http.MethodPost, "/cluster/join", join, nil)
	leader.must(http.MethodPost, "/cluster/join", join, nil) // again: nothing more happens
	all := append(nodes, joiner)
	roles := func(at *nameNode) map[dfs.NodeID]string {
		var reply protocol.LeaderReply
		at.must(http.MethodGet, "/leader", nil, &reply)
		found := make(map[dfs.NodeID]string)
		for _, m := range reply.Members {
			found[m.ID] = m.Role
			if m.URL == "" {
				found[m.ID] += " without URL"
			}
		}
		return found
	}
	waitUntil(t, "every NameNode shows nn4 as a voter", func() bool {
		for _, n := range all {
			if roles(n)["nn4"] != protocol.RoleVoter {
				return false
			}
		}
		return true
	})

	if status, _ := leader.call(http.MethodPost, "/cluster/remove", protocol.MemberRequest{ID: leader.ID()}, nil); status != http.StatusTemporaryRedirect && status != http.StatusServiceUnavailable {
		t.Fatalf("the leader was asked to remove itself: %d", status)
	}
	var next *nameNode
	waitUntil(t, "the next leader has removed the old one", func() bool {
		if next = leaderOf(all); next == nil || next == leader {
			return false
		}
		status, _ := next.call(http.MethodPost, "/cluster/remove", protocol.MemberRequest{ID: leader.ID()}, nil)
		return status == http.StatusOK
	})
	next.must(http.MethodPost, "/cluster/remove", protocol.MemberRequest{ID: leader.ID()}, nil) // a retry
	if _, still := roles(next)[leader.ID()]; still {
		t.Fatalf("members: %v", roles(next))
	}
	select {
	case <-leader.Failed():
		if err := leader.Wait(); !strings.Contains(err.Error(), "was removed from the group") {
			t.Fatalf("the removed NameNode ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the removed NameNode does not notice")
	}
	next.must(http.MethodGet, "/stat?path=/a", nil, nil)
}

// TestLostMetaDir: a member that comes back empty has forgotten votes and
// entries, and must not take part again under its old name.
func TestLostMetaDir(t *testing.T) {
	t.Parallel() // it waits
	var configs []namenode.Config
	nodes := group(t, func(c *namenode.Config) { configs = append(configs, *c) })
	leader := waitLeader(t, nodes)
	leader.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil)
	victim := others(nodes, leader)[0]
	waitUntil(t, "the follower has been announced", func() bool {
		response, _ := victim.raw(http.MethodGet, "/files?path=/nothing&consistency=stale", nil)
		return response.Header.Get(protocol.HeaderClusterID) != "" && announced(t, leader, victim.ID())
	})
	config := configs[0]
	for _, c := range configs {
		if c.ID == victim.ID() {
			config = c
		}
	}
	config.Addr, config.RaftAddr = strings.TrimPrefix(victim.URL(), "http://"), victim.RaftAddr()
	config.Listener, config.RaftListener = nil, nil
	victim.stop()
	config.MetaDir = t.TempDir()
	empty := open(t, config)
	select {
	case <-empty.Failed():
		if err := empty.Wait(); dfs.CodeOf(err) != dfs.Conflict || !strings.Contains(err.Error(), "dfs admin remove") {
			t.Fatalf("the empty member ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("a member that lost its meta-dir was taken in again")
	}
}

// announced asks the newest snapshot, which lists the members with their
// instances.
func announced(t *testing.T, n *nameNode, id dfs.NodeID) bool {
	t.Helper()
	n.must(http.MethodPost, "/cluster/snapshot", `{}`, nil)
	data, err := os.ReadFile(filepath.Join(n.MetaDir(), "nodes.json"))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	var nodes struct {
		Members []struct {
			ID       dfs.NodeID
			Instance string
		}
	}
	if err == nil {
		err = json.Unmarshal(data, &nodes)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range nodes.Members {
		if m.ID == id {
			return m.Instance != ""
		}
	}
	return false
}

// TestSnapshotDocuments looks at what an operator sees of a snapshot.
func TestSnapshotDocuments(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	for i := range 5 {
		n.upload(nodes, fmt.Sprintf("/d/f%d", i), "data")
	}
	var reply protocol.SnapshotReply
	n.must(http.MethodPost, "/cluster/snapshot", `{}`, &reply)
	if reply.Index == 0 {
		t.Fatal("the snapshot covers nothing")
	}
	n.must(http.MethodPost, "/cluster/snapshot", `{}`, nil) // nothing new is no error
	documents := make(map[string][]byte)
	for _, name := range []string{"files.json", "nodes.json"} {
		data, err := os.ReadFile(filepath.Join(n.MetaDir(), name))
		if err != nil || !json.Valid(data) {
			t.Fatalf("%s: %v, valid JSON: %t", name, err, json.Valid(data))
		}
		documents[name] = data
	}
	states, err := filepath.Glob(filepath.Join(n.MetaDir(), "raft", "snapshots", "*", "state.bin"))
	if err != nil || len(states) == 0 {
		t.Fatalf("no Raft snapshot: %v", err)
	}
	file, err := os.Open(states[len(states)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	archive := tar.NewReader(file)
	for _, want := range []string{"files.json", "nodes.json"} {
		header, err := archive.Next()
		if err != nil || header.Name != want {
			t.Fatalf("the snapshot holds %+v, %v", header, err)
		}
		data, err := io.ReadAll(archive)
		if err != nil || string(data) != string(documents[want]) {
			t.Fatalf("%s in the snapshot is not that in the meta-dir (%v)", want, err)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Fatalf("the snapshot holds more: %v", err)
	}
}
