package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	probeTimeout  = 2 * time.Second
	changeTimeout = 5 * time.Second // for a change to be begun
)

// Member is one node of the group.
type Member struct {
	ID       dfs.NodeID
	RaftAddr string
	Voter    bool
	Leader   bool // as far as this node knows
}

// Members returns the latest configuration that this node knows, ordered by
// ID, or dfs.Unavailable while it knows none.
func (g *Group) Members() ([]Member, error) {
	_, leader := g.raft.LeaderWithID()
	var members []Member
	for _, s := range g.servers() {
		members = append(members, Member{
			ID: dfs.NodeID(s.ID), RaftAddr: string(s.Address), Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader,
		})
	}
	if len(members) == 0 {
		return nil, dfs.Errorf(dfs.Unavailable, "this NameNode does not belong to a group yet")
	}
	slices.SortFunc(members, func(a, b Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return members, nil
}

func (g *Group) servers() []raft.Server {
	return g.raft.GetConfiguration().Configuration().Servers
}

// Probe asks who is at a Raft address and how far its log reaches, whether or
// not it is a member.
func (g *Group) Probe(ctx context.Context, raftAddr string) (PeerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return g.stream.probe(ctx, raftAddr, "")
}

// Join makes a node a member, at first without a vote; it gets one when it has
// caught up. Only the leader can. The node must run, be reachable at raftAddr
// from here and belong to no other cluster. Joining a member again at its
// address is no error.
func (g *Group) Join(ctx context.Context, id dfs.NodeID, raftAddr string) error {
	if err := checkMember(id, raftAddr); err != nil {
		return err
	}
	return g.change(ctx, func(c membership) (begin, error) {
		if s, ok := c.find(raft.ServerID(id)); ok {
			if string(s.Address) == raftAddr {
				return nil, nil
			}
			return nil, dfs.Errorf(dfs.Conflict, "%s is a member already, at %s: remove it first, or give the new node an ID of its own", id, s.Address)
		}
		if err := c.checkFree(id, raftAddr); err != nil {
			return nil, err
		}
		if err := g.checkReachable(ctx, id, raftAddr); err != nil {
			return nil, err
		}
		return func() raft.Future {
			return g.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(raftAddr), c.index, changeTimeout)
		}, nil
	})
}

// UpdateAddress tells the group that a member has moved. Only the leader can.
func (g *Group) UpdateAddress(ctx context.Context, id dfs.NodeID, raftAddr string) error {
	if err := checkMember(id, raftAddr); err != nil {
		return err
	}
	return g.change(ctx, func(c membership) (begin, error) {
		s, ok := c.find(raft.ServerID(id))
		if !ok {
			return nil, dfs.Errorf(dfs.NotFound, "%s is not a member of the group", id)
		}
		if string(s.Address) == raftAddr {
			return nil, nil
		}
		if err := c.checkFree(id, raftAddr); err != nil {
			return nil, err
		}
		if err := g.checkReachable(ctx, id, raftAddr); err != nil {
			return nil, err
		}
		if s.Suffrage == raft.Voter {
			return func() raft.Future { return g.raft.AddVoter(s.ID, raft.ServerAddress(raftAddr), c.index, changeTimeout) }, nil
		}
		return func() raft.Future {
			return g.raft.AddNonvoter(s.ID, raft.ServerAddress(raftAddr), c.index, changeTimeout)
		}, nil
	})
}

// NeedsAddressUpdate tells whether the group knows this node under another
// address than the one it advertises now.
func (g *Group) NeedsAddressUpdate() bool {
	return slices.ContainsFunc(g.servers(), func(s raft.Server) bool {
		return s.ID == raft.ServerID(g.cfg.ID) && string(s.Address) != g.address
	})
}

// Remove takes a member out of the group. Only the leader can. Asked to remove
// itself, it hands the leadership over and returns dfs.NotLeader: ask the new
// leader. It refuses, with dfs.Unavailable, when the voters that remain could
// not form a majority of those that can be reached now.
func (g *Group) Remove(ctx context.Context, id dfs.NodeID) error {
	err := g.change(ctx, func(c membership) (begin, error) {
		s, ok := c.find(raft.ServerID(id))
		if !ok {
			return nil, dfs.Errorf(dfs.NotFound, "%s is not a member of the group", id)
		}
		if id == g.cfg.ID {
			return nil, errRemoveSelf
		}
		if s.Suffrage == raft.Voter {
			if err := g.checkRemaining(ctx, c, s.ID); err != nil {
				return nil, err
			}
		}
		return func() raft.Future { return g.raft.RemoveServer(s.ID, c.index, changeTimeout) }, nil
	})
	if !errors.Is(err, errRemoveSelf) {
		return err
	}
	if err := g.Transfer(ctx, ""); err != nil {
		return err
	}
	return dfs.Errorf(dfs.NotLeader, "%s led the group and has handed over: ask the new leader to remove it", id)
}

var errRemoveSelf = errors.New("the leader is to be removed")

// Transfer hands the leadership to another voter, or when id is empty to the most
// up-to-date one that can be reached, one with room on its disk if there is any. It returns when this node no longer
// leads.
func (g *Group) Transfer(ctx context.Context, id dfs.NodeID) error {
	if g.raft.State() != raft.Leader {
		return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead")
	}
	if id == g.cfg.ID {
		return nil
	}
	target, err := g.successor(ctx, id)
	if err != nil {
		return err
	}
	err = g.await(ctx, func() raft.Future { return g.raft.LeadershipTransferToServer(target.ID, target.Address) })
	for err == nil && g.raft.State() == raft.Leader {
		if !sleep(ctx, 5*time.Millisecond) { // raft answers just before it steps down
			err = ctx.Err()
		}
	}
	if err != nil && g.raft.State() == raft.Leader {
		return dfs.Errorf(dfs.Unavailable, "%s did not take over the leadership (%w); try again", target.ID, err)
	}
	return nil
}

// successor finds the voter to hand over to.
func (g *Group) successor(ctx context.Context, id dfs.NodeID) (raft.Server, error) {
	voters := g.otherVoters("")
	if id != "" {
		i := slices.IndexFunc(voters, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
		if i < 0 {
			return raft.Server{}, dfs.Errorf(dfs.NotFound, "%s is not a voting member of the group", id)
		}
		return voters[i], nil
	}
	answers := g.probeAll(ctx, voters)
	best := -1
	for i, answer := range answers {
		if answer.err == nil && (best < 0 || better(answer.info, answers[best].info)) {
			best = i
		}
	}
	if best < 0 {
		return raft.Server{}, dfs.Errorf(dfs.Unavailable, "there is no other voting member that can be reached to lead the group")
	}
	return voters[best], nil
}

// better tells whether one member is to be preferred to another as leader.
func better(one, other PeerInfo) bool {
	if one.Full != other.Full {
		return other.Full
	}
	return one.LastIndex > other.LastIndex
}

// otherVoters are all voters except this node and except.
func (g *Group) otherVoters(except raft.ServerID) []raft.Server {
	return slices.DeleteFunc(slices.Clone(g.servers()), func(s raft.Server) bool {
		return s.Suffrage != raft.Voter || s.ID == raft.ServerID(g.cfg.ID) || s.ID == except
	})
}

// membership is a configuration and the index of its log entry, by which raft
// notices that it has changed in between. The index is 0 when it is not known.
type membership struct {
	servers []raft.Server
	index   uint64
}

func (m membership) find(id raft.ServerID) (raft.Server, bool) {
	i := slices.IndexFunc(m.servers, func(s raft.Server) bool { return s.ID == id })
	if i < 0 {
		return raft.Server{}, false
	}
	return m.servers[i], true
}

func (m membership) checkFree(id dfs.NodeID, raftAddr string) error {
	for _, s := range m.servers {
		if string(s.Address) == raftAddr && s.ID != raft.ServerID(id) {
			return dfs.Errorf(dfs.Conflict, "the address %s belongs to the member %s: remove that one first", raftAddr, s.ID)
		}
	}
	return nil
}

// begin hands a change to raft.
type begin func() raft.Future

// change makes one change to the configuration. plan looks at the present one
// and returns how to begin, or nil when there is nothing to do.
func (g *Group) change(ctx context.Context, plan func(membership) (begin, error)) error {
	if !g.IsLeader() {
		return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead")
	}
	select {
	case g.changes <- struct{}{}:
		defer func() { <-g.changes }()
	case <-ctx.Done():
		return leaderError(ctx.Err())
	}
	// What cannot be stored costs this leader a new start.
	if err := g.Room(); err != nil {
		return err
	}
	// A leader that was deposed without noticing knows an old configuration.
	if err := g.ReadIndex(ctx); err != nil {
		return err
	}
	start, err := plan(membership{index: g.machine.configIndex.Load(), servers: g.servers()})
	if err != nil || start == nil {
		return err
	}
	err = g.await(ctx, start)
	if err != nil && g.store.broken.Load() { // a part of it may be on the disk
		return dfs.Errorf(dfs.UnknownOutcome, "it is not known whether the group was changed, because the disk of the leader failed (%w); list its members", err)
	}
	return changeError(err)
}

// changeError says what an error of raft means for a change of the
// configuration.
func changeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return dfs.Errorf(dfs.UnknownOutcome, "it is not known whether the group was changed (%w); list its members", err)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return leaderError(err)
	}
	var known *dfs.Error
	if errors.As(err, &known) {
		return err
	}
	return dfs.Errorf(dfs.Conflict, "the group was not changed (%w); look at its members and try again", err)
}

func checkMember(id dfs.NodeID, raftAddr string) error {
	if _, err := dfs.ParseNodeID(string(id)); err != nil {
		return err
	}
	_, err := dfs.ParseHostPort(raftAddr)
	return err
}

// checkReachable refuses a member that could not take part.
func (g *Group) checkReachable(ctx context.Context, id dfs.NodeID, raftAddr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := g.stream.probe(ctx, raftAddr, id)
	switch dfs.CodeOf(err) {
	case "":
		return nil
	case dfs.WrongCluster:
		return dfs.Errorf(dfs.WrongCluster, "%s belongs to another cluster (%w): start it with an empty directory", id, err)
	case dfs.Conflict:
		return dfs.Errorf(dfs.Conflict, "%s is not at %s (%w)", id, raftAddr, err)
	}
	return dfs.Errorf(dfs.Unavailable, "the group is not changed because %s does not answer there (%w): start it first", id, err)
}

// checkRemaining refuses to remove id when too few of the other voters answer.
func (g *Group) checkRemaining(ctx context.Context, c membership, id raft.ServerID) error {
	others := g.otherVoters(id)
	reachable, silent := 1, []raft.ServerID(nil) // this node can be reached
	for i, answer := range g.probeAll(ctx, others) {
		if answer.err == nil {
			reachable++
		} else {
			silent = append(silent, others[i].ID)
		}
	}
	if voters := len(others) + 1; reachable <= voters/2 {
		return dfs.Errorf(dfs.Unavailable, "without %s only %d of %d voters can be reached, fewer than a majority: first bring back %v", id, reachable, voters, silent)
	}
	return nil
}

type probeResult struct {
	info PeerInfo
	err  error
}

// probeAll probes servers at once; the results come in their order.
func (g *Group) probeAll(ctx context.Context, servers []raft.Server) []probeResult {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	results := make([]probeResult, len(servers))
	var tasks sync.WaitGroup
	for i, s := range servers {
		tasks.Go(func() {
			results[i].info, results[i].err = g.stream.probe(ctx, string(s.Address), dfs.NodeID(s.ID))
		})
	}
	tasks.Wait()
	return results
}
