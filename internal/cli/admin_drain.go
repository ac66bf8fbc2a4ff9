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

const (
	drainPoll    = 500 * time.Millisecond
	drainTell    = 2 * time.Second // between two lines on how many chunks are left
	drainStalled = 5 * time.Second // without a chunk less, it is asked why
)

func (a *app) adminDrain() *cobra.Command {
	noWait := false
	command := &cobra.Command{
		Use:   "drain NODE",
		Short: "Empty a DataNode, so that it can be switched off",
		Long: `Empty a DataNode, so that it can be switched off: its chunks are copied to others
and then removed from it. It can be read from meanwhile, and gets no new chunks.

drain waits until the DataNode is empty and tells how many chunks are left. When
it is ended before, with Ctrl-C, the DataNode goes on being emptied; undrain
puts it back into service. It stays drained over restarts.`,
		Example: "  dfs admin drain dn2\n  dfs admin drain --no-wait dn2",
		Args:    cobra.ExactArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := dfs.ParseNodeID(args[0])
			if err != nil {
				return err
			}
			node, err := c.Drain(ctx, id)
			if err != nil {
				return err
			}
			if noWait {
				return a.printNode(node, fmt.Sprintf("%s is being emptied; `dfs nodes` tells when it is drained", id))
			}
			return a.waitDrained(ctx, c, id)
		}),
	}
	command.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the DataNode is empty")
	return command
}

func (a *app) adminUndrain() *cobra.Command {
	return &cobra.Command{
		Use:     "undrain NODE",
		Short:   "Put a DataNode back into service",
		Long:    "Put a DataNode back into service that was to be emptied, or has been.",
		Example: "  dfs admin undrain dn2",
		Args:    cobra.ExactArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := dfs.ParseNodeID(args[0])
			if err != nil {
				return err
			}
			node, err := c.Undrain(ctx, id)
			if err != nil {
				return err
			}
			return a.printNode(node, fmt.Sprintf("%s is in service", id))
		}),
	}
}

func (a *app) printNode(node protocol.NodeInfo, sentence string) error {
	if a.json {
		return a.printJSON(node)
	}
	_, err := fmt.Fprintln(a.stdout, sentence)
	return err
}

// waitDrained returns when the DataNode is empty, or when what it held is safe
// without it. Meanwhile it tells how it goes.
func (a *app) waitDrained(ctx context.Context, c *client.Client, id dfs.NodeID) error {
	w := &drainWatch{app: a, client: c, id: id, left: -1}
	for {
		node, done, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return dfs.Errorf(dfs.Timeout, "%s goes on being emptied; `dfs admin undrain %s` would put it back into service", id, id)
		case err != nil:
			return err
		case done != "":
			return a.printNode(node, done)
		}
		select {
		case <-ctx.Done():
		case <-time.After(drainPoll):
		}
	}
}

// drainWatch looks again and again how a DataNode is being emptied.
type drainWatch struct {
	*app
	client *client.Client
	id     dfs.NodeID
	left   int64     // chunks; -1 before the first look
	since  time.Time // when there were as many for the first time
	told   time.Time
	reason string // told last
}

// look tells with a sentence when there is nothing more to wait for.
func (w *drainWatch) look(ctx context.Context) (node protocol.NodeInfo, done string, err error) {
	nodes, err := w.client.Nodes(ctx)
	if err != nil {
		return node, "", err
	}
	at := slices.IndexFunc(nodes, func(n protocol.NodeInfo) bool { return n.ID == w.id })
	if at < 0 {
		return node, "", dfs.Errorf(dfs.NotFound, "there is no DataNode %s any more", w.id)
	}
	node = nodes[at]
	switch node.Service {
	case protocol.StateDrained:
		return node, fmt.Sprintf("%s is empty and may be switched off", w.id), nil
	case protocol.InService:
		return node, "", dfs.Errorf(dfs.Conflict, "%s has been put back into service by somebody else", w.id)
	}
	now := time.Now()
	moved := node.Chunks != w.left
	if moved {
		w.left, w.since = node.Chunks, now
	}
	if moved && node.Chunks > 0 && now.Sub(w.told) >= drainTell && node.State != protocol.StateDown {
		w.tell(now, fmt.Sprintf("%s left", chunks(node.Chunks)))
		return node, "", nil
	}
	if now.Sub(w.told) < drainTell || now.Sub(w.since) < drainStalled && node.State != protocol.StateDown {
		return node, "", nil
	}
	done, err = w.ask(ctx, now, &node)
	return node, done, err
}

// ask finds out why nothing moves.
func (w *drainWatch) ask(ctx context.Context, now time.Time, node *protocol.NodeInfo) (done string, err error) {
	report, err := w.client.Fsck(ctx)
	if err != nil {
		return "", err
	}
	if node.State == protocol.StateDown && !needs(&report, w.id) {
		return fmt.Sprintf("%s is down, and what it held is elsewhere: it may stay off", w.id), nil
	}
	if reason := whyStalled(&report, node); reason != w.reason {
		w.reason = reason
		w.tell(now, reason)
	}
	w.told = now // it is not asked again at once: every answer takes a look at all chunks
	return "", nil
}

func (w *drainWatch) tell(now time.Time, text string) {
	w.told = now
	w.notice(fmt.Sprintf("%s: %s", w.id, text))
}

// needs tells whether a chunk lacks the replica that is lost with the node.
func needs(report *protocol.FsckReply, id dfs.NodeID) bool {
	return report.Truncated || slices.ContainsFunc(report.Problems, func(p protocol.Problem) bool {
		return len(p.Live) < p.Wanted && slices.Contains(p.Lost, id)
	})
}

// whyStalled says why a node does not get emptier.
func whyStalled(report *protocol.FsckReply, node *protocol.NodeInfo) string {
	stuck, action := int64(0), ""
	for i := range report.Problems {
		p := &report.Problems[i]
		if !slices.Contains(p.Live, node.ID) && !slices.Contains(p.Lost, node.ID) {
			continue
		}
		if p.Stuck {
			stuck++
		} else if action == "" {
			action = p.Action
		}
	}
	switch {
	case stuck == 1:
		return "1 chunk needs a DataNode with room that does not hold it: start another, or lower its replication with dfs setrep"
	case stuck > 1:
		return chunks(stuck) + " need a DataNode with room that does not hold them: start another, or lower their replication with dfs setrep"
	case action != "":
		return chunks(node.Chunks) + " left; " + action
	case report.Truncated:
		return chunks(node.Chunks) + " left; dfs fsck tells what else has to be done"
	case node.Chunks > 0:
		return chunks(node.Chunks) + " left, which belong to deleted files and to uploads that are not over"
	}
	return "no chunk is left; uploads that were begun before may still bring some"
}

func chunks(count int64) string {
	if count == 1 {
		return "1 chunk"
	}
	return fmt.Sprintf("%d chunks", count)
}
