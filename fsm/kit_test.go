package fsm

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// epoch is the stamp of the first entry of every test.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

const testChunkSize = dfs.MinChunkSize

// rig is a machine that a test feeds. When the test ends, the invariants of its
// state are checked.
type rig struct {
	t     testing.TB
	m     *Machine
	index uint64
	now   time.Time
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, m: New(nil), now: epoch}
	t.Cleanup(func() { r.check() })
	return r
}

func (r *rig) check() {
	r.t.Helper()
	if err := checkInvariants(r.m.Freeze()); err != nil {
		r.t.Errorf("after entry %d: %v", r.index, err)
	}
}

func (r *rig) apply(c Command) (Result, error) { return r.applyAs("", c) }

// applyAs applies the next entry, one millisecond after the last.
func (r *rig) applyAs(request dfs.RequestID, c Command) (Result, error) {
	r.now = r.now.Add(time.Millisecond)
	return r.applyEntry(Encode(c, request, r.now))
}

func (r *rig) applyEntry(entry []byte) (Result, error) {
	r.index++
	return r.m.Apply(r.index, entry)
}

// must applies a command that has to be carried out.
func (r *rig) must(c Command) Result {
	r.t.Helper()
	result, err := r.apply(c)
	if err != nil {
		r.t.Fatalf("%T was refused: %v", c, err)
	}
	if result.Index != r.index {
		r.t.Fatalf("%T took effect at %d, not at its entry %d", c, result.Index, r.index)
	}
	return result
}

// refused applies a command that has to be refused with code and to change
// nothing.
func (r *rig) refused(code dfs.Code, c Command) {
	r.t.Helper()
	before := content(r.t, r.m.Freeze())
	_, err := r.apply(c)
	if dfs.CodeOf(err) != code {
		r.t.Fatalf("%T gave %q (%v); want %q", c, dfs.CodeOf(err), err, code)
	}
	if after := content(r.t, r.m.Freeze()); !bytes.Equal(before, after) {
		r.t.Fatalf("%T was refused and yet changed the state from\n%s\nto\n%s", c, before, after)
	}
}

// content returns all of a state but the applied index and the clock, which a
// refused entry moves, too.
func content(t testing.TB, s *State) []byte {
	t.Helper()
	still := s.copy()
	still.applied, still.clock = 0, 0
	files, nodes := documents(t, still)
	return append(files, nodes...)
}

func documents(t testing.TB, s *State) (files, nodes []byte) {
	t.Helper()
	var f, n bytes.Buffer
	if err := s.WriteFiles(&f); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteNodes(&n); err != nil {
		t.Fatal(err)
	}
	return f.Bytes(), n.Bytes()
}

type tarMember struct {
	name string
	data []byte
}

func archiveOf(t testing.TB, members ...tarMember) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func snapshotOf(t testing.TB, s *State) []byte {
	t.Helper()
	files, nodes := documents(t, s)
	return archiveOf(t, tarMember{FilesDocument, files}, tarMember{NodesDocument, nodes})
}

// restored returns a machine that went on from a snapshot of m.
func restored(t testing.TB, m *Machine) *Machine {
	t.Helper()
	state, err := ReadSnapshot(bytes.NewReader(snapshotOf(t, m.Freeze())))
	if err != nil {
		t.Fatalf("read the snapshot: %v", err)
	}
	again := New(nil)
	again.Replace(state)
	return again
}

func path(t testing.TB, text string) dfs.Path {
	t.Helper()
	p, err := dfs.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (r *rig) path(text string) dfs.Path { r.t.Helper(); return path(r.t, text) }

func (r *rig) mkdir(text string) {
	r.t.Helper()
	r.must(&Mkdir{Path: r.path(text), Parents: true})
}

// nodes registers DataNodes dn1, dn2, ... and returns their numbers.
func (r *rig) nodes(count int) []NodeNum {
	r.t.Helper()
	var nums []NodeNum
	for i := range count {
		nums = append(nums, r.must(registration(i+1)).Node)
	}
	return nums
}

func registration(i int) *RegisterNode {
	return &RegisterNode{
		ID: dfs.NodeID(fmt.Sprintf("dn%d", i)), URL: fmt.Sprintf("http://dn%d:9000", i), Rack: "r1",
		Instance: fmt.Sprintf("disk%d", i), Incarnation: 1,
	}
}

// open is an upload that a test works on.
type open struct {
	id     dfs.UploadID
	chunks []dfs.ChunkID
}

func begin(p dfs.Path, count int) *BeginUpload {
	targets := make([][]NodeNum, count)
	for i := range targets {
		targets[i] = []NodeNum{1, 2}
	}
	return &BeginUpload{Path: p, Replication: 2, ChunkSize: testChunkSize, Targets: targets}
}

func opened(result Result) open {
	u := open{id: result.Upload}
	for i := range result.Count {
		u.chunks = append(u.chunks, result.First+dfs.ChunkID(i))
	}
	return u
}

func (r *rig) begin(text string, count int) open {
	r.t.Helper()
	return opened(r.must(begin(r.path(text), count)))
}

func (r *rig) beginOver(text string, count int) open {
	r.t.Helper()
	c := begin(r.path(text), count)
	c.Overwrite = true
	return opened(r.must(c))
}

// stock is a pool that a test works on.
type stock struct {
	r      *rig
	pool   dfs.UploadID
	chunks []dfs.ChunkID
}

func (r *rig) reserve(count int) stock {
	r.t.Helper()
	reserved := opened(r.must(&ReserveChunks{Count: count}))
	return stock{r, reserved.id, reserved.chunks}
}

// put makes a file of a chunk, which lies on DataNodes 1 and 2.
func (p stock) put(text string, chunk dfs.ChunkID) *PutFile {
	return &PutFile{Path: p.r.path(text), Replication: 2, ChunkSize: testChunkSize, Pool: p.pool, Chunk: stored(chunk)[0]}
}

// stored says that the chunks lie on DataNodes 1 and 2.
func stored(ids ...dfs.ChunkID) []StoredChunk {
	var chunks []StoredChunk
	for _, id := range ids {
		chunks = append(chunks, StoredChunk{
			ID: id, Size: 1 + int64(id)%testChunkSize, Checksum: dfs.Checksum(id) * 2654435761, Nodes: []NodeNum{1, 2},
		})
	}
	return chunks
}

func (u open) commit() *Commit {
	return &Commit{Upload: u.id, Chunks: stored(u.chunks...), Final: true}
}

// write makes a file of count chunks, which need DataNodes 1 and 2.
func (r *rig) write(text string, count int) []dfs.ChunkID {
	r.t.Helper()
	u := r.begin(text, count)
	r.must(u.commit())
	return u.chunks
}

func (r *rig) file(text string) File {
	r.t.Helper()
	file, err := r.m.Freeze().File(r.path(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

func (r *rig) node(num NodeNum) Node {
	r.t.Helper()
	n, ok := r.m.Freeze().NodeByNum(num)
	if !ok {
		r.t.Fatalf("there is no DataNode number %d", num)
	}
	return n
}

// absent makes sure that nothing stands at path.
func (r *rig) absent(text string) {
	r.t.Helper()
	if _, err := r.m.Freeze().Stat(r.path(text)); dfs.CodeOf(err) != dfs.NotFound {
		r.t.Fatalf("%s: %v; want %s", text, err, dfs.NotFound)
	}
}

// tree lists all that can be reached from the root.
func (r *rig) tree() []string {
	r.t.Helper()
	var all []string
	var walk func(dfs.Path)
	walk = func(dir dfs.Path) {
		entries, more, err := r.m.Freeze().List(dir, "", 1000)
		if err != nil || more {
			r.t.Fatalf("list %s: %v, more: %v", dir, err, more)
		}
		for _, e := range entries {
			all = append(all, e.Path)
			if e.Directory {
				walk(r.path(e.Path))
			}
		}
	}
	walk(dfs.Root)
	return all
}

func (r *rig) wantTree(want ...string) {
	r.t.Helper()
	if got := r.tree(); !slices.Equal(got, want) {
		r.t.Fatalf("the tree is %q; want %q", got, want)
	}
}

// replicas returns who is said to hold a chunk, nil when it is not known.
func (r *rig) replicas(id dfs.ChunkID) []NodeNum {
	c, ok := r.m.Freeze().chunks.Get(id)
	if !ok {
		return nil
	}
	return c.replicas()
}

// disk is what a DataNode really holds: it makes reports that add up.
type disk struct {
	node        NodeNum
	incarnation uint64
	seq         uint64
	chunks      map[dfs.ChunkID]bool
}

func newDisk(node NodeNum) *disk {
	return &disk{node: node, incarnation: 1, chunks: make(map[dfs.ChunkID]bool)}
}

func (d *disk) digest() (digest dfs.Digest) {
	for id := range d.chunks {
		digest = digest.Add(id)
	}
	return digest
}

// report changes what the disk holds and makes the report that says so.
func (d *disk) report(added, removed []dfs.ChunkID) NodeReport {
	for _, id := range removed {
		delete(d.chunks, id)
	}
	for _, id := range added {
		d.chunks[id] = true
	}
	d.seq++
	return NodeReport{
		Node: d.node, Incarnation: d.incarnation, Seq: d.seq, Capacity: 1 << 40, Free: 1 << 39, Writable: true,
		Count: int64(len(d.chunks)), Digest: d.digest(), Added: added, Removed: removed,
	}
}

// inventory makes the report that ends a full inventory: what the state is
// missing and what it has too much.
func (d *disk) inventory(s *State) NodeReport {
	var missing, surplus []dfs.ChunkID
	known := make(map[dfs.ChunkID]bool)
	s.ReportedBetween(d.node, 0, ^dfs.ChunkID(0), func(id dfs.ChunkID) {
		known[id] = true
		if !d.chunks[id] {
			surplus = append(surplus, id)
		}
	})
	for id := range d.chunks {
		if !known[id] {
			missing = append(missing, id)
		}
	}
	slices.Sort(missing)
	report := d.report(missing, surplus)
	report.InventoryDone = true
	return report
}

// beat applies reports and returns the nodes that are asked for an inventory.
func (r *rig) beat(reports ...NodeReport) []NodeNum {
	r.t.Helper()
	return r.must(&Heartbeats{Reports: reports}).NeedInventory
}
