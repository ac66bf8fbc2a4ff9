package repair

import (
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestPlan(t *testing.T) {
	type nums = []fsm.NodeNum
	tests := []struct {
		name    string
		nodes   int
		set     func(*world)
		targets nums // of the copies, in order
	}{
		{"nothing to do", 3, func(w *world) { w.file(3, 1, 2, 3) }, nil},
		{"one is down", 4, func(w *world) { w.set(fsm.Down, 3).file(3, 1, 2, 3) }, nums{4}},
		{"a suspect one is no loss", 4, func(w *world) { w.set(fsm.Suspect, 3).file(3, 1, 2, 3) }, nil},
		{"no live replica", 4, func(w *world) { w.set(fsm.Down, 3).file(1, 3) }, nil},
		{"no node without it", 3, func(w *world) { w.set(fsm.Down, 3).file(3, 1, 2, 3) }, nil},
		{"suspects get nothing", 4, func(w *world) { w.set(fsm.Down, 3).set(fsm.Suspect, 4).file(3, 1, 2, 3) }, nil},
		{"no room", 4, func(w *world) { w.set(fsm.Down, 3).file(3, 1, 2, 3); w.free[4] = chunkSize - 1 }, nil},
		{"just room", 4, func(w *world) { w.set(fsm.Down, 3).file(3, 1, 2, 3); w.free[4] = chunkSize }, nums{4}},
		{"not writable", 4, func(w *world) { w.set(fsm.Down, 3).file(3, 1, 2, 3); w.node(4).Writable = false }, nil},
		{"draining", 4, func(w *world) { w.set(fsm.Down, 3).file(3, 1, 2, 3); w.node(4).Service = fsm.Draining }, nil},
		{"too many is left alone", 4, func(w *world) { w.file(1, 1, 2) }, nil},
		{"misplaced", 4, func(w *world) { w.racks("a", "a", "a", "b").file(2, 1, 2) }, nums{4}},
		{"misplaced, and no other rack has room", 4, func(w *world) { w.racks("a", "a", "a", "b").file(2, 1, 2); w.free[4] = 0 }, nil},
		{"misplaced, during a mass loss", 6, func(w *world) { w.racks("a", "a", "a", "b", "c", "d").set(fsm.Down, 3, 5, 6).file(2, 1, 2) }, nil},
		{"from a node that is to be emptied", 4, func(w *world) { w.node(3).Service = fsm.Draining; w.file(3, 1, 2, 3) }, nums{4}},
		{"from a node that is to be emptied, during a mass loss", 6, func(w *world) { w.set(fsm.Down, 4, 5).node(3).Service = fsm.Draining; w.file(3, 1, 2, 3) }, nil},
		{"never to the node that is to be emptied", 3, func(w *world) { w.node(3).Service = fsm.Draining; w.file(3, 1, 2, 3) }, nil},
		{
			"the rack of a node that is to be emptied is free", 5, func(w *world) {
				w.racks("a", "b", "c", "a", "c").node(3).Service = fsm.Draining
				w.file(3, 1, 2, 3)
			}, nums{5},
		},
		{
			"first what lacks, then what is to be emptied, then what is misplaced", 6, func(w *world) {
				w.racks("a", "a", "b", "a", "b", "b").set(fsm.Down, 5).node(3).Service = fsm.Draining
				w.set(fsm.Suspect, 2, 4)
				w.file(2, 1, 2)
				w.file(2, 1, 3)
				w.file(2, 1, 5)
			}, nums{6, 6, 6},
		},
		{"the other rack", 5, func(w *world) { w.racks("a", "a", "b", "b", "a").set(fsm.Down, 3).file(3, 1, 2, 3) }, nums{4}},
		{"one copy at a time", 5, func(w *world) { w.set(fsm.Down, 4, 5).file(4, 1); w.set(fsm.Up, 4, 5); w.set(fsm.Down, 2, 3, 4) }, nums{5}},
		{
			"room is given once", 4,
			func(w *world) {
				w.set(fsm.Down, 3).file(3, 1, 2, 3)
				w.file(3, 1, 2, 3)
				w.free[4] = 2*chunkSize - 1
			}, nums{4},
		},
		{
			"mass loss: only what has one replica left", 6,
			func(w *world) {
				w.set(fsm.Down, 4, 5, 6).file(3, 1, 2, 4)
				w.file(3, 4, 5, 3)
				w.file(2, 4, 5)
				w.node(1).Writable = false
			}, nums{2},
		},
	}
	for _, test := range tests {
		for seed := range uint64(10) {
			w := newWorld(test.nodes)
			test.set(w)
			plan := w.plan(wide(), seed)
			w.check(t, plan, NewLedger(time.Minute), wide())
			var targets nums
			for i, c := range plan {
				if i > 0 && c.Kind > plan[i-1].Kind {
					t.Fatalf("%s: %d before %d", test.name, plan[i-1].Kind, c.Kind)
				}
				targets = append(targets, c.Target)
			}
			if !slices.Equal(targets, test.targets) {
				t.Fatalf("%s: copies to %v, want %v", test.name, targets, test.targets)
			}
		}
	}
}

func TestFewestReplicasFirst(t *testing.T) {
	w := newWorld(5).set(fsm.Down, 5)
	for range 10 {
		w.file(3, 1, 2, 5)
	}
	single := w.file(3, 3, 5)
	w.chunk(single).Replicas = []fsm.NodeNum{3, 5}
	plan := w.plan(Limits{PerTarget: 10, PerSource: 10, InCluster: 3}, 1)
	if len(plan) != 3 || plan[0].Chunk.ID != single {
		t.Fatalf("%+v", plan)
	}
}

func TestSources(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(5).set(fsm.Down, 4).set(fsm.Suspect, 1)
		w.file(4, 1, 2, 3, 4)
		c := w.plan(wide(), seed)[0]
		if len(c.Sources) != 3 || c.Sources[2] != 1 {
			t.Fatalf("sources %v: the suspect one is not the last", c.Sources)
		}
	}
	w := newWorld(3).set(fsm.Suspect, 1)
	w.file(2, 1)
	if plan := w.plan(wide(), 1); len(plan) != 1 || plan[0].Sources[0] != 1 {
		t.Fatalf("from the only source, a suspect one: %+v", plan)
	}
	// Of equals the one with less to do.
	w = newWorld(4)
	for range 10 {
		w.file(3, 1, 2)
	}
	from := make(map[fsm.NodeNum]int)
	for _, c := range w.plan(wide(), 1) {
		from[c.Sources[0]]++
	}
	if from[1] != 5 || from[2] != 5 {
		t.Errorf("10 copies come from %v", from)
	}
}

func TestCaps(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
		want   int
	}{
		{"per target", Limits{PerTarget: 4, PerSource: 1000, InCluster: 1000}, 8},
		{"per source", Limits{PerTarget: 1000, PerSource: 4, InCluster: 1000}, 8},
		{"in the cluster", Limits{PerTarget: 1000, PerSource: 1000, InCluster: 5}, 5},
		{"bytes per target", Limits{PerTarget: 1000, PerSource: 1000, InCluster: 1000, TargetBytes: 3*chunkSize - 1}, 6},
		{"none", wide(), 100},
	}
	for _, test := range tests {
		w := newWorld(5).set(fsm.Down, 5)
		for range 100 {
			w.file(3, 1, 2, 5) // sources 1 and 2, targets 3 and 4
		}
		plan := w.plan(test.limits, 1)
		w.check(t, plan, NewLedger(time.Minute), test.limits)
		if len(plan) != test.want {
			t.Errorf("%s: %d copies, want %d", test.name, len(plan), test.want)
		}
	}
}

// TestWhatIsUnderWayCounts plans again and again while nothing gets done.
func TestWhatIsUnderWayCounts(t *testing.T) {
	limits := Limits{PerTarget: 4, PerSource: 4, InCluster: 64}
	w := newWorld(6).set(fsm.Down, 6)
	for range 50 {
		w.file(3, 1, 2, 6)
	}
	ledger := NewLedger(time.Minute)
	now := time.Unix(0, 0)
	for seed := range uint64(5) {
		plan := Plan(w.survey(), w.placement(ledger), ledger, limits, dice(seed))
		w.check(t, plan, ledger, limits)
		ledger.Add(plan, now)
	}
	ongoing := make(map[dfs.ChunkID]int)
	for _, c := range ledger.Ongoing() {
		if ongoing[c.Chunk.ID]++; ongoing[c.Chunk.ID] > 1 {
			t.Fatalf("chunk %s lacks one replica and gets two", c.Chunk.ID)
		}
	}
	if len(ongoing) != 8 { // two sources with four each
		t.Errorf("%d copies are under way", len(ongoing))
	}
}

// TestRepairComesToAnEnd carries out what is planned, in a cluster that loses
// nodes at random, until nothing is left to do.
func TestRepairComesToAnEnd(t *testing.T) {
	limits := Limits{PerTarget: 4, PerSource: 4, InCluster: 64}
	for seed := range uint64(20) {
		random := dice(seed)
		w := newWorld(8).racks("a", "a", "a", "b", "b", "b", "c", "c")
		for range 200 {
			var holders []fsm.NodeNum
			for _, i := range random.Perm(8)[:1+random.IntN(3)] {
				holders = append(holders, fsm.NodeNum(i+1))
			}
			slices.Sort(holders)
			w.file(3, holders...)
		}
		w.set(fsm.Down, fsm.NodeNum(1+random.IntN(8)), fsm.NodeNum(1+random.IntN(8)))
		ledger := NewLedger(time.Minute)
		rounds := 0
		for report := w.survey(); report.Under > report.Missing; report = w.survey() {
			if rounds++; rounds > 1000 {
				t.Fatalf("seed %d: %d chunks still lack replicas after %d rounds", seed, report.Under-report.Missing, rounds)
			}
			plan := Plan(report, w.placement(ledger), ledger, limits, random)
			w.check(t, plan, ledger, limits)
			if len(plan) == 0 {
				t.Fatalf("seed %d: nothing is planned for %d chunks", seed, report.Under)
			}
			for _, c := range plan {
				chunk := w.chunk(c.Chunk.ID)
				chunk.Replicas = append(slices.Clone(chunk.Replicas), c.Target)
				slices.Sort(chunk.Replicas)
			}
		}
	}
}

func TestOutlook(t *testing.T) {
	tests := []struct {
		name string
		set  func(*world)
		want Outlook
	}{
		{"there is one", func(*world) {}, Possible},
		{"it is full", func(w *world) { w.free[4] = 0 }, NoRoom},
		{"it takes nothing", func(w *world) { w.node(4).Writable = false }, NoRoom},
		{"it is down", func(w *world) { w.set(fsm.Down, 4) }, NoNode},
		{"it is being drained", func(w *world) { w.node(4).Service = fsm.Draining }, NoNode},
		{"it is on another rack", func(w *world) { w.set(fsm.Up, 3).racks("a", "a", "a", "b") }, Possible},
		{"it is on another rack, and full", func(w *world) {
			w.set(fsm.Up, 3).racks("a", "a", "a", "b", "a").free[4] = 0
		}, NoRack},
	}
	for _, test := range tests {
		w := newWorld(5).set(fsm.Down, 3)
		w.set(fsm.Down, 5).file(3, 1, 2, 3)
		test.set(w)
		if w.node(1).Rack != "" {
			w.set(fsm.Up, 5)
		}
		if got := OutlookOf(&w.survey().Problems[0], w.placement(NewLedger(time.Minute)), dice(1)); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}
