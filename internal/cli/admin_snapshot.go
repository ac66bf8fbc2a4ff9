package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// snapshotRow is the snapshot of one member, as JSON.
type snapshotRow struct {
	ID    dfs.NodeID `json:"id"`
	Index uint64     `json:"index"`
	Error string     `json:"error,omitempty"`
}

func (a *app) adminSnapshot() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot",
		Short: "Make every NameNode take a snapshot now",
		Long: `Make every NameNode take a snapshot now, and print the log index that each
snapshot covers. files.json and nodes.json in each -meta-dir are then new and
hold all that was acknowledged before.`,
		Example: "  dfs admin snapshot",
		Args:    cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			group, err := c.Leader(ctx)
			if err != nil {
				return err
			}
			// The leader has applied all that was acknowledged; its snapshot comes
			// first, and the others wait until they have caught up with it.
			slices.SortStableFunc(group.Members, func(x, y protocol.Member) int { return leaderFirst(x) - leaderFirst(y) })
			var rows []snapshotRow
			var failure error
			atLeast := uint64(0)
			for _, member := range group.Members {
				row := snapshotRow{ID: member.ID}
				row.Index, err = c.Snapshot(ctx, member.URL, atLeast)
				atLeast = max(atLeast, row.Index)
				if err != nil {
					row.Error = err.Error()
					a.complain(dfs.Errorf(dfs.CodeOf(err), "%s: %w", member.ID, err))
					failure = errReported
				}
				rows = append(rows, row)
			}
			if err := a.printSnapshots(rows); err != nil {
				return err
			}
			return failure
		}),
	}
}

func leaderFirst(m protocol.Member) int {
	if m.Role == protocol.RoleLeader {
		return 0
	}
	return 1
}

func (a *app) printSnapshots(rows []snapshotRow) error {
	if a.json {
		return a.printJSON(map[string][]snapshotRow{"members": rows})
	}
	t := newTable(a.stdout)
	t.row("ID", "INDEX")
	for _, row := range rows {
		if row.Error == "" {
			t.row(row.ID, row.Index)
		}
	}
	return t.flush()
}
