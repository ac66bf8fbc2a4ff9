package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (a *app) nodes() *cobra.Command {
	return &cobra.Command{
		Use:     "nodes",
		Short:   "Show the DataNodes",
		Long:    "Show the DataNodes: their state, how full they are, and when they were last heard of.",
		Example: "  dfs nodes\n  dfs nodes --json",
		Args:    cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			nodes, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			if a.json {
				if nodes == nil {
					nodes = []protocol.NodeInfo{}
				}
				return a.printJSON(protocol.NodesReply{Nodes: nodes})
			}
			slices.SortFunc(nodes, func(a, b protocol.NodeInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
			now := time.Now()
			t := newTable(a.stdout)
			t.row("ID", "STATE", "WRITABLE", "USED", "FREE", "CAPACITY", "CHUNKS", "HEARTBEAT", "RACK", "URL")
			for _, n := range nodes {
				t.row(n.ID, stateAndService(n), yesNo(n.Writable), humanSize(n.Used), humanSize(n.Free), humanSize(n.Capacity),
					n.Chunks, humanAge(n.LastHeartbeat, now), n.Rack, n.URL)
			}
			return t.flush()
		}),
	}
}

// stateAndService is the state, and what is wanted of a node that is not there.
func stateAndService(n protocol.NodeInfo) string {
	if n.Service == "" || n.Service == protocol.InService || n.State == n.Service {
		return n.State
	}
	return n.State + "," + n.Service
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
