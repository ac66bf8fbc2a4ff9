package fsm

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestBeginUploadRefusals(t *testing.T) {
	manyNodes := make([]NodeNum, dfs.MaxReplication+1)
	for i := range manyNodes {
		manyNodes[i] = 1
	}
	tests := []struct {
		name   string
		code   dfs.Code
		change func(*BeginUpload)
	}{
		{"root", dfs.IsDirectory, func(c *BeginUpload) { c.Path = dfs.Root }},
		{"directory", dfs.IsDirectory, func(c *BeginUpload) { c.Path, _ = dfs.ParsePath("/d") }},
		{"directory, to be replaced", dfs.IsDirectory, func(c *BeginUpload) { c.Path, _ = dfs.ParsePath("/d"); c.Overwrite = true }},
		{"existing file", dfs.Exists, func(c *BeginUpload) { c.Path, _ = dfs.ParsePath("/d/f") }},
		{"file as parent", dfs.NotDirectory, func(c *BeginUpload) { c.Path, _ = dfs.ParsePath("/d/f/x") }},
		{"file further up", dfs.NotDirectory, func(c *BeginUpload) { c.Path, _ = dfs.ParsePath("/d/f/x/y") }},
		{"replication 0", dfs.Invalid, func(c *BeginUpload) { c.Replication = 0 }},
		{"replication too high", dfs.Invalid, func(c *BeginUpload) { c.Replication = dfs.MaxReplication + 1 }},
		{"chunk size too small", dfs.Invalid, func(c *BeginUpload) { c.ChunkSize = dfs.MinChunkSize - 1 }},
		{"chunk size too large", dfs.Invalid, func(c *BeginUpload) { c.ChunkSize = dfs.MaxChunkSize + 1 }},
		{"chunk size negative", dfs.Invalid, func(c *BeginUpload) { c.ChunkSize = -1 }},
		{"no target", dfs.Invalid, func(c *BeginUpload) { c.Targets = [][]NodeNum{{1}, {}} }},
		{"too many targets", dfs.Invalid, func(c *BeginUpload) { c.Targets = [][]NodeNum{manyNodes} }},
		{"target twice", dfs.Invalid, func(c *BeginUpload) { c.Targets = [][]NodeNum{{1, 2, 1}} }},
		{"unknown target", dfs.Conflict, func(c *BeginUpload) { c.Targets = [][]NodeNum{{1, 9}} }},
		{"too many chunks", dfs.TooLarge, func(c *BeginUpload) {
			c.Targets = slices.Repeat([][]NodeNum{{1}}, dfs.MaxChunksPerAllocation+1)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.write("/d/f", 1)
			c := begin(r.path("/new/dir/file"), 1)
			test.change(c)
			r.refused(test.code, c)
		})
	}
}

func TestBeginUpload(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	first := r.begin("/a/b/f", 3)
	if len(first.chunks) != 3 || !slices.Equal(first.chunks, []dfs.ChunkID{1, 2, 3}) {
		t.Fatalf("allocated %v", first.chunks)
	}
	r.wantTree("/a", "/a/b") // the parents are made, the file is not
	second := r.begin("/a/b/f", 1)
	if second.id == first.id || second.chunks[0] != 4 {
		t.Fatalf("a second upload got %+v", second)
	}
	none := r.begin("/g", 0)
	if len(none.chunks) != 0 {
		t.Fatalf("allocated %v", none.chunks)
	}

	u, err := r.m.Freeze().Upload(first.id)
	if err != nil || u.Path != "/a/b/f" || u.Replication != 2 || u.ChunkSize != testChunkSize || len(u.Allocated) != 3 {
		t.Fatalf("%+v, %v", u, err)
	}
	inFlight := make(map[NodeNum]int)
	r.m.Freeze().InFlight(func(target NodeNum, chunkSize int64) {
		if chunkSize != testChunkSize {
			t.Errorf("chunk size %d", chunkSize)
		}
		inFlight[target]++
	})
	if inFlight[1] != 4 || inFlight[2] != 4 {
		t.Fatalf("in flight: %v", inFlight)
	}
	r.beat(newDisk(1).report(first.chunks[:1], nil))
	inFlight = make(map[NodeNum]int)
	r.m.Freeze().InFlight(func(target NodeNum, _ int64) { inFlight[target]++ })
	if inFlight[1] != 3 || inFlight[2] != 4 {
		t.Fatalf("in flight after one report: %v", inFlight)
	}
}

func TestAddChunks(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/f", 1)
	frozen := r.m.Freeze()
	touched := func(s *State) (at int64) {
		s.TouchedUploads(func(id dfs.UploadID, touched int64) {
			if id == u.id {
				at = touched
			}
		})
		return at
	}
	result := r.must(&AddChunks{Upload: u.id, Targets: [][]NodeNum{{1}, {2, 1}}})
	if result.Upload != u.id || result.First != u.chunks[0]+1 || result.Count != 2 {
		t.Fatalf("%+v", result)
	}
	if touched(r.m.Freeze()) <= touched(frozen) {
		t.Error("more chunks are no sign of life")
	}
	before := touched(r.m.Freeze())
	if result := r.must(&AddChunks{Upload: u.id}); result.Count != 0 {
		t.Fatalf("%+v", result)
	}
	if touched(r.m.Freeze()) <= before {
		t.Error("no chunks are no sign of life")
	}
	r.refused(dfs.NotFound, &AddChunks{Upload: u.id + 1})
	r.refused(dfs.NotFound, &AddChunks{})
	r.refused(dfs.Conflict, &AddChunks{Upload: u.id, Targets: [][]NodeNum{{7}}})
	r.refused(dfs.Invalid, &AddChunks{Upload: u.id, Targets: [][]NodeNum{{}}})
	if view, err := frozen.Upload(u.id); err != nil || len(view.Allocated) != 1 {
		t.Fatalf("the frozen upload has changed to %+v, %v", view, err)
	}
}

func TestUploadUsesUpTooMuch(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	u := r.beginSingle("/f")
	full := slices.Repeat([][]NodeNum{{1}}, dfs.MaxChunksPerAllocation)
	for used := 0; used < 2*dfs.MaxChunksPerFile; used += len(full) {
		r.must(&AddChunks{Upload: u.id, Targets: full})
	}
	if _, err := r.apply(&AddChunks{Upload: u.id, Targets: [][]NodeNum{{1}}}); dfs.CodeOf(err) != dfs.TooLarge {
		t.Fatalf("%v", err)
	}
	r.must(&AddChunks{Upload: u.id})
	r.must(&AbortUpload{Upload: u.id})
	if _, chunks, uploads := r.m.Freeze().Counts(); chunks+uploads != 0 {
		t.Fatalf("%d chunks and %d uploads are left", chunks, uploads)
	}
}

// beginSingle begins an upload without chunks and with replication 1.
func (r *rig) beginSingle(text string) open {
	r.t.Helper()
	return opened(r.must(&BeginUpload{Path: r.path(text), Replication: 1, ChunkSize: testChunkSize}))
}

func TestCommitRefusals(t *testing.T) {
	tests := []struct {
		name   string
		code   dfs.Code
		change func(*Commit)
	}{
		{"unknown upload", dfs.NotFound, func(c *Commit) { c.Upload = 99 }},
		{"no upload", dfs.NotFound, func(c *Commit) { c.Upload = 0 }},
		{"chunk of another upload", dfs.Invalid, func(c *Commit) { c.Chunks[1].ID = 4 }},
		{"chunk of a file", dfs.Invalid, func(c *Commit) { c.Chunks[1].ID = 5 }},
		{"chunk that was never allocated", dfs.Invalid, func(c *Commit) { c.Chunks[1].ID = 1 << 40 }},
		{"chunk zero", dfs.Invalid, func(c *Commit) { c.Chunks[1].ID = 0 }},
		{"chunk twice", dfs.Invalid, func(c *Commit) { c.Chunks[2].ID = c.Chunks[0].ID }},
		{"size 0", dfs.Invalid, func(c *Commit) { c.Chunks[1].Size = 0 }},
		{"size negative", dfs.Invalid, func(c *Commit) { c.Chunks[1].Size = -1 }},
		{"size too large", dfs.Invalid, func(c *Commit) { c.Chunks[1].Size = testChunkSize + 1 }},
		{"no nodes", dfs.Invalid, func(c *Commit) { c.Chunks[1].Nodes = nil }},
		{"too few nodes", dfs.Invalid, func(c *Commit) { c.Chunks[1].Nodes = []NodeNum{1} }},
		{"too many nodes", dfs.Invalid, func(c *Commit) { c.Chunks[1].Nodes = slices.Repeat([]NodeNum{1}, dfs.MaxReplication+1) }},
		{"unknown node", dfs.Invalid, func(c *Commit) { c.Chunks[1].Nodes = []NodeNum{1, 9} }},
		{"node zero", dfs.Invalid, func(c *Commit) { c.Chunks[1].Nodes = []NodeNum{0, 1} }},
		{"node twice", dfs.Invalid, func(c *Commit) { c.Chunks[1].Nodes = []NodeNum{1, 2, 1} }},
		{"position beyond", dfs.Conflict, func(c *Commit) { c.Position = 1 }},
		{"too many chunks", dfs.Conflict, func(c *Commit) { c.Position = dfs.MaxChunksPerFile }},
	}
	for _, final := range []bool{true, false} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s final=%t", test.name, final), func(t *testing.T) {
				r := newRig(t)
				r.nodes(3)
				u := r.begin("/f", 3) // chunks 1 to 3
				r.begin("/g", 1)      // chunk 4
				r.write("/h", 1)      // chunk 5
				c := u.commit()
				c.Final = final
				test.change(c)
				r.refused(test.code, c)
				r.must(u.commit()) // a refusal spoils nothing
			})
		}
	}
}

func TestCommitOfTooManyChunks(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	u := r.beginSingle("/f")
	r.refused(dfs.TooLarge, &Commit{Upload: u.id, Chunks: make([]StoredChunk, dfs.MaxChunksPerFile+1), Final: true})
}

// Replication 1 is the one that needs no second node.
func TestCommitOfOneReplica(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	u := opened(r.must(&BeginUpload{Path: r.path("/f"), Replication: 1, ChunkSize: testChunkSize, Targets: [][]NodeNum{{1}}}))
	r.must(&Commit{Upload: u.id, Final: true, Chunks: []StoredChunk{{ID: u.chunks[0], Size: testChunkSize, Nodes: []NodeNum{1}}}})
	if file := r.file("/f"); file.Size != testChunkSize {
		t.Fatalf("%+v", file)
	}
}

func TestCommit(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/d/f", 4)
	c := &Commit{Upload: u.id, Chunks: stored(u.chunks[2], u.chunks[0]), Final: true} // another order; two are given up
	result := r.must(c)
	size := c.Chunks[0].Size + c.Chunks[1].Size
	if result.Path != "/d/f" || result.Size != size || result.Upload != u.id {
		t.Fatalf("%+v", result)
	}
	file := r.file("/d/f")
	if file.Size != size || file.Contents[0].ID != u.chunks[2] || file.Contents[1].ID != u.chunks[0] {
		t.Fatalf("%+v", file)
	}
	for _, unused := range []dfs.ChunkID{u.chunks[1], u.chunks[3]} {
		if _, known := r.m.Freeze().chunks.Get(unused); known {
			t.Errorf("chunk %s is part of nothing and on no node, and not forgotten", unused)
		}
	}
	r.refused(dfs.NotFound, c) // twice
	r.refused(dfs.NotFound, &AddChunks{Upload: u.id})
	r.refused(dfs.NotFound, &AbortUpload{Upload: u.id})
}

func TestCommitOfEmptyFile(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/empty", 0)
	if result := r.must(u.commit()); result.Path != "/empty" || result.Size != 0 {
		t.Fatalf("%+v", result)
	}
	if file := r.file("/empty"); file.Size != 0 || len(file.Contents) != 0 {
		t.Fatalf("%+v", file)
	}
}

func TestCommitInPieces(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/f", 6)
	piece := func(position int, final bool, ids ...dfs.ChunkID) *Commit {
		return &Commit{Upload: u.id, Position: position, Chunks: stored(ids...), Final: final}
	}
	r.must(piece(0, false, u.chunks[0], u.chunks[1]))
	r.refused(dfs.Conflict, piece(1, false, u.chunks[2]))
	r.refused(dfs.Conflict, piece(3, true, u.chunks[2]))
	r.refused(dfs.Invalid, piece(2, false, u.chunks[0])) // named in the first piece
	r.refused(dfs.Invalid, piece(2, true, u.chunks[2], u.chunks[1]))
	r.must(piece(2, false, u.chunks[2]))
	r.absent("/f")

	// The client was killed here and another takes over: from the beginning.
	r.must(piece(0, false, u.chunks[5], u.chunks[2]))
	r.refused(dfs.Conflict, piece(3, false, u.chunks[1]))
	r.must(piece(2, false, u.chunks[0]))
	result := r.must(piece(3, true, u.chunks[4]))
	want := []dfs.ChunkID{u.chunks[5], u.chunks[2], u.chunks[0], u.chunks[4]}
	file := r.file("/f")
	var got []dfs.ChunkID
	var size int64
	for _, c := range file.Contents {
		got = append(got, c.ID)
		size += c.Size
	}
	if !slices.Equal(got, want) || file.Size != size || result.Size != size {
		t.Fatalf("chunks %v, %d bytes (%d answered); want %v, %d bytes", got, file.Size, result.Size, want, size)
	}
	// What the first attempt named and the second did not is garbage on its nodes.
	if c, ok := r.m.Freeze().chunks.Get(u.chunks[1]); !ok || c.refs != 0 {
		t.Fatalf("the chunk that was left out is %+v, %t", c, ok)
	}
}

func TestCommitAfterTheRestIsCommitted(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/f", 2)
	r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks...)})
	r.must(&Commit{Upload: u.id, Position: 2, Final: true}) // nothing more
	if file := r.file("/f"); len(file.Contents) != 2 {
		t.Fatalf("%+v", file)
	}
}

// What happens to the place of an upload while it goes on decides what its
// commit is answered.
func TestCommitMeetsChanges(t *testing.T) {
	tests := []struct {
		name      string
		exists    bool // the file, when the upload begins
		overwrite bool
		meanwhile func(*rig)
		code      dfs.Code
		at        string // where the file appears
	}{
		{name: "nothing", at: "/d/e/f"},
		{name: "nothing, replacing", exists: true, overwrite: true, at: "/d/e/f"},
		{name: "nothing to replace", overwrite: true, at: "/d/e/f"},
		{name: "directory deleted", code: dfs.NotFound, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d/e"), Recursive: true})
		}},
		{name: "directory deleted further up", code: dfs.NotFound, exists: true, overwrite: true, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d"), Recursive: true})
		}},
		{name: "directory deleted and purged", code: dfs.NotFound, exists: true, overwrite: true, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d"), Recursive: true})
			r.must(&Purge{Limit: 100})
		}},
		{name: "directory deleted and made again", code: dfs.NotFound, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d/e"), Recursive: true})
			r.mkdir("/d/e")
		}},
		{name: "directory renamed", at: "/d/x/f", meanwhile: func(r *rig) {
			r.must(&Rename{From: r.path("/d/e"), To: r.path("/d/x")})
		}},
		{name: "directory renamed, replacing", exists: true, overwrite: true, at: "/x/e/f", meanwhile: func(r *rig) {
			r.must(&Rename{From: r.path("/d"), To: r.path("/x")})
		}},
		{name: "created by another", code: dfs.Exists, meanwhile: func(r *rig) { r.write("/d/e/f", 1) }},
		{name: "created by another, replacing", overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) { r.write("/d/e/f", 1) }},
		{name: "directory created in its place", code: dfs.Exists, meanwhile: func(r *rig) { r.mkdir("/d/e/f") }},
		{name: "directory created in its place, replacing", overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) { r.mkdir("/d/e/f") }},
		{name: "replaced by another", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			r.must(r.beginOver("/d/e/f", 1).commit())
		}},
		{name: "deleted", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d/e/f")})
		}},
		{name: "deleted and created", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			r.must(&Delete{Path: r.path("/d/e/f")})
			r.write("/d/e/f", 1)
		}},
		{name: "moved away", exists: true, overwrite: true, code: dfs.Conflict, meanwhile: func(r *rig) {
			r.must(&Rename{From: r.path("/d/e/f"), To: r.path("/d/e/g")})
		}},
		{name: "moved away and back", exists: true, overwrite: true, at: "/d/e/f", meanwhile: func(r *rig) {
			r.must(&Rename{From: r.path("/d/e/f"), To: r.path("/d/e/g")})
			r.must(&Rename{From: r.path("/d/e/g"), To: r.path("/d/e/f")})
		}},
		{name: "another upload begins", at: "/d/e/f", meanwhile: func(r *rig) { r.begin("/d/e/f", 1) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.mkdir("/d/e")
			if test.exists {
				r.write("/d/e/f", 2)
			}
			c := begin(r.path("/d/e/f"), 1)
			c.Overwrite = test.overwrite
			u := opened(r.must(c))
			if test.meanwhile != nil {
				test.meanwhile(r)
			}
			if test.code != "" {
				r.refused(test.code, u.commit())
				return
			}
			if result := r.must(u.commit()); result.Path != test.at {
				t.Fatalf("it says it appeared at %s; want %s", result.Path, test.at)
			}
			if file := r.file(test.at); len(file.Contents) != 1 || file.Contents[0].ID != u.chunks[0] {
				t.Fatalf("%+v", file)
			}
		})
	}
}

// The old content stays readable until the new one is there, and the chunks of
// the old one are let go then.
func TestOverwrite(t *testing.T) {
	for _, count := range []int{1, maxDirectRelease + 1} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			old := r.write("/f", count)
			inode := r.file("/f").Inode
			u := r.beginOver("/f", 1)
			r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks...)}) // not final
			if file := r.file("/f"); len(file.Contents) != count {
				t.Fatal("the old content is gone before the new one is there")
			}
			r.must(&Commit{Upload: u.id, Position: 1, Final: true})
			file := r.file("/f")
			if len(file.Contents) != 1 || file.Contents[0].ID != u.chunks[0] || file.Inode == inode {
				t.Fatalf("%+v", file)
			}
			r.must(&Purge{Limit: 2 * maxDirectRelease})
			for _, id := range old {
				if c, _ := r.m.Freeze().chunks.Get(id); c.refs != 0 {
					t.Fatalf("chunk %s of the old content is still referred to", id)
				}
			}
		})
	}
}

// An upload that ends without a file leaves nothing but what lies on nodes.
func TestUploadEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(*rig, open)
	}{
		{"aborted", func(r *rig, u open) { r.must(&AbortUpload{Upload: u.id}) }},
		{"expired", func(r *rig, u open) {
			r.must(&ExpireUploads{Uploads: []ExpiredUpload{{Upload: 77}, {Upload: u.id, Touched: r.now.UnixMilli()}, {Upload: u.id, Touched: r.now.UnixMilli()}}})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			disk1 := newDisk(1)
			u := r.begin("/f", 4)
			r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks[0])}) // half committed
			r.beat(disk1.report(u.chunks[1:2], nil))                   // reported
			test.end(r, u)
			r.refused(dfs.NotFound, u.commit())
			r.refused(dfs.NotFound, &AbortUpload{Upload: u.id})
			r.absent("/f")
			for i, known := range []bool{true, true, false, false} {
				c, ok := r.m.Freeze().chunks.Get(u.chunks[i])
				if ok != known || ok && c.refs != 0 {
					t.Errorf("chunk %d: known: %t; want %t without references", i, ok, known)
				}
			}
			r.beat(disk1.report(nil, u.chunks[1:2]))
			if _, ok := r.m.Freeze().chunks.Get(u.chunks[1]); ok {
				t.Error("garbage that its last node has removed is not forgotten")
			}
		})
	}
}

func TestSignOfLifeSavesUpload(t *testing.T) {
	signs := map[string]func(open) Command{
		"more chunks": func(u open) Command { return &AddChunks{Upload: u.id, Targets: [][]NodeNum{{1}}} },
		"no chunks":   func(u open) Command { return &AddChunks{Upload: u.id} },
		"a piece":     func(u open) Command { return &Commit{Upload: u.id, Chunks: stored(u.chunks[0])} },
	}
	for name, sign := range signs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			u := r.begin("/f", 1)
			judged := r.now.UnixMilli()
			r.must(sign(u))
			r.must(&ExpireUploads{Uploads: []ExpiredUpload{{Upload: u.id, Touched: judged}}})
			r.must(u.commit())
		})
	}
}
