package namenode

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode/placement"
	"github.com/dfs-go/dfs-go/namenode/repair"
)

// fsck looks at all chunks. Its cost grows with the namespace, so one caller is
// served at a time.
func (n *NameNode) fsck(c *call) (reply, error) {
	select {
	case n.surveys <- struct{}{}:
		defer func() { <-n.surveys }()
	case <-c.Context().Done():
		return reply{}, dfs.Errorf(dfs.Timeout, "others are waiting for the same survey; try again: %w", c.Context().Err())
	}
	state := n.machine.Freeze()
	report := repair.Survey(repair.ViewOf(state), protocol.MaxProblems, nil)
	d := n.describer(state, report)
	answer := protocol.FsckReply{
		Healthy: report.Healthy(), Files: report.Files, Chunks: report.Chunks,
		UnderReplicated: report.Under, OverReplicated: report.Over, Missing: report.Missing,
		Corrupt: report.Corrupt, Misplaced: report.Misplaced, Orphaned: state.Orphaned(),
		Repairing: d.copies, Truncated: report.Truncated,
		Problems: make([]protocol.Problem, len(report.Problems)),
	}
	for i := range report.Problems {
		answer.Problems[i] = d.problem(&report.Problems[i])
	}
	return reply{http.StatusOK, answer}, nil
}

// describer puts problems, and what is done about them, into words.
type describer struct {
	report  *repair.Report
	locate  locator
	nodes   []placement.Node // what the leader knows; nil elsewhere
	random  *rand.Rand
	targets map[dfs.ChunkID][]fsm.NodeNum // of copies under way
	copies  int64
}

func (n *NameNode) describer(state *fsm.State, report *repair.Report) *describer {
	d := &describer{
		report: report, locate: newLocator(state.Nodes()), random: rand.New(rand.NewPCG(1, 2)),
		targets: make(map[dfs.ChunkID][]fsm.NodeNum),
	}
	l := n.lead.Load()
	if l == nil {
		return d
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d.nodes = l.repairView()
	needed := repair.NeededIn(state)
	for _, c := range l.ledger.Ongoing() {
		if needed(&c) {
			d.targets[c.Chunk.ID] = append(d.targets[c.Chunk.ID], c.Target)
			d.copies++
		}
	}
	return d
}

func (d *describer) problem(p *repair.Problem) protocol.Problem {
	kinds := map[repair.Kind]string{
		repair.Missing: protocol.ProblemMissing, repair.Under: protocol.ProblemUnderReplicated,
		repair.Misplaced: protocol.ProblemMisplaced, repair.Over: protocol.ProblemOverReplicated,
	}
	return protocol.Problem{
		Kind: kinds[p.Kind], Chunk: p.Chunk.ID, Files: p.Files, Wanted: p.Wanted,
		Live: d.locate.ids(p.Live), Lost: d.locate.ids(p.Lost), Action: d.action(p),
	}
}

// action says what is being done about a problem, or what has to be.
func (d *describer) action(p *repair.Problem) string {
	switch {
	case p.Kind == repair.Over:
		return "surplus copies are not removed yet"
	case p.Kind == repair.Misplaced:
		return "replicas are not moved between racks yet"
	case p.Kind == repair.Missing && len(p.Lost) > 0:
		return "no live replica: bring back " + d.list(p.Lost, " or ")
	case p.Kind == repair.Missing && len(p.Chunk.Damaged) > 0:
		return "no good replica is left: the damaged ones lie in the quarantine of " + d.list(p.Chunk.Damaged, " and ")
	case p.Kind == repair.Missing:
		return "no replica is left: restore the file from elsewhere"
	}
	damaged := ""
	if len(p.Chunk.Damaged) > 0 {
		damaged = "a replica on " + d.list(p.Chunk.Damaged, " and ") + " was damaged; "
	}
	return damaged + d.progress(p)
}

// progress says how the repair of a chunk stands that has a live replica.
func (d *describer) progress(p *repair.Problem) string {
	targets := d.targets[p.Chunk.ID]
	switch {
	case len(targets) == 1:
		return "a copy to " + d.list(targets, "") + " is under way"
	case len(targets) > 1:
		return "copies to " + d.list(targets, " and ") + " are under way"
	case d.report.MassLoss() && len(p.Live) > 1:
		return fmt.Sprintf("waiting: %d of %d DataNodes are down, which is taken for a partition; until it clears only chunks with a single live replica are copied", d.report.Down, d.report.InService)
	case d.nodes == nil:
		return "the leader sees to it"
	}
	switch repair.OutlookOf(p, d.nodes, d.random) {
	case repair.NoNode:
		return "waiting for another DataNode: every one that answers has a replica"
	case repair.NoRoom:
		return "waiting for a DataNode with room"
	}
	return "a copy will be ordered soon"
}

func (d *describer) list(nums []fsm.NodeNum, conjunction string) string {
	names := make([]string, len(nums))
	for i, id := range d.locate.ids(nums) {
		names[i] = string(id)
	}
	return strings.Join(names, conjunction)
}

// ids turns node numbers into IDs, in order.
func (l locator) ids(nums []fsm.NodeNum) []dfs.NodeID {
	ids := make([]dfs.NodeID, len(nums))
	for i, num := range nums {
		ids[i] = l[num].ID
	}
	slices.Sort(ids)
	return ids
}
