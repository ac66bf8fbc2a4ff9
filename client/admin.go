package client

import (
	"context"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const probeTimeout = 3 * time.Second // of one question to one member

// Nodes returns the DataNodes.
func (c *Client) Nodes(ctx context.Context) ([]protocol.NodeInfo, error) {
	var reply protocol.NodesReply
	err := c.call(ctx, protocol.ListNodes, leader.Call{Out: &reply})
	return reply.Nodes, err
}

// Fsck returns how the chunks of all files are doing, and what is being done
// about those that are not as they should be.
func (c *Client) Fsck(ctx context.Context) (protocol.FsckReply, error) {
	var reply protocol.FsckReply
	err := c.call(ctx, protocol.Fsck, leader.Call{Out: &reply})
	return reply, err
}

// Drain has a DataNode emptied, for as long as it takes, and returns how it
// stands. NotFound when there is none of this ID.
func (c *Client) Drain(ctx context.Context, id dfs.NodeID) (protocol.NodeInfo, error) {
	var node protocol.NodeInfo
	err := c.call(ctx, protocol.DrainNode, leader.Call{Body: protocol.DrainRequest{ID: id}, Out: &node})
	return node, err
}

// Undrain puts a DataNode back into service. NotFound when there is none of
// this ID.
func (c *Client) Undrain(ctx context.Context, id dfs.NodeID) (protocol.NodeInfo, error) {
	var node protocol.NodeInfo
	err := c.call(ctx, protocol.UndrainNode, leader.Call{Body: protocol.DrainRequest{ID: id}, Out: &node})
	return node, err
}

// Leader returns what the first NameNode that answers knows of the group.
func (c *Client) Leader(ctx context.Context) (protocol.LeaderReply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.names.Leader(ctx)
}

// MemberView is a member of the group, and what it says of the group itself.
type MemberView struct {
	protocol.Member
	View protocol.LeaderReply // zero when Err is set
	Err  error                // why it could not be asked
}

// Members returns the group as its leader, or else the first that answers,
// knows it, and asks every member for its own view of it.
func (c *Client) Members(ctx context.Context) (protocol.LeaderReply, []MemberView, error) {
	group, err := c.Leader(ctx)
	if err != nil {
		return group, nil, err
	}
	views := make([]MemberView, len(group.Members))
	var wg sync.WaitGroup
	for i, member := range group.Members {
		wg.Go(func() { views[i] = c.view(ctx, member) })
	}
	wg.Wait()
	for _, v := range views { // the leader is never behind
		if v.View.Leader != nil && v.View.Leader.ID == v.ID && v.View.Term >= group.Term {
			group = v.View
		}
	}
	return group, views, ctx.Err()
}

func (c *Client) view(ctx context.Context, member protocol.Member) MemberView {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	v := MemberView{Member: member}
	v.Err = c.names.DoAt(ctx, member.URL, protocol.GetLeader, leader.Call{Out: &v.View})
	if v.Err == nil && v.View.NodeID != member.ID {
		v.Err = dfs.Errorf(dfs.Conflict, "%s answers as %q", member.URL, v.View.NodeID)
	}
	return v
}

// Join lets a waiting NameNode into the group, first as a non-voter.
func (c *Client) Join(ctx context.Context, member protocol.JoinRequest) error {
	return c.call(ctx, protocol.JoinCluster, leader.Call{Body: member})
}

// RemoveMember takes a NameNode out of the group. When it is the leader, it
// hands leadership over first.
func (c *Client) RemoveMember(ctx context.Context, id dfs.NodeID) error {
	return c.call(ctx, protocol.RemoveMember, leader.Call{Body: protocol.MemberRequest{ID: id}})
}

// Transfer makes the leader hand leadership over to id, or to whom it chooses
// when id is empty.
func (c *Client) Transfer(ctx context.Context, id dfs.NodeID) error {
	return c.call(ctx, protocol.TransferLead, leader.Call{Body: protocol.MemberRequest{ID: id}})
}

// Snapshot makes the NameNode at baseURL take a snapshot once it has applied the
// log up to atLeast, and returns the log index that its newest one covers.
func (c *Client) Snapshot(ctx context.Context, baseURL string, atLeast uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var reply protocol.SnapshotReply
	err := c.names.DoAt(ctx, baseURL, protocol.TakeSnapshot, leader.Call{Body: protocol.SnapshotRequest{AtLeast: atLeast}, Out: &reply})
	return reply.Index, err
}
