package repair

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

const chunkSize = 100

// world is a cluster of DataNodes and files of one chunk each.
type world struct {
	now   time.Time
	nodes []fsm.Node
	files []fsm.File
	free  map[fsm.NodeNum]int64

	unreported map[replica]bool // known only from a commit
}

type replica struct {
	node  fsm.NodeNum
	chunk dfs.ChunkID
}

// newWorld has count nodes, all up and on one rack.
func newWorld(count int) *world {
	w := &world{free: make(map[fsm.NodeNum]int64), unreported: make(map[replica]bool)}
	for i := range count {
		num := fsm.NodeNum(i + 1)
		w.nodes = append(w.nodes, fsm.Node{
			Num: num, ID: dfs.NodeID(fmt.Sprintf("dn%d", num)), URL: fmt.Sprintf("http://dn%d:9000", num), Incarnation: 1, Writable: true, Inventoried: true,
		})
		w.free[num] = 1 << 30
	}
	return w
}

func (w *world) node(num fsm.NodeNum) *fsm.Node { return &w.nodes[num-1] }

func (w *world) set(liveness fsm.Liveness, nums ...fsm.NodeNum) *world {
	for _, num := range nums {
		w.node(num).Liveness = liveness
	}
	return w
}

func (w *world) racks(racks ...string) *world {
	for i, rack := range racks {
		w.nodes[i].Rack = rack
	}
	return w
}

// file adds a file of one chunk, which the nodes hold, and returns the chunk.
func (w *world) file(replication int, nums ...fsm.NodeNum) dfs.ChunkID {
	id := dfs.ChunkID(len(w.files) + 1)
	w.files = append(w.files, fsm.File{
		Entry:    fsm.Entry{Path: fmt.Sprintf("/f%d", id), Replication: replication},
		Contents: []fsm.Chunk{{ID: id, Size: chunkSize, Refs: 1, Replicas: nums}},
	})
	return id
}

func (w *world) chunk(id dfs.ChunkID) *fsm.Chunk { return &w.files[id-1].Contents[0] }

func (w *world) lookup(id dfs.ChunkID) (fsm.Chunk, bool) {
	if id == 0 || int(id) > len(w.files) {
		return fsm.Chunk{}, false
	}
	return *w.chunk(id), true
}

func (w *world) view() View {
	return View{Now: w.now, Nodes: w.nodes, Chunk: w.lookup, Reported: func(num fsm.NodeNum, id dfs.ChunkID) bool {
		return !w.unreported[replica{num, id}]
	}, Files: func(yield func(*fsm.File) bool) {
		for i := range w.files {
			if !yield(&w.files[i]) {
				return
			}
		}
	}}
}

func (w *world) survey() *Report { return Survey(w.view(), 1000, nil) }

func (w *world) placement(ledger *Ledger) []placement.Node {
	nodes := make([]placement.Node, len(w.nodes))
	for i, n := range w.nodes {
		nodes[i] = placement.Node{
			Num: uint32(n.Num), ID: n.ID, Rack: n.Rack, Live: n.Liveness == fsm.Up,
			Serving: n.Service == fsm.InService, Writable: n.Writable, Free: w.free[n.Num],
		}
		for _, c := range ledger.Ongoing() {
			if c.Target == n.Num {
				nodes[i].InFlight += c.Chunk.Size
			}
		}
	}
	return nodes
}

func wide() Limits { return Limits{PerTarget: 1000, PerSource: 1000, InCluster: 1000} }

func (w *world) plan(limits Limits, seed uint64) []Copy {
	ledger := NewLedger(time.Minute)
	return Plan(w.survey(), w.placement(ledger), ledger, limits, dice(seed))
}

func dice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// check makes sure of what must hold of every plan.
func (w *world) check(t *testing.T, plan []Copy, ledger *Ledger, limits Limits) {
	t.Helper()
	targets, sources := make(map[fsm.NodeNum]int), make(map[fsm.NodeNum]int)
	bytes := make(map[fsm.NodeNum]int64)
	all := slices.Concat(ledger.Ongoing(), plan)
	for _, c := range all {
		targets[c.Target]++
		sources[c.Sources[0]]++
		bytes[c.Target] += c.Chunk.Size
	}
	if len(all) > limits.InCluster {
		t.Fatalf("%d copies are under way, %d are allowed", len(all), limits.InCluster)
	}
	for _, n := range w.nodes {
		if targets[n.Num] > limits.PerTarget || sources[n.Num] > limits.PerSource || bytes[n.Num] > w.free[n.Num] {
			t.Fatalf("%s: %d copies to it (%d bytes), %d from it", n.ID, targets[n.Num], bytes[n.Num], sources[n.Num])
		}
	}
	for _, c := range plan {
		target := w.node(c.Target)
		if target.Liveness != fsm.Up || target.Service != fsm.InService || !target.Writable {
			t.Fatalf("a copy to %s, which is not to get any", target.ID)
		}
		if slices.Contains(w.chunk(c.Chunk.ID).Replicas, c.Target) {
			t.Fatalf("a copy of %s to %s, which has it", c.Chunk.ID, target.ID)
		}
		for _, num := range c.Sources {
			if w.node(num).Liveness == fsm.Down || !slices.Contains(w.chunk(c.Chunk.ID).Replicas, num) {
				t.Fatalf("a copy of %s from %s, which cannot give it", c.Chunk.ID, w.node(num).ID)
			}
		}
	}
}
