package repair

import (
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	maxPaths   = 10  // files named for one chunk
	maxMovable = 128 // chunks listed for balancing, of each node
)

// Kind is what is wrong with a chunk. The higher, the worse.
type Kind uint8

// The kinds.
const (
	Over      Kind = iota + 1 // more live replicas than wanted
	Draining                  // enough, but some on nodes that are being emptied
	Misplaced                 // enough, on fewer racks than there could be
	Under                     // fewer live replicas than wanted, but at least one
	Missing                   // no live replica
)

// View is the part of the state that is looked at, and what the leader knows
// beyond it. The functions may be nil unless they are said to be needed.
type View struct {
	Now   time.Time // of the state's own clock
	Nodes []fsm.Node
	// Files yields every file that counts; Survey needs it. What it yields is
	// used only until the next one.
	Files iter.Seq[*fsm.File]
	// Chunk returns a chunk as it is now; all but Survey need it.
	Chunk func(dfs.ChunkID) (fsm.Chunk, bool)
	// Reported tells whether the node itself reported the replica; trims need it.
	Reported func(fsm.NodeNum, dfs.ChunkID) bool

	Doomed    Doomed
	Watched   func(dfs.ChunkID) bool // surplus that is being watched is listed before any other
	Imbalance *Imbalance             // asks for chunks to move; nil for none
}

// ViewOf returns the view of a state that does not change any more.
func ViewOf(s *fsm.State) View {
	return View{
		Now: s.Clock(), Nodes: s.Nodes(), Files: func(yield func(*fsm.File) bool) { s.Walk(yield) },
		Chunk: s.Chunk, Reported: s.Reported,
	}
}

// Report is what a survey found. The counts are of chunks; one that is wrong
// in two ways counts in both.
type Report struct {
	Files     int64
	Chunks    int64
	Under     int64 // the missing ones included
	Over      int64
	Missing   int64
	Corrupt   int64 // too few replicas, and one of the lost was found damaged
	Misplaced int64
	Draining  int64

	Problems  []Problem // the worst first
	Truncated bool      // there are more problems than are listed

	// Surplus is chunks that have enough replicas in service and others besides.
	Surplus []Problem
	// Movable is, for each node that is too full, chunks which are as they should
	// be and which a node that is too empty lacks.
	Movable map[fsm.NodeNum][]Problem
	// WantedOf is, for each chunk with doomed replicas, how many are wanted now.
	WantedOf map[dfs.ChunkID]int

	InService int // DataNodes, without those that are gone for good
	Down      int // of those
}

// Problem is one chunk that is not as it should be.
type Problem struct {
	Kind    Kind
	Chunk   fsm.Chunk
	Files   []string // paths, of the first few that use it
	Wanted  int      // replicas: the most that one of its files asks for
	Live    []fsm.NodeNum
	Lost    []fsm.NodeNum // replicas on nodes that are down
	Serving []fsm.NodeNum // of the live ones: those that are to stay
	Doomed  []fsm.NodeNum // of the live ones: those that are being trimmed
}

// standing is how many live replicas can be counted on for now.
func (p *Problem) standing() int { return len(p.Live) - len(p.Doomed) }

// trimmable tells whether there is a replica too many.
func (p *Problem) trimmable() bool { return len(p.Serving) >= p.Wanted && p.standing() > p.Wanted }

// Healthy tells whether every file has all its replicas where they should be.
func (r *Report) Healthy() bool { return r.Under == 0 && r.Missing == 0 && r.Misplaced == 0 }

// MassLoss tells whether so many nodes are down at once that it is taken for a
// partition: most of them are likely to come back with all that they hold.
func (r *Report) MassLoss() bool { return massLoss(r.Down, r.InService) }

// Survey looks at every chunk and lists at most limit problems, of all degrees
// that there are. When there are more of one degree, random, if not nil, decides
// which, so that none is passed over for ever.
func Survey(view View, limit int, random *rand.Rand) *Report {
	s := &surveyor{
		fleet: newFleet(&view), view: &view, limit: limit, random: random,
		shared: make(map[dfs.ChunkID]*Problem), found: make(map[degree]*sample), movable: make(map[fsm.NodeNum]*sample),
	}
	s.report.WantedOf = make(map[dfs.ChunkID]int)
	s.report.InService, s.report.Down = s.fleet.inService, s.fleet.down
	for file := range view.Files {
		s.report.Files++
		for i := range file.Contents {
			s.visit(file, &file.Contents[i])
		}
	}
	for _, id := range sortedKeys(s.shared) {
		s.judge(*s.shared[id], "")
	}
	return s.finish()
}

// Refresh returns the report with its problems as they are now: those that are
// solved are left out. It does not find new ones, and the counts of chunks stay
// those of the survey.
func Refresh(report *Report, view View) *Report {
	f := newFleet(&view)
	fresh := *report
	fresh.InService, fresh.Down = f.inService, f.down
	fresh.Problems = f.again(report.Problems, &view, func(p *Problem) bool { return p.Kind > Over })
	fresh.Surplus = f.again(report.Surplus, &view, (*Problem).trimmable)
	return &fresh
}

func (f *fleet) again(problems []Problem, view *View, keep func(*Problem) bool) []Problem {
	kept := make([]Problem, 0, len(problems))
	for _, p := range problems {
		chunk, known := view.Chunk(p.Chunk.ID)
		if !known || chunk.Refs == 0 {
			continue
		}
		p.Chunk = chunk
		if f.judge(&p); keep(&p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// degree is how bad a problem is: by kind, then by how few replicas live.
type degree struct {
	kind Kind
	live int
}

func (d degree) compare(other degree) int {
	if d.kind != other.kind {
		return int(other.kind) - int(d.kind)
	}
	return d.live - other.live
}

// sample is a bounded choice of all problems that were seen.
type sample struct {
	listed []Problem
	seen   int64
}

// add takes p in, or, when there are limit already, lets random decide which
// one goes: each stays with the same chance (Vitter's algorithm R).
func (s *sample) add(p Problem, limit int, random *rand.Rand) {
	s.seen++
	if len(s.listed) < limit {
		s.listed = append(s.listed, p)
		return
	}
	if random == nil {
		return
	}
	if i := random.Int64N(s.seen); i < int64(limit) {
		s.listed[i] = p
	}
}

type surveyor struct {
	fleet   *fleet
	view    *View
	limit   int
	random  *rand.Rand
	shared  map[dfs.ChunkID]*Problem
	found   map[degree]*sample
	watched []Problem // surplus
	surplus sample
	movable map[fsm.NodeNum]*sample
	report  Report
}

// visit judges a chunk that one file uses, and keeps one that several use until
// all of them were seen.
func (s *surveyor) visit(file *fsm.File, chunk *fsm.Chunk) {
	if chunk.Refs <= 1 {
		s.judge(Problem{Chunk: *chunk, Wanted: file.Replication}, file.Path)
		return
	}
	p := s.shared[chunk.ID]
	if p == nil {
		p = &Problem{Chunk: *chunk}
		s.shared[chunk.ID] = p
	}
	p.Wanted = max(p.Wanted, file.Replication)
	if len(p.Files) < maxPaths && !slices.Contains(p.Files, file.Path) {
		p.Files = append(p.Files, file.Path)
	}
}

// judge decides what is wrong with the chunk of p, if anything. It belongs to
// the file at path unless p lists several.
func (s *surveyor) judge(p Problem, path string) {
	s.fleet.judge(&p)
	s.count(&p)
	if p.Kind == 0 {
		s.offer(&p)
		return
	}
	if p.Files == nil {
		p.Files = []string{path}
	}
	s.list(p)
	if p.trimmable() {
		if s.view.Watched != nil && len(s.watched) < s.limit && s.view.Watched(p.Chunk.ID) {
			s.watched = append(s.watched, p)
		} else {
			s.surplus.add(p, s.limit, s.random)
		}
	}
}

func (s *surveyor) count(p *Problem) {
	s.report.Chunks++
	if len(p.Live) > p.Wanted {
		s.report.Over++
	}
	if s.view.Doomed != nil && len(s.view.Doomed(p.Chunk.ID)) > 0 {
		s.report.WantedOf[p.Chunk.ID] = p.Wanted
	}
	switch p.Kind {
	case Missing, Under:
		s.report.Under++
		if len(p.Chunk.Damaged) > 0 {
			s.report.Corrupt++
		}
		if p.Kind == Missing {
			s.report.Missing++
		}
	case Misplaced:
		s.report.Misplaced++
	case Draining:
		s.report.Draining++
	}
}

// offer lists a chunk that is as it should be among those that could be moved.
func (s *surveyor) offer(p *Problem) {
	if s.view.Imbalance == nil || !s.view.Imbalance.lackedByEmpty(p.Live) {
		return
	}
	for _, num := range p.Live {
		if !s.view.Imbalance.full[num] {
			continue
		}
		if s.movable[num] == nil {
			s.movable[num] = new(sample)
		}
		s.movable[num].add(*p, maxMovable, s.random)
	}
}

func (s *surveyor) list(p Problem) {
	at := degree{p.Kind, len(p.Live)}
	group := s.found[at]
	if group == nil {
		group = new(sample)
		s.found[at] = group
	}
	group.add(p, s.limit, s.random)
}

func (s *surveyor) finish() *Report {
	degrees := make([]degree, 0, len(s.found))
	for d := range s.found {
		degrees = append(degrees, d)
	}
	slices.SortFunc(degrees, degree.compare)
	groups := make([]*sample, len(degrees))
	for i, d := range degrees {
		groups[i] = s.found[d]
		s.shuffle(groups[i].listed) // the end of a group may be cut off
	}
	for i, count := range shares(groups, s.limit) {
		s.report.Truncated = s.report.Truncated || groups[i].seen > int64(count)
		s.report.Problems = append(s.report.Problems, groups[i].listed[:count]...)
	}
	s.report.Surplus = append(s.watched, s.surplus.listed[:min(len(s.surplus.listed), s.limit-len(s.watched))]...)
	s.report.Movable = make(map[fsm.NodeNum][]Problem, len(s.movable))
	for num, group := range s.movable {
		s.shuffle(group.listed)
		s.report.Movable[num] = group.listed
	}
	return &s.report
}

// shares returns how many of each group are listed, the worst group first. What
// cannot be helped, such as chunks without any replica, must not keep out what
// can: so each group has an equal part, and what one leaves goes to the worst.
func shares(groups []*sample, limit int) []int {
	counts := make([]int, len(groups))
	left := limit
	for i, group := range groups {
		counts[i] = min(len(group.listed), limit/len(groups))
		left -= counts[i]
	}
	for i, group := range groups {
		more := min(len(group.listed)-counts[i], left)
		counts[i] += more
		left -= more
	}
	return counts
}

func (s *surveyor) shuffle(problems []Problem) {
	if s.random != nil {
		s.random.Shuffle(len(problems), func(i, j int) { problems[i], problems[j] = problems[j], problems[i] })
	}
}

func sortedKeys(m map[dfs.ChunkID]*Problem) []dfs.ChunkID {
	ids := make([]dfs.ChunkID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
