package reclaim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// world is a real state machine, fed with what a leader would propose, and
// the DataNodes 1, 2, ... as they report to it.
type world struct {
	t     *testing.T
	m     *fsm.Machine
	index uint64
	clock time.Time
	disks map[fsm.NodeNum]*disk
}

type disk struct {
	registration fsm.RegisterNode
	seq          uint64
	chunks       map[dfs.ChunkID]bool
}

// newWorld has count nodes, all up and empty.
func newWorld(t *testing.T, count int) *world {
	w := &world{t: t, m: fsm.New(nil), clock: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), disks: make(map[fsm.NodeNum]*disk)}
	for i := range count {
		d := &disk{chunks: make(map[dfs.ChunkID]bool), registration: fsm.RegisterNode{
			ID: dfs.NodeID(fmt.Sprintf("dn%d", i+1)), URL: fmt.Sprintf("http://dn%d:9000", i+1), Instance: fmt.Sprint("disk", i), Incarnation: 1,
		}}
		num := w.apply(&d.registration).Node
		w.disks[num] = d
		w.report(num, nil, nil)
	}
	return w
}

func (w *world) apply(c fsm.Command) fsm.Result {
	w.t.Helper()
	w.index++
	result, err := w.m.Apply(w.index, fsm.Encode(c, "", w.clock))
	if err != nil {
		w.t.Fatalf("%T: %v", c, err)
	}
	return result
}

func (w *world) state() *fsm.State { return w.m.Freeze() }

// report has a node say truthfully what it gained and lost.
func (w *world) report(num fsm.NodeNum, added, removed []dfs.ChunkID) {
	w.t.Helper()
	d := w.disks[num]
	for _, id := range added {
		d.chunks[id] = true
	}
	for _, id := range removed {
		delete(d.chunks, id)
	}
	d.seq++
	report := fsm.NodeReport{
		Node: num, Incarnation: d.registration.Incarnation, Seq: d.seq, Capacity: 1 << 40, Free: 1 << 39, Writable: true,
		Count: int64(len(d.chunks)), Added: added, Removed: removed,
	}
	for id := range d.chunks {
		report.Digest = report.Digest.Add(id)
	}
	w.apply(&fsm.Heartbeats{Reports: []fsm.NodeReport{report}})
}

// restart has a node register anew, which has not reported yet.
func (w *world) restart(num fsm.NodeNum) {
	w.t.Helper()
	d := w.disks[num]
	d.registration.Incarnation++
	d.seq = 0
	w.apply(&d.registration)
}

func (w *world) liveness(num fsm.NodeNum, liveness fsm.Liveness) {
	w.t.Helper()
	w.apply(&fsm.SetLiveness{Nodes: []fsm.NodeLiveness{{Node: num, Liveness: liveness}}})
}

func (w *world) path(text string) dfs.Path {
	w.t.Helper()
	path, err := dfs.ParsePath(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

// begin opens an upload of count chunks, for the nodes 1 and 2.
func (w *world) begin(path string, count int) (dfs.UploadID, []dfs.ChunkID) {
	w.t.Helper()
	targets := slices.Repeat([][]fsm.NodeNum{{1, 2}}, count)
	result := w.apply(&fsm.BeginUpload{Path: w.path(path), Replication: 2, ChunkSize: dfs.MinChunkSize, Targets: targets})
	ids := make([]dfs.ChunkID, count)
	for i := range ids {
		ids[i] = result.First + dfs.ChunkID(i)
	}
	return result.Upload, ids
}

func (w *world) commit(id dfs.UploadID, ids []dfs.ChunkID) {
	w.t.Helper()
	command := &fsm.Commit{Upload: id, Final: true}
	for _, id := range ids {
		command.Chunks = append(command.Chunks, fsm.StoredChunk{ID: id, Size: 1, Nodes: []fsm.NodeNum{1, 2}})
	}
	w.apply(command)
}

// write makes a file, which the nodes 1 and 2 report.
func (w *world) write(path string, count int) []dfs.ChunkID {
	w.t.Helper()
	upload, ids := w.begin(path, count)
	w.commit(upload, ids)
	w.report(1, ids, nil)
	w.report(2, ids, nil)
	return ids
}

func (w *world) remove(path string) {
	w.t.Helper()
	w.apply(&fsm.Delete{Path: w.path(path)})
}

// plan plans without any limit that matters, with all that is applied old
// enough.
func (w *world) plan() map[fsm.NodeNum][]dfs.ChunkID {
	return byNode(Plan(w.state(), w.index, NewLedger(time.Minute), wide(), new(Cursor)))
}

func wide() Limits { return Limits{Look: 1 << 30, PerNode: 1 << 30} }

func byNode(orders []Order) map[fsm.NodeNum][]dfs.ChunkID {
	found := make(map[fsm.NodeNum][]dfs.ChunkID)
	for _, o := range orders {
		found[o.Node] = o.Chunks
	}
	return found
}
