package fsm

import (
	"fmt"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxBytesPerFile is what a file of one chunk may take in memory, the answers
// that are remembered for a while not counted. It took 158 when this was written.
const maxBytesPerFile = 200

// A million files must fit: the memory of a file is an interface to whoever buys
// the machine.
func TestFileTakesLittleMemory(t *testing.T) {
	const files = 20_000
	before := liveHeap()
	m := New(nil)
	r := &rig{t: t, m: m, now: epoch}
	r.nodes(3)
	nodes := []NodeNum{1, 2, 3}
	var digest dfs.Digest
	reports := make([]NodeReport, len(nodes))
	for i := range files {
		p := r.path(fmt.Sprintf("/albums/%04d/photo-%06d.jpg", i/1000, i))
		id := r.must(&BeginUpload{Path: p, Replication: 3, ChunkSize: 4 << 20, Targets: [][]NodeNum{nodes}}).First
		stored := []StoredChunk{{ID: id, Size: 1 << 20, Nodes: nodes}}
		r.must(&Commit{Upload: dfs.UploadID(i + 1), Chunks: stored, Final: true})
		digest = digest.Add(id)
		for j, num := range nodes {
			reports[j] = NodeReport{Node: num, Incarnation: 1, Seq: uint64(i + 1), Count: int64(i + 1), Digest: digest, Added: []dfs.ChunkID{id}}
		}
		if wanted := r.beat(reports...); wanted != nil {
			t.Fatalf("DataNodes %v do not agree", wanted)
		}
	}
	perFile := int64(liveHeap()-before) / files
	t.Logf("%d bytes a file", perFile)
	if perFile > maxBytesPerFile {
		t.Errorf("a file takes %d bytes of memory; at most %d were meant", perFile, maxBytesPerFile)
	}
	r.check()
}

// What a snapshot being written takes does not grow with the namespace, or the
// garbage collector would make Apply wait.
func TestWritingTakesNoMemory(t *testing.T) {
	r := newRig(t)
	r.nodes(3)
	for i := range 3000 {
		r.write(fmt.Sprintf("/%d/%d", i/1000, i), 1+i%3)
	}
	s := r.m.Freeze()
	allocations := testing.AllocsPerRun(3, func() {
		if err := s.WriteFiles(new(counter)); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteNodes(new(counter)); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 100 {
		t.Errorf("%v allocations for 3000 files", allocations)
	}
}
