package namenode

import (
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/namenode/repair"
)

// TestWhoIsToBeEmptied: a replica that is being trimmed does not make its node
// one that is to be emptied.
func TestWhoIsToBeEmptied(t *testing.T) {
	d := &describer{report: new(repair.Report), locate: newLocator([]fsm.Node{
		{Num: 1, ID: "dn1"}, {Num: 2, ID: "dn2"}, {Num: 3, ID: "dn3", Service: fsm.Draining},
	})}
	action, _ := d.action(&repair.Problem{
		Kind: repair.Draining, Wanted: 2,
		Live: []fsm.NodeNum{1, 2, 3}, Serving: []fsm.NodeNum{1}, Doomed: []fsm.NodeNum{2},
	})
	if !strings.HasPrefix(action, "it is to leave dn3; ") {
		t.Errorf("%q", action)
	}
}
