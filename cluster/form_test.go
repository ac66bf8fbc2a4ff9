package cluster

import (
	"context"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestFormationInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}} {
		nodes := newPeers(t, 3)
		for _, i := range order {
			nodes[i].start()
		}
		apply(t, nodes, "a")
		for _, n := range nodes {
			awaitEntry(t, n, "a")
		}
	}
}

func TestLatecomerFindsTheGroupFormed(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	for _, n := range nodes {
		n.cfg.BootstrapWait = time.Second
	}
	nodes[0].start()
	nodes[1].start()
	apply(t, nodes[:2], "a")
	var asked atomic.Int32
	var about atomic.Value
	nodes[2].cfg.Admit = func(_ context.Context, id dfs.ClusterID) error {
		about.Store(id)
		if asked.Add(1) == 1 {
			return dfs.Errorf(dfs.Unavailable, "the leader is busy")
		}
		return nil
	}
	nodes[2].start()
	awaitEntry(t, nodes[2], "a")
	if asked.Load() != 2 || about.Load() != nodes[0].machine.clusterID() {
		t.Errorf("asked %d times for admission to %v", asked.Load(), about.Load())
	}
	if members, err := nodes[2].Members(); err != nil || len(members) != 3 {
		t.Errorf("members %v, error %v", members, err)
	}
}

func TestMinorityWaits(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	nodes[0].cfg.BootstrapWait = time.Millisecond
	// Two peers are there, but do not answer.
	nodes[0].start()
	for range 4 {
		for _, silent := range nodes[1:] {
			conn, err := silent.cfg.Listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	}
	if nodes[0].HasState() {
		t.Fatal("one of three began a group alone")
	}
	if _, err := nodes[0].Members(); dfs.CodeOf(err) != dfs.Unavailable {
		t.Errorf("members: error %v", err)
	}
	if err := nodes[0].ReadIndex(context.Background()); dfs.CodeOf(err) != dfs.NotLeader {
		t.Errorf("read: error %v", err)
	}
	nodes[1].start()
	nodes[2].start()
	apply(t, nodes, "a")
}

func TestMayBootstrap(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name            string
		found           survey
		now, afterAWait bool
	}{
		{"alone in the list", survey{}, true, true},
		{"all empty", survey{empty: 2}, true, true},
		{"a group exists", survey{cluster: clusterA, empty: 1}, false, false},
		{"one has a log and may remember a group", survey{settling: 1, empty: 1}, false, false},
		{"one silent", survey{empty: 1, silent: []dfs.NodeID{"c"}}, false, true},
		{"both silent", survey{silent: []dfs.NodeID{"b", "c"}}, false, false},
		{"three of five", survey{empty: 2, silent: []dfs.NodeID{"d", "e"}}, false, true},
		{"two of five", survey{empty: 1, silent: []dfs.NodeID{"c", "d", "e"}}, false, false},
		{"two of four", survey{empty: 1, silent: []dfs.NodeID{"c", "d"}}, false, false},
	}
	for _, c := range cases {
		if now, later := c.found.mayBootstrap(false), c.found.mayBootstrap(true); now != c.now || later != c.afterAWait {
			t.Errorf("%s: %v at once, %v after waiting", c.name, now, later)
		}
	}
}

func TestDifferentListsOfPeersAreRefused(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	nodes[1].cfg.Peers = slices.DeleteFunc(slices.Clone(nodes[1].cfg.Peers), func(p Peer) bool { return p.ID == "nn3" })
	nodes[1].cfg.BootstrapWait, nodes[0].cfg.BootstrapWait = time.Millisecond, time.Millisecond
	nodes[0].start()
	nodes[1].start()
	select {
	case err := <-nodes[0].fatal:
		wantCode(t, err, dfs.Invalid)
	case err := <-nodes[1].fatal:
		wantCode(t, err, dfs.Invalid)
	case <-time.After(patience):
		t.Error("nobody noticed")
	}
}

func TestWipedMember(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	apply(t, nodes, "a")
	wiped := others(nodes, leaderOf(t, nodes...))[0]
	wiped.stop()
	wiped.wipe()
	wiped.cfg.BootstrapWait = time.Millisecond
	decided := make(chan struct{})
	wiped.cfg.Admit = func(context.Context, dfs.ClusterID) error {
		select {
		case <-decided:
			return dfs.Errorf(dfs.Conflict, "it has been a member before")
		default:
			return dfs.Errorf(dfs.Unavailable, "still looking")
		}
	}
	wiped.start()
	applyMany(t, leaderOf(t, nodes...), "while waiting", 10)
	waitUntil(t, "the group to call", func() bool { return len(wiped.contacts) > 0 })
	close(decided)
	select {
	case err := <-wiped.fatal:
		wantCode(t, err, dfs.Conflict)
	case <-time.After(patience):
		t.Fatal("a member that lost its directory was not refused")
	}
	apply(t, others(nodes, wiped), "b")
	if wiped.HasState() || len(wiped.machine.entries()) > 0 {
		t.Error("a refused member took part in the group")
	}
	wiped.stop()

	wiped.cfg.Admit = func(context.Context, dfs.ClusterID) error { return nil }
	wiped.start()
	awaitEntry(t, wiped, "b")
	if got, want := wiped.machine.entries(), leaderOf(t, nodes...).machine.entries(); !slices.Equal(got, want) {
		t.Errorf("after admission it holds %q", got)
	}
}

// TestWipedMajorityDoesNotFork wipes two of three. They are a majority of empty
// members, but the third one remembers.
func TestWipedMajorityDoesNotFork(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	apply(t, nodes, "a")
	for _, n := range nodes {
		awaitEntry(t, n, "a")
	}
	third := nodes[2]
	for _, n := range nodes[:2] {
		n.stop()
		n.wipe()
		n.cfg.BootstrapWait = time.Millisecond
		n.cfg.Admit = func(context.Context, dfs.ClusterID) error {
			return dfs.Errorf(dfs.Unavailable, "there is no leader to ask")
		}
	}
	for _, n := range nodes[:2] {
		n.start()
	}
	for _, n := range nodes[:2] {
		waitUntil(t, "a wiped member to notice the group", func() bool { return n.learned.Load() != nil })
	}
	// The third one goes, and one of the two starts again: from the other one
	// it learns that there was a group.
	third.stop()
	nodes[0].stop()
	nodes[0].start()
	waitUntil(t, "the restarted member to notice the group", func() bool { return nodes[0].learned.Load() != nil })
	for i, n := range nodes[:2] {
		ctx, cancel := testContext()
		info, err := nodes[1-i].Probe(ctx, n.RaftAddr())
		cancel()
		if err != nil || info.ClusterID == "" || info.HasState {
			t.Errorf("a wiped member says %+v, error %v", info, err)
		}
	}
}

func TestInterruptedBootstrapIsRepeated(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1")
	store, err := openStore(n.cfg.Dir, patience, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SetUint64([]byte("CurrentTerm"), 1); err != nil { // as far as a bootstrap got
		t.Fatal(err)
	}
	if err := store.close(); err != nil {
		t.Fatal(err)
	}
	n.start()
	apply(t, []*node{n}, "a")
}

func TestJoinerWaits(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 1)
	apply(t, group, "a")
	joiner := newNode(t, "nn2")
	joiner.cfg.Join = true
	var admitted atomic.Value
	joiner.cfg.Admit = func(_ context.Context, id dfs.ClusterID) error {
		admitted.Store(id)
		return nil
	}
	joiner.start()
	if joiner.HasState() || joiner.IsLeader() {
		t.Error("a joiner began a group of its own")
	}
	ctx, cancel := testContext()
	defer cancel()
	if err := group[0].Join(ctx, "nn2", joiner.RaftAddr()); err != nil {
		t.Fatal(err)
	}
	awaitEntry(t, joiner, "a")
	if admitted.Load() != group[0].machine.clusterID() {
		t.Errorf("admission was asked to %v", admitted.Load())
	}
}

func TestOpenFailures(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1").start()
	port := newNode(t, "nn2")
	port.cfg.Listener.Close()
	port.cfg.Listener, port.cfg.RaftAddr = nil, n.RaftAddr()
	wantCode(t, port.open(), dfs.Unavailable)

	dir := newNode(t, "nn3")
	dir.cfg.Dir = filepath.Join(n.cfg.Dir, storeName, "below-a-file")
	wantCode(t, dir.open(), dfs.Internal)

	locked := newNode(t, "nn4")
	locked.cfg.Dir = n.cfg.Dir
	wantCode(t, locked.open(), dfs.Conflict)
}
