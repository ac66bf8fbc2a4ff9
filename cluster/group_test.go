package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestGroupOfOne(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1")
	n.cfg.Listener.Close()
	n.cfg.Listener, n.cfg.RaftAddr = nil, ":0" // others cannot dial it, nobody needs to
	n.start()
	apply(t, []*node{n}, "a")
	if _, port, _ := strings.Cut(n.RaftAddr(), ":"); port == "0" || port == "" {
		t.Errorf("the address %q does not tell the port", n.RaftAddr())
	}
	id, addr, ok := n.Leader()
	if !ok || id != "nn1" || addr != n.RaftAddr() {
		t.Errorf("leader is %s at %s (%v)", id, addr, ok)
	}
	n.cfg.RaftAddr = n.RaftAddr()
	n.stop()
	n.start()
	apply(t, []*node{n}, "b")
	if got := n.machine.entries(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("after a restart it holds %q", got)
	}
	if !n.HasState() || n.NeedsAddressUpdate() {
		t.Errorf("HasState %v, NeedsAddressUpdate %v", n.HasState(), n.NeedsAddressUpdate())
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()

	answer, err := leader.Apply(ctx, []byte("a"))
	if err != nil || answer != 1 {
		t.Fatalf("answer %v, error %v", answer, err)
	}
	for _, n := range nodes {
		awaitEntry(t, n, "a")
	}
	_, err = leader.Apply(ctx, []byte("refuse"))
	if !errors.Is(err, errRefusedByFSM) {
		t.Errorf("the refusal of the state machine came back as %v", err)
	}
	_, err = others(nodes, leader)[0].Apply(ctx, []byte("b"))
	wantCode(t, err, dfs.NotLeader)
	_, err = leader.Apply(ctx, make([]byte, MaxEntrySize+1))
	wantCode(t, err, dfs.TooLarge)
	ended, end := context.WithCancel(ctx)
	end()
	_, err = leader.Apply(ended, []byte("c"))
	wantCode(t, err, dfs.Timeout)
	if err := leader.Barrier(ctx); err != nil {
		t.Error(err)
	}
	wantCode(t, others(nodes, leader)[0].Barrier(ctx), dfs.NotLeader)
	leader.stop()
	for _, n := range others(nodes, leader) {
		if slices.Contains(n.machine.entries(), "b") || slices.Contains(n.machine.entries(), "c") {
			t.Errorf("%s holds %q: an entry that was refused took effect", n.cfg.ID, n.machine.entries())
		}
	}
}

func TestApplyWithoutMajorityHasUnknownOutcome(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	for _, n := range others(nodes, leader) {
		n.stream.Close()
	}
	ctx, cancel := testContext()
	defer cancel()
	var err error
	waitUntil(t, "the leader to fail", func() bool {
		_, err = leader.Apply(ctx, []byte("a"))
		return err != nil
	})
	wantCode(t, err, dfs.UnknownOutcome)
	waitUntil(t, "the leader to step down", func() bool { return !leader.IsLeader() })
	_, err = leader.Apply(ctx, []byte("b"))
	wantCode(t, err, dfs.NotLeader)
	wantCode(t, leader.ReadIndex(ctx), dfs.NotLeader)
}

func TestLeaderLoss(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3, func(c *Config) { c.Timing = testTiming() })
	apply(t, nodes, "before")
	old := leaderOf(t, nodes...)
	term := old.Term()
	old.crash()
	rest := others(nodes, old)
	apply(t, rest, "after")
	if leader := leaderOf(t, rest...); leader.Term() <= term {
		t.Errorf("the new leader is in term %d, the old one was in %d", leader.Term(), term)
	}
	old.start()
	awaitEntry(t, old, "after")
	if got := old.machine.entries(); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("the old leader holds %q", got)
	}
}

func TestCloseHandsLeadershipOver(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	rest := others(nodes, leader)
	for _, n := range rest {
		n.stopElections(t)
	}
	leader.stop()
	apply(t, rest, "a")
}

func TestClosedGroupRefusesEverything(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1").start()
	apply(t, []*node{n}, "a")
	ctx, cancel := testContext()
	defer cancel()
	if err := errors.Join(n.Close(ctx), n.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	_, err := n.Apply(ctx, []byte("b"))
	wantCode(t, err, dfs.NotLeader)
	wantCode(t, n.Barrier(ctx), dfs.NotLeader)
	wantCode(t, n.ReadIndex(ctx), dfs.NotLeader)
	_, err = n.Snapshot(ctx)
	wantCode(t, err, dfs.Unavailable)
	if n.IsLeader() {
		t.Error("a closed member leads")
	}
}

func TestLeadRunsOnlyWhileLeading(t *testing.T) {
	t.Parallel()
	running := make(chan dfs.NodeID, 100)
	ended := make(chan dfs.NodeID, 100)
	nodes := newPeers(t, 3)
	for _, n := range nodes {
		n.cfg.Lead = func(ctx context.Context, g *Group) error {
			if err := n.mintClusterID(ctx, g); err != nil {
				return err
			}
			running <- n.cfg.ID
			<-ctx.Done()
			ended <- n.cfg.ID
			return nil
		}
		n.cfg.Timing = calmTiming()
		n.start()
	}
	elect(t, nodes)
	first := <-running
	leader := leaderOf(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()
	if err := leader.Transfer(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != first {
		t.Errorf("%s ended its duties instead of %s", got, first)
	}
	if second := <-running; second == first {
		t.Errorf("%s leads again after a transfer", second)
	}
}

func TestFailingDutiesHandOver(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	for _, n := range nodes[1:] { // nn1 is the only one that can do it
		n.cfg.Lead = func(context.Context, *Group) error { return errors.New("cannot lead") }
	}
	for _, n := range nodes {
		n.start()
	}
	awaitCluster(t, nodes...)
	apply(t, nodes, "a")
	if leader := leaderOf(t, nodes...); leader != nodes[0] {
		waitUntil(t, "nn1 to lead", nodes[0].IsLeader)
	}
}

func TestFailingDutiesAreRetriedWhenAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1")
	attempts := 0
	done := make(chan struct{})
	n.cfg.Lead = func(context.Context, *Group) error {
		if attempts++; attempts < 3 {
			return fmt.Errorf("attempt %d fails", attempts)
		}
		close(done)
		return nil
	}
	n.start()
	<-done
}

func TestMetadataOfGroup(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	apply(t, nodes, "a")
	members, err := leader.Members()
	if err != nil || len(members) != 3 {
		t.Fatalf("members %v, error %v", members, err)
	}
	for i, m := range members {
		if m.ID != nodes[i].cfg.ID || m.RaftAddr != nodes[i].RaftAddr() || !m.Voter || m.Leader != (m.ID == leader.cfg.ID) {
			t.Errorf("member %d is %+v", i, m)
		}
	}
	ctx, cancel := testContext()
	defer cancel()
	info, err := nodes[0].Probe(ctx, nodes[1].RaftAddr())
	if err != nil || info.ID != "nn2" || info.Instance != nodes[1].cfg.Instance || info.ClusterID != leader.machine.clusterID() || !info.HasState || info.LastIndex == 0 {
		t.Errorf("probe says %+v, error %v", info, err)
	}
	if leader.CommitIndex() == 0 || leader.AppliedIndex() == 0 || leader.LastContact().IsZero() {
		t.Errorf("commit %d, applied %d, last contact %v", leader.CommitIndex(), leader.AppliedIndex(), leader.LastContact())
	}
}
