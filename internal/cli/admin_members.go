package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// memberRow is a member and what it says, as JSON.
type memberRow struct {
	protocol.Member
	Reachable    bool       `json:"reachable"`
	Error        string     `json:"error,omitempty"`
	Term         uint64     `json:"term,omitempty"`
	AppliedIndex uint64     `json:"applied_index,omitempty"`
	Follows      dfs.NodeID `json:"follows,omitempty"` // whom it takes for the leader
}

// membersReply is a protocol.LeaderReply with more about each member.
type membersReply struct {
	protocol.LeaderReply
	Members []memberRow `json:"members"`
	Agree   bool        `json:"agree"` // everybody answers, and follows the same leader in the same term
}

func (a *app) adminMembers() *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "Show the NameNodes of the group",
		Long: `Show the NameNodes of the group. Every one of them is asked what it knows itself,
so that one sees who is behind, who cannot be reached, and whether they agree.`,
		Example: "  dfs admin members",
		Args:    cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			group, views, err := c.Members(ctx)
			if err != nil {
				return err
			}
			reply := describe(group, views)
			if a.json {
				return a.printJSON(reply)
			}
			return a.printMembers(reply)
		}),
	}
}

func describe(group protocol.LeaderReply, views []client.MemberView) membersReply {
	reply := membersReply{LeaderReply: group, Members: []memberRow{}, Agree: group.Leader != nil}
	for _, v := range views {
		row := memberRow{Member: v.Member, Reachable: v.Err == nil, Term: v.View.Term, AppliedIndex: v.View.AppliedIndex}
		for _, m := range group.Members { // the leader's word on the roles is the newest
			if m.ID == v.ID {
				row.Role = m.Role
			}
		}
		if v.View.Leader != nil {
			row.Follows = v.View.Leader.ID
		}
		if v.Err != nil {
			row.Error = v.Err.Error()
		}
		same := group.Leader != nil && row.Follows == group.Leader.ID && row.Term == group.Term
		reply.Agree = reply.Agree && row.Reachable && same
		reply.Members = append(reply.Members, row)
	}
	return reply
}

func (a *app) printMembers(reply membersReply) error {
	t := newTable(a.stdout)
	t.row("ID", "ROLE", "REACHABLE", "FOLLOWS", "TERM", "APPLIED", "URL", "RAFT")
	for _, m := range reply.Members {
		if m.Reachable {
			t.row(m.ID, m.Role, "yes", m.Follows, m.Term, m.AppliedIndex, m.URL, m.RaftAddr)
		} else {
			t.row(m.ID, m.Role, "no", "", "", "", m.URL, m.RaftAddr)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.stdout, verdict(reply))
	return err
}

func verdict(reply membersReply) string {
	switch {
	case reply.Leader == nil:
		return "There is no leader: an election is under way, or a majority is down."
	case reply.Agree:
		return fmt.Sprintf("All agree: %s leads in term %d.", reply.Leader.ID, reply.Term)
	}
	return fmt.Sprintf("%s leads in term %d, but not all agree or can be reached.", reply.Leader.ID, reply.Term)
}
