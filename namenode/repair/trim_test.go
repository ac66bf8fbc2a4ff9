package repair

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// ripe returns a sim in which surplus that is there now has been seen for long
// enough.
func ripe(t *testing.T, w *world) *sim {
	t.Helper()
	s := newSim(t, w, 1)
	s.survey()
	s.clock = s.clock.Add(s.delay)
	return s
}

func (s *sim) planTrims() []Trim { return PlanTrims(s.trimView(Refresh(s.survey(), s.view()))) }

// TestTrimConditions has a chunk with a replica too many on each of four nodes,
// and one thing that forbids to trim it.
func TestTrimConditions(t *testing.T) {
	tests := []struct {
		name     string
		set      func(*sim)
		want     int // trims
		obstacle Obstacle
	}{
		{"nothing forbids it", func(*sim) {}, 1, NoObstacle},
		{"there are not too many", func(s *sim) { s.w.files[0].Replication = 4 }, 0, NoObstacle},
		{"there are not too many live ones", func(s *sim) { s.w.set(fsm.Down, 2) }, 0, NoObstacle},
		{"one cannot be read", func(s *sim) { s.w.node(2).URL = "" }, 0, NoObstacle},
		{"a holder is suspect", func(s *sim) { s.w.set(fsm.Suspect, 2) }, 0, Silent},
		{"a holder's reports do not add up", func(s *sim) { s.w.node(2).Inventoried = false }, 0, NoInventory},
		{"a holder takes no orders", func(s *sim) { s.w.node(2).Incarnation = 0 }, 0, NoOrders},
		{"a holder has not reported it", func(s *sim) { s.w.unreported[replica{2, 1}] = true }, 0, Unreported},
		{"a node that does not hold it is suspect", func(s *sim) { s.w.set(fsm.Suspect, 5) }, 1, NoObstacle},
		{"so many are down that it may be a partition", func(s *sim) { s.w.set(fsm.Down, 5, 6, 7) }, 0, Partition},
		{"two are down", func(s *sim) { s.w.set(fsm.Down, 5, 6) }, 1, NoObstacle},
		{"a copy is under way", func(s *sim) {
			s.ledger.Add([]Copy{{Chunk: *s.w.chunk(1), Target: 5, Sources: nums(1, 1)}}, s.clock)
		}, 0, Copying},
		{"a copy has arrived, and the ledger does not know yet", func(s *sim) {
			s.ledger.Add([]Copy{{Chunk: *s.w.chunk(1), Target: 4, Sources: nums(1, 1)}}, s.clock)
		}, 1, NoObstacle},
		{"a copy is overdue and may still arrive", func(s *sim) {
			s.ledger.Add([]Copy{{Chunk: *s.w.chunk(1), Target: 5, Sources: nums(1, 1)}}, s.clock.Add(-70*time.Second))
			s.ledger.Settle(s.clock, always, nil)
		}, 0, Copying},
		{"it has just been seen", func(s *sim) { s.watch = NewWatch(5 * time.Second) }, 0, TooNew},
		{"it was not seen in between", func(s *sim) { s.watch.Note(nil, s.clock) }, 0, TooNew},
		{"a holder has come or gone meanwhile", func(s *sim) { s.changed[4] = s.clock.Add(-s.delay + 1) }, 0, Unsteady},
		{"a holder has come or gone before", func(s *sim) { s.changed[4] = s.clock.Add(-s.delay) }, 1, NoObstacle},
		{"a holder was not seen yet", func(s *sim) { delete(s.changed, 4) }, 0, Unsteady},
		{"a node that does not hold it comes and goes", func(s *sim) { s.changed[5] = s.clock }, 1, NoObstacle},
		{"a replica is being trimmed", func(s *sim) { s.trims.Add([]Trim{{Chunk: *s.w.chunk(1), Wanted: 3, Victim: 2, Incarnation: 1}}) }, 0, BeingTrimmed},
		{"one is on a node that is to be emptied, and needed until there is another", func(s *sim) {
			s.w.node(1).Service, s.w.node(2).Service = fsm.Draining, fsm.Draining
		}, 0, NoObstacle},
		{"the file is deleted", func(s *sim) { s.w.chunk(1).Refs = 0 }, 0, NoObstacle},
	}
	for _, test := range tests {
		w := newWorld(7)
		w.file(3, 1, 2, 3, 4)
		s := ripe(t, w)
		test.set(s)
		report := Refresh(s.survey(), s.view())
		if got := PlanTrims(s.trimView(report)); len(got) != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
		if len(report.Surplus) == 0 && test.obstacle != BeingTrimmed {
			continue
		}
		p := Problem{Chunk: *w.chunk(1), Wanted: 3}
		view := s.view()
		newFleet(&view).judge(&p)
		if got, _ := ObstacleTo(s.trimView(report))(&p); got != test.obstacle {
			t.Errorf("%s: the obstacle is %d, want %d", test.name, got, test.obstacle)
		}
	}
}

func TestVictim(t *testing.T) {
	tests := []struct {
		name string
		set  func(*sim)
		want fsm.NodeNum
	}{
		{"the fullest", func(s *sim) { s.w.use(2, 50*chunkSize) }, 2},
		{"the fullest by share", func(s *sim) {
			s.w.capacity(1000, 10, 1000, 1000)
			s.w.use(1, 50*chunkSize)
			s.w.use(2, 5*chunkSize)
		}, 2},
		{"copies on their way count", func(s *sim) {
			s.w.use(2, 50*chunkSize)
			for id := range dfs.ChunkID(60) {
				s.ledger.Add([]Copy{{Chunk: fsm.Chunk{ID: 100 + id, Size: chunkSize}, Target: 3, Sources: nums(1, 1)}}, s.clock)
			}
		}, 3},
		{"trims on their way count", func(s *sim) {
			s.w.use(2, 50*chunkSize)
			s.w.use(4, 30*chunkSize)
			for id := range dfs.ChunkID(25) {
				s.trims.Add([]Trim{{Chunk: fsm.Chunk{ID: 100 + id, Size: chunkSize}, Victim: 2}})
			}
		}, 4},
		{"before the fullest one that comes and goes", func(s *sim) { s.w.use(2, 50*chunkSize); s.flapping[3] = true }, 3},
		{"before that one of a rack with several", func(s *sim) { s.w.racks("a", "b", "c", "c"); s.flapping[2] = true; s.w.use(4, chunkSize) }, 4},
		{"of the rack with several the fullest", func(s *sim) { s.w.racks("a", "b", "c", "c"); s.w.use(3, 50*chunkSize) }, 3},
		{"before all the one that is to be emptied", func(s *sim) {
			s.w.racks("a", "b", "c", "c").use(3, 50*chunkSize)
			s.w.node(1).Service, s.flapping[2] = fsm.Draining, true
		}, 1},
		{"or has been", func(s *sim) { s.w.node(1).Service = fsm.Drained; s.w.use(3, chunkSize) }, 1},
	}
	for _, test := range tests {
		w := newWorld(4).capacity(1000, 1000, 1000, 1000)
		w.file(3, 1, 2, 3, 4)
		s := ripe(t, w)
		test.set(s)
		got := s.planTrims()
		if len(got) != 1 || got[0].Victim != test.want || got[0].Wanted != 3 || got[0].Incarnation != 1 {
			t.Errorf("%s: %+v, want %d", test.name, got, test.want)
			continue
		}
		s.trims.Add(got)
		taken := s.trims.Take(test.want, s.clock, KeepersIn(s.view()))
		others := slices.DeleteFunc(nums(1, 4), func(num fsm.NodeNum) bool { return num == test.want })
		if len(taken) != 1 || !slices.Equal(taken[0].Keepers, others) {
			t.Errorf("%s: %+v", test.name, taken)
		}
	}
}

func TestOneVictimAtATime(t *testing.T) {
	w := newWorld(5)
	w.file(2, 1, 2, 3, 4, 5)
	s := ripe(t, w)
	for left := 5; left > 2; left-- {
		if s.plan(); s.trims.Outstanding() != 1 {
			t.Fatalf("%d trims at %d replicas", s.trims.Outstanding(), left)
		}
		s.carryOut()
	}
	if s.plan(); s.trims.Outstanding() != 0 || len(w.chunk(1).Replicas) != 2 {
		t.Fatalf("%d trims, %v", s.trims.Outstanding(), w.chunk(1).Replicas)
	}
}

// A report that was not refreshed lists what may have been solved.
func TestNoTrimOfTheLastOnes(t *testing.T) {
	w := newWorld(4)
	w.file(3, 1, 2, 3, 4)
	s := ripe(t, w)
	report := s.survey()
	w.set(fsm.Down, 4)
	report.Surplus[0].Live, report.Surplus[0].Serving = nums(1, 3), nums(1, 3)
	if plan := PlanTrims(s.trimView(report)); len(plan) != 0 {
		t.Fatalf("%+v", plan)
	}
}

func TestTrimCap(t *testing.T) {
	w := newWorld(4).capacity(1000, 1000, 1000, 1000)
	for range 100 {
		w.put(w.file(2, 1, 2), 3)
	}
	w.use(3, 500*chunkSize)
	s := ripe(t, w)
	plan := s.planTrims()
	if len(plan) != maxTrims {
		t.Fatalf("%d trims at once", len(plan))
	}
	for _, trim := range plan {
		if trim.Victim != 3 {
			t.Fatalf("of %d, because the fullest has enough to do", trim.Victim)
		}
	}
	s.trims.Add(plan)
	if again := s.planTrims(); len(again) != 0 {
		t.Fatalf("%d more", len(again))
	}
}

// A doomed replica counts neither as wanted nor as a keeper.
func TestDoomedDoesNotCount(t *testing.T) {
	w := newWorld(6)
	w.file(3, 1, 2, 3, 4, 5)
	s := newSim(t, w, 1)
	s.trims.Add([]Trim{{Chunk: *w.chunk(1), Wanted: 3, Victim: 1, Incarnation: 1}})
	judged := func() *Problem {
		p, view := Problem{Chunk: *w.chunk(1), Wanted: 3}, s.view()
		newFleet(&view).judge(&p)
		return &p
	}
	if p := judged(); p.Kind != Over || !slices.Equal(p.Serving, nums(2, 5)) || !slices.Equal(p.Doomed, nums(1, 1)) || len(p.Live) != 5 {
		t.Fatalf("%+v", p)
	}
	w.set(fsm.Down, 2)
	if p := judged(); p.Kind != Over || p.trimmable() {
		t.Fatalf("one more may go: %+v", p)
	}
	w.node(3).Service = fsm.Draining
	if p := judged(); p.Kind != Draining {
		t.Fatalf("with the doomed there would be three in service: %+v", p)
	}
	for range 10 {
		if plan := w.planWith(s); len(plan) != 1 || plan[0].Target != 6 || plan[0].Sources[len(plan[0].Sources)-1] != 1 {
			t.Fatalf("%+v", plan)
		}
	}
	w.set(fsm.Down, 4) // now there is nothing too many any more: it is doomed no longer
	if p := judged(); p.Kind != Draining || len(p.Doomed) != 0 || !slices.Equal(p.Serving, []fsm.NodeNum{1, 5}) {
		t.Fatalf("%+v", p)
	}
	if s.settle(); s.trims.Outstanding() != 0 {
		t.Fatal("still doomed")
	}
}

func (w *world) planWith(s *sim) []Copy {
	return Plan(Refresh(s.survey(), s.view()), w.placement(s.ledger), s.ledger, wide(), s.random)
}

// TestTrimsAreKept is about the ledger: who is doomed stays so until it is over.
func TestTrimsAreKept(t *testing.T) {
	tests := []struct {
		name string
		set  func(*world)
		kept bool
	}{
		{"nothing happened", func(*world) {}, true},
		{"it is gone", func(w *world) { w.drop(1, 1) }, false},
		{"the victim was started anew", func(w *world) { w.node(1).Incarnation++ }, false},
		{"the victim is suspect", func(w *world) { w.set(fsm.Suspect, 1) }, true},
		{"the surplus is gone with another", func(w *world) { w.drop(1, 2) }, false},
		{"a keeper is down", func(w *world) { w.set(fsm.Down, 2) }, false},
		{"a keeper is suspect", func(w *world) { w.set(fsm.Suspect, 2) }, true},
		{"the file is deleted", func(w *world) { w.chunk(1).Refs = 0 }, false},
		{"more are wanted", func(w *world) { w.files[0].Replication = 4 }, false},
		{"fewer are wanted", func(w *world) { w.files[0].Replication = 2 }, true},
		{"the victim is to be emptied", func(w *world) { w.node(1).Service = fsm.Draining }, true},
	}
	for _, test := range tests {
		w := newWorld(5)
		w.file(3, 1, 2, 3, 4)
		s := newSim(t, w, 1)
		s.trims.Add([]Trim{{Chunk: *w.chunk(1), Wanted: 3, Victim: 1, Incarnation: 1}})
		test.set(w)
		s.survey()
		s.settle()
		if kept := s.trims.Outstanding() == 1; kept != test.kept {
			t.Errorf("%s: kept is %v", test.name, kept)
		}
		if doomed := s.trims.Doomed(); (doomed != nil) != test.kept {
			t.Errorf("%s: doomed", test.name)
		}
	}
}

// An order is given only as long as it would be given anew.
func TestTrimsAreGiven(t *testing.T) {
	tests := []struct {
		name    string
		set     func(*world)
		keepers []fsm.NodeNum // of the order; none: it is not given
	}{
		{"nothing happened", func(*world) {}, nums(2, 4)},
		{"there is one more", func(w *world) { w.put(1, 5) }, nums(2, 5)},
		{"a keeper is suspect", func(w *world) { w.set(fsm.Suspect, 2) }, nil},
		{"a keeper is suspect, but there is one more", func(w *world) { w.set(fsm.Suspect, 2).put(1, 5) }, nums(3, 5)},
		{"a keeper is to be emptied", func(w *world) { w.node(2).Service = fsm.Draining }, nil},
		{"a keeper's reports do not add up", func(w *world) { w.node(2).Inventoried = false }, nil},
		{"a keeper has not reported it", func(w *world) { w.unreported[replica{2, 1}] = true }, nil},
		{"a keeper is gone", func(w *world) { w.drop(1, 2) }, nil},
		{"it may be a partition", func(w *world) { w.set(fsm.Down, 5, 6, 7) }, nil},
	}
	for _, test := range tests {
		w := newWorld(7)
		w.file(3, 1, 2, 3, 4)
		s := newSim(t, w, 1)
		s.trims.Add([]Trim{{Chunk: *w.chunk(1), Wanted: 3, Victim: 1, Incarnation: 1}})
		test.set(w)
		taken := s.trims.Take(1, s.clock, KeepersIn(s.view()))
		var keepers []fsm.NodeNum
		if len(taken) == 1 {
			keepers = taken[0].Keepers
		}
		if !slices.Equal(keepers, test.keepers) {
			t.Errorf("%s: keepers %v, want %v", test.name, keepers, test.keepers)
		}
		if waiting := s.trims.Waiting(1, s.clock); waiting != (len(taken) == 0) {
			t.Errorf("%s: waiting is %v", test.name, waiting)
		}
	}
}

func TestTrimsAreRepeated(t *testing.T) {
	trims := NewTrims(15 * time.Second)
	for _, id := range []dfs.ChunkID{3, 1, 2} {
		trims.Add([]Trim{{Chunk: fsm.Chunk{ID: id}, Wanted: 1, Victim: 7}})
	}
	keepers := func(*Trim) []fsm.NodeNum { return nums(1, 2) }
	begin := time.Unix(1000, 0)
	if trims.Waiting(6, begin) || !trims.Waiting(7, begin) || len(trims.Take(6, begin, keepers)) != 0 {
		t.Fatal("wrong node")
	}
	for _, at := range []time.Duration{0, 15 * time.Second} {
		now := begin.Add(at)
		var order []dfs.ChunkID
		for _, trim := range trims.Take(7, now, keepers) {
			order = append(order, trim.Chunk.ID)
		}
		if fmt.Sprint(order) != "[0000000000000001 0000000000000002 0000000000000003]" {
			t.Fatalf("after %s: %v", at, order)
		}
		if soon := now.Add(15*time.Second - 1); trims.Waiting(7, soon) || len(trims.Take(7, soon, keepers)) != 0 {
			t.Fatal("told again too soon")
		}
	}
	never := func(*Trim) bool { return false }
	trims.Settle(begin, func(trim *Trim) bool { return trim.Chunk.ID == 2 }, never)
	if trims.Outstanding() != 1 || trims.Doomed()(1) != nil || !slices.Equal(trims.Doomed()(2), nums(7, 7)) {
		t.Fatalf("%+v", trims)
	}
}

// TestTrimsAreGivenUp: a replica is doomed as long as its victim may be carrying
// the order out, whatever else has changed.
func TestTrimsAreGivenUp(t *testing.T) {
	yes, no := func(*Trim) bool { return true }, func(*Trim) bool { return false }
	begin := time.Unix(1000, 0)
	tests := []struct {
		name           string
		told, after    time.Duration // from the beginning; told never if negative
		doomed, missed func(*Trim) bool
		gone, vain     bool
	}{
		{"all is well", 0, time.Minute, yes, no, false, false},
		{"it is gone, or there are not too many", 0, 0, no, no, true, false},
		{"it is missed and nobody was told", -1, 0, yes, yes, true, false},
		{"it is missed and may be going", 0, 15*time.Second - 1, yes, yes, false, false},
		{"it is missed and did not go", 0, 15 * time.Second, yes, yes, true, false},
		{"it did not go for long", 0, trimPatience - 1, yes, no, false, false},
		{"it did not go for too long", 0, trimPatience, yes, no, true, true},
		{"it did not go for too long, and may be going now", trimPatience - 1, trimPatience, yes, no, false, false},
		{"nobody could be told for too long", -1, trimPatience, yes, no, true, true},
	}
	for _, test := range tests {
		trims := NewTrims(15 * time.Second)
		trims.Add([]Trim{{Chunk: fsm.Chunk{ID: 1}, Wanted: 1, Victim: 7}})
		trims.Settle(begin, yes, no)
		if test.told >= 0 {
			trims.Take(7, begin.Add(test.told), func(*Trim) []fsm.NodeNum { return nums(1, 1) })
		}
		vain := trims.Settle(begin.Add(test.after), test.doomed, test.missed)
		if gone := trims.Outstanding() == 0; gone != test.gone || (len(vain) == 1) != test.vain {
			t.Errorf("%s: gone %v, in vain %+v", test.name, gone, vain)
		}
	}
}

// TestWatchIsBounded has more surplus than a survey lists: what is watched stays
// listed until its time has come, and then others have their turn.
func TestWatchIsBounded(t *testing.T) {
	w := newWorld(3)
	for range 100 {
		w.file(1, 1, 2)
	}
	watch, now := NewWatch(5*time.Second), time.Unix(1000, 0)
	look := func(seed uint64) map[dfs.ChunkID]bool {
		view := w.view()
		view.Watched = watch.Holds(now)
		report := Survey(view, 10, dice(seed))
		watch.Note(report.Surplus, now)
		if len(report.Surplus) != 10 || report.Over != 100 {
			t.Fatalf("%d listed of %d", len(report.Surplus), report.Over)
		}
		listed := make(map[dfs.ChunkID]bool)
		for _, p := range report.Surplus {
			listed[p.Chunk.ID] = true
		}
		return listed
	}
	first, seen := look(0), make(map[dfs.ChunkID]bool)
	for seed := range uint64(200) {
		now = now.Add(time.Minute)
		listed := look(seed)
		if seed < 8 && fmt.Sprint(listed) != fmt.Sprint(first) {
			t.Fatalf("%d minutes later others are watched", seed+1)
		}
		for id := range listed {
			seen[id] = true
		}
	}
	if len(seen) < 80 {
		t.Errorf("in 200 minutes only %d of 100 chunks had their turn", len(seen))
	}
}

// What has been solved since the survey is not planned for again.
func TestRefresh(t *testing.T) {
	w := newWorld(6).set(fsm.Down, 4)
	solved, open, deleted, surplus := w.file(3, 1, 2, 4), w.file(3, 1, 2, 4), w.file(3, 1, 2, 4), w.file(2, 1, 2, 3)
	report := w.survey()
	if len(report.Problems) != 4 || len(report.Surplus) != 1 {
		t.Fatalf("%+v", report)
	}
	w.put(solved, 5)
	w.put(open, 4)
	w.chunk(deleted).Refs = 0
	w.drop(surplus, 3)
	fresh := Refresh(report, w.view())
	if len(fresh.Problems) != 1 || fresh.Problems[0].Chunk.ID != open || len(fresh.Surplus) != 0 || fresh.Under != 3 {
		t.Fatalf("%+v", fresh)
	}
	if len(report.Problems) != 4 || len(report.Problems[0].Live) != 2 {
		t.Errorf("the report itself has changed: %+v", report)
	}
	if w.set(fsm.Down, 5, 6); !Refresh(report, w.view()).MassLoss() {
		t.Error("nodes that went down since do not show")
	}
}

// TestManyHolders: an order names no more nodes than a DataNode accepts, however
// many hold the chunk.
func TestManyHolders(t *testing.T) {
	w := newWorld(dfs.MaxReplication + 4)
	w.file(dfs.MaxReplication, nums(1, dfs.MaxReplication+3)...)
	s := ripe(t, w)
	s.trims.Add(s.planTrims())
	told := 0
	for _, num := range nums(1, dfs.MaxReplication+3) {
		for _, trim := range s.trims.Take(num, s.clock, KeepersIn(s.view())) {
			told++
			if len(trim.Keepers) != dfs.MaxReplication || slices.Contains(trim.Keepers, num) {
				t.Errorf("%d is to ask %v", num, trim.Keepers)
			}
		}
	}
	if told != 1 {
		t.Errorf("%d trims", told)
	}

	w = newWorld(2 * dfs.MaxReplication)
	w.file(dfs.MaxReplication, nums(1, dfs.MaxReplication+2)...)
	for _, num := range nums(1, 4) {
		w.node(num).Service = fsm.Draining
	}
	plan := w.plan(wide(), 1)
	if len(plan) != 1 || len(plan[0].Sources) != dfs.MaxReplication {
		t.Errorf("%+v", plan)
	}
}
