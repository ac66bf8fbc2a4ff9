package namenode

import (
	"context"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	reportWindow  = 100 * time.Millisecond // reports that come within it share a log entry
	maxReports    = 1024                   // in one window
	maxReportIDs  = 8192                   // chunk IDs in one part of a report
	maxReportsLen = 192 << 10              // bytes of reports in one entry
)

// pendingReport is a DataNode's report on its way into the log.
type pendingReport struct {
	report   fsm.NodeReport
	instance string                  // of the node that reports
	page     *protocol.InventoryPage // to be compared with the state
	done     chan<- reportOutcome    // buffered
}

type reportOutcome struct {
	needInventory bool
	err           error
}

// report waits until the report is in the log of a majority, and tells whether
// an inventory of the node is needed.
func (l *leadership) report(ctx context.Context, pending pendingReport) (bool, error) {
	done := make(chan reportOutcome, 1)
	pending.done = done
	select {
	case l.reports <- pending:
	case <-l.ctx.Done():
		return false, notLeader()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case outcome := <-done:
		return outcome.needInventory, outcome.err
	case <-l.ctx.Done():
		return false, notLeader()
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// collectReports turns the reports of each window into as few entries as
// possible.
func (l *leadership) collectReports() error {
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case first := <-l.reports:
			l.record(l.gather(first))
		}
	}
}

func (l *leadership) gather(first pendingReport) []pendingReport {
	batch := []pendingReport{first}
	window := time.NewTimer(reportWindow)
	defer window.Stop()
	for len(batch) < maxReports {
		select {
		case next := <-l.reports:
			batch = append(batch, next)
		case <-window.C:
			return batch
		case <-l.ctx.Done():
			return batch
		}
	}
	return batch
}

// record proposes the reports, in order, and answers those who wait.
func (l *leadership) record(batch []pendingReport) {
	var parts []fsm.NodeReport
	replaced := make(map[int]bool)
	s := l.n.machine.Freeze() // to compare many inventories takes a while, and Apply must not wait
	for i := range batch {
		report := batch[i].report
		// The disk may have been replaced while the report waited.
		if node, ok := s.NodeByNum(report.Node); !ok || node.Instance != batch[i].instance {
			replaced[i] = true
			continue
		}
		if batch[i].page != nil {
			compare(s, &report, batch[i].page)
		}
		parts = append(parts, split(report)...)
	}
	need := make(map[fsm.NodeNum]bool)
	var failed error
	for len(parts) > 0 && failed == nil {
		fit := fittingReports(parts)
		var result fsm.Result
		result, failed = l.n.propose(l.ctx, &fsm.Heartbeats{Reports: parts[:fit]}, "")
		for i := range parts[:fit] {
			need[parts[i].Node] = false // the last part of a node's report decides
		}
		for _, num := range result.NeedInventory {
			need[num] = true
		}
		parts = parts[fit:]
	}
	for i := range batch {
		if replaced[i] {
			batch[i].done <- reportOutcome{err: dfs.Errorf(dfs.Conflict, "another DataNode has taken the ID of this one")}
			continue
		}
		batch[i].done <- reportOutcome{need[batch[i].report.Node], failed}
	}
}

// fittingReports returns how many of the parts, at least one, fit into one entry.
func fittingReports(parts []fsm.NodeReport) int {
	size := 0
	for i := range parts {
		size += parts[i].EncodedSize()
		if size > maxReportsLen && i > 0 {
			return i
		}
	}
	return len(parts)
}

// compare adds to a report what a page of the node's inventory shows to be
// different from the state. The page was taken together with the report's
// changes, so within its range it is the truth.
func compare(s *fsm.State, report *fsm.NodeReport, page *protocol.InventoryPage) {
	onNode := make(map[dfs.ChunkID]bool, len(page.Chunks)) // true until the state is seen to know it
	for _, id := range page.Chunks {
		onNode[id] = true
	}
	s.ReportedBetween(report.Node, dfs.ChunkID(page.After), dfs.ChunkID(page.Through), func(id dfs.ChunkID) {
		if _, held := onNode[id]; !held {
			report.Removed = append(report.Removed, id)
			return
		}
		onNode[id] = false
	})
	for _, id := range page.Chunks {
		if onNode[id] {
			report.Added = append(report.Added, id)
		}
	}
	report.InventoryDone = page.Last
}

// split cuts a report into parts that fit into a log entry. What takes the
// chunks away comes first, so that a chunk that was removed and added again
// ends as added.
func split(report fsm.NodeReport) []fsm.NodeReport {
	var parts []fsm.NodeReport
	part := report
	part.Added, part.Removed, part.Corrupt, part.InventoryDone = nil, nil, nil, false
	removed, corrupt, added := report.Removed, report.Corrupt, report.Added
	for len(removed)+len(corrupt)+len(added) > maxReportIDs {
		next, room := part, maxReportIDs
		next.Removed, removed = take(removed, &room)
		next.Corrupt, corrupt = take(corrupt, &room)
		next.Added, added = take(added, &room)
		parts = append(parts, next)
	}
	part.Removed, part.Corrupt, part.Added, part.InventoryDone = removed, corrupt, added, report.InventoryDone
	return append(parts, part)
}

func take(ids []dfs.ChunkID, room *int) (taken, rest []dfs.ChunkID) {
	count := min(len(ids), *room)
	*room -= count
	return ids[:count], ids[count:]
}
