package fsm

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random commands; 0 takes a new one")
	stepsFlag = flag.Int("steps", 3000, "how many random commands")
)

// driver makes up log entries: mostly such as a leader would propose in the
// present state, some that make no sense.
type driver struct {
	t     testing.TB
	rng   *rand.Rand
	m     *Machine // whose state the commands are made for
	now   time.Time
	disks map[NodeNum]*disk
	log   [][]byte
}

func newDriver(t testing.TB, m *Machine) *driver {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test -run '^%s$' -seed %d -steps %d", t.Name(), seed, *stepsFlag)
	return &driver{t: t, rng: rand.New(rand.NewPCG(seed, 1)), m: m, now: epoch, disks: make(map[NodeNum]*disk)}
}

// next makes the next entry of the log: a new one, one that is there, or a group
// of such, which may make no sense when it has a group in it.
func (d *driver) next() []byte {
	entry := d.entry()
	if d.chance(4) {
		parts := [][]byte{entry}
		for d.chance(2) || len(parts) < 2 {
			parts = append(parts, d.entry())
		}
		entry = EncodeGroup(parts)
		if d.chance(100) {
			entry = entry[:d.rng.IntN(len(entry))]
		}
	}
	d.log = append(d.log, entry)
	return entry
}

func (d *driver) entry() []byte {
	if len(d.log) > 0 && d.chance(20) {
		return d.log[d.rng.IntN(len(d.log))]
	}
	d.now = d.now.Add(time.Duration(d.rng.IntN(3000)-200) * time.Millisecond)
	var request dfs.RequestID
	if d.rng.IntN(3) > 0 {
		request = dfs.RequestID(fmt.Sprintf("r%d", d.rng.IntN(100_000)))
	}
	entry := Encode(d.command(), request, d.now)
	switch d.rng.IntN(100) {
	case 0:
		entry = entry[:d.rng.IntN(len(entry))]
	case 1:
		at := 2 + d.rng.IntN(len(entry)-2) // the format and number stay, so that nothing halts
		entry[at] ^= 1 << d.rng.IntN(8)
	}
	return entry
}

func (d *driver) command() Command {
	s := d.m.Freeze()
	switch d.rng.IntN(27) {
	case 0, 1:
		return &Mkdir{Path: d.path(4), Parents: d.chance(2)}
	case 2, 3, 4:
		return &BeginUpload{
			Path: d.path(4), Replication: 1 + d.rng.IntN(3), ChunkSize: testChunkSize, Overwrite: d.chance(2), Targets: d.targets(),
		}
	case 5:
		return &AddChunks{Upload: d.upload(s), Targets: d.targets()}
	case 6, 7, 8, 9:
		return d.commit(s)
	case 10:
		return &AbortUpload{Upload: d.upload(s)}
	case 11:
		if d.chance(3) {
			return &ReserveChunks{Count: d.rng.IntN(6)}
		}
		return &ExpireUploads{Uploads: []ExpiredUpload{{d.upload(s), s.clock - int64(d.rng.IntN(60_000))}, {d.upload(s), 0}}}
	case 12, 13:
		return &Delete{Path: d.path(3), Recursive: d.chance(3)}
	case 14:
		return &Rename{From: d.path(3), To: d.path(4)}
	case 15:
		return &SetReplication{Path: d.path(3), Replication: d.rng.IntN(5)}
	case 16:
		return d.register()
	case 17, 18, 19, 20:
		return d.heartbeats(s)
	case 21:
		return &Purge{Limit: d.rng.IntN(30)}
	case 22:
		return d.rare()
	case 23, 24, 25:
		return d.put(s)
	}
	return &SetLiveness{Nodes: []NodeLiveness{{d.node(), Liveness(d.rng.IntN(3))}}}
}

func (d *driver) rare() Command {
	member := dfs.NodeID(fmt.Sprintf("nn%d", d.rng.IntN(4)))
	switch d.rng.IntN(4) {
	case 0:
		return &InitCluster{ClusterID: dfs.ClusterID(fmt.Sprintf("%032x", d.rng.Uint64()))}
	case 1:
		return &SetMember{ID: member, Instance: fmt.Sprint(d.rng.IntN(3)), URL: "http://x", RaftAddr: "x:1"}
	case 2:
		return &RemoveMember{ID: member}
	}
	return &SetService{Node: d.node(), Service: Service(d.rng.IntN(3))}
}

func (d *driver) chance(oneIn int) bool { return d.rng.IntN(oneIn) == 0 }

// path makes one of few paths, so that commands meet.
func (d *driver) path(depth int) dfs.Path {
	text := ""
	for range d.rng.IntN(depth + 1) {
		text += "/" + []string{"a", "b", "c", "ü<&>\u2028"}[d.rng.IntN(4)]
	}
	return path(d.t, "/"+text[min(1, len(text)):])
}

func (d *driver) node() NodeNum { return NodeNum(1 + d.rng.IntN(6)) }

func (d *driver) targets() [][]NodeNum {
	targets := make([][]NodeNum, d.rng.IntN(4))
	for i := range targets {
		for range 1 + d.rng.IntN(3) {
			targets[i] = append(targets[i], d.node())
		}
		slices.Sort(targets[i])
		targets[i] = slices.Compact(targets[i])
	}
	return targets
}

// upload picks an open upload, sometimes one that is not.
func (d *driver) upload(s *State) dfs.UploadID {
	ids := []dfs.UploadID{dfs.UploadID(d.rng.IntN(50))}
	s.TouchedUploads(func(id dfs.UploadID, _ int64) { ids = append(ids, id) })
	return ids[d.rng.IntN(len(ids))]
}

func (d *driver) commit(s *State) Command {
	c := &Commit{Upload: d.upload(s), Final: !d.chance(3)}
	u, ok := s.uploads.Get(c.Upload)
	if !ok {
		return c
	}
	if d.chance(2) {
		c.Position = len(u.sealed)
	}
	for _, a := range u.allocated {
		if d.chance(5) {
			continue
		}
		chunk := StoredChunk{ID: a.id, Size: int64(d.rng.IntN(testChunkSize + 2)), Checksum: dfs.Checksum(d.rng.Uint32()), Nodes: a.targets}
		if d.chance(4) && chunk.Size > 0 {
			chunk.Nodes = append(slices.Clone(chunk.Nodes), d.node())
		}
		for d.chance(2) && len(chunk.Nodes) < 3 {
			chunk.Nodes = append(slices.Clone(chunk.Nodes), d.node())
		}
		c.Chunks = append(c.Chunks, chunk)
	}
	return c
}

// put makes a small file, mostly of a chunk that a pool has left, or a pool when
// there is none.
func (d *driver) put(s *State) Command {
	c := &PutFile{Path: d.path(4), Replication: 1 + d.rng.IntN(3), ChunkSize: testChunkSize, Overwrite: d.chance(2)}
	if d.chance(4) {
		return c
	}
	var pools []dfs.UploadID
	s.pools.Scan(func(id dfs.UploadID, _ *pool) bool {
		pools = append(pools, id)
		return true
	})
	if len(pools) == 0 {
		return &ReserveChunks{Count: 1 + d.rng.IntN(6)}
	}
	c.Pool = pools[d.rng.IntN(len(pools))]
	p, _ := s.pools.Get(c.Pool)
	c.Chunk = StoredChunk{
		ID: p.first + dfs.ChunkID(d.rng.IntN(p.reserved+1)), Size: 1 + int64(d.rng.IntN(testChunkSize)), Checksum: dfs.Checksum(d.rng.Uint32()),
	}
	for len(c.Chunk.Nodes) < dfs.MinReplicas(c.Replication) || d.chance(4) {
		c.Chunk.Nodes = append(c.Chunk.Nodes, d.node())
	}
	if !d.chance(8) {
		c.Base, _ = s.Base(c.Path, true)
	}
	return c
}

func (d *driver) register() Command {
	i := 1 + d.rng.IntN(6)
	c := registration(i)
	c.Incarnation = uint64(d.rng.IntN(3))
	if d.chance(3) {
		c.Instance = fmt.Sprintf("disk%d-%d", i, d.rng.IntN(3))
	}
	return c
}

// heartbeats lets some disks gain and lose chunks, and loses some reports.
func (d *driver) heartbeats(s *State) Command {
	c := new(Heartbeats)
	for _, n := range s.Nodes() {
		if d.chance(2) {
			continue
		}
		node := d.disks[n.Num]
		if node == nil {
			node = newDisk(n.Num)
			d.disks[n.Num] = node
		}
		if node.incarnation != n.Incarnation || node.seq < n.Seq {
			node.incarnation, node.seq = n.Incarnation, n.Seq
		}
		if d.chance(6) {
			c.Reports = append(c.Reports, node.inventory(s))
			continue
		}
		report := node.report(d.chunkIDs(s, node))
		if d.chance(3) {
			report.Corrupt, report.Removed = report.Removed, nil
		}
		if d.chance(10) {
			report.Seq, report.Incarnation = uint64(d.rng.IntN(5)), uint64(d.rng.IntN(3))
		}
		if !d.chance(8) {
			c.Reports = append(c.Reports, report)
		}
	}
	return c
}

func (d *driver) chunkIDs(s *State, node *disk) (added, removed []dfs.ChunkID) {
	for range d.rng.IntN(6) {
		id := dfs.ChunkID(1 + d.rng.Uint64N(uint64(s.nextChunk)+3)) // sometimes one of the future
		switch {
		case !node.chunks[id]:
			added = append(added, id)
		case d.chance(2):
			removed = append(removed, id)
		}
	}
	return added, removed
}

// TestSameLogSameState feeds two machines the same entries. One of them is
// restored from its own snapshot now and then, as a NameNode that starts again.
// They may differ in nothing.
func TestSameLogSameState(t *testing.T) {
	straight, broken := New(nil), New(nil)
	d := newDriver(t, straight)
	done := make(map[dfs.Code]int)
	for i := range *stepsFlag {
		index, entry := uint64(i+1), d.next()
		if d.rng.IntN(100) == 0 {
			broken = restored(t, broken)
		}
		first, second := answersOf(straight.ApplyGroup(index, entry)), answersOf(broken.ApplyGroup(index, entry))
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("entry %d, %q: one answers %+v and one %+v", index, entry, first, second)
		}
		done[first[0].code]++
		if i%50 == 0 || i == *stepsFlag-1 {
			compare(t, straight.Freeze(), broken.Freeze())
		}
	}
	if accepted := done[""]; accepted < *stepsFlag/4 || accepted == *stepsFlag {
		t.Errorf("the commands are too wild or too tame: %v", done)
	}
	inodes, chunks, uploads := straight.Freeze().Counts()
	t.Logf("%d names, %d chunks, %d uploads, %d pools; answers %v", inodes, chunks, uploads, straight.Freeze().pools.Len(), done)
}

// TestChunksAreUsedOnce: what deletion rests on. No ID is handed out twice, no
// chunk is ever one of two files, and what was garbage once is in none after that.
func TestChunksAreUsedOnce(t *testing.T) {
	m := New(nil)
	d := newDriver(t, m)
	next, put := dfs.ChunkID(1), 0
	owner := make(map[dfs.ChunkID]uint64) // inode
	gone := make(map[dfs.ChunkID]bool)
	for i := range *stepsFlag {
		index := uint64(i + 1)
		outcomes, _ := m.ApplyGroup(index, d.next()) // refusals are fine
		for _, o := range outcomes {
			if o.Err != nil || o.Result.Index != index || o.Result.Count == 0 {
				continue
			}
			if o.Result.First < next {
				t.Fatalf("entry %d: chunk %s was handed out before", index, o.Result.First)
			}
			next = o.Result.First + dfs.ChunkID(o.Result.Count)
		}
		s := m.Freeze()
		s.inodes.Scan(func(n *inode) bool {
			for _, id := range n.chunks() {
				if first, known := owner[id]; known && first != n.id || gone[id] {
					t.Fatalf("entry %d: inode %d has chunk %s, which was garbage: %t, and one of inode %d", index, n.id, id, gone[id], first)
				}
				if c, _ := s.chunks.Get(id); owner[id] == 0 && c.upload == 0 {
					put++
				}
				owner[id] = n.id
			}
			return true
		})
		s.garbage.Scan(func(id dfs.ChunkID, _ uint64) bool {
			gone[id] = true
			return true
		})
	}
	t.Logf("%d chunks were handed out, %d came into files, %d of them from pools; %d were garbage", next-1, len(owner), put, len(gone))
	if *stepsFlag >= 1000 && put == 0 {
		t.Error("no chunk of a pool became a file")
	}
}

func compare(t *testing.T, a, b *State) {
	t.Helper()
	if err := checkInvariants(a); err != nil {
		t.Fatalf("after entry %d: %v", a.AppliedIndex(), err)
	}
	filesA, nodesA := documents(t, a)
	filesB, nodesB := documents(t, b)
	if !bytes.Equal(filesA, filesB) || !bytes.Equal(nodesA, nodesB) {
		t.Fatalf("after entry %d one state is\n%s%s\nand the other\n%s%s", a.AppliedIndex(), filesA, nodesA, filesB, nodesB)
	}
}

// TestFrozenStateStaysAsItIs writes copies of the state while more entries are
// applied: they hold what was there when they were taken.
func TestFrozenStateStaysAsItIs(t *testing.T) {
	const every = 40
	live := New(nil)
	d := newDriver(t, live)
	var (
		wg      sync.WaitGroup
		written = make([][]byte, *stepsFlag/every+1)
		reading = make(chan struct{})
	)
	wg.Go(func() { // readers use the live state meanwhile
		for {
			select {
			case <-reading:
				return
			default:
				live.Read(func(s *State) {
					_, _, _ = s.List(dfs.Root, "", 10) // only the race detector looks
					s.InFlight(func(NodeNum, int64) {})
				})
			}
		}
	})
	for i := range *stepsFlag {
		_, _ = live.ApplyGroup(uint64(i+1), d.next()) // refusals are fine
		if i%every == 0 {
			frozen := live.Freeze()
			wg.Go(func() { written[i/every] = bothDocuments(t, frozen) })
		}
	}
	close(reading)
	wg.Wait()

	alone := New(nil)
	for i, entry := range d.log {
		_, _ = alone.ApplyGroup(uint64(i+1), entry)
		if i%every == 0 && !bytes.Equal(written[i/every], bothDocuments(t, alone.Freeze())) {
			t.Fatalf("the copy taken at entry %d was changed by later ones", i+1)
		}
	}
}

func bothDocuments(t *testing.T, s *State) []byte {
	var buf bytes.Buffer
	if err := errors.Join(s.WriteFiles(&buf), s.WriteNodes(&buf)); err != nil {
		t.Error(err)
	}
	return buf.Bytes()
}
