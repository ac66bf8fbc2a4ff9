package namenode

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	watchInterval = time.Second     // between looks at one's own membership
	loneliness    = 3 * time.Second // without a leader before others are asked
	watchTimeout  = 2 * time.Second // for one other to answer
	appliedPoll   = 10 * time.Millisecond
)

func (n *NameNode) getLeader(*call) (reply, error) {
	members, err := n.group.Members()
	if err != nil {
		return reply{}, err
	}
	answer := protocol.LeaderReply{
		ClusterID: n.clusterID(), Term: n.group.Term(), NodeID: n.config.ID,
		AppliedIndex: n.appliedIndex(), Members: []protocol.Member{},
	}
	if target, ok := n.leader(); ok {
		answer.Leader = &target
	}
	for _, m := range members {
		answer.Members = append(answer.Members, protocol.Member{
			ID: m.ID, URL: n.urlOf(m.ID), RaftAddr: m.RaftAddr, Role: roleOf(m),
		})
	}
	slices.SortFunc(answer.Members, func(a, b protocol.Member) int { return compareIDs(a.ID, b.ID) })
	return reply{http.StatusOK, answer}, nil
}

func compareIDs(a, b dfs.NodeID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func roleOf(m cluster.Member) string {
	switch {
	case m.Leader:
		return protocol.RoleLeader
	case m.Voter:
		return protocol.RoleVoter
	}
	return protocol.RoleNonvoter
}

// announce takes note of where a member is, and refuses one that comes back
// without its memory.
func (n *NameNode) announce(c *call) (reply, error) {
	var request protocol.AnnounceRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	command, err := memberCommand(request.ID, request.RaftAddr, request.URL)
	if err != nil {
		return reply{}, err
	}
	command.Instance = request.Instance
	if !dfs.IsRandomHex(request.Instance) {
		return reply{}, dfs.Errorf(dfs.Invalid, "the instance of a NameNode is 32 hexadecimal digits")
	}
	var known cluster.Member
	err = n.confirmed(c.Context(), func() (err error) {
		known, err = n.memberOrWhyNot(&request)
		return err
	})
	if err != nil {
		return reply{}, err
	}
	if err := n.setMember(c.Context(), command); err != nil {
		return reply{}, err
	}
	if known.RaftAddr != request.RaftAddr {
		n.logger.Info("NameNode has moved", "id", request.ID, "from", known.RaftAddr, "to", request.RaftAddr)
		err := n.group.UpdateAddress(c.Context(), request.ID, request.RaftAddr)
		if dfs.CodeOf(err) == dfs.Conflict { // with another change; the member asks again
			return reply{}, dfs.Errorf(dfs.Unavailable, "the address of %s could not be changed: %w", request.ID, err)
		}
		if err != nil {
			return reply{}, err
		}
	}
	return reply{http.StatusOK, protocol.Empty{}}, nil
}

// memberOrWhyNot finds the member that announces itself. Forbidden, that it was
// removed, makes its process end for good, so only a removal that is in the
// state counts, not one that may still fail.
func (n *NameNode) memberOrWhyNot(request *protocol.AnnounceRequest) (cluster.Member, error) {
	known, found, err := n.findMember(request.ID)
	if err != nil || found {
		return known, err
	}
	var record fsm.Member
	var recorded bool
	n.machine.Read(func(s *fsm.State) { record, recorded = s.Member(request.ID) })
	invite := fmt.Sprintf("let it in with 'dfs admin join %s %s %s'", request.ID, request.RaftAddr, request.URL)
	switch {
	case recorded && record.Removed && record.Instance != "" && record.Instance != request.Instance:
		// It waits to be let in again, and somebody who does not know of the
		// removal yet, or had something left to send, has talked to it.
		return known, dfs.Errorf(dfs.Unavailable, "NameNode %s was removed from the group and has a new meta-dir now; %s", request.ID, invite)
	case recorded && record.Removed:
		return known, dfs.Errorf(dfs.Forbidden, "NameNode %s was removed from the group", request.ID)
	case recorded:
		return known, dfs.Errorf(dfs.Unavailable, "NameNode %s is just joining or leaving the group", request.ID)
	}
	return known, dfs.Errorf(dfs.Conflict, "NameNode %s is not a member of this group; %s", request.ID, invite)
}

// memberCommand parses what is said of a NameNode.
func memberCommand(id dfs.NodeID, raftAddr, url string) (command fsm.SetMember, err error) {
	if command.ID, err = dfs.ParseNodeID(string(id)); err != nil {
		return command, err
	}
	if command.RaftAddr, err = dfs.ParseHostPort(raftAddr); err != nil {
		return command, err
	}
	command.URL, err = dfs.ParseBaseURL(url)
	return command, err
}

func (n *NameNode) findMember(id dfs.NodeID) (cluster.Member, bool, error) {
	members, err := n.group.Members()
	if err != nil {
		return cluster.Member{}, false, err
	}
	i := slices.IndexFunc(members, func(m cluster.Member) bool { return m.ID == id })
	if i < 0 {
		return cluster.Member{}, false, nil
	}
	return members[i], true, nil
}

// joinCluster lets a NameNode in, without a vote until it has caught up.
func (n *NameNode) joinCluster(c *call) (reply, error) {
	var request protocol.JoinRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	command, err := memberCommand(request.ID, request.RaftAddr, request.URL)
	if err != nil {
		return reply{}, err
	}
	joiner, err := n.group.Probe(c.Context(), command.RaftAddr)
	if err != nil {
		return reply{}, nobodyThere(&command, err)
	}
	// Join refuses a stranger itself. Before that, the instance of the right one
	// is noted, and the meta-dir of a member that was removed refused.
	if joiner.ID == command.ID && (joiner.ClusterID == "" || joiner.ClusterID == n.clusterID()) {
		command.Instance = joiner.Instance
		if err := n.setMember(c.Context(), command); err != nil {
			return reply{}, err
		}
	}
	if err := n.group.Join(c.Context(), command.ID, command.RaftAddr); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.Empty{}}, nil
}

// nobodyThere is the answer when the NameNode that is to be let in cannot be
// reached. To ask again and again would not help.
func nobodyThere(member *fsm.SetMember, err error) error {
	if dfs.CodeOf(err) != dfs.Unavailable {
		return err
	}
	return final{dfs.Errorf(dfs.Unavailable, "%s cannot be let in: start it with -join first, at an address that the other NameNodes can reach: %w", member.ID, err)}
}

// removeMember removes a NameNode for good. The leader hands leadership over
// first, and the caller is sent to the new one.
func (n *NameNode) removeMember(c *call) (reply, error) {
	var request protocol.MemberRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	id, err := dfs.ParseNodeID(string(request.ID))
	if err != nil {
		return reply{}, err
	}
	err = n.group.Remove(c.Context(), id)
	// Not being a member is no error for one that was: a retry, or the rest of a
	// removal or of a join that was not finished.
	if err != nil && (dfs.CodeOf(err) != dfs.NotFound || !n.recorded(id)) {
		return reply{}, err
	}
	if _, err := n.propose(c.Context(), &fsm.RemoveMember{ID: id}, c.requestID); err != nil {
		return reply{}, err
	}
	n.logger.Info("NameNode removed", "id", id)
	return reply{http.StatusOK, protocol.Empty{}}, nil
}

func (n *NameNode) recorded(id dfs.NodeID) (known bool) {
	n.machine.Read(func(s *fsm.State) { _, known = s.Member(id) })
	return known
}

func (n *NameNode) transferLead(c *call) (reply, error) {
	var request protocol.MemberRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	if request.ID != "" {
		if _, err := dfs.ParseNodeID(string(request.ID)); err != nil {
			return reply{}, err
		}
	}
	if err := n.group.Transfer(c.Context(), request.ID); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.Empty{}}, nil
}

func (n *NameNode) takeSnapshot(c *call) (reply, error) {
	var request protocol.SnapshotRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	if err := n.waitApplied(c.Context(), request.AtLeast); err != nil {
		return reply{}, err
	}
	index, err := n.group.Snapshot(c.Context())
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.SnapshotReply{Index: index}}, nil
}

// waitApplied waits until the state is at least that of index.
func (n *NameNode) waitApplied(ctx context.Context, index uint64) error {
	poll := time.NewTicker(appliedPoll)
	defer poll.Stop()
	for n.appliedIndex() < index {
		select {
		case <-ctx.Done():
			return dfs.Errorf(dfs.Timeout, "this NameNode has applied the log up to %d and does not reach %d: %w", n.appliedIndex(), index, ctx.Err())
		case <-poll.C:
		}
	}
	return nil
}

// health says that the process is there.
func (n *NameNode) health(*call) (reply, error) {
	return reply{http.StatusOK, protocol.HealthReply{ID: n.config.ID, ClusterID: n.clusterID(), Status: "ok"}}, nil
}

// ready says whether this NameNode can be of use to a client.
func (n *NameNode) ready(*call) (reply, error) {
	answer := protocol.HealthReply{ID: n.config.ID, ClusterID: n.clusterID(), Status: "ok"}
	_, hasLeader := n.leader()
	_, member, err := n.findMember(n.config.ID)
	switch {
	case !member && n.config.Join != "":
		answer.Status = "waiting to be let in: dfs admin join " + string(n.config.ID) + " " + n.group.RaftAddr() + " " + n.url
	case err != nil:
		answer.Status = dfs.MessageOf(err)
	case !hasLeader:
		answer.Status = "no NameNode leads"
	default:
		return reply{http.StatusOK, answer}, nil
	}
	return reply{http.StatusServiceUnavailable, answer}, nil
}

// askForAdmission asks the leader of an existing group whether this NameNode,
// which has no state, may take its place as a member: only if it never had any.
func (n *NameNode) askForAdmission(ctx context.Context, group dfs.ClusterID) error {
	select {
	case <-n.opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	caller, err := leader.New(leader.Config{Endpoints: n.others(), ClusterID: group, Logger: n.logger})
	if err != nil {
		return err
	}
	defer caller.Close()
	return n.announceTo(ctx, caller)
}

func (n *NameNode) announceTo(ctx context.Context, caller *leader.Caller) error {
	return caller.Do(ctx, protocol.Announce, leader.Call{Body: protocol.AnnounceRequest{
		ID: n.config.ID, Instance: n.meta.current().Instance, URL: n.url, RaftAddr: n.group.RaftAddr(),
	}})
}

// caller reaches the other NameNodes this one knows of.
func (n *NameNode) caller() (*leader.Caller, error) {
	return leader.New(leader.Config{Endpoints: n.others(), ClusterID: n.clusterID(), Logger: n.logger})
}

// others returns the base URLs of the other NameNodes.
func (n *NameNode) others() []string {
	urls := make(map[string]bool)
	for _, peer := range n.config.Peers {
		urls[peer.URL] = true
	}
	if n.config.Join != "" {
		urls[n.config.Join] = true
	}
	n.machine.Read(func(s *fsm.State) {
		for _, m := range s.Members() {
			if !m.Removed && m.URL != "" {
				urls[m.URL] = true
			}
		}
	})
	delete(urls, n.url)
	list := make([]string, 0, len(urls))
	for url := range urls {
		list = append(list, url)
	}
	slices.Sort(list)
	return list
}

// watchMembership makes this NameNode's address known to the leader after each
// start, and notices when it is no longer a member: the leader stops talking
// to a removed NameNode, so that it has to ask.
func (n *NameNode) watchMembership() {
	w := &membershipWatch{n: n, member: n.group.HasState(), lastLeader: time.Now()}
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
			w.look()
		}
	}
}

type membershipWatch struct {
	n          *NameNode
	member     bool // was one at some time
	announced  bool // in this run
	lastLeader time.Time
}

func (w *membershipWatch) look() {
	n := w.n
	if n.lead.Load() != nil {
		w.member, w.lastLeader = true, time.Now()
		return
	}
	if _, found, err := n.findMember(n.config.ID); err == nil && found {
		w.member = true
	}
	if _, ok := n.leader(); ok && w.member {
		w.lastLeader = time.Now()
		w.announceOnce()
		return
	}
	if w.member && time.Since(w.lastLeader) > loneliness {
		w.announce() // it may have moved, so that the leader cannot reach it, or be no member any more
	}
}

// announceOnce makes the address known; what fails is tried again later, but
// for the refusal of a member that has lost its memory.
func (w *membershipWatch) announceOnce() {
	n := w.n
	if w.announced || n.knownAsIs() && !n.group.NeedsAddressUpdate() {
		return
	}
	w.announced = w.announce()
}

// announce tells the leader where this NameNode is, and learns from its answer
// when it may not go on: it was removed, or it has lost its memory. The leader
// answers that only after it has made sure that it leads.
func (w *membershipWatch) announce() (done bool) {
	n := w.n
	caller, err := n.caller()
	if err != nil {
		return false // nobody else is known
	}
	defer caller.Close()
	ctx, cancel := context.WithTimeout(n.ctx, watchTimeout)
	defer cancel()
	switch err := n.announceTo(ctx, caller); {
	case err == nil:
		return true
	case dfs.CodeOf(err) == dfs.Forbidden:
		n.leaveForGood()
	case dfs.CodeOf(err) == dfs.Conflict:
		n.fatal(err)
	default:
		n.logger.Debug("the leader could not be told this NameNode's address yet", "error", err)
	}
	return false
}

// leaveForGood ends a NameNode that was removed.
func (n *NameNode) leaveForGood() {
	n.logger.Warn("this NameNode was removed from the group")
	if err := n.meta.setRemoved(); err != nil {
		n.logger.Error("the removal could not be written down", "error", err)
	}
	n.fatal(dfs.Errorf(dfs.Conflict, "NameNode %s was removed from the group; its process ends. To let it join again, empty %s and start it with -join", n.config.ID, n.config.MetaDir))
}

// knownAsIs tells whether the state already says the truth of this NameNode.
func (n *NameNode) knownAsIs() (same bool) {
	n.machine.Read(func(s *fsm.State) {
		m, ok := s.Member(n.config.ID)
		same = ok && m == fsm.Member{
			ID: n.config.ID, Instance: n.meta.current().Instance, URL: n.url, RaftAddr: n.group.RaftAddr(),
		}
	})
	return same
}
