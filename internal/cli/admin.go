package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const pollInterval = 200 * time.Millisecond

func (a *app) admin() *cobra.Command {
	command := &cobra.Command{
		Use:   "admin",
		Short: "Look after the group of NameNodes, and empty DataNodes",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.adminMembers(), a.adminLeader(), a.adminJoin(), a.adminRemove(), a.adminTransfer(), a.adminSnapshot(), a.adminDrain(), a.adminUndrain())
	return command
}

func (a *app) adminLeader() *cobra.Command {
	return &cobra.Command{
		Use:     "leader",
		Short:   "Print the ID of the NameNode that leads",
		Long:    "Print the ID of the NameNode that leads. One that believes so itself must be found within --timeout.",
		Example: "  dfs admin leader",
		Args:    cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.untilLed(ctx, c, func(protocol.LeaderReply) bool { return true }, "", "no NameNode leads")
		}),
	}
}

func (a *app) adminJoin() *cobra.Command {
	return &cobra.Command{
		Use:   "join ID RAFT_ADDR HTTP_URL",
		Short: "Let a waiting NameNode into the group",
		Long: `Let a NameNode that was started with -join into the group. It first catches up
and then gets a vote; join returns when it has it, or after --timeout.`,
		Example: "  dfs admin join nn4 10.0.0.4:7000 http://10.0.0.4:8000",
		Args:    cobra.ExactArgs(3),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			member, err := parseJoin(args)
			if err != nil {
				return err
			}
			if err := c.Join(ctx, member); err != nil {
				return err
			}
			votes := func(group protocol.LeaderReply) bool {
				return slices.ContainsFunc(group.Members, func(m protocol.Member) bool {
					return m.ID == member.ID && m.Role != protocol.RoleNonvoter
				})
			}
			return a.untilLed(ctx, c, votes, fmt.Sprintf("%s is a member with a vote; leader: ", member.ID), fmt.Sprintf("%s is in the group, but has no vote yet: it is still catching up; see `dfs admin members`", member.ID))
		}),
	}
}

func parseJoin(args []string) (protocol.JoinRequest, error) {
	id, err := dfs.ParseNodeID(args[0])
	if err != nil {
		return protocol.JoinRequest{}, err
	}
	raftAddr, err := dfs.ParseHostPort(args[1])
	if err != nil {
		return protocol.JoinRequest{}, err
	}
	url, err := dfs.ParseBaseURL(args[2])
	return protocol.JoinRequest{ID: id, RaftAddr: raftAddr, URL: url}, err
}

func (a *app) adminRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Take a NameNode out of the group",
		Long: `Take a NameNode out of the group, for good: its process ends, and it can only
come back empty, through join. The leader hands leadership over first.`,
		Example: "  dfs admin remove nn2",
		Args:    cobra.ExactArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := dfs.ParseNodeID(args[0])
			if err != nil {
				return err
			}
			if err := c.RemoveMember(ctx, id); err != nil {
				return err
			}
			gone := func(group protocol.LeaderReply) bool { return !isMember(group, id) }
			return a.untilLed(ctx, c, gone, fmt.Sprintf("%s is removed; leader: ", id), fmt.Sprintf("%s is still in the group; see `dfs admin members`", id))
		}),
	}
}

func isMember(group protocol.LeaderReply, id dfs.NodeID) bool {
	return slices.ContainsFunc(group.Members, func(m protocol.Member) bool { return m.ID == id })
}

func (a *app) adminTransfer() *cobra.Command {
	return &cobra.Command{
		Use:     "transfer [ID]",
		Short:   "Hand leadership over",
		Long:    "Hand leadership over to ID, or to any other voter, and print who leads then.",
		Example: "  dfs admin transfer nn2",
		Args:    cobra.MaximumNArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			var id dfs.NodeID
			if len(args) == 1 {
				var err error
				if id, err = dfs.ParseNodeID(args[0]); err != nil {
					return err
				}
			}
			before, err := a.leader(ctx, c)
			if err != nil {
				return err
			}
			if err := c.Transfer(ctx, id); err != nil {
				return err
			}
			moved := func(group protocol.LeaderReply) bool {
				if id != "" {
					return group.Leader.ID == id
				}
				return group.Leader.ID != before.Leader.ID
			}
			return a.untilLed(ctx, c, moved, "", fmt.Sprintf("%s still leads", before.Leader.ID))
		}),
	}
}

func (a *app) leader(ctx context.Context, c *client.Client) (protocol.LeaderReply, error) {
	return a.waitLed(ctx, c, func(protocol.LeaderReply) bool { return true }, "no NameNode leads")
}

// untilLed waits until the group is as wanted, and prints that it is and who
// leads it.
func (a *app) untilLed(ctx context.Context, c *client.Client, wanted func(protocol.LeaderReply) bool, done, otherwise string) error {
	group, err := a.waitLed(ctx, c, wanted, otherwise)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(group)
	}
	_, err = fmt.Fprintf(a.stdout, "%s%s\n", done, group.Leader.ID)
	return err
}

// waitLed asks until a NameNode that leads describes the group as wanted.
func (a *app) waitLed(ctx context.Context, c *client.Client, wanted func(protocol.LeaderReply) bool, otherwise string) (protocol.LeaderReply, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	for {
		group, _, err := c.Members(ctx)
		if err == nil && group.Leader != nil && group.Leader.ID == group.NodeID && wanted(group) {
			return group, nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return group, dfs.Errorf(dfs.CodeOf(err), "%s: %w", otherwise, err)
			}
			return group, dfs.Errorf(dfs.Timeout, "%s", otherwise)
		case <-time.After(pollInterval):
		}
	}
}
