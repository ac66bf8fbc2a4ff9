package repair

import (
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestSurvey(t *testing.T) {
	tests := []struct {
		name   string
		set    func(*world)
		want   Report // counts only
		kind   Kind
		live   []fsm.NodeNum
		lost   []fsm.NodeNum
		health bool
	}{
		{"no files", func(*world) {}, Report{}, 0, nil, nil, true},
		{"all is well", func(w *world) { w.file(3, 1, 2, 3) }, Report{Files: 1, Chunks: 1}, 0, nil, nil, true},
		{
			"one is down", func(w *world) { w.set(fsm.Down, 2).file(3, 1, 2, 3) },
			Report{Files: 1, Chunks: 1, Under: 1}, Under, []fsm.NodeNum{1, 3}, []fsm.NodeNum{2}, false,
		},
		{"a suspect one is live", func(w *world) { w.set(fsm.Suspect, 2).file(3, 1, 2, 3) }, Report{Files: 1, Chunks: 1}, 0, nil, nil, true},
		{
			"one is to be emptied", func(w *world) { w.node(1).Service = fsm.Draining; w.file(3, 1, 2, 3) },
			Report{Files: 1, Chunks: 1, Draining: 1}, Draining, []fsm.NodeNum{1, 2, 3}, nil, true,
		},
		{
			"one has been emptied and got something all the same", func(w *world) { w.node(1).Service = fsm.Drained; w.file(3, 1, 2, 3) },
			Report{Files: 1, Chunks: 1, Draining: 1}, Draining, []fsm.NodeNum{1, 2, 3}, nil, true,
		},
		{
			"one is to be emptied and another is down", func(w *world) { w.set(fsm.Down, 2).node(1).Service = fsm.Draining; w.file(3, 1, 2, 3) },
			Report{Files: 1, Chunks: 1, Under: 1}, Under, []fsm.NodeNum{1, 3}, []fsm.NodeNum{2}, false,
		},
		{
			"one is to be emptied and there are enough others", func(w *world) { w.node(1).Service = fsm.Draining; w.file(3, 1, 2, 3, 4) },
			Report{Files: 1, Chunks: 1, Over: 1}, Over, []fsm.NodeNum{1, 2, 3, 4}, nil, true,
		},
		{
			"the others are on one rack", func(w *world) {
				w.racks("c", "a", "a", "b").node(1).Service = fsm.Draining
				w.file(2, 1, 2, 3)
			},
			Report{Files: 1, Chunks: 1, Over: 1, Misplaced: 1}, Misplaced, []fsm.NodeNum{1, 2, 3}, nil, false,
		},
		{
			"never had enough", func(w *world) { w.file(3, 1, 2) },
			Report{Files: 1, Chunks: 1, Under: 1}, Under, []fsm.NodeNum{1, 2}, nil, false,
		},
		{
			"all are down", func(w *world) { w.set(fsm.Down, 1, 2).file(2, 1, 2) },
			Report{Files: 1, Chunks: 1, Under: 1, Missing: 1}, Missing, nil, []fsm.NodeNum{1, 2}, false,
		},
		{
			"no replica is left", func(w *world) { w.file(2) },
			Report{Files: 1, Chunks: 1, Under: 1, Missing: 1}, Missing, nil, nil, false,
		},
		{
			"one was damaged", func(w *world) { w.chunk(w.file(3, 1, 2)).Damaged = []fsm.NodeNum{3} },
			Report{Files: 1, Chunks: 1, Under: 1, Corrupt: 1}, Under, []fsm.NodeNum{1, 2}, nil, false,
		},
		{
			"one was damaged, but fewer are wanted now", func(w *world) { w.chunk(w.file(2, 1, 2)).Damaged = []fsm.NodeNum{3} },
			Report{Files: 1, Chunks: 1}, 0, nil, nil, true,
		},
		{
			"too many", func(w *world) { w.file(1, 1, 2) },
			Report{Files: 1, Chunks: 1, Over: 1}, Over, []fsm.NodeNum{1, 2}, nil, true,
		},
		{
			"too many, but only with the lost", func(w *world) { w.set(fsm.Down, 3).file(2, 1, 2, 3) },
			Report{Files: 1, Chunks: 1}, 0, nil, nil, true,
		},
		{
			"on one rack of two", func(w *world) { w.racks("a", "a", "b", "b").file(2, 1, 2) },
			Report{Files: 1, Chunks: 1, Misplaced: 1}, Misplaced, []fsm.NodeNum{1, 2}, nil, false,
		},
		{
			"on one rack, the other is down", func(w *world) { w.racks("a", "a", "b", "b").set(fsm.Down, 3, 4).file(2, 1, 2) },
			Report{Files: 1, Chunks: 1}, 0, nil, nil, true,
		},
		{"one replica needs one rack", func(w *world) { w.racks("a", "b").file(1, 1) }, Report{Files: 1, Chunks: 1}, 0, nil, nil, true},
		{
			"too many and on one rack", func(w *world) { w.racks("a", "a", "b").file(2, 1, 2, 4); w.node(4).Rack = "a" },
			Report{Files: 1, Chunks: 1, Over: 1, Misplaced: 1}, Misplaced, []fsm.NodeNum{1, 2, 4}, nil, false,
		},
		{
			"a replica without address cannot be read", func(w *world) { w.node(2).URL = ""; w.file(2, 1, 2) },
			Report{Files: 1, Chunks: 1, Under: 1}, Under, []fsm.NodeNum{1}, nil, false,
		},
	}
	for _, test := range tests {
		w := newWorld(4)
		test.set(w)
		got := w.survey()
		want := test.want
		want.InService, want.Down = got.InService, got.Down
		problems := got.Problems
		if counts := *got; counts.Healthy() != test.health {
			t.Errorf("%s: healthy is %v", test.name, counts.Healthy())
		}
		got.Problems = nil
		if got.Files != want.Files || got.Chunks != want.Chunks || got.Under != want.Under || got.Over != want.Over ||
			got.Missing != want.Missing || got.Corrupt != want.Corrupt || got.Misplaced != want.Misplaced || got.Draining != want.Draining {
			t.Errorf("%s: %+v; want %+v", test.name, *got, want)
		}
		if test.kind == 0 {
			if len(problems) != 0 {
				t.Errorf("%s: %+v", test.name, problems)
			}
			continue
		}
		if len(problems) != 1 || problems[0].Kind != test.kind || !slices.Equal(problems[0].Live, test.live) || !slices.Equal(problems[0].Lost, test.lost) {
			t.Errorf("%s: %+v; want kind %d, live %v, lost %v", test.name, problems, test.kind, test.live, test.lost)
			continue
		}
		if files := problems[0].Files; len(files) != 1 || files[0] != "/f1" {
			t.Errorf("%s: the files are %q", test.name, files)
		}
	}
}

// A chunk that several files share is one chunk, and the one that asks for most
// decides.
func TestSharedChunk(t *testing.T) {
	w := newWorld(4)
	for _, replication := range []int{2, 4, 1} {
		w.file(replication)
	}
	for i := range w.files {
		w.files[i].Contents = []fsm.Chunk{{ID: 7, Size: chunkSize, Refs: 3, Replicas: []fsm.NodeNum{1, 2}}}
	}
	report := w.survey()
	if report.Chunks != 1 || report.Files != 3 || report.Under != 1 || len(report.Problems) != 1 {
		t.Fatalf("%+v", report)
	}
	if p := report.Problems[0]; p.Wanted != 4 || !slices.Equal(p.Files, []string{"/f1", "/f2", "/f3"}) {
		t.Errorf("%+v", p)
	}
}

func TestWorstFirst(t *testing.T) {
	w := newWorld(4).set(fsm.Down, 4)
	over, two, missing, one := w.file(1, 1, 2), w.file(3, 1, 2), w.file(2, 4), w.file(3, 1)
	var order []dfs.ChunkID
	for _, p := range w.survey().Problems {
		order = append(order, p.Chunk.ID)
	}
	if want := []dfs.ChunkID{missing, one, two, over}; !slices.Equal(order, want) {
		t.Errorf("%v; want %v", order, want)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	w := newWorld(3)
	for range 50 {
		w.file(3, 1, 2)
	}
	worst := w.file(3, 1)
	report := Survey(w.view(), 10, nil)
	if report.Under != 51 || len(report.Problems) != 10 || !report.Truncated || report.Problems[0].Chunk.ID != worst {
		t.Fatalf("%d counted, %d listed, truncated %v", report.Under, len(report.Problems), report.Truncated)
	}
	seen := make(map[dfs.ChunkID]bool)
	for seed := range uint64(100) {
		for _, p := range Survey(w.view(), 10, dice(seed)).Problems {
			seen[p.Chunk.ID] = true
			if p.Files[0] != w.files[p.Chunk.ID-1].Path {
				t.Fatalf("chunk %s is said to be of %q", p.Chunk.ID, p.Files)
			}
		}
	}
	if len(seen) != 51 {
		t.Errorf("with chance only %d of 51 chunks ever came up", len(seen))
	}
	if report := Survey(w.view(), 51, nil); report.Truncated || len(report.Problems) != 51 {
		t.Errorf("all fit, but %d are listed, truncated %v", len(report.Problems), report.Truncated)
	}
}

func TestMassLoss(t *testing.T) {
	tests := []struct {
		nodes, down int
		want        bool
	}{
		{1, 0, false}, {1, 1, false}, {2, 1, false}, {2, 2, true}, {3, 1, false}, {3, 2, true},
		{6, 2, false}, {6, 3, true}, {5, 2, true}, {9, 3, false}, {10, 4, true},
	}
	for _, test := range tests {
		w := newWorld(test.nodes)
		for i := range test.down {
			w.set(fsm.Down, fsm.NodeNum(i+1))
		}
		if got := w.survey().MassLoss(); got != test.want {
			t.Errorf("%d of %d down: %v", test.down, test.nodes, got)
		}
	}
	w := newWorld(6).set(fsm.Down, 1, 2, 3)
	for _, num := range []fsm.NodeNum{1, 2, 3} {
		w.node(num).Service = fsm.Drained
	}
	if w.survey().MassLoss() {
		t.Error("nodes that were drained count as lost")
	}
}

// Nodes that were lost long ago do not make the next loss look like a
// partition.
func TestGoneForGood(t *testing.T) {
	w := newWorld(6).set(fsm.Down, 1, 2, 3)
	w.now = time.Unix(1e9, 0)
	for i := range w.nodes {
		w.nodes[i].LastHeartbeat = w.now.Add(-time.Minute)
	}
	if !w.survey().MassLoss() {
		t.Fatal("three of six at once are no mass loss")
	}
	w.node(1).LastHeartbeat, w.node(2).LastHeartbeat = w.now.Add(-25*time.Hour), w.now.Add(-1000*time.Hour)
	report := w.survey()
	if report.MassLoss() || report.InService != 4 || report.Down != 1 {
		t.Fatalf("two are long gone: %+v", report)
	}
	w.file(3, 1, 2, 4)
	if report := w.survey(); report.Under != 1 || len(report.Problems[0].Lost) != 2 {
		t.Errorf("what they held is lost all the same: %+v", report)
	}
}

// TestHopelessCrowdNobodyOut has more chunks that cannot be helped than a survey
// lists, all of a worse degree than those that can be.
func TestHopelessCrowdNobodyOut(t *testing.T) {
	const limit = 20
	tests := []struct {
		name     string
		hopeless func(*world)
	}{
		{"without a replica", func(w *world) { w.file(2, 4) }},
		{"more replicas wanted than there are nodes", func(w *world) { w.file(8, 1, 2, 3, 5) }},
	}
	for _, test := range tests {
		w := newWorld(5)
		for range 3 * limit {
			test.hopeless(w)
		}
		lacking := w.file(2, 1)
		drained := w.file(2, 2, 5)
		w.set(fsm.Down, 4).node(5).Service = fsm.Draining
		report := Survey(w.view(), limit, dice(1))
		if len(report.Problems) != limit || !report.Truncated {
			t.Errorf("%s: %d are listed, truncated %v", test.name, len(report.Problems), report.Truncated)
		}
		if !slices.IsSortedFunc(report.Problems, func(a, b Problem) int { return int(b.Kind) - int(a.Kind) }) {
			t.Errorf("%s: the worst are not first", test.name)
		}
		ledger := NewLedger(time.Minute)
		planned := make(map[dfs.ChunkID]bool)
		for _, c := range Plan(report, w.placement(ledger), ledger, wide(), dice(1)) {
			planned[c.Chunk.ID] = true
		}
		if !planned[lacking] || !planned[drained] {
			t.Errorf("%s: planned are %v, not both of %s, which lacks a replica, and %s, which is on a node to be emptied", test.name, planned, lacking, drained)
		}
	}
}
