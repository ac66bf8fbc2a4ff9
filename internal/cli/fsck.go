package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (a *app) fsck() *cobra.Command {
	return &cobra.Command{
		Use:   "fsck",
		Short: "Tell how the chunks of all files are doing",
		Long: `Tell how the chunks of all files are doing: how many have too few replicas, how
many cannot be read at all, and what is being done about each.

The exit code is 0 only when every file has all its replicas where they should
be. Surplus copies, and chunks on DataNodes that are being emptied, are counted,
and so are orphans (what is left of deleted files and of uploads that were given
up): they are no danger.`,
		Example: `  dfs fsck
  dfs fsck --json | jq .under_replicated`,
		Args: cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			report, err := c.Fsck(ctx)
			if err != nil {
				return err
			}
			show := a.printFsck
			if a.json {
				show = func(report protocol.FsckReply) error { return a.printJSON(report) }
			}
			if err := show(report); err != nil {
				return err
			}
			if !report.Healthy {
				return errReported
			}
			return nil
		}),
	}
}

func (a *app) printFsck(report protocol.FsckReply) error {
	t := newTable(a.stdout)
	for _, total := range []struct {
		name  string
		count int64
	}{
		{"files", report.Files},
		{"chunks", report.Chunks},
		{"under-replicated", report.UnderReplicated},
		{"missing", report.Missing},
		{"corrupt", report.Corrupt},
		{"misplaced", report.Misplaced},
		{"draining", report.Draining},
		{"over-replicated", report.OverReplicated},
		{"orphaned replicas", report.Orphaned},
		{"copies under way", report.Repairing},
	} {
		t.row(total.name, total.count)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := a.printProblems(report); err != nil {
		return err
	}
	verdict := "healthy"
	if !report.Healthy {
		verdict = "NOT healthy"
	}
	_, err := fmt.Fprintf(a.stdout, "\n%s\n", verdict)
	return err
}

func (a *app) printProblems(report protocol.FsckReply) error {
	if len(report.Problems) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	t := newTable(a.stdout)
	t.row("PROBLEM", "CHUNK", "WANTED", "LIVE", "LOST", "FILES", "ACTION")
	for _, p := range report.Problems {
		t.row(p.Kind, p.Chunk, p.Wanted, joinIDs(p.Live), joinIDs(p.Lost), strings.Join(p.Files, ","), p.Action)
	}
	if err := t.flush(); err != nil || !report.Truncated {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "There are more; the %d worst are listed.\n", len(report.Problems))
	return err
}

func joinIDs(ids []dfs.NodeID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	return strings.Join(texts, ",")
}
