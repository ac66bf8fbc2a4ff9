package namenode_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

// reserve asks for a chunk for a small file until one comes from the stock: at
// first there is none.
func (n *nameNode) reserve(request protocol.CreateRequest) (allocation protocol.Allocation) {
	n.t.Helper()
	request.NumChunks, request.Single = 1, true
	waitUntil(n.t, "a chunk comes from the stock", func() bool {
		allocation = protocol.Allocation{}
		n.must(http.MethodPost, "/files", request, &allocation)
		if allocation.Pool == 0 {
			n.must(http.MethodDelete, "/uploads/"+allocation.UploadID.String(), nil, nil)
		}
		return allocation.Pool != 0
	})
	return allocation
}

// send stores data as the chunk that was handed out and says so.
func send(nodes map[dfs.NodeID]*fakeDataNode, allocation protocol.Allocation, data string) *protocol.PutRequest {
	chunk := allocation.Chunks[0]
	stored := &protocol.CommittedChunk{ID: chunk.ID, Size: int64(len(data)), CRC32C: dfs.ChecksumOf([]byte(data))}
	for _, target := range chunk.Targets {
		nodes[target.ID].hold(chunk.ID, data)
		stored.Nodes = append(stored.Nodes, target.ID)
	}
	return &protocol.PutRequest{Path: allocation.Path, Pool: allocation.Pool, Base: allocation.Base, Chunk: stored}
}

// applied returns how far the log is applied.
func (n *nameNode) applied() uint64 {
	n.t.Helper()
	response, _ := n.raw(http.MethodGet, "/leader", nil)
	index, err := strconv.ParseUint(response.Header.Get(protocol.HeaderAppliedIndex), 10, 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return index
}

func lone(t *testing.T, change func(*namenode.Config)) *nameNode {
	t.Helper()
	config := testConfig(t, "nn1")
	config.Timing = quickTiming()
	if change != nil {
		change(&config)
	}
	n := open(t, config)
	n.waitLeads()
	return n
}

// TestSmallFileTakesOneEntry: the hand-out takes none, the put one.
func TestSmallFileTakesOneEntry(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	n.reserve(protocol.CreateRequest{Path: "/d/first"})
	before := n.applied()
	allocation := n.reserve(protocol.CreateRequest{Path: "/d/f"})
	if after := n.applied(); after != before {
		t.Errorf("a hand-out took %d entries", after-before)
	}
	if len(allocation.Chunks) != 1 || len(allocation.Chunks[0].Targets) != 3 || allocation.MinReplicas != 2 || allocation.Replication != 3 ||
		allocation.ChunkSize != dfs.DefaultChunkSize || allocation.UploadID != 0 || allocation.Base != 0 || allocation.Path != "/d/f" {
		t.Fatalf("%+v", allocation)
	}
	var put protocol.PutReply
	n.must(http.MethodPut, "/files", send(nodes, allocation, "some data"), &put)
	if put.Path != "/d/f" || put.Size != 9 || put.Replication != 3 {
		t.Errorf("%+v", put)
	}
	n.must(http.MethodPut, "/files", protocol.PutRequest{Path: "/d/empty", Replication: new(2)}, &put)
	if put.Path != "/d/empty" || put.Size != 0 || put.Replication != 2 {
		t.Errorf("%+v", put)
	}
	if after := n.applied(); after != before+2 {
		t.Errorf("two small files took %d entries", after-before)
	}
	var file protocol.File
	n.must(http.MethodGet, "/files?path=/d/f", nil, &file)
	if file.Size != 9 || len(file.Chunks) != 1 || len(file.Chunks[0].Locations) != 3 || file.Chunks[0].ID != allocation.Chunks[0].ID {
		t.Errorf("%+v", file)
	}
	if over := n.reserve(protocol.CreateRequest{Path: "/d/f", Overwrite: true}); over.Base != file.Inode {
		t.Errorf("inode %d stands there, and the base is %d", file.Inode, over.Base)
	}
	n.must(http.MethodPut, "/files", protocol.PutRequest{Path: "/d/f", Overwrite: true}, nil)
	if n.must(http.MethodGet, "/files?path=/d/f", nil, &file); file.Size != 0 || len(file.Chunks) != 0 {
		t.Errorf("an empty file in its place: %+v", file)
	}
}

// Refusals of a hand-out are those of an upload, and take nothing from the log.
func TestHandOutRefusals(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2")
	n.upload(nodes, "/d/f", "data")
	n.reserve(protocol.CreateRequest{Path: "/x"})
	before := n.applied()
	for body, want := range map[string]dfs.Code{
		`{"path":"/d/f","num_chunks":1,"single":true}`:                                              dfs.Exists,
		`{"path":"/d","num_chunks":1,"single":true,"overwrite":true}`:                               dfs.IsDirectory,
		`{"path":"/","num_chunks":1,"single":true}`:                                                 dfs.IsDirectory,
		`{"path":"/d/f/g","num_chunks":1,"single":true}`:                                            dfs.NotDirectory,
		`{"path":"/a/../b","num_chunks":1,"single":true}`:                                           dfs.Invalid,
		`{"path":"/a","num_chunks":1,"single":true,"replication":3}`:                                dfs.Invalid,
		`{"path":"/a","num_chunks":1,"single":true,"chunk_size":1}`:                                 dfs.Invalid,
		`{"path":"/a","num_chunks":1,"single":true,"exclude":["dn1"]}`:                              dfs.Unavailable,
		`{"path":"/a","num_chunks":1,"single":true,"exclude":["dn1"],"replication":1}`:              "",
		`{"path":"/` + strings.Repeat("a", dfs.MaxNameLength+1) + `","num_chunks":1,"single":true}`: dfs.Invalid,
	} {
		if _, failure := n.call(http.MethodPost, "/files", body, nil); failure.Code != want {
			t.Errorf("%.80s: %+v; want %q", body, failure, want)
		}
	}
	nodes["dn1"].beat(n, func(h *protocol.HeartbeatRequest) { h.Free = 100 })
	before++
	if _, failure := n.call(http.MethodPost, "/files", `{"path":"/a","num_chunks":1,"single":true}`, nil); failure.Code != dfs.NoSpace {
		t.Errorf("without room: %+v", failure)
	}
	if after := n.applied(); after != before {
		t.Errorf("the log has grown by %d more than the report", after-before)
	}
	// What is not for a file of one chunk is an upload.
	nodes["dn1"].beat(n)
	for _, count := range []int64{0, 2} {
		var allocation protocol.Allocation
		n.must(http.MethodPost, "/files", protocol.CreateRequest{Path: "/u", NumChunks: count, Single: true}, &allocation)
		if allocation.Pool != 0 || allocation.UploadID == 0 || int64(len(allocation.Chunks)) != count {
			t.Errorf("%d chunks: %+v", count, allocation)
		}
	}
}

// A leader whose disk is full hands nothing out: nobody should send a chunk for a
// file that will be refused, nor the stock make the log grow. What was put before
// is told to whoever asks again.
func TestFullLeaderHandsNothingOut(t *testing.T) {
	var full atomic.Bool
	n := lone(t, func(config *namenode.Config) {
		config.SetRoom(func() error {
			if full.Load() {
				return dfs.Errorf(dfs.NoSpace, "the disk is full")
			}
			return nil
		})
	})
	nodes := register(t, n, "dn1", "dn2")
	first, second := send(nodes, n.reserve(protocol.CreateRequest{Path: "/f"}), "data"), send(nodes, n.reserve(protocol.CreateRequest{Path: "/g"}), "data")
	n.must(http.MethodPut, "/files", first, nil, protocol.HeaderRequestID, "one")
	full.Store(true)
	before := n.applied()
	for range 600 { // more than there are in stock
		var allocation protocol.Allocation
		if _, failure := n.call(http.MethodPost, "/files", protocol.CreateRequest{Path: "/h", NumChunks: 1, Single: true}, &allocation); failure.Code != dfs.NoSpace {
			t.Fatalf("%+v, %+v", failure, allocation)
		}
	}
	if _, failure := n.call(http.MethodPut, "/files", second, nil); failure.Code != dfs.NoSpace {
		t.Errorf("a put: %+v", failure)
	}
	n.must(http.MethodPut, "/files", first, nil, protocol.HeaderRequestID, "one")
	if after := n.applied(); after != before {
		t.Errorf("the log has grown by %d", after-before)
	}
	full.Store(false)
	n.must(http.MethodPut, "/files", second, nil)
	n.reserve(protocol.CreateRequest{Path: "/h"})
}

func TestPutFileRefusals(t *testing.T) {
	const neverReserved = 1 << 50
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	n.upload(nodes, "/file", "data")
	for name, test := range map[string]struct {
		change func(*protocol.PutRequest)
		code   dfs.Code
	}{
		"no path":                  {func(r *protocol.PutRequest) { r.Path = "" }, dfs.Invalid},
		"root":                     {func(r *protocol.PutRequest) { r.Path = "/" }, dfs.IsDirectory},
		"exists":                   {func(r *protocol.PutRequest) { r.Path = "/file" }, dfs.Exists},
		"below a file":             {func(r *protocol.PutRequest) { r.Path = "/file/f" }, dfs.NotDirectory},
		"another base":             {func(r *protocol.PutRequest) { r.Base = 99 }, dfs.Conflict},
		"replication":              {func(r *protocol.PutRequest) { r.Replication = new(0) }, dfs.Invalid},
		"more than there are":      {func(r *protocol.PutRequest) { r.Replication = new(4) }, dfs.Invalid},
		"chunk size":               {func(r *protocol.PutRequest) { r.ChunkSize = new(int64(5)) }, dfs.Invalid},
		"larger than a chunk":      {func(r *protocol.PutRequest) { r.ChunkSize, r.Chunk.Size = new(int64(1024)), 1025 }, dfs.Invalid},
		"no pool":                  {func(r *protocol.PutRequest) { r.Pool = 0 }, dfs.Invalid},
		"another pool":             {func(r *protocol.PutRequest) { r.Pool = 99 }, dfs.Conflict},
		"no chunk":                 {func(r *protocol.PutRequest) { r.Chunk = nil }, dfs.Invalid},
		"base without a chunk":     {func(r *protocol.PutRequest) { r.Chunk, r.Pool, r.Base = nil, 0, 1 }, dfs.Invalid},
		"chunk of no size":         {func(r *protocol.PutRequest) { r.Chunk.Size = 0 }, dfs.Invalid},
		"chunk of another size":    {func(r *protocol.PutRequest) { r.Chunk.Size++ }, dfs.Invalid},
		"chunk of another content": {func(r *protocol.PutRequest) { r.Chunk.CRC32C++ }, dfs.Invalid},
		"chunk in stock, nowhere":  {func(r *protocol.PutRequest) { r.Chunk.ID++ }, dfs.Invalid},
		"chunk never reserved":     {func(r *protocol.PutRequest) { r.Chunk.ID = neverReserved }, dfs.Conflict},
		"chunk of a file":          {func(r *protocol.PutRequest) { r.Chunk.ID = n.firstChunk("/file") }, dfs.Conflict},
		"too few nodes":            {func(r *protocol.PutRequest) { r.Chunk.Nodes = r.Chunk.Nodes[:1] }, dfs.Invalid},
		"no nodes":                 {func(r *protocol.PutRequest) { r.Chunk.Nodes = nil }, dfs.Invalid},
		"too many nodes":           {func(r *protocol.PutRequest) { r.Chunk.Nodes = slices.Repeat(r.Chunk.Nodes, 6) }, dfs.Invalid},
		"node twice":               {func(r *protocol.PutRequest) { r.Chunk.Nodes = append(r.Chunk.Nodes, r.Chunk.Nodes[0]) }, dfs.Invalid},
		"stranger":                 {func(r *protocol.PutRequest) { r.Chunk.Nodes = append(r.Chunk.Nodes, "dn9") }, dfs.Invalid},
	} {
		allocation := n.reserve(protocol.CreateRequest{Path: "/new"})
		good, bad := send(nodes, allocation, "data"), send(nodes, allocation, "data")
		test.change(bad)
		for _, node := range nodes {
			node.hold(neverReserved, "data")
		}
		id := string(dfs.NewRequestID())
		for range 2 {
			if _, failure := n.call(http.MethodPut, "/files", bad, nil, protocol.HeaderRequestID, id); failure.Code != test.code {
				t.Errorf("%s: %+v; want %q", name, failure, test.code)
			}
		}
		n.must(http.MethodPut, "/files", good, nil) // a refusal spoils nothing
		n.must(http.MethodDelete, "/files?path=/new", nil, nil)
	}
}

// What a DataNode denies is refused for good: if the chunk turns up later, no try
// with the same request ID makes the file, because its client has begun again.
func TestDeniedChunkStaysRefused(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2")
	put := send(nodes, n.reserve(protocol.CreateRequest{Path: "/f"}), "data")
	nodes["dn1"].drop(put.Chunk.ID)
	if _, failure := n.call(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "one"); failure.Code != dfs.Invalid {
		t.Fatalf("%+v", failure)
	}
	nodes["dn1"].hold(put.Chunk.ID, "data")
	if _, failure := n.call(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "one"); failure.Code != dfs.Invalid {
		t.Fatalf("a refused request was carried out after all: %+v", failure)
	}
	n.must(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "two")
	n.must(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "two")
	if _, failure := n.call(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "three"); failure.Code != dfs.Exists {
		t.Fatalf("%+v", failure)
	}
	put.Path = "/g"
	if _, failure := n.call(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "four"); failure.Code != dfs.Conflict {
		t.Fatalf("two files got one chunk: %+v", failure)
	}
}

func TestUnreachableDataNodeAtPut(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	first, second := send(nodes, n.reserve(protocol.CreateRequest{Path: "/f"}), "data"), send(nodes, n.reserve(protocol.CreateRequest{Path: "/g"}), "data")
	nodes["dn1"].server.Close()
	n.must(http.MethodPut, "/files", first, nil)
	var file protocol.File
	if n.must(http.MethodGet, "/files?path=/f", nil, &file); len(file.Chunks[0].Locations) != 2 {
		t.Errorf("two replicas were confirmed, the file has %+v", file.Chunks[0].Locations)
	}
	nodes["dn2"].server.Close()
	response, _ := n.raw(http.MethodPut, "/files", encode(t, second))
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Errorf("with one confirmed replica: %s %v", response.Status, response.Header)
	}
}

// Many callers at once never get the same chunk, and the log grows by no more
// than what they need and the stock takes.
func TestCrowdAtTheStock(t *testing.T) {
	const callers, each = 100, 10
	nodes := group(t, nil)
	first := waitLeader(t, nodes)
	register(t, first, "dn1", "dn2", "dn3")
	caller := callerOf(t, nodes)
	first.reserve(protocol.CreateRequest{Path: "/warm"})
	before := first.applied()
	var mu sync.Mutex
	seen := make(map[dfs.ChunkID]string)
	begun := 0
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				path := fmt.Sprintf("/d/%d-%d", i, j)
				var allocation protocol.Allocation
				err := caller.Do(t.Context(), protocol.CreateFile, leader.Call{
					Body: protocol.CreateRequest{Path: path, NumChunks: 1, Single: true}, Out: &allocation,
				})
				if err != nil || len(allocation.Chunks) != 1 {
					t.Errorf("%s: %+v, %v", path, allocation, err)
					return
				}
				mu.Lock()
				if other, twice := seen[allocation.Chunks[0].ID]; twice {
					t.Errorf("%s and %s got chunk %s", other, path, allocation.Chunks[0].ID)
				}
				seen[allocation.Chunks[0].ID] = path
				if allocation.Pool == 0 {
					begun++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	grown := int(first.applied() - before)
	t.Logf("%d hand-outs took %d entries; %d came as uploads", callers*each, grown, begun)
	if begun > callers*each/2 || grown > begun+callers*each/100 {
		t.Errorf("%d hand-outs took %d entries; %d came as uploads", callers*each, grown, begun)
	}
}

// A chunk that was handed out by one leader becomes a file with the next, once,
// and that one hands out others.
func TestPutWithTheNextLeader(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	first := waitLeader(t, nodes)
	dataNodes := register(t, first, "dn1", "dn2")
	old := first.reserve(protocol.CreateRequest{Path: "/f"})
	put := send(dataNodes, old, "data")
	heir := others(nodes, first)[0]
	first.must(http.MethodPost, "/cluster/transfer", protocol.MemberRequest{ID: heir.ID()}, nil)
	waitUntil(t, "the heir leads", func() bool { return leaderOf(nodes) == heir })
	for _, d := range dataNodes {
		d.beat(heir)
	}
	fresh := heir.reserve(protocol.CreateRequest{Path: "/g"})
	if fresh.Pool == old.Pool || fresh.Chunks[0].ID <= old.Chunks[0].ID {
		t.Errorf("the old leader handed out %+v, the new one %+v", old, fresh)
	}
	for range 2 {
		heir.must(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "one")
	}
	if _, failure := first.call(http.MethodPut, "/files", put, nil, protocol.HeaderRequestID, "one"); failure.Code != dfs.NotLeader && failure.Code != dfs.Unavailable {
		t.Errorf("one that does not lead: %+v", failure)
	}
	heir.must(http.MethodPut, "/files", send(dataNodes, fresh, "other"), nil)
	if heir.firstChunk("/f") != old.Chunks[0].ID || heir.firstChunk("/g") != fresh.Chunks[0].ID {
		t.Error("the files have other chunks than those handed out")
	}
}

// A leader that may have been deposed does not say what it cannot know: that a
// file exists, say, which another leader may have deleted.
func TestLonelyLeaderRefusesNoFile(t *testing.T) {
	t.Parallel() // it waits
	nodes := group(t, nil)
	first := waitLeader(t, nodes)
	dataNodes := register(t, first, "dn1", "dn2")
	first.upload(dataNodes, "/f", "data")
	put := send(dataNodes, first.reserve(protocol.CreateRequest{Path: "/g"}), "data")
	for _, n := range others(nodes, first) {
		n.stop()
	}
	for _, body := range []string{`{"path":"/f","num_chunks":1,"single":true}`, `{"path":"/f/below","num_chunks":1,"single":true}`} {
		if _, failure := first.call(http.MethodPost, "/files", body, nil); failure.Code == dfs.Exists || failure.Code == dfs.NotDirectory || failure.Code == "" {
			t.Errorf("%s: %+v", body, failure)
		}
	}
	if status, failure := first.call(http.MethodPut, "/files", put, nil); status < 500 {
		t.Errorf("a put without a majority: %d %+v", status, failure)
	}
}

// A reservation that nobody comes back to ends like an upload, and the leader
// notices before it hands out more of it.
func TestStockExpires(t *testing.T) {
	t.Parallel() // it waits
	n := lone(t, func(config *namenode.Config) {
		config.UploadExpiry = 5 * time.Second // longer than it takes to look at the log
	})
	nodes := register(t, n, "dn1", "dn2")
	put := send(nodes, n.reserve(protocol.CreateRequest{Path: "/f"}), "data")
	before := n.applied()
	waitUntil(t, "the stock expires", func() bool { return n.applied() > before })
	if _, failure := n.call(http.MethodPut, "/files", put, nil); failure.Code != dfs.Conflict {
		t.Errorf("a put of what has expired: %+v", failure)
	}
	// The first one after that is an upload: there is nothing in stock.
	var allocation protocol.Allocation
	n.must(http.MethodPost, "/files", protocol.CreateRequest{Path: "/f", NumChunks: 1, Single: true}, &allocation)
	if allocation.Pool != 0 {
		t.Errorf("a chunk of a pool that has expired was handed out: %+v", allocation)
	}
}

// A DataNode is not empty while a chunk that was handed out may come to it.
func TestDrainWaitsForSmallFiles(t *testing.T) {
	f := quickFleet(t, patient, "dn1", "dn2", "dn3", "dn4")
	allocation := f.n.reserve(protocol.CreateRequest{Path: "/open"})
	put := send(f.nodes, allocation, "data")
	free := []dfs.NodeID{"dn1", "dn2", "dn3", "dn4"}
	free = slices.DeleteFunc(free, func(id dfs.NodeID) bool { return slices.Contains(put.Chunk.Nodes, id) })
	target := put.Chunk.Nodes[0]
	f.n.drain(target)
	f.n.drain(free[0])
	waitUntil(t, "the node without a chunk to come is drained", func() bool { f.obey(); return f.n.node(free[0]).State == protocol.StateDrained })
	if node := f.n.node(target); node.State != protocol.StateDraining {
		t.Fatalf("a small file is to put a chunk on it: %+v", node)
	}
	f.nodes[target].drop(put.Chunk.ID)
	put.Chunk.Nodes = put.Chunk.Nodes[1:] // it went elsewhere
	f.n.must(http.MethodPut, "/files", put, nil)
	waitUntil(t, "the other is drained, too", func() bool { f.obey(); return f.n.node(target).State == protocol.StateDrained })
}
