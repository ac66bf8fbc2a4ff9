package namenode

import (
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// stockRig is a stock and a state machine that it is filled from.
type stockRig struct {
	*stock
	t     *testing.T
	m     *fsm.Machine
	index uint64
}

func newStockRig(t *testing.T) *stockRig {
	r := &stockRig{stock: newStock(time.Hour), t: t, m: fsm.New(nil)}
	for _, id := range []dfs.NodeID{"dn1", "dn2"} {
		r.apply(&fsm.RegisterNode{ID: id, URL: "http://" + string(id), Instance: string(id), Incarnation: 1})
	}
	return r
}

func (r *stockRig) apply(c fsm.Command) fsm.Result {
	r.t.Helper()
	r.index++
	result, err := r.m.Apply(r.index, fsm.Encode(c, "", time.UnixMilli(int64(r.index))))
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

func (r *stockRig) reserve(count int) fsm.Result {
	result := r.apply(&fsm.ReserveChunks{Count: count})
	r.add(result.Upload, result.First, result.Count)
	return result
}

// asked tells whether more was asked for since the last time.
func (r *stockRig) asked() bool {
	select {
	case <-r.wanted:
		return true
	default:
		return false
	}
}

func (r *stockRig) takeOne() (pool dfs.UploadID, id dfs.ChunkID, ok bool) {
	return r.take(r.m.Freeze(), []fsm.NodeNum{1, 2}, 1000)
}

func (r *stockRig) flight() (bytes map[fsm.NodeNum]int64) {
	bytes = make(map[fsm.NodeNum]int64)
	r.inFlight(r.m.Freeze(), func(num fsm.NodeNum, size int64) { bytes[num] += size })
	return bytes
}

func TestStock(t *testing.T) {
	r := newStockRig(t)
	if _, _, ok := r.takeOne(); ok || !r.asked() || r.asked() {
		t.Fatal("an empty stock does not ask for more, once")
	}
	first := r.reserve(stockLow + 1)
	if r.needed() {
		t.Error("more is needed than is low")
	}
	for i := range stockLow + 1 {
		pool, id, ok := r.takeOne()
		if !ok || pool != first.Upload || id != first.First+dfs.ChunkID(i) {
			t.Fatalf("%d: chunk %s of pool %s, %t", i, id, pool, ok)
		}
		if asked := r.asked(); asked != (i > 0) {
			t.Fatalf("%d: asked for more: %t", i, asked)
		}
	}
	if _, _, ok := r.takeOne(); ok {
		t.Fatal("there was one too many")
	}
	// Of two pools the older is used up first; one that has expired, not at all.
	second, third := r.reserve(2), r.reserve(2)
	if pool, _, _ := r.takeOne(); pool != second.Upload {
		t.Errorf("the first chunk comes from pool %s", pool)
	}
	r.apply(&fsm.ExpireUploads{Uploads: []fsm.ExpiredUpload{{Upload: second.Upload, Touched: 1 << 60}}})
	if pool, id, _ := r.takeOne(); pool != third.Upload || id != third.First {
		t.Errorf("chunk %s of pool %s", id, pool)
	}
	r.spans[0].until = time.Now().Add(-time.Second)
	if _, _, ok := r.takeOne(); ok {
		t.Error("a chunk was handed out that may expire before its client is done")
	}
}

// What a DataNode holds already, from a future that the namespace has lost, say,
// is handed out to nobody: two contents under one ID could not be told apart.
// Nor is what a file has got without asking.
func TestStockPassesOverWhatIsTaken(t *testing.T) {
	r := newStockRig(t)
	reserved := r.reserve(5)
	r.apply(&fsm.Heartbeats{Reports: []fsm.NodeReport{{Node: 1, Incarnation: 1, Seq: 1, Count: 2, Added: []dfs.ChunkID{reserved.First, reserved.First + 4}}}})
	path, err := dfs.ParsePath("/f")
	if err != nil {
		t.Fatal(err)
	}
	r.apply(&fsm.PutFile{
		Path: path, Replication: 2, ChunkSize: dfs.MinChunkSize, Pool: reserved.Upload,
		Chunk: fsm.StoredChunk{ID: reserved.First + 2, Size: 1, Nodes: []fsm.NodeNum{1, 2}},
	})
	for _, want := range []dfs.ChunkID{reserved.First + 1, reserved.First + 3} {
		if _, id, ok := r.takeOne(); !ok || id != want {
			t.Errorf("chunk %s, %t; want %s", id, ok, want)
		}
	}
	if _, id, ok := r.takeOne(); ok {
		t.Errorf("chunk %s was handed out, which a DataNode holds", id)
	}
	other := r.reserve(1)
	if _, id, _ := r.takeOne(); id != other.First {
		t.Errorf("chunk %s; want %s of the next pool", id, other.First)
	}
	if len(r.out) != 3 {
		t.Errorf("%d are remembered as handed out; want 3", len(r.out))
	}
}

// What was handed out counts as being on its way, until it is stored, or in a
// file, or its pool is given up.
func TestStockInFlight(t *testing.T) {
	r := newStockRig(t)
	pool := r.reserve(3).Upload
	older := r.m.Freeze()
	var ids []dfs.ChunkID
	for range 3 {
		_, id, _ := r.takeOne()
		ids = append(ids, id)
	}
	want := func(what string, first, second int64) {
		t.Helper()
		if got := r.flight(); got[1] != first || got[2] != second {
			t.Errorf("%s: %v bytes; want %d and %d", what, got, first, second)
		}
	}
	want("handed out", 3000, 3000)
	r.apply(&fsm.Heartbeats{Reports: []fsm.NodeReport{{Node: 1, Incarnation: 1, Seq: 1, Count: 2, Added: ids[:2]}}})
	want("one node reported two", 1000, 3000)
	path, err := dfs.ParsePath("/f")
	if err != nil {
		t.Fatal(err)
	}
	r.apply(&fsm.PutFile{
		Path: path, Replication: 2, ChunkSize: dfs.MinChunkSize, Pool: pool,
		Chunk: fsm.StoredChunk{ID: ids[2], Size: 1, Nodes: []fsm.NodeNum{1, 2}},
	})
	want("one became a file", 0, 2000)
	if len(r.out) != 2 {
		t.Errorf("%d are remembered; want those in no file", len(r.out))
	}
	r.inFlight(older, func(fsm.NodeNum, int64) {})
	want("an older state was asked", 0, 2000)
	r.apply(&fsm.ExpireUploads{Uploads: []fsm.ExpiredUpload{{Upload: pool, Touched: 1 << 60}}})
	if want("the pool was given up", 0, 0); len(r.out) != 0 {
		t.Errorf("%d are remembered of a pool that is over", len(r.out))
	}
}

// A state from before the pool does not make its chunks forgotten.
func TestStockMeetsOlderState(t *testing.T) {
	r := newStockRig(t)
	older := r.m.Freeze()
	r.reserve(1)
	r.takeOne()
	bytes := int64(0)
	r.inFlight(older, func(_ fsm.NodeNum, size int64) { bytes += size })
	if bytes != 2000 || r.flight()[1] != 1000 {
		t.Errorf("%d bytes by the older state, %v by the new one", bytes, r.flight())
	}
}
