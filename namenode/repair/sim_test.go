package repair

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

// sim is a leader and its DataNodes, in steps of a second: what is ordered in
// one is done in the next.
type sim struct {
	t        *testing.T
	w        *world
	random   *rand.Rand
	clock    time.Time
	changed  map[fsm.NodeNum]time.Time
	ledger   *Ledger
	trims    *Trims
	watch    *Watch
	balancer *Balancer
	delay    time.Duration
	repairs  Limits
	moves    Limits
	flapping map[fsm.NodeNum]bool
	refuses  fsm.NodeNum // never confirms to keep its replica
	lossy    bool        // half of what is ordered is not done

	copied, moved, trimmed int // so far
}

func newSim(t *testing.T, w *world, seed uint64) *sim {
	begin := time.Unix(1000, 0)
	changed := make(map[fsm.NodeNum]time.Time)
	for i := range w.nodes {
		changed[w.nodes[i].Num] = begin.Add(-time.Hour)
	}
	return &sim{
		t: t, w: w, random: dice(seed), clock: begin, changed: changed,
		ledger: NewLedger(time.Minute), trims: NewTrims(15 * time.Second), watch: NewWatch(5 * time.Second), balancer: NewBalancer(4 * chunkSize),
		delay: 5 * time.Second, flapping: make(map[fsm.NodeNum]bool),
		repairs: Limits{PerTarget: 8, PerSource: 8, InCluster: 64}, moves: Limits{PerTarget: 2, PerSource: 4, InCluster: 8},
	}
}

func (s *sim) view() View {
	view := s.w.view()
	view.Doomed = s.trims.Doomed()
	return view
}

func (s *sim) trimView(report *Report) *TrimView {
	return &TrimView{
		View: s.view(), Report: report, Clock: s.clock, Delay: s.delay, Changed: s.changed, Watch: s.watch,
		Copies: s.ledger, Trims: s.trims, Flapping: func(num fsm.NodeNum) bool { return s.flapping[num] },
	}
}

// settle and plan do what the leader does with these.
func (s *sim) settle() {
	s.ledger.Settle(s.clock, NeededIn(s.view()), TargetsIn(s.view()))
	s.watch.Forget(s.trims.Settle(s.clock, DoomedIn(s.view()), MissedIn(s.view())))
}

func (s *sim) survey() *Report {
	view := s.view()
	view.Watched = s.watch.Holds(s.clock)
	view.Imbalance = s.balancer.Look(view, s.ledger, s.trims)
	report := Survey(view, 1000, s.random)
	s.watch.Note(report.Surplus, s.clock)
	s.trims.Want(report.WantedOf)
	return report
}

func (s *sim) plan() *Report {
	s.settle()
	report := Refresh(s.survey(), s.view())
	copies := Plan(report, s.w.placement(s.ledger), s.ledger, s.repairs, s.random)
	s.w.check(s.t, copies, s.ledger, s.repairs)
	s.ledger.Add(copies, s.clock)
	trims := PlanTrims(s.trimView(report))
	s.trims.Add(trims)
	moves := s.balancer.PlanMoves(s.trimView(report), s.w.placement(s.ledger), s.moves, s.random)
	if len(moves) > 0 && !s.lossy { // or what is left of repairs may be more than moves may be
		s.w.check(s.t, moves, s.ledger, s.moves)
	}
	s.ledger.Add(moves, s.clock)
	s.copied, s.moved, s.trimmed = s.copied+len(copies), s.moved+len(moves), s.trimmed+len(trims)
	return report
}

// carryOut does what was ordered, as DataNodes do.
func (s *sim) carryOut() {
	s.t.Helper()
	for i := range s.w.nodes {
		node := &s.w.nodes[i]
		if node.Liveness == fsm.Down {
			continue
		}
		for _, c := range s.ledger.Take(node.Num, node.Incarnation, s.clock) {
			if !s.lossy || s.random.IntN(2) == 0 {
				s.w.put(c.Chunk.ID, node.Num)
			}
		}
		for _, trim := range s.trims.Take(node.Num, s.clock, KeepersIn(s.view())) {
			s.obey(node.Num, &trim)
		}
	}
}

// obey removes a replica when enough keepers confirm theirs, and makes sure
// that it was right to ask.
func (s *sim) obey(victim fsm.NodeNum, trim *Trim) {
	s.t.Helper()
	if slices.Contains(trim.Keepers, s.refuses) || s.lossy && s.random.IntN(2) == 0 {
		return
	}
	held := s.w.chunk(trim.Chunk.ID).Replicas
	confirmed := 0
	for _, num := range trim.Keepers {
		if slices.Contains(held, num) && num != victim && !slices.Contains(s.trims.doomed[trim.Chunk.ID], num) {
			confirmed++
		}
	}
	if confirmed != len(trim.Keepers) || confirmed < trim.Wanted {
		s.t.Fatalf("of chunk %s, which %v hold, the replica on %d is to go, and %v are to keep theirs", trim.Chunk.ID, held, victim, trim.Keepers)
	}
	s.w.drop(trim.Chunk.ID, victim)
}

// step lets a second pass, in which all that is under way gets done.
func (s *sim) step() *Report {
	s.t.Helper()
	s.clock = s.clock.Add(time.Second)
	s.carryOut()
	return s.plan()
}

// run goes on until nothing is wrong and nothing has been ordered for many
// steps, or fails.
func (s *sim) run(limit int) {
	s.t.Helper()
	calm := 0
	for range limit {
		before := s.copied + s.moved + s.trimmed
		report := s.step()
		still := s.copied+s.moved+s.trimmed == before && s.ledger.Empty() && s.trims.Outstanding() == 0
		if still && report.Under == report.Missing && report.Over+report.Misplaced+report.Draining == 0 {
			calm++
		} else {
			calm = 0
		}
		if calm == 50 {
			return
		}
	}
	report := s.survey()
	report.Movable, report.Problems, report.Surplus = nil, nil, nil
	s.t.Fatalf("not at rest after %d steps: %d copies, %d moves, %d trims, fills %v, %+v", limit, s.copied, s.moved, s.trimmed, s.w.fills(), *report)
}

// put and drop change what a node holds, and how full it is.
func (w *world) put(id dfs.ChunkID, num fsm.NodeNum) {
	chunk := w.chunk(id)
	if slices.Contains(chunk.Replicas, num) {
		return
	}
	chunk.Replicas = append(slices.Clone(chunk.Replicas), num)
	slices.Sort(chunk.Replicas)
	w.use(num, chunkSize)
}

func (w *world) drop(id dfs.ChunkID, num fsm.NodeNum) {
	chunk := w.chunk(id)
	chunk.Replicas = slices.DeleteFunc(slices.Clone(chunk.Replicas), func(other fsm.NodeNum) bool { return other == num })
	w.use(num, -chunkSize)
}

func (w *world) use(num fsm.NodeNum, bytes int64) {
	w.node(num).Used += bytes
	w.node(num).Free -= bytes
	w.node(num).Chunks += bytes / chunkSize
	w.free[num] -= bytes
}

// capacity sets how many chunks each node has room for.
func (w *world) capacity(chunks ...int) *world {
	for i, count := range chunks {
		w.nodes[i].Free = int64(count) * chunkSize
		w.free[fsm.NodeNum(i+1)] = w.nodes[i].Free
	}
	return w
}

// fills is the used share of each node.
func (w *world) fills() []float64 {
	fills := make([]float64, len(w.nodes))
	for i := range w.nodes {
		fills[i] = float64(w.nodes[i].Used) / float64(max(1, w.nodes[i].Used+w.nodes[i].Free))
	}
	return fills
}

// fillUp adds chunks with the replication, spread at random over the nodes.
func (w *world) fillUp(count, replication int, random *rand.Rand, nums ...fsm.NodeNum) {
	for range count {
		id := w.file(replication)
		for range replication {
			target, ok := placement.Another(w.onlyThese(nums), chunkSize, numbers(w.chunk(id).Replicas), nil, random)
			if ok {
				w.put(id, fsm.NodeNum(target))
			}
		}
	}
}

func (w *world) onlyThese(nums []fsm.NodeNum) []placement.Node {
	return slices.DeleteFunc(w.placement(NewLedger(time.Minute)), func(n placement.Node) bool {
		return !slices.Contains(nums, fsm.NodeNum(n.Num))
	})
}

func nums(from, through int) (all []fsm.NodeNum) {
	for i := from; i <= through; i++ {
		all = append(all, fsm.NodeNum(i))
	}
	return all
}

// TestAllComesToRest has nodes go down, come back, be emptied, files want more
// and fewer replicas, in clusters with racks, and waits until all is well.
func TestAllComesToRest(t *testing.T) {
	for seed := range uint64(8) {
		random := dice(seed)
		w := newWorld(9).racks("a", "a", "a", "b", "b", "b", "c", "c", "c").capacity(400, 400, 400, 400, 400, 400, 400, 400, 400)
		w.fillUp(200, 3, random, nums(1, 9)...)
		s := newSim(t, w, seed)
		lost, drained := fsm.NodeNum(1+random.IntN(9)), fsm.NodeNum(1+random.IntN(9))
		w.set(fsm.Down, lost)
		for range random.IntN(30) {
			s.step()
		}
		w.node(drained).Service = fsm.Draining
		for range random.IntN(30) {
			s.step()
		}
		w.set(fsm.Up, lost)
		s.changed[lost] = s.clock
		for range 50 {
			w.files[random.IntN(len(w.files))].Replication = 2 + random.IntN(3)
		}
		s.run(3000)
		if node := w.node(drained); node.Chunks != 0 {
			t.Fatalf("seed %d: %d chunks are left on the node that was to be emptied", seed, node.Chunks)
		}
		for i := range w.files {
			if p := (Problem{Chunk: *w.chunk(dfs.ChunkID(i + 1)), Wanted: w.files[i].Replication}); len(p.Chunk.Replicas) != p.Wanted {
				t.Fatalf("seed %d: chunk %s is on %v, %d are wanted", seed, p.Chunk.ID, p.Chunk.Replicas, p.Wanted)
			}
		}
	}
}

// TestChaosComesToRest changes whatever can change, in any order, while half of
// what is ordered is not done, and then waits until all is well again.
func TestChaosComesToRest(t *testing.T) {
	for seed := range uint64(chaosSeeds) {
		random := dice(seed)
		count := 4 + random.IntN(5)
		w := newWorld(count)
		for i := range w.nodes {
			w.nodes[i].Rack = []string{"a", "b", "c"}[random.IntN(1+random.IntN(3))]
			w.nodes[i].Free, w.free[fsm.NodeNum(i+1)] = 100*chunkSize, 100*chunkSize
		}
		w.fillUp(40, 1+random.IntN(3), random, nums(1, count)...)
		s := newSim(t, w, seed)
		s.lossy = true
		for range 60 {
			s.shake(random)
			for range random.IntN(20) {
				s.step()
			}
		}
		s.lossy = false
		for i := range w.nodes {
			n := &w.nodes[i]
			n.Liveness, n.Writable, n.Inventoried = fsm.Up, true, true
			if n.Service == fsm.Draining && random.IntN(2) == 0 || n.Service == fsm.InService && random.IntN(5) == 0 {
				n.Service = fsm.Draining - n.Service
			}
		}
		staying := 0
		for i := range w.nodes {
			if w.nodes[i].Service == fsm.InService {
				staying++
			}
		}
		for ; staying < 3; staying++ {
			at := slices.IndexFunc(w.nodes, func(n fsm.Node) bool { return n.Service != fsm.InService })
			w.nodes[at].Service = fsm.InService
		}
		s.run(3000)
	}
}

const chaosSeeds = 25

// shake changes something.
func (s *sim) shake(random *rand.Rand) {
	num := fsm.NodeNum(1 + random.IntN(len(s.w.nodes)))
	node := s.w.node(num)
	switch random.IntN(9) {
	case 0:
		node.Liveness = fsm.Down
		s.changed[num] = s.clock
	case 1:
		node.Liveness = fsm.Suspect
		s.changed[num] = s.clock
	case 2, 3:
		node.Liveness = fsm.Up
		node.Incarnation++
		s.changed[num] = s.clock
	case 4:
		node.Service = fsm.Draining
	case 5:
		node.Service = fsm.InService
	case 6:
		node.Writable = !node.Writable
	case 7:
		for range 10 {
			s.w.files[random.IntN(len(s.w.files))].Replication = 1 + random.IntN(3)
		}
	case 8: // another leads
		fresh := newSim(s.t, s.w, random.Uint64())
		s.ledger, s.trims, s.watch, s.balancer = fresh.ledger, fresh.trims, fresh.watch, fresh.balancer
	}
}

// TestRackOfFewIsUsed moves chunks that all lie on one rack.
func TestRackOfFewIsUsed(t *testing.T) {
	for seed := range uint64(5) {
		w := newWorld(6).racks("a", "a", "a", "a", "b", "c").capacity(300, 300, 300, 300, 300, 300)
		w.fillUp(100, 3, dice(seed), nums(1, 4)...)
		s := newSim(t, w, seed)
		s.run(2000)
		if report := s.survey(); !report.Healthy() || report.Over != 0 {
			t.Fatalf("seed %d: %+v", seed, report)
		}
	}
}

// TestKeeperIsToBeEmptied: what is being trimmed is kept after all when a
// DataNode that was to keep the chunk is to be emptied and no other can take it.
func TestKeeperIsToBeEmptied(t *testing.T) {
	w := newWorld(4).capacity(100, 100, 100, 100)
	for range 10 {
		w.file(3, 1, 2, 3, 4)
	}
	s := ripe(t, w)
	s.trims.Add(s.planTrims()) // and nobody has been told
	victims := make(map[fsm.NodeNum]bool)
	s.trims.each(func(trim *Trim) { victims[trim.Victim] = true })
	if len(victims) != 4 {
		t.Fatalf("replicas are to go on %v", victims)
	}
	w.node(1).Service = fsm.Draining
	s.run(500)
	for i := range w.files {
		if chunk := w.chunk(dfs.ChunkID(i + 1)); slices.Contains(chunk.Replicas, 1) {
			t.Errorf("chunk %s is on %v", chunk.ID, chunk.Replicas)
		}
	}
}

// TestKeeperThatNeverConfirms: replicas that are not given up, whatever is
// ordered, do not keep others from being trimmed on the same node.
func TestKeeperThatNeverConfirms(t *testing.T) {
	w := newWorld(6).capacity(1000, 1000, 1000, 1000, 1000, 1000)
	for range 2 * maxTrims {
		w.file(2, 1, 2, 3) // of which 3 will not confirm
	}
	for range maxTrims {
		w.file(2, 1, 4, 5)
	}
	w.node(1).Service = fsm.Draining
	s := newSim(t, w, 1)
	s.refuses = 3
	for range 1000 {
		s.step()
	}
	for i := range w.files {
		chunk := w.chunk(dfs.ChunkID(i + 1))
		if refused := slices.Contains(chunk.Replicas, 3); slices.Contains(chunk.Replicas, 1) != refused {
			t.Fatalf("chunk %s is on %v", chunk.ID, chunk.Replicas)
		}
	}
}
