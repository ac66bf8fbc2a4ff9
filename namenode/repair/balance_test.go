package repair

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// needed is how many chunks have to move at least.
func (w *world) needed() int {
	var used, total float64
	for _, n := range w.nodes {
		used, total = used+float64(n.Used), total+float64(n.Used+n.Free)
	}
	bytes := 0.0
	for _, n := range w.nodes {
		bytes += max(0, float64(n.Used)-used/total*float64(n.Used+n.Free))
	}
	return int(math.Ceil(bytes / chunkSize))
}

func TestBalance(t *testing.T) {
	type nums = []fsm.NodeNum
	tests := []struct {
		name        string
		capacity    []int // chunks
		racks       []string
		full        nums // nodes that the chunks lie on at first
		chunks      int
		replication int
		still       bool // there is nothing to do
	}{
		{"an empty node", []int{1000, 1000, 1000, 1000, 1000}, nil, nums{1, 2, 3, 4}, 1000, 3, false},
		{"two empty nodes", []int{1000, 1000, 1000, 1000, 1000, 1000}, nil, nums{1, 2, 3, 4}, 1000, 3, false},
		{"one replica each", []int{1000, 1000, 1000}, nil, nums{1, 2}, 600, 1, false},
		{"different capacities", []int{500, 1000, 1000, 2000, 3000}, nil, nums{1, 2, 3, 4}, 1300, 2, false},
		{
			"racks of one size", []int{1000, 1000, 1000, 1000, 1000, 1000}, []string{"a", "a", "b", "b", "c", "c"},
			nums{1, 3, 5}, 600, 3, false,
		},
		{
			"a second node for one rack", []int{1000, 1000, 1000, 1000}, []string{"a", "b", "c", "c"},
			nums{1, 2, 3}, 500, 2, false,
		},
		{"equally full", []int{1000, 1000, 1000, 1000}, nil, nums{1, 2, 3, 4}, 1000, 3, true},
		{"hardly anything to balance", []int{10000, 10000, 10000}, nil, nums{1, 2}, 5, 1, true},
	}
	for _, test := range tests {
		w := newWorld(len(test.capacity)).racks(test.racks...).capacity(test.capacity...)
		w.fillUp(test.chunks, test.replication, dice(1), test.full...)
		s := newSim(t, w, 1)
		before, needed := s.survey(), w.needed()
		if before.Under+before.Over > 0 {
			t.Fatalf("%s: not well at first: %+v", test.name, before)
		}
		s.run(5000)
		if test.still {
			if s.moved > 0 {
				t.Errorf("%s: %d chunks were moved", test.name, s.moved)
			}
			continue
		}
		t.Logf("%s: %d moves, %d are needed at least; fills %.3v", test.name, s.moved, needed, w.fills())
		if s.moved == 0 || s.moved > needed*13/10 || s.trimmed != s.moved {
			t.Errorf("%s: %d moves and %d trims; %d are needed", test.name, s.moved, s.trimmed, needed)
		}
		w.checkBalanced(t, test.name)
		if after := s.survey(); after.Under+after.Over+after.Misplaced != before.Misplaced {
			t.Errorf("%s: %+v", test.name, after)
		}
	}
}

func (w *world) checkBalanced(t *testing.T, name string) {
	t.Helper()
	var used, total float64
	for _, n := range w.nodes {
		used, total = used+float64(n.Used), total+float64(n.Used+n.Free)
	}
	for i, fill := range w.fills() {
		if mean := used / total; math.Abs(fill-mean) > startShare*mean {
			t.Errorf("%s: node %d is filled to %.3f, the mean is %.3f", name, i+1, fill, mean)
		}
	}
}

// TestNoBalance has a new node, and each time something that has to come first.
func TestNoBalance(t *testing.T) {
	tests := map[string]func(*sim){
		"nothing": func(*sim) {},
		"a chunk lacks a replica that it cannot get": func(s *sim) {
			s.w.file(5)
			s.w.chunk(dfs.ChunkID(len(s.w.files))).Replicas = nums(1, 4)
			s.w.use(5, 0)
			s.w.free[5] = 0
		},
		"a chunk is missing":                func(s *sim) { s.w.file(1) },
		"a node is suspect":                 func(s *sim) { s.w.set(fsm.Suspect, 2) },
		"a node is down and held nothing":   func(s *sim) { s.w.set(fsm.Down, 6) },
		"surplus cannot be trimmed for now": func(s *sim) { s.w.node(3).Inventoried = false; s.w.put(s.w.file(1, 3), 4) },
		"the node takes no orders":          func(s *sim) { s.w.node(5).Incarnation = 0 },
		"the node is full of other things":  func(s *sim) { s.w.node(5).Writable = false },
		"the node is to be emptied":         func(s *sim) { s.w.node(5).Service = fsm.Draining },
	}
	for name, change := range tests {
		w := newWorld(6).capacity(1000, 1000, 1000, 1000, 1000, 1)
		w.node(6).Free, w.free[6] = 0, 0
		w.fillUp(800, 3, dice(1), nums(1, 4)...)
		s := newSim(t, w, 1)
		change(s)
		for range 30 {
			s.step()
		}
		if moved := s.moved > 0; moved != (name == "nothing") {
			t.Errorf("%s: %d chunks were moved", name, s.moved)
		}
	}
}

// TestMovesInHandCount has trims wait for so long that all moves could be made
// meanwhile.
func TestMovesInHandCount(t *testing.T) {
	w := newWorld(3).capacity(1000, 1000, 1000)
	w.fillUp(300, 1, dice(1), 1, 2)
	s, needed := newSim(t, w, 1), w.needed()
	s.delay = 10 * time.Minute
	s.watch = NewWatch(s.delay)
	for range 500 {
		s.step()
	}
	if s.trimmed > 0 || s.moved == 0 || s.moved > needed {
		t.Fatalf("%d moves and %d trims; %d are needed", s.moved, s.trimmed, needed)
	}
	s.run(2000)
	if s.moved > needed*13/10 {
		t.Errorf("%d moves; %d are needed", s.moved, needed)
	}
}

// TestMovesAreFromTheVictim has a node that comes and goes, so that the trim
// would take its replica and not that of the fullest node.
func TestMovesAreFromTheVictim(t *testing.T) {
	w := newWorld(3).capacity(1000, 1000, 1000)
	w.fillUp(100, 2, dice(1), 1, 2)
	w.fillUp(100, 1, dice(1), 1)
	s := newSim(t, w, 1)
	s.flapping[2] = true
	for range 20 {
		s.step()
		for id, move := range s.balancer.moves {
			if move.From == 1 && slices.Contains(w.chunk(id).Replicas, 2) {
				t.Fatalf("a move of %s, which is on %v", id, w.chunk(id).Replicas)
			}
		}
	}
	if s.moved == 0 {
		t.Error("nothing was moved")
	}
}

// A chunk that is larger than what the nodes differ by stays where it is.
func TestNoMoveToAndFro(t *testing.T) {
	w := newWorld(2).capacity(10, 10)
	for i := range 9 {
		w.put(w.file(1), fsm.NodeNum(1+i%2))
	}
	s := newSim(t, w, 1)
	s.balancer = NewBalancer(0)
	s.run(200)
	if s.moved != 0 {
		t.Errorf("%d moves with 5 chunks on one node and 4 on the other", s.moved)
	}
}

// A node that is emptier than the rest by less than it takes to begin is not
// touched; once begun, balancing goes on until it is nearer than that.
func TestHysteresis(t *testing.T) {
	w := newWorld(3).capacity(1000, 1000, 1000)
	for i, count := range []int{310, 310, 280} { // the mean is 300
		for range count {
			w.put(w.file(1), fsm.NodeNum(i+1))
		}
	}
	s := newSim(t, w, 1)
	s.run(200)
	if s.moved != 0 {
		t.Fatalf("%d moves where no node is off by a tenth", s.moved)
	}
	for range 60 {
		w.put(w.file(1), 1)
	}
	s.run(500)
	if fills := w.fills(); s.moved == 0 || fills[0] > 0.32*(1+stopShare) || fills[2] < 0.32*(1-stopShare) {
		t.Errorf("%d moves, %v", s.moved, fills)
	}
}

// TestMovesKeepSpread has all emptiness on a rack that holds a replica of each
// chunk already.
func TestMovesKeepSpread(t *testing.T) {
	w := newWorld(4).racks("a", "b", "c", "c").capacity(600, 600, 600, 2000)
	w.fillUp(500, 3, dice(1), nums(1, 3)...)
	s := newSim(t, w, 1)
	for range 300 {
		if report := s.step(); report.Misplaced > 0 {
			t.Fatalf("%d chunks are on too few racks", report.Misplaced)
		}
	}
	if w.node(1).Used != 500*chunkSize || w.node(2).Used != 500*chunkSize {
		t.Errorf("the only nodes of their racks gave chunks up: %v", w.fills())
	}
	if w.node(3).Used >= 500*chunkSize || s.moved == 0 {
		t.Errorf("the node that could gave none up: %v", w.fills())
	}
}

// A new leader knows nothing of the moves of the one before.
func TestBalanceOverLeaders(t *testing.T) {
	w := newWorld(5).capacity(1000, 1000, 1000, 1000, 1000)
	w.fillUp(800, 3, dice(1), nums(1, 4)...)
	needed, moved := w.needed(), 0
	for seed := range uint64(10) {
		s := newSim(t, w, seed)
		for range 20 {
			s.step()
		}
		moved += s.moved
	}
	s := newSim(t, w, 99)
	s.run(3000)
	moved += s.moved
	w.checkBalanced(t, "after eleven leaders")
	if moved > needed*13/10 {
		t.Errorf("%d moves, %d are needed", moved, needed)
	}
}
