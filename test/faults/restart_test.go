//go:build linux

package faults

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// startGap is the time between two DataNodes that are started again: all of them
// together take less than what makes one count as lost.
const startGap = 2 * time.Second

// TestRestartOneByOne: everything stops; the NameNodes start, and then one
// DataNode after the other. What has been reported can be read at once, and
// nothing is copied or deleted because of those that are still to come. One that
// never comes is replaced.
func TestRestartOneByOne(t *testing.T) {
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.NameNodeFlags = append(o.NameNodeFlags, "-down-after", "20s")
		o.Patience = 5 * time.Second
	})
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	for _, path := range h.paths {
		h.file(path)
	}
	for round, missing := range []string{"", "dn4"} {
		h.b.Kill()
		h.b.Start(h.b.NameNodes()...)
		h.b.LeaderAmong(h.b.NameNodes()...)
		var started []string
		for _, id := range h.b.DataNodes() {
			if id == missing {
				continue
			}
			h.b.Start(id)
			began := time.Now()
			h.waitState(id, protocol.StateUp)
			started = append(started, id)
			h.readReported(started)
			time.Sleep(startGap - time.Since(began)) // an operator's pace
		}
		h.b.WaitReady()
		copied, trimmed := h.copies(), h.trims()
		if missing == "" {
			h.waitFsck("all is in order", clean)
			h.untouched()
		}
		if copied+trimmed > 0 {
			t.Errorf("round %d: %d copies were made and %d replicas trimmed while DataNodes were still being started", round+1, copied, trimmed)
		}
	}
	h.waitState("dn4", protocol.StateDown)
	took := h.waitFsck("what only the missing node has a third replica of is copied", whole)
	t.Logf("healthy without the missing node %s later, with %d copies", took.Round(time.Millisecond), h.copies())
	h.readAll()
}

// readReported reads the files of which each chunk lies on one of the nodes.
func (h *healing) readReported(nodes []string) {
	h.t.Helper()
	read := 0
	for _, path := range h.paths {
		there := !slices.ContainsFunc(h.file(path).Chunks, func(c protocol.LocatedChunk) bool {
			return !slices.ContainsFunc(c.Locations, func(l protocol.Target) bool { return slices.Contains(nodes, string(l.ID)) })
		})
		if !there {
			continue
		}
		read++
		if err := h.read(h.c, path); err != nil {
			h.t.Errorf("with %v back: %v", nodes, err)
		}
	}
	h.t.Logf("with %v back, %d of %d files can be read", nodes, read, len(h.paths))
}

// untouched makes sure that each replica lies where it lay at first.
func (h *healing) untouched() {
	h.t.Helper()
	held := make(map[string]map[string]bool)
	for _, id := range h.b.DataNodes() {
		held[id] = make(map[string]bool)
		for _, path := range h.chunkFiles(id) {
			held[id][filepath.Base(path)] = true
		}
	}
	for _, path := range h.paths {
		for _, chunk := range h.file(path).Chunks {
			for _, l := range chunk.Locations {
				if !held[string(l.ID)][chunk.ID.String()] {
					h.t.Errorf("chunk %s of %s is gone from %s", chunk.ID, path, l.ID)
				}
			}
		}
	}
}

// TestFlappingDataNode: a DataNode comes and goes, for a little less than what
// makes it count as lost and for a little more. As long as the leader stays, no
// chunk is copied more than once for it: what is needed when it goes again is not
// given up.
func TestFlappingDataNode(t *testing.T) {
	h := newHealing(t, 4, nil)
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	h.readOnly = true // what is written meanwhile needs copies, too
	const flapper = "dn2"
	held := len(h.chunkFiles(flapper))
	term, copiedBefore := h.term(), h.copies()
	stop := h.traffic()
	for range 2 {
		h.b.Pause(flapper)
		h.waitState(flapper, protocol.StateSuspect)
		h.b.Continue(flapper)
		h.waitState(flapper, protocol.StateUp)
	}
	if copied := h.copies() - copiedBefore; copied > 0 {
		t.Errorf("%d chunks were copied because of a node that was suspect for a moment", copied)
	}
	for cycle := range faultbed.Count(t, "DFS_FAULT_FLAPS", 3) {
		h.b.Pause(flapper)
		h.waitState(flapper, protocol.StateDown)
		h.waitFsck("all chunks have their replicas without it", func(r protocol.FsckReply) bool { return r.Healthy })
		h.heartbeats(2, "dn1") // so that its absence is noticed
		h.b.Continue(flapper)
		h.waitState(flapper, protocol.StateUp)
		if cycle > 0 { // it is known now for coming and going, and what it holds is not relied on
			h.waitFsck("the surplus is gone", whole)
		}
		t.Logf("cycle %d: it held %d chunks at first; %d copies, %d trims so far", cycle+1, held, h.copies()-copiedBefore, h.trims())
	}
	stop()
	// Who comes and goes is what a leader knows, and the next one does not. On a
	// busy machine there may be a next one.
	elections := int(h.term() - term)
	if copied := h.copies() - copiedBefore; copied > held*(1+elections) {
		t.Errorf("%d copies were made for %d chunks, with %d elections", copied, held, elections)
	}
	h.waitFsck("nothing is left over", clean)
	h.readAll()
}

// term returns that of the leader.
func (h *healing) term() uint64 {
	h.t.Helper()
	reply, err := h.c.Leader(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return reply.Term
}

// trims sums up the replicas that DataNodes have given up because there were too
// many.
func (h *healing) trims() (count int) {
	h.t.Helper()
	for _, id := range h.b.DataNodes() {
		if h.b.Running(id) {
			count += int(h.metric(id, `dfs_datanode_orders_total{kind="trim",result="done"}`))
		}
	}
	return count
}
