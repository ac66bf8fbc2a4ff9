package fsm

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestReserveChunks(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/f", 1)
	// A node holds 4 already, from a future that was lost: nobody gets it.
	r.beat(newDisk(1).report([]dfs.ChunkID{4}, nil))
	stock := r.reserve(3)
	if stock.pool == u.id || !slices.Equal(stock.chunks, []dfs.ChunkID{5, 6, 7}) {
		t.Fatalf("%+v", stock)
	}
	if other := r.reserve(2); other.pool == stock.pool || !slices.Equal(other.chunks, []dfs.ChunkID{8, 9}) {
		t.Fatalf("%+v", other)
	}
	if v := r.begin("/g", 1); v.chunks[0] != 10 || v.id == stock.pool {
		t.Fatalf("%+v", v)
	}
	s := r.m.Freeze()
	if _, chunks, uploads := s.Counts(); chunks != 2 || uploads != 2 {
		t.Errorf("%d chunks and %d uploads are counted; want 2 and 2", chunks, uploads)
	}
	if !s.PoolOpen(stock.pool) || s.PoolOpen(u.id) || s.PoolOpen(0) || s.PoolOpen(99) {
		t.Error("what is a pool is not known")
	}
	for _, count := range []int{0, dfs.MaxChunksPerAllocation} {
		_, err := r.apply(&ReserveChunks{Count: count})
		if want := count == 0; (dfs.CodeOf(err) == dfs.Invalid) != want {
			t.Errorf("%d: %v", count, err)
		}
	}
	d := &decoder{buf: []byte{0xff, 0xff, 1}}
	if new(ReserveChunks).decode(d); d.err == nil {
		t.Error("a count beyond the limit was decoded")
	}
}

// A pool is no upload: whoever works on uploads does not find it.
func TestPoolIsNoUpload(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	stock := r.reserve(2)
	u := r.begin("/f", 1)
	r.refused(dfs.NotFound, &AddChunks{Upload: stock.pool, Targets: [][]NodeNum{{1}}})
	r.refused(dfs.NotFound, &Commit{Upload: stock.pool, Chunks: stored(stock.chunks...), Final: true})
	r.refused(dfs.NotFound, &AbortUpload{Upload: stock.pool})
	r.refused(dfs.Invalid, &Commit{Upload: u.id, Chunks: stored(stock.chunks[0]), Final: true})
	wrong := stock.put("/g", u.chunks[0])
	wrong.Pool = u.id
	r.refused(dfs.Conflict, wrong)
}

func TestPutFile(t *testing.T) {
	r := newRig(t)
	r.nodes(3)
	stock := r.reserve(2)
	c := stock.put("/d/e/f", stock.chunks[1])
	if result := r.must(c); result.Path != "/d/e/f" || result.Size != c.Chunk.Size || result.Upload != 0 {
		t.Fatalf("%+v", result)
	}
	r.wantTree("/d", "/d/e", "/d/e/f")
	file := r.file("/d/e/f")
	if len(file.Contents) != 1 || file.Contents[0].ID != stock.chunks[1] || file.Size != c.Chunk.Size || file.Replication != 2 || file.ChunkSize != testChunkSize {
		t.Fatalf("%+v", file)
	}
	if got := file.Contents[0]; got.Checksum != c.Chunk.Checksum || got.Size != c.Chunk.Size || !slices.Equal(got.Replicas, []NodeNum{1, 2}) {
		t.Fatalf("%+v", got)
	}
	if _, chunks, _ := r.m.Freeze().Counts(); chunks != 1 {
		t.Errorf("%d chunks are counted; want that of the file", chunks)
	}
	r.must(stock.put("/g", stock.chunks[0]))
	if r.m.Freeze().PoolOpen(stock.pool) {
		t.Error("a pool of which nothing is left is open")
	}
}

func TestPutEmptyFile(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	empty := func(text string, overwrite bool) *PutFile {
		return &PutFile{Path: r.path(text), Replication: 2, ChunkSize: testChunkSize, Overwrite: overwrite}
	}
	if result := r.must(empty("/d/f", false)); result.Path != "/d/f" || result.Size != 0 {
		t.Fatalf("%+v", result)
	}
	if file := r.file("/d/f"); file.Size != 0 || len(file.Contents) != 0 || file.Replication != 2 {
		t.Fatalf("%+v", file)
	}
	r.refused(dfs.Exists, empty("/d/f", false))
	r.refused(dfs.IsDirectory, empty("/d", true))
	r.refused(dfs.IsDirectory, empty("/", true))
	r.refused(dfs.NotDirectory, empty("/d/f/g", true))
	old := r.write("/full", 2)
	r.must(empty("/full", true)) // whatever stands there
	if file := r.file("/full"); file.Size != 0 {
		t.Fatalf("%+v", file)
	}
	for _, id := range old {
		if c, _ := r.m.Freeze().chunks.Get(id); c.refs != 0 {
			t.Errorf("chunk %s of the file that was replaced is still referred to", id)
		}
	}
}

func TestPutFileRefusals(t *testing.T) {
	tests := []struct {
		name   string
		code   dfs.Code
		change func(*PutFile)
	}{
		{"root", dfs.IsDirectory, func(c *PutFile) { c.Path = dfs.Root }},
		{"a directory", dfs.IsDirectory, func(c *PutFile) { c.Path = c.Path.Parent() }},
		{"a directory, replacing", dfs.IsDirectory, func(c *PutFile) { c.Path, c.Overwrite = c.Path.Parent(), true }},
		{"below a file", dfs.NotDirectory, func(c *PutFile) { c.Path = mustJoin(t, mustJoin(t, dfs.Root, "h"), "f") }},
		{"exists", dfs.Exists, func(c *PutFile) { c.Path = mustJoin(t, dfs.Root, "h") }},
		{"no base", dfs.Conflict, func(c *PutFile) { c.Path, c.Overwrite = mustJoin(t, dfs.Root, "h"), true }},
		{"base of nothing", dfs.Conflict, func(c *PutFile) { c.Base = 3 }},
		{"replication 0", dfs.Invalid, func(c *PutFile) { c.Replication = 0 }},
		{"replication too high", dfs.Invalid, func(c *PutFile) { c.Replication = dfs.MaxReplication + 1 }},
		{"chunk size", dfs.Invalid, func(c *PutFile) { c.ChunkSize = 1 }},
		{"unknown pool", dfs.Conflict, func(c *PutFile) { c.Pool = 99 }},
		{"an upload for a pool", dfs.Conflict, func(c *PutFile) { c.Pool = 2 }},
		{"chunk of an upload", dfs.Conflict, func(c *PutFile) { c.Chunk.ID = 4 }},
		{"chunk of a file", dfs.Conflict, func(c *PutFile) { c.Chunk.ID = 5 }},
		{"chunk of a small file", dfs.Conflict, func(c *PutFile) { c.Chunk.ID = 1 }},
		{"chunk of another pool", dfs.Conflict, func(c *PutFile) { c.Chunk.ID = 6 }},
		{"chunk that was never reserved", dfs.Conflict, func(c *PutFile) { c.Chunk.ID = 1 << 40 }},
		{"chunk zero", dfs.Conflict, func(c *PutFile) { c.Chunk.ID = 0 }},
		{"size 0", dfs.Invalid, func(c *PutFile) { c.Chunk.Size = 0 }},
		{"size negative", dfs.Invalid, func(c *PutFile) { c.Chunk.Size = math.MinInt64 }},
		{"size too large", dfs.Invalid, func(c *PutFile) { c.Chunk.Size = testChunkSize + 1 }},
		{"no nodes", dfs.Invalid, func(c *PutFile) { c.Chunk.Nodes = nil }},
		{"too few nodes", dfs.Invalid, func(c *PutFile) { c.Chunk.Nodes = []NodeNum{1} }},
		{"too many nodes", dfs.Invalid, func(c *PutFile) { c.Chunk.Nodes = slices.Repeat([]NodeNum{1}, dfs.MaxReplication+1) }},
		{"unknown node", dfs.Invalid, func(c *PutFile) { c.Chunk.Nodes = []NodeNum{1, 9} }},
		{"node zero", dfs.Invalid, func(c *PutFile) { c.Chunk.Nodes = []NodeNum{0, 1} }},
		{"node twice", dfs.Invalid, func(c *PutFile) { c.Chunk.Nodes = []NodeNum{1, 2, 1} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(3)
			stock := r.reserve(3) // chunks 1 to 3 of pool 1
			r.begin("/g", 1)      // chunk 4 of upload 2
			r.write("/h", 1)      // chunk 5
			r.reserve(1)          // chunk 6
			r.must(stock.put("/d/small", stock.chunks[0]))
			c := stock.put("/d/f", stock.chunks[1])
			test.change(c)
			r.refused(test.code, c)
			r.must(stock.put("/d/f", stock.chunks[1])) // a refusal spoils nothing
		})
	}
}

func mustJoin(t *testing.T, p dfs.Path, name string) dfs.Path {
	t.Helper()
	joined, err := p.Join(name)
	if err != nil {
		t.Fatal(err)
	}
	return joined
}

// What happens to the path between the hand-out of a chunk, which notes what
// stands there, and the put.
func TestPutFileMeetsChanges(t *testing.T) {
	tests := []struct {
		name      string
		exists    bool
		overwrite bool
		meanwhile func(*rig)
		code      dfs.Code
	}{
		{name: "nothing"},
		{name: "nothing, replacing", exists: true, overwrite: true},
		{name: "directory deleted", meanwhile: func(r *rig) { r.must(&Delete{Path: r.path("/d"), Recursive: true}) }}, // and made again
		{name: "directory deleted, replacing", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d"), Recursive: true})
		}},
		{name: "directory replaced by a file", code: dfs.NotDirectory, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d"), Recursive: true})
			r.write("/d", 1)
		}},
		{name: "created by another", code: dfs.Exists, meanwhile: func(r *rig) { r.write("/d/f", 1) }},
		{name: "created by another, replacing", overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) { r.write("/d/f", 1) }},
		{name: "created by another small one", overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			other := r.reserve(1)
			r.must(other.put("/d/f", other.chunks[0]))
		}},
		{name: "directory in its place", overwrite: true, code: dfs.IsDirectory, meanwhile: func(r *rig) { r.mkdir("/d/f") }},
		{name: "replaced by another", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			r.must(r.beginOver("/d/f", 1).commit())
		}},
		{name: "deleted", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) { r.must(&Delete{Path: r.path("/d/f")}) }},
		{name: "moved away and back", exists: true, overwrite: true, meanwhile: func(r *rig) {
			r.must(&Rename{From: r.path("/d/f"), To: r.path("/d/g")})
			r.must(&Rename{From: r.path("/d/g"), To: r.path("/d/f")})
		}},
		{name: "an upload begins", meanwhile: func(r *rig) { r.begin("/d/f", 1) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.mkdir("/d")
			if test.exists {
				r.write("/d/f", 2)
			}
			stock := r.reserve(1)
			c := stock.put("/d/f", stock.chunks[0])
			c.Overwrite = test.overwrite
			base, err := r.m.Freeze().Base(c.Path, c.Overwrite)
			if err != nil {
				t.Fatal(err)
			}
			c.Base = base
			if test.meanwhile != nil {
				test.meanwhile(r)
			}
			if test.code != "" {
				r.refused(test.code, c)
				return
			}
			r.must(c)
			if file := r.file("/d/f"); len(file.Contents) != 1 || file.Contents[0].ID != stock.chunks[0] {
				t.Fatalf("%+v", file)
			}
		})
	}
}

// An upload that is overtaken by a small file is told, as by any other.
func TestUploadIsOvertakenByPut(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u, v := r.begin("/f", 1), r.beginOver("/f", 1)
	r.must(&PutFile{Path: r.path("/f"), Replication: 2, ChunkSize: testChunkSize})
	r.refused(dfs.Exists, u.commit())
	r.refused(dfs.Conflict, v.commit())
}

func TestBase(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	r.write("/d/f", 1)
	s := r.m.Freeze()
	for _, test := range []struct {
		path      string
		overwrite bool
		base      uint64
		code      dfs.Code
	}{
		{"/d/f", true, r.file("/d/f").Inode, ""},
		{"/d/f", false, 0, dfs.Exists},
		{"/d", true, 0, dfs.IsDirectory},
		{"/", true, 0, dfs.IsDirectory},
		{"/d/f/g", true, 0, dfs.NotDirectory},
		{"/d/g", false, 0, ""},
		{"/x/y/z", true, 0, ""},
	} {
		base, err := s.Base(r.path(test.path), test.overwrite)
		if base != test.base || dfs.CodeOf(err) != test.code {
			t.Errorf("%s: %d, %v; want %d, %q", test.path, base, err, test.base, test.code)
		}
	}
	if base, err := (*State).Base(newState(), dfs.Root, false); base != 0 || dfs.CodeOf(err) != dfs.IsDirectory {
		t.Errorf("%d, %v", base, err)
	}
}

// A chunk goes from its pool into one file and never into another, whatever
// becomes of that file, and once it is garbage it stays so.
func TestChunkLeavesItsPoolOnce(t *testing.T) {
	for _, stored := range []bool{false, true} {
		r := newRig(t)
		r.nodes(2)
		stock := r.reserve(3)
		disk1, disk2 := newDisk(1), newDisk(2)
		if stored {
			r.beat(disk1.report(stock.chunks[:1], nil), disk2.report(stock.chunks[:1], nil))
		}
		c := stock.put("/f", stock.chunks[0])
		r.must(c)
		again := stock.put("/g", stock.chunks[0])
		r.refused(dfs.Conflict, again)
		r.must(&Delete{Path: r.path("/f")})
		r.refused(dfs.Conflict, again)
		r.refused(dfs.Conflict, c)
		if garbage, _ := r.m.Freeze().Reclaimable(); garbage != 1 {
			t.Errorf("%d chunks are garbage; want that of the deleted file", garbage)
		}
		if !stored { // it is known from the put only; the inventories find nothing
			r.now = r.now.Add(2 * unconfirmedGrace * 1e6)
			r.beat(disk1.inventory(r.m.Freeze()), disk2.inventory(r.m.Freeze()))
		} else {
			r.beat(disk1.report(nil, stock.chunks[:1]), disk2.report(nil, stock.chunks[:1]))
		}
		if _, known := r.m.Freeze().chunks.Get(stock.chunks[0]); known {
			t.Errorf("stored: %t: a chunk that nobody holds and nothing uses is not forgotten", stored)
		}
		r.refused(dfs.Conflict, again)
		r.must(stock.put("/g", stock.chunks[1]))
	}
}

// What is in a pool is neither garbage nor an orphan while the pool is open, and
// garbage when that has expired. What became a file stays.
func TestPoolExpires(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	stock := r.reserve(4)
	disk1 := newDisk(1)
	touched := func() (touched int64) {
		r.m.Freeze().TouchedUploads(func(id dfs.UploadID, at int64) {
			if id == stock.pool {
				touched = at
			}
		})
		return touched
	}
	reserved := touched()
	r.beat(disk1.report(stock.chunks[:3], nil)) // the third one's client is about to put it
	r.must(stock.put("/f", stock.chunks[0]))
	r.must(stock.put("/gone", stock.chunks[1]))
	r.must(&Delete{Path: r.path("/gone")})
	reclaimable := func(want int) {
		t.Helper()
		if garbage, orphans := r.m.Freeze().Reclaimable(); garbage != want || orphans != 0 {
			t.Fatalf("%d garbage, %d orphans; want %d and 0", garbage, orphans, want)
		}
	}
	reclaimable(1)
	late := stock.put("/late", stock.chunks[2])
	if touched() != reserved {
		t.Error("a put keeps the pool, and what was handed out in vain, alive")
	}
	r.must(&ExpireUploads{Uploads: []ExpiredUpload{{stock.pool, reserved - 1}}})
	if !r.m.Freeze().PoolOpen(stock.pool) {
		t.Fatal("a pool that was reserved after that moment has expired")
	}
	r.must(&ExpireUploads{Uploads: []ExpiredUpload{{stock.pool, touched()}, {stock.pool, math.MaxInt64}}})
	reclaimable(2)
	r.refused(dfs.Conflict, late)
	if _, known := r.m.Freeze().chunks.Get(stock.chunks[3]); known {
		t.Error("a chunk that nobody got and nobody holds is not forgotten")
	}
	r.beat(disk1.report([]dfs.ChunkID{stock.chunks[3]}, nil)) // its client was slow
	if _, orphans := r.m.Freeze().Reclaimable(); orphans != 1 {
		t.Errorf("%d orphans; want the one that came late", orphans)
	}
	if file := r.file("/f"); len(file.Contents) != 1 || len(file.Contents[0].Replicas) != 2 {
		t.Errorf("%+v", file)
	}
	if _, chunks, _ := r.m.Freeze().Counts(); chunks != 3 {
		t.Errorf("%d chunks; want that of the file and two that are garbage", chunks)
	}
}

func TestInPool(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u, stock := r.begin("/u", 1), r.reserve(2)
	r.beat(newDisk(2).report(stock.chunks[:1], nil))
	if held, ok := r.m.Freeze().InPool(stock.chunks[0]); !ok || held(1) || !held(2) {
		t.Error("who holds a chunk of a pool is not known")
	}
	r.must(stock.put("/f", stock.chunks[0]))
	for _, id := range []dfs.ChunkID{0, u.chunks[0], stock.chunks[0], stock.chunks[1] + 1} {
		if _, ok := r.m.Freeze().InPool(id); ok {
			t.Errorf("chunk %s is said to be in a pool", id)
		}
	}
}

// A NameNode that goes on from a snapshot at any moment in the life of a pool
// does the same as one that has seen it all.
func TestPoolThroughSnapshots(t *testing.T) {
	steps := []func(*rig, stock){
		func(r *rig, p stock) { r.must(p.put("/a", p.chunks[0])) },
		func(r *rig, p stock) { r.beat(newDisk(1).report(p.chunks[1:2], nil)) },
		func(r *rig, p stock) { r.must(&Delete{Path: r.path("/a")}) },
		func(r *rig, p stock) { r.refused(dfs.Conflict, p.put("/b", p.chunks[0])) },
		func(r *rig, p stock) { r.must(p.put("/b", p.chunks[1])) },
		func(r *rig, p stock) {
			r.must(&ExpireUploads{Uploads: []ExpiredUpload{{p.pool, math.MaxInt64}}})
		},
		func(r *rig, p stock) { r.refused(dfs.Conflict, p.put("/c", p.chunks[2])) },
		func(r *rig, p stock) { r.reserve(1) },
	}
	var want []byte
	for restart := range len(steps) + 1 {
		r := newRig(t)
		r.nodes(2)
		p := r.reserve(3)
		for i, step := range steps {
			if i == restart {
				r.m = restored(t, r.m)
			}
			step(r, p)
		}
		got := bothDocuments(t, r.m.Freeze())
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("restarted before step %d, it ends as\n%s\nand else as\n%s", restart, got, want)
		}
	}
}
