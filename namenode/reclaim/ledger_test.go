package reclaim

import (
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestLedgerTellsOnce(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.write("/f", 5)
	w.remove("/f")
	ledger := NewLedger(time.Minute)
	ledger.Add([]Order{{Node: 1, Chunks: []dfs.ChunkID{ids[4], ids[0], ids[2], ids[1]}}}, time.Now())
	if !ledger.Waiting(1) || ledger.Waiting(2) || ledger.Empty() {
		t.Fatal("who is to be told is wrong")
	}
	if got := ledger.Take(w.state(), 2, 10); got != nil {
		t.Errorf("the other node is told %v", got)
	}
	if got := ledger.Take(w.state(), 1, 3); !slices.Equal(got, ids[:3]) {
		t.Errorf("first it is told %v", got)
	}
	if got := ledger.Take(w.state(), 1, 3); !slices.Equal(got, ids[4:]) {
		t.Errorf("then it is told %v", got)
	}
	if got := ledger.Take(w.state(), 1, 3); got != nil || ledger.Waiting(1) {
		t.Errorf("in the end it is told %v", got)
	}
}

// A lot happens between a plan and the heartbeat that fetches it.
func TestNothingIsTaken(t *testing.T) {
	tests := map[string]func(*world){
		"the node came back and has not shown what it holds": func(w *world) { w.restart(1) },
		"the node is suspect":                                func(w *world) { w.liveness(1, fsm.Suspect) },
		"the chunk has gone":                                 func(w *world) { w.report(1, nil, []dfs.ChunkID{1}) },
	}
	for name, happens := range tests {
		w := newWorld(t, 2)
		ids := w.write("/f", 1)
		w.remove("/f")
		ledger := NewLedger(time.Minute)
		ledger.Add([]Order{{Node: 1, Chunks: ids}}, time.Now())
		happens(w)
		if got := ledger.Take(w.state(), 1, 10); got != nil {
			t.Errorf("%s: told %v", name, got)
		}
	}
	ledger := NewLedger(time.Minute)
	ledger.Add([]Order{{Node: 9, Chunks: []dfs.ChunkID{1}}}, time.Now())
	if got := ledger.Take(newWorld(t, 1).state(), 9, 10); got != nil {
		t.Errorf("a node that is not known is told %v", got)
	}
}
