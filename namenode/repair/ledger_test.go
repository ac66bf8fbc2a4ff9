package repair

import (
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func always(*Copy) bool { return true }

func TestOrdersAreGivenOnce(t *testing.T) {
	l := NewLedger(time.Minute)
	begin := time.Unix(1000, 0)
	l.Add([]Copy{
		{Chunk: fsm.Chunk{ID: 1}, Target: 4, Sources: []fsm.NodeNum{1}},
		{Chunk: fsm.Chunk{ID: 2}, Target: 5, Sources: []fsm.NodeNum{1}},
		{Chunk: fsm.Chunk{ID: 3}, Target: 4, Sources: []fsm.NodeNum{1}},
	}, begin)
	if l.Waiting(6) || !l.Waiting(4) || len(l.Take(6, 1, begin)) != 0 {
		t.Fatal("wrong node")
	}
	if got := l.Take(4, 1, begin); len(got) != 2 || got[0].Chunk.ID != 1 || got[1].Chunk.ID != 3 {
		t.Fatalf("%+v", got)
	}
	if l.Waiting(4) || len(l.Take(4, 1, begin)) != 0 {
		t.Fatal("given twice")
	}
	if got := len(l.Ongoing()); got != 3 {
		t.Fatalf("%d under way", got)
	}
	l.Settle(begin, func(c *Copy) bool { return c.Chunk.ID != 3 }, nil)
	if got := len(l.Ongoing()); got != 2 {
		t.Fatalf("%d under way after one was done", got)
	}
}

func TestOverdueCopies(t *testing.T) {
	l := NewLedger(time.Minute)
	begin := time.Unix(1000, 0)
	l.Add([]Copy{{Chunk: fsm.Chunk{ID: 1}, Target: 4, Sources: []fsm.NodeNum{1}}}, begin)
	if got := l.Settle(begin.Add(time.Minute-1), always, nil); len(got) != 0 || len(l.Ongoing()) != 1 {
		t.Fatalf("too early: %+v", got)
	}
	if got := l.Settle(begin.Add(time.Minute), always, nil); len(got) != 1 || len(l.Ongoing()) != 0 || l.Empty() {
		t.Fatalf("in time: %+v, %d under way", got, len(l.Ongoing()))
	}
	if l.Waiting(4) || len(l.Take(4, 1, begin)) != 0 {
		t.Fatal("an overdue order is given out")
	}
	if got := l.Settle(begin.Add(time.Minute+1), always, nil); len(got) != 0 {
		t.Fatalf("told twice: %+v", got)
	}
	if l.Settle(begin.Add(2*time.Minute), always, nil); !l.Empty() {
		t.Fatal("never forgotten")
	}
}

// TestTargetThatWillNot has a target show that it will not make a copy.
func TestTargetThatWillNot(t *testing.T) {
	begin := time.Unix(1000, 0)
	tests := []struct {
		name    string
		told    bool
		set     func(*fsm.Node)
		after   time.Duration
		overdue bool
	}{
		{"all is well", true, func(*fsm.Node) {}, 30 * time.Second, false},
		{"it is full before it was told", false, func(n *fsm.Node) { n.Writable = false }, 0, true},
		{"it lacks room for the chunk before it was told", false, func(n *fsm.Node) { n.Free = chunkSize - 1 }, 0, true},
		{"it is full, perhaps of the copy", true, func(n *fsm.Node) { n.Writable = false }, roomPatience - 1, false},
		{"it stays full", true, func(n *fsm.Node) { n.Writable = false }, roomPatience, true},
		{"it still lacks room for the chunk", true, func(n *fsm.Node) { n.Free = chunkSize - 1 }, roomPatience, true},
		{"it has just enough room", true, func(n *fsm.Node) { n.Free = chunkSize }, roomPatience, false},
		{"it has forgotten the order", true, func(n *fsm.Node) { n.Incarnation++ }, 0, true},
		{"it was started anew before it was told", false, func(n *fsm.Node) { n.Incarnation++ }, 0, false},
	}
	for _, test := range tests {
		w := newWorld(5).capacity(10, 10, 10, 10, 10).set(fsm.Down, 3)
		w.file(3, 1, 2, 3)
		l := NewLedger(time.Minute)
		l.Add(Plan(w.survey(), w.placement(l), l, wide(), dice(1)), begin)
		first := l.Ongoing()[0].Target
		if test.told {
			l.Take(first, 1, begin)
		}
		test.set(w.node(first))
		now := begin.Add(test.after)
		overdue := l.Settle(now, NeededIn(w.view()), TargetsIn(w.view()))
		if got := len(overdue) == 1 && overdue[0].Target == first && overdue[0].Reason != ""; got != test.overdue {
			t.Errorf("%s: overdue are %+v", test.name, overdue)
			continue
		}
		plan := Plan(w.survey(), w.placement(l), l, wide(), dice(1))
		if elsewhere := len(plan) == 1 && plan[0].Target != first; elsewhere != test.overdue {
			t.Errorf("%s: the next plan is %+v", test.name, plan)
		}
		if again := l.Settle(now, NeededIn(w.view()), TargetsIn(w.view())); len(again) != 0 {
			t.Errorf("%s: told twice: %+v", test.name, again)
		}
		if l.Settle(now.Add(2*time.Minute), NeededIn(w.view()), TargetsIn(w.view())); !l.Empty() {
			t.Errorf("%s: never forgotten", test.name)
		}
	}
}

// TestOverdueGoesElsewhere has a target that does not do what it is told.
func TestOverdueGoesElsewhere(t *testing.T) {
	begin := time.Unix(1000, 0)
	for seed := range uint64(20) {
		w := newWorld(5).set(fsm.Down, 3)
		w.file(3, 1, 2, 3)
		l := NewLedger(time.Minute)
		plan := func() Copy {
			t.Helper()
			copies := Plan(w.survey(), w.placement(l), l, wide(), dice(seed))
			if len(copies) != 1 {
				t.Fatalf("%+v", copies)
			}
			return copies[0]
		}
		first := plan()
		l.Add([]Copy{first}, begin)
		if again := Plan(w.survey(), w.placement(l), l, wide(), dice(seed)); len(again) != 0 {
			t.Fatalf("ordered twice: %+v", again)
		}
		l.Settle(begin.Add(time.Minute), always, nil)
		if second := plan(); second.Target == first.Target {
			t.Fatalf("again to %d", second.Target)
		}
		w.free[9-first.Target] = 0 // of nodes 4 and 5 the other
		if copies := Plan(w.survey(), w.placement(l), l, wide(), dice(seed)); len(copies) != 1 || copies[0].Target != first.Target {
			t.Fatalf("there is no other node, and yet: %+v", copies)
		}
	}
}

// stateWith makes a state with nodes, of which the named ones hold the only
// chunk of a file.
func stateWith(t *testing.T, count int, holders ...fsm.NodeNum) (*fsm.Machine, func(fsm.Command)) {
	t.Helper()
	m := fsm.New(nil)
	index := uint64(0)
	apply := func(c fsm.Command) {
		t.Helper()
		index++
		if _, err := m.Apply(index, fsm.Encode(c, "", time.Unix(1000, 0))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		id := dfs.NodeID([]string{"dn1", "dn2", "dn3", "dn4"}[i])
		apply(&fsm.RegisterNode{ID: id, URL: "http://" + string(id), Instance: "x", Incarnation: 1})
	}
	path, err := dfs.ParsePath("/d/f")
	if err != nil {
		t.Fatal(err)
	}
	apply(&fsm.BeginUpload{Path: path, Replication: 3, ChunkSize: 1024, Targets: [][]fsm.NodeNum{holders}})
	apply(&fsm.Commit{Upload: 1, Final: true, Chunks: []fsm.StoredChunk{{ID: 1, Size: 9, Nodes: holders}}})
	return m, apply
}

func TestNeededIn(t *testing.T) {
	down := func(num fsm.NodeNum) fsm.Command {
		return &fsm.SetLiveness{Nodes: []fsm.NodeLiveness{{Node: num, Liveness: fsm.Down}}}
	}
	added := func(num fsm.NodeNum) fsm.Command {
		return &fsm.Heartbeats{Reports: []fsm.NodeReport{{Node: num, Incarnation: 1, Seq: 1, Added: []dfs.ChunkID{1}}}}
	}
	path, err := dfs.ParsePath("/d/f")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		commands []fsm.Command
		want     bool
	}{
		{"nothing happened", nil, true},
		{"the target has it", []fsm.Command{added(3)}, false},
		{"another has it, so that there are enough", []fsm.Command{added(4)}, false},
		{"another has it, but one more is down", []fsm.Command{added(4), down(1)}, true},
		{"the target is to be emptied", []fsm.Command{&fsm.SetService{Node: 3, Service: fsm.Draining}}, false},
		{"another has it, but one is to be emptied", []fsm.Command{added(4), &fsm.SetService{Node: 1, Service: fsm.Draining}}, true},
		{"the target is down", []fsm.Command{down(3)}, false},
		{"the file is deleted", []fsm.Command{&fsm.Delete{Path: path}}, false},
	}
	for _, test := range tests {
		m, apply := stateWith(t, 4, 1, 2)
		for _, c := range test.commands {
			apply(c)
		}
		c := Copy{Chunk: fsm.Chunk{ID: 1}, Wanted: 3, Target: 3, Sources: []fsm.NodeNum{1}}
		if got := NeededIn(ViewOf(m.Freeze()))(&c); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	m, _ := stateWith(t, 2, 1, 2)
	if NeededIn(ViewOf(m.Freeze()))(&Copy{Chunk: fsm.Chunk{ID: 99}, Wanted: 3, Target: 1}) || NeededIn(ViewOf(m.Freeze()))(&Copy{Chunk: fsm.Chunk{ID: 1}, Wanted: 3, Target: 9}) {
		t.Error("a copy of what is not known")
	}
}

// TestNeededMoves is about copies of chunks that have enough replicas.
func TestNeededMoves(t *testing.T) {
	tests := []struct {
		name                string
		set                 func(*world)
		move, misplacedness bool // whether each is still needed
	}{
		{"nothing happened", func(*world) {}, true, true},
		{"the other rack has one", func(w *world) { w.put(1, 4) }, false, false},
		{"the node moved from has none", func(w *world) { w.drop(1, 1); w.put(1, 5) }, false, true},
		{"one is lacking", func(w *world) { w.drop(1, 1) }, true, true},
		{"one is too many", func(w *world) { w.put(1, 5) }, false, true},
		{"the target is down", func(w *world) { w.set(fsm.Down, 3) }, false, false},
		{"the target has it", func(w *world) { w.put(1, 3) }, false, false},
		{"the node moved from is to be emptied", func(w *world) { w.node(1).Service = fsm.Draining }, true, true},
	}
	for _, test := range tests {
		w := newWorld(5).racks("a", "a", "b", "b", "a")
		w.file(2, 1, 2)
		test.set(w)
		// For the move all is one rack, so that nothing is wrong with the chunk.
		misplaced := Copy{Chunk: *w.chunk(1), Kind: Misplaced, Wanted: 2, Target: 3, Sources: nums(1, 1)}
		if got := NeededIn(w.view())(&misplaced); got != test.misplacedness {
			t.Errorf("%s: on another rack is needed: %v", test.name, got)
		}
		w.racks("", "", "", "", "")
		move := Copy{Chunk: *w.chunk(1), From: 1, Wanted: 2, Target: 3, Sources: nums(1, 1)}
		if got := NeededIn(w.view())(&move); got != test.move {
			t.Errorf("%s: the move is needed: %v", test.name, got)
		}
	}
}

// The view of a real state is what the tables above assume.
func TestViewOf(t *testing.T) {
	m, apply := stateWith(t, 3, 1, 2)
	report := Survey(ViewOf(m.Freeze()), 10, nil)
	if report.Files != 1 || report.Chunks != 1 || report.Under != 1 || report.Problems[0].Files[0] != "/d/f" || report.InService != 3 {
		t.Fatalf("%+v", report)
	}
	path, err := dfs.ParsePath("/d")
	if err != nil {
		t.Fatal(err)
	}
	apply(&fsm.Delete{Path: path, Recursive: true})
	if report := Survey(ViewOf(m.Freeze()), 10, nil); report.Files != 0 || report.Chunks != 0 || !report.Healthy() {
		t.Fatalf("what was deleted counts: %+v", report)
	}
}
