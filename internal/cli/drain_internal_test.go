package cli

import (
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func TestWhyStalled(t *testing.T) {
	on := func(stuck bool, action string, nodes ...dfs.NodeID) protocol.Problem {
		return protocol.Problem{Kind: protocol.ProblemDraining, Wanted: 3, Live: nodes, Stuck: stuck, Action: action}
	}
	elsewhere := on(true, "waiting for a DataNode with room", "dn1", "dn3")
	for name, test := range map[string]struct {
		problems  []protocol.Problem
		truncated bool
		chunks    int64
		want      string
	}{
		"stuck": {
			[]protocol.Problem{on(true, "x", "dn1", "dn2"), elsewhere, on(true, "x", "dn2")}, false, 7,
			"2 chunks need a DataNode with room that does not hold them: start another, or lower their replication with dfs setrep",
		},
		"one is stuck, another is not": {
			[]protocol.Problem{on(false, "a copy will be ordered soon", "dn2"), on(true, "x", "dn2")}, false, 7,
			"1 chunk needs a DataNode with room that does not hold it: start another, or lower its replication with dfs setrep",
		},
		"waiting for something else": {
			[]protocol.Problem{elsewhere, on(false, "waiting for the inventory of dn4", "dn2")}, false, 7, "7 chunks left; waiting for the inventory of dn4",
		},
		"not listed":           {[]protocol.Problem{elsewhere}, true, 7, "7 chunks left; dfs fsck tells what else has to be done"},
		"orphans":              {[]protocol.Problem{elsewhere}, false, 1, "1 chunk left, which belong"},
		"nothing, but uploads": {nil, false, 0, "no chunk is left; uploads"},
	} {
		report := &protocol.FsckReply{Problems: test.problems, Truncated: test.truncated}
		if got := whyStalled(report, &protocol.NodeInfo{ID: "dn2", Chunks: test.chunks}); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestNeeds(t *testing.T) {
	lost := func(wanted int, live ...dfs.NodeID) protocol.Problem {
		return protocol.Problem{Wanted: wanted, Live: live, Lost: []dfs.NodeID{"dn2"}}
	}
	for name, test := range map[string]struct {
		report protocol.FsckReply
		want   bool
	}{
		"nothing is wrong":     {protocol.FsckReply{}, false},
		"a replica is lacking": {protocol.FsckReply{Problems: []protocol.Problem{lost(3, "dn1", "dn3")}}, true},
		"it was the last":      {protocol.FsckReply{Problems: []protocol.Problem{lost(1)}}, true},
		"there are enough":     {protocol.FsckReply{Problems: []protocol.Problem{lost(1, "dn1", "dn3")}}, false},
		"not all are listed":   {protocol.FsckReply{Truncated: true}, true},
	} {
		if got := needs(&test.report, "dn2"); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
		if needs(&test.report, "dn7") && !test.report.Truncated {
			t.Errorf("%s: of another node", name)
		}
	}
}

func TestStateAndService(t *testing.T) {
	for want, n := range map[string]protocol.NodeInfo{
		"up":            {State: protocol.StateUp, Service: protocol.InService},
		"down":          {State: protocol.StateDown},
		"draining":      {State: protocol.StateDraining, Service: protocol.StateDraining},
		"down,draining": {State: protocol.StateDown, Service: protocol.StateDraining},
		"down,drained":  {State: protocol.StateDown, Service: protocol.StateDrained},
	} {
		if got := stateAndService(n); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
