package repair

import (
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxPaths bounds how many files are named for one chunk.
const maxPaths = 10

// goneAfter is how long a node is silent before it is taken for gone for good.
// It does not speak for a partition any more, or nodes that were lost one by
// one over the years would hold up repair for ever.
const goneAfter = 24 * time.Hour

// Kind is what is wrong with a chunk. The higher, the worse.
type Kind uint8

// The kinds.
const (
	Over      Kind = iota + 1 // more live replicas than wanted
	Misplaced                 // enough, on fewer racks than there could be
	Under                     // fewer live replicas than wanted, but at least one
	Missing                   // no live replica
)

// View is the part of the state that is surveyed.
type View struct {
	Now   time.Time // of the state's own clock
	Nodes []fsm.Node
	// Files yields every file that counts. What it yields is used only until
	// the next one.
	Files iter.Seq[*fsm.File]
}

// ViewOf returns the view of a state that does not change any more.
func ViewOf(s *fsm.State) View {
	return View{Now: s.Clock(), Nodes: s.Nodes(), Files: func(yield func(*fsm.File) bool) { s.Walk(yield) }}
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

	Problems  []Problem // the worst first
	Truncated bool      // there are more problems than are listed

	InService int // DataNodes, without those that are gone for good
	Down      int // of those
}

// Problem is one chunk that is not as it should be.
type Problem struct {
	Kind   Kind
	Chunk  fsm.Chunk
	Files  []string // paths, of the first few that use it
	Wanted int      // replicas: the most that one of its files asks for
	Live   []fsm.NodeNum
	Lost   []fsm.NodeNum // replicas on nodes that are down
}

// Healthy tells whether every file has all its replicas where they should be.
func (r *Report) Healthy() bool { return r.Under == 0 && r.Missing == 0 && r.Misplaced == 0 }

// MassLoss tells whether so many nodes are down at once that it is taken for a
// partition: most of them are likely to come back with all that they hold.
func (r *Report) MassLoss() bool { return r.Down >= 2 && 3*r.Down > r.InService }

// Survey looks at every chunk and lists at most limit problems of each degree,
// and at most limit in all. When there are more of one degree, random, if not
// nil, decides which, so that none is passed over for ever.
func Survey(view View, limit int, random *rand.Rand) *Report {
	s := &surveyor{
		limit: limit, random: random, nodes: make(map[fsm.NodeNum]fsm.Node, len(view.Nodes)),
		shared: make(map[dfs.ChunkID]*Problem), found: make(map[degree]*sample),
	}
	s.countNodes(view)
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

// sample is the problems of one degree that are listed, of all that were seen.
type sample struct {
	listed []Problem
	seen   int64
}

type surveyor struct {
	limit  int
	random *rand.Rand
	nodes  map[fsm.NodeNum]fsm.Node
	racks  int // that replicas could be spread over
	shared map[dfs.ChunkID]*Problem
	found  map[degree]*sample
	report Report
}

func (s *surveyor) countNodes(view View) {
	racks := make(map[string]bool)
	for _, n := range view.Nodes {
		s.nodes[n.Num] = n
		gone := n.Liveness == fsm.Down && view.Now.Sub(n.LastHeartbeat) > goneAfter
		if n.Service != fsm.InService || gone {
			continue
		}
		s.report.InService++
		if n.Liveness == fsm.Down {
			s.report.Down++
			continue
		}
		if n.URL != "" {
			racks[n.Rack] = true
		}
	}
	s.racks = len(racks)
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
	s.report.Chunks++
	p.Live, p.Lost = s.split(p.Chunk.Replicas)
	live := len(p.Live)
	if live < p.Wanted {
		s.report.Under++
		if len(p.Chunk.Damaged) > 0 {
			s.report.Corrupt++
		}
	}
	misplaced := live >= p.Wanted && s.spread(p.Live) < min(p.Wanted, s.racks)
	if live > p.Wanted {
		s.report.Over++
		p.Kind = Over
	}
	switch {
	case live == 0 && p.Wanted > 0:
		s.report.Missing++
		p.Kind = Missing
	case live < p.Wanted:
		p.Kind = Under
	case misplaced:
		s.report.Misplaced++
		p.Kind = Misplaced
	}
	if p.Kind != 0 {
		s.list(p, path)
	}
}

// split parts the replicas into those that answer and those whose node is
// down. A suspect node is only slow so far.
func (s *surveyor) split(replicas []fsm.NodeNum) (live, lost []fsm.NodeNum) {
	if s.allLive(replicas) {
		return replicas, nil // shared with the state, which never changes it
	}
	for _, num := range replicas {
		switch n, known := s.nodes[num]; {
		case !known || n.URL == "": // nobody could read from it
		case n.Liveness == fsm.Down:
			lost = append(lost, num)
		default:
			live = append(live, num)
		}
	}
	return live, lost
}

func (s *surveyor) allLive(replicas []fsm.NodeNum) bool {
	for _, num := range replicas {
		if n, known := s.nodes[num]; !known || n.URL == "" || n.Liveness == fsm.Down {
			return false
		}
	}
	return true
}

// spread counts the racks of the nodes.
func (s *surveyor) spread(nums []fsm.NodeNum) int {
	count := 0
	for i, num := range nums {
		again := slices.ContainsFunc(nums[:i], func(other fsm.NodeNum) bool {
			return s.nodes[other].Rack == s.nodes[num].Rack
		})
		if !again {
			count++
		}
	}
	return count
}

func (s *surveyor) list(p Problem, path string) {
	at := degree{p.Kind, len(p.Live)}
	group := s.found[at]
	if group == nil {
		group = new(sample)
		s.found[at] = group
	}
	group.seen++
	if p.Files == nil {
		p.Files = []string{path}
	}
	if len(group.listed) < s.limit {
		group.listed = append(group.listed, p)
		return
	}
	s.report.Truncated = true
	if s.random == nil {
		return
	}
	// Each problem stays with the same chance (Vitter's algorithm R).
	if i := s.random.Int64N(group.seen); i < int64(s.limit) {
		group.listed[i] = p
	}
}

func (s *surveyor) finish() *Report {
	degrees := make([]degree, 0, len(s.found))
	for d := range s.found {
		degrees = append(degrees, d)
	}
	slices.SortFunc(degrees, degree.compare)
	for _, d := range degrees {
		group := s.found[d]
		if s.random != nil { // the end of a group may be cut off
			s.random.Shuffle(len(group.listed), func(i, j int) {
				group.listed[i], group.listed[j] = group.listed[j], group.listed[i]
			})
		}
		s.report.Problems = append(s.report.Problems, group.listed...)
	}
	if len(s.report.Problems) > s.limit {
		s.report.Problems, s.report.Truncated = s.report.Problems[:s.limit], true
	}
	return &s.report
}

func sortedKeys(m map[dfs.ChunkID]*Problem) []dfs.ChunkID {
	ids := make([]dfs.ChunkID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
