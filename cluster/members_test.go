package cluster

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// newJoiner starts a node that waits to be let in.
func newJoiner(t *testing.T, id dfs.NodeID) *node {
	t.Helper()
	n := newNode(t, id)
	n.cfg.Join = true
	return n.start()
}

func member(t *testing.T, n *node, id dfs.NodeID) (Member, bool) {
	t.Helper()
	members, err := n.Members()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return members[i], true
}

func awaitVoter(t *testing.T, leader *node, id dfs.NodeID) {
	t.Helper()
	waitUntil(t, string(id)+" to get a vote", func() bool {
		m, ok := member(t, leader, id)
		return ok && m.Voter
	})
}

func TestJoinedMemberGetsVoteWhenCaughtUp(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 1)
	leader := nodes[0]
	ctx, cancel := testContext()
	defer cancel()
	for i := range 100 {
		if _, err := leader.Apply(ctx, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	joiner := newJoiner(t, "nn2")
	// It cannot catch up before it is admitted.
	if err := leader.Join(ctx, "nn2", joiner.RaftAddr()); err != nil {
		t.Fatal(err)
	}
	if err := leader.Join(ctx, "nn2", joiner.RaftAddr()); err != nil {
		t.Errorf("joining again: %v", err)
	}
	awaitVoter(t, leader, "nn2")
	awaitEntry(t, joiner, "99")
	third := newJoiner(t, "nn3")
	if err := leader.Join(ctx, "nn3", third.RaftAddr()); err != nil {
		t.Fatal(err)
	}
	awaitVoter(t, leader, "nn3")
	leader.stop()
	apply(t, []*node{joiner, third}, "without the first one")
}

func TestMemberThatIsBehindGetsNoVote(t *testing.T) {
	t.Parallel()
	leader := newGroup(t, 1)[0]
	ctx, cancel := testContext()
	defer cancel()
	for i := range promoteWithin + 10 {
		if _, err := leader.Apply(ctx, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	joiner := newNode(t, "nn2")
	joiner.cfg.Join = true
	admit := make(chan struct{})
	joiner.cfg.Admit = func(ctx context.Context, _ dfs.ClusterID) error {
		select {
		case <-admit:
			return nil
		case <-ctx.Done():
			return dfs.Errorf(dfs.Unavailable, "stopping")
		}
	}
	joiner.start()
	if err := leader.Join(ctx, "nn2", joiner.RaftAddr()); err != nil {
		t.Fatal(err)
	}
	var looks map[raft.ServerID]int
	for range promoteLooks + 1 {
		looks = leader.promoteCaughtUp(ctx, looks)
	}
	if m, ok := member(t, leader, "nn2"); !ok || m.Voter || looks["nn2"] > 0 {
		t.Errorf("a member that holds nothing yet is %+v (%v), found to have caught up %d times", m, ok, looks["nn2"])
	}
	close(admit)
	awaitVoter(t, leader, "nn2")
	if got := joiner.AppliedIndex(); got < 10 {
		t.Errorf("it got a vote at entry %d", got)
	}
}

func TestJoinRefused(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	follower := others(nodes, leader)[0]
	stranger := newNode(t, "nn8").start()
	awaitCluster(t, stranger)
	joiner := newJoiner(t, "nn9")
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	cases := []struct {
		name string
		id   dfs.NodeID
		addr string
		want dfs.Code
	}{
		{"nobody there", "nn9", dead.Addr().String(), dfs.Unavailable},
		{"other cluster", "nn8", stranger.RaftAddr(), dfs.WrongCluster},
		{"somebody else there", "nn7", joiner.RaftAddr(), dfs.Conflict},
		{"address of a member", "nn9", follower.RaftAddr(), dfs.Conflict},
		{"ID of a member", follower.cfg.ID, joiner.RaftAddr(), dfs.Conflict},
		{"no ID", "", joiner.RaftAddr(), dfs.Invalid},
		{"no address", "nn9", "host", dfs.Invalid},
	}
	ctx, cancel := testContext()
	defer cancel()
	for _, c := range cases {
		if err := leader.Join(ctx, c.id, c.addr); dfs.CodeOf(err) != c.want {
			t.Errorf("%s: error %v instead of %s", c.name, err, c.want)
		}
	}
	wantCode(t, follower.Join(ctx, "nn9", joiner.RaftAddr()), dfs.NotLeader)
	if members, err := leader.Members(); err != nil || len(members) != 3 {
		t.Errorf("members %v, error %v", members, err)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()
	gone := others(nodes, leader)[0]
	wantCode(t, leader.Remove(ctx, "nobody"), dfs.NotFound)
	wantCode(t, gone.Remove(ctx, leader.cfg.ID), dfs.NotLeader)
	if err := leader.Remove(ctx, gone.cfg.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := member(t, leader, gone.cfg.ID); ok {
		t.Error("it is still a member")
	}
	rest := others(nodes, gone)
	apply(t, rest, "a")

	// A removed member, still running, must not disturb the others.
	leader = leaderOf(t, rest...)
	err := leader.Remove(ctx, leader.cfg.ID)
	wantCode(t, err, dfs.NotLeader)
	next := leaderOf(t, others(rest, leader)...)
	if err := next.Remove(ctx, leader.cfg.ID); err != nil {
		t.Fatal(err)
	}
	apply(t, []*node{next}, "b")
	wantCode(t, next.Remove(ctx, next.cfg.ID), dfs.Unavailable)
	if members, err := next.Members(); err != nil || len(members) != 1 {
		t.Errorf("members %v, error %v", members, err)
	}
}

func TestRemoveRefusedWithoutMajority(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	rest := others(nodes, leader)
	rest[0].stop()
	ctx, cancel := testContext()
	defer cancel()
	wantCode(t, leader.Remove(ctx, rest[1].cfg.ID), dfs.Unavailable)
	if err := leader.Remove(ctx, rest[0].cfg.ID); err != nil {
		t.Errorf("the dead one cannot be removed: %v", err)
	}
	apply(t, others(nodes, rest[0]), "a")
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()
	target := others(nodes, leader)[1]
	wantCode(t, target.Transfer(ctx, ""), dfs.NotLeader)
	wantCode(t, leader.Transfer(ctx, "nobody"), dfs.NotFound)
	if err := leader.Transfer(ctx, leader.cfg.ID); err != nil || !leader.IsLeader() {
		t.Errorf("transfer to itself: %v", err)
	}
	for _, n := range nodes {
		n.stopElections(t)
	}
	if err := leader.Transfer(ctx, target.cfg.ID); err != nil {
		t.Fatal(err)
	}
	if leader.IsLeader() {
		t.Error("the old leader still leads")
	}
	waitUntil(t, "the target to lead", target.IsLeader)

	alone := newNode(t, "nn9").start()
	leaderOf(t, alone)
	wantCode(t, alone.Transfer(ctx, ""), dfs.Unavailable)
}

func TestUpdateAddress(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	moved := others(nodes, leader)[0]
	moved.stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	moved.cfg.Listener, moved.cfg.RaftAddr = listener, listener.Addr().String()
	moved.cfg.Peers = nil // it has state; they do not matter any longer
	moved.start()
	if !moved.NeedsAddressUpdate() || leader.NeedsAddressUpdate() {
		t.Fatalf("moved: %v, leader: %v", moved.NeedsAddressUpdate(), leader.NeedsAddressUpdate())
	}
	leader = leaderOf(t, others(nodes, moved)...)
	ctx, cancel := testContext()
	defer cancel()
	wantCode(t, leader.UpdateAddress(ctx, "nobody", moved.RaftAddr()), dfs.NotFound)
	wantCode(t, leader.UpdateAddress(ctx, leader.cfg.ID, moved.RaftAddr()), dfs.Conflict)
	wantCode(t, leader.UpdateAddress(ctx, moved.cfg.ID, leader.RaftAddr()), dfs.Conflict)
	if err := leader.UpdateAddress(ctx, moved.cfg.ID, moved.RaftAddr()); err != nil {
		t.Fatal(err)
	}
	apply(t, nodes, "a")
	awaitEntry(t, moved, "a")
	waitUntil(t, "the moved member to see its new address", func() bool { return !moved.NeedsAddressUpdate() })
	if m, _ := member(t, leader, moved.cfg.ID); !m.Voter {
		t.Error("it lost its vote by moving")
	}
}

// TestChangesCarryTheIndexTheyWerePlannedAt makes a change between the plan and
// the beginning of another one.
func TestChangesCarryTheIndexTheyWerePlannedAt(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	joiner := newJoiner(t, "nn9")
	ctx, cancel := testContext()
	defer cancel()
	var gone dfs.NodeID
	err := leader.change(ctx, func(c membership) (begin, error) {
		if c.index == 0 {
			t.Error("the index of the configuration is not known")
		}
		gone = others(nodes, leader)[0].cfg.ID
		remove := leader.raft.RemoveServer(raft.ServerID(gone), c.index, patience)
		if err := remove.Error(); err != nil {
			t.Fatal(err)
		}
		return func() raft.Future {
			return leader.raft.AddNonvoter("nn9", raft.ServerAddress(joiner.RaftAddr()), c.index, patience)
		}, nil
	})
	wantCode(t, err, dfs.Conflict)
	if _, ok := member(t, leader, "nn9"); ok {
		t.Error("a change that was planned for another configuration was made")
	}
}

// TestRaftStoppingByItselfIsFatal removes the leader behind the back of Remove,
// as a leader does that is removed while it cannot hand over.
func TestRaftStoppingByItselfIsFatal(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	if err := leader.raft.RemoveServer(raft.ServerID(leader.cfg.ID), 0, patience).Error(); err != nil {
		t.Logf("removal: %v", err) // it may be stopped before it can answer
	}
	select {
	case err := <-leader.fatal:
		wantCode(t, err, dfs.Unavailable)
	case <-time.After(patience):
		t.Fatal("raft stopped and nobody was told")
	}
	apply(t, others(nodes, leader), "a")
}
