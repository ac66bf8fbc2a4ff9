package namenode

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

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
	view := repair.ViewOf(state)
	d := n.describer(&view)
	report := repair.Survey(view, protocol.MaxProblems, nil)
	d.report = report
	answer := protocol.FsckReply{
		Healthy: report.Healthy(), Files: report.Files, Chunks: report.Chunks,
		UnderReplicated: report.Under, OverReplicated: report.Over, Missing: report.Missing,
		Corrupt: report.Corrupt, Misplaced: report.Misplaced, Draining: report.Draining, Orphaned: state.Orphaned(),
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
	report   *repair.Report
	locate   locator
	nodes    []placement.Node // what the leader knows; nil elsewhere
	random   *rand.Rand
	targets  map[dfs.ChunkID][]fsm.NodeNum // of copies under way
	copies   int64
	obstacle func(*repair.Problem) (repair.Obstacle, []fsm.NodeNum) // of the leader
}

// describer also adds to the view what only the leader knows.
func (n *NameNode) describer(view *repair.View) *describer {
	d := &describer{
		locate: newLocator(view.Nodes), random: rand.New(rand.NewPCG(1, 2)),
		targets: make(map[dfs.ChunkID][]fsm.NodeNum),
	}
	l := n.lead.Load()
	if l == nil {
		return d
	}
	l.repair.mu.Lock()
	defer l.repair.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	view.Doomed = l.trims.Doomed()
	d.nodes = l.repairView()
	d.obstacle = repair.ObstacleTo(l.repair.trimView(*view, time.Now()))
	needed := repair.NeededIn(*view)
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
		repair.Missing: protocol.ProblemMissing, repair.Under: protocol.ProblemUnderReplicated, repair.Draining: protocol.ProblemDraining,
		repair.Misplaced: protocol.ProblemMisplaced, repair.Over: protocol.ProblemOverReplicated,
	}
	action, stuck := d.action(p)
	return protocol.Problem{
		Kind: kinds[p.Kind], Chunk: p.Chunk.ID, Files: p.Files, Wanted: p.Wanted,
		Live: d.locate.ids(p.Live), Lost: d.locate.ids(p.Lost), Action: action, Stuck: stuck,
	}
}

// action says what is being done about a problem, or what has to be, and
// whether that is to wait for another DataNode.
func (d *describer) action(p *repair.Problem) (action string, stuck bool) {
	switch {
	case p.Kind == repair.Over:
		return d.trimming(p), false
	case p.Kind == repair.Missing && len(p.Lost) > 0:
		return "no live replica: bring back " + d.list(p.Lost, " or "), false
	case p.Kind == repair.Missing && len(p.Chunk.Damaged) > 0:
		return "no good replica is left: the damaged ones lie in the quarantine of " + d.list(p.Chunk.Damaged, " and "), false
	case p.Kind == repair.Missing:
		return "no replica is left: restore the file from elsewhere", false
	}
	action, stuck = d.copying(p)
	switch {
	case p.Kind == repair.Draining:
		action = "it is to leave " + d.list(d.leaving(p), " and ") + "; " + action
	case p.Kind == repair.Under && len(p.Chunk.Damaged) > 0:
		action = "a replica on " + d.list(p.Chunk.Damaged, " and ") + " was damaged; " + action
	}
	return action, stuck
}

// leaving is the live replicas on nodes that are to be emptied.
func (d *describer) leaving(p *repair.Problem) []fsm.NodeNum {
	return slices.DeleteFunc(slices.Clone(p.Live), func(num fsm.NodeNum) bool { return d.locate[num].Service == fsm.InService })
}

// copying says how it stands with another replica of a chunk that has a live
// one.
func (d *describer) copying(p *repair.Problem) (action string, stuck bool) {
	targets := d.targets[p.Chunk.ID]
	switch {
	case len(targets) == 1:
		return "a copy to " + d.list(targets, "") + " is under way", false
	case len(targets) > 1:
		return "copies to " + d.list(targets, " and ") + " are under way", false
	case d.report.MassLoss() && (p.Kind != repair.Under || len(p.Live) > 1):
		return d.partition() + "; until it clears only chunks with a single live replica are copied", false
	case d.nodes == nil:
		return "the leader sees to it", false
	}
	switch repair.OutlookOf(p, d.nodes, d.random) {
	case repair.NoNode:
		return "waiting for another DataNode: every one that answers has a replica", true
	case repair.NoRoom:
		return "waiting for a DataNode with room", true
	case repair.NoRack:
		return "waiting for a DataNode with room on another rack", true
	}
	return "a copy will be ordered soon", false
}

func (d *describer) partition() string {
	return fmt.Sprintf("waiting: %d of %d DataNodes are down, which is taken for a partition", d.report.Down, d.report.InService)
}

// trimming says how it stands with the replica that a chunk has too many.
func (d *describer) trimming(p *repair.Problem) string {
	if d.obstacle == nil {
		return "the leader sees to it"
	}
	obstacle, nodes := d.obstacle(p)
	names := d.list(nodes, " and ")
	switch obstacle {
	case repair.BeingTrimmed:
		return "a replica on " + names + " is being removed"
	case repair.Partition:
		return d.partition() + "; until it clears nothing is removed"
	case repair.Copying:
		return "waiting until the copy to " + names + " is done"
	case repair.Silent:
		return "waiting for " + names + ", which is silent"
	case repair.NoOrders:
		return "waiting for " + names + ", which takes no orders: it reports in the short form"
	case repair.NoInventory:
		return "waiting for the inventory of " + names
	case repair.Unreported:
		return "waiting for the report of " + names
	case repair.Unsteady:
		return "waiting for a while, as " + names + " came up only just now"
	}
	return "a replica will be removed soon"
}

func (d *describer) list(nums []fsm.NodeNum, conjunction string) string {
	names := make([]string, len(nums))
	for i, id := range d.locate.ids(nums) {
		names[i] = string(id)
	}
	if last := len(names) - 1; last > 1 {
		return strings.Join(names[:last], ", ") + conjunction + names[last]
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
