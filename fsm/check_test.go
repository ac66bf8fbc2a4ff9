package fsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// checkInvariants recomputes everything that the state keeps up to date by
// small steps, and says what does not agree.
func checkInvariants(s *State) error {
	if err := s.validate(); err != nil {
		return err // the rest could go round in circles
	}
	return errors.Join(checkDirs(s), checkRefs(s), checkPools(s), checkHeld(s), checkGarbage(s), checkOrphans(s), checkNames(s), checkRequests(s))
}

func checkDirs(s *State) error {
	directories := 1 // the root
	var faults []error
	s.inodes.Scan(func(n *inode) bool {
		if n.directory {
			directories++
			if known, _ := s.dirs.Get(n.id); known != n {
				faults = append(faults, fmt.Errorf("the index of directories does not lead to %d", n.id))
			}
		}
		if n.parent == trashInode && n.name != fmt.Sprintf("%x", n.id) {
			faults = append(faults, fmt.Errorf("inode %d lies in the trash as %q", n.id, n.name))
		}
		return true
	})
	if directories != s.dirs.Len() {
		faults = append(faults, fmt.Errorf("%d directories, %d in their index", directories, s.dirs.Len()))
	}
	return errors.Join(faults...)
}

// checkPools counts what is left of each pool.
func checkPools(s *State) error {
	left := make(map[dfs.UploadID]int)
	s.chunks.Scan(func(_ dfs.ChunkID, c *chunk) bool {
		left[c.upload]++
		return true
	})
	var faults []error
	s.pools.Scan(func(id dfs.UploadID, p *pool) bool {
		if left[id] != p.left {
			faults = append(faults, fmt.Errorf("pool %s counts %d chunks that are left and has %d", id, p.left, left[id]))
		}
		return true
	})
	return errors.Join(faults...)
}

// checkRefs counts who refers to each chunk.
func checkRefs(s *State) error {
	refs := make(map[dfs.ChunkID]uint32)
	var faults []error
	s.inodes.Scan(func(n *inode) bool {
		size := int64(0)
		for _, id := range n.chunks() {
			refs[id]++
			if c, ok := s.chunks.Get(id); ok {
				size += int64(c.size)
			}
		}
		// What is being purged has lost some of its chunks.
		if _, alive := s.pathOf(n.parent); alive && !n.directory && size != n.size {
			faults = append(faults, fmt.Errorf("file %d says it has %d bytes; its chunks have %d", n.id, n.size, size))
		}
		return true
	})
	s.uploads.Scan(func(id dfs.UploadID, u *upload) bool {
		size := int64(0)
		for _, sealed := range u.sealed {
			refs[sealed]++
			if c, ok := s.chunks.Get(sealed); ok {
				size += int64(c.size)
			}
		}
		if size != u.size {
			faults = append(faults, fmt.Errorf("upload %s says it has %d bytes; its chunks have %d", id, u.size, size))
		}
		return true
	})
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		if c.refs != refs[id] {
			faults = append(faults, fmt.Errorf("chunk %s counts %d references and has %d", id, c.refs, refs[id]))
		}
		_, upload := s.uploads.Get(c.upload)
		_, pool := s.pools.Get(c.upload)
		if c.refs == 0 && !upload && !pool && c.replicaCount() == 0 {
			faults = append(faults, fmt.Errorf("nothing is left of chunk %s, but it is not forgotten", id))
		}
		for _, num := range c.damaged() {
			if c.heldBy(num) {
				faults = append(faults, fmt.Errorf("chunk %s is damaged on DataNode number %d and was replaced there", id, num))
			}
		}
		delete(refs, id)
		return true
	})
	for id := range refs {
		faults = append(faults, fmt.Errorf("chunk %s is referred to and not known", id))
	}
	return errors.Join(faults...)
}

// checkHeld recomputes, for each node, what it reported to hold.
func checkHeld(s *State) error {
	held := make(map[NodeNum]int64)
	digests := make(map[NodeNum]dfs.Digest)
	hold := func(num NodeNum, id dfs.ChunkID) {
		held[num]++
		digests[num] = digests[num].Add(id)
	}
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		for _, num := range c.replicas() {
			if _, waiting := s.unconfirmed.Get(replica{node: num, chunk: id}); !waiting {
				hold(num, id)
			}
		}
		return true
	})
	s.orphans.Scan(func(o orphan) bool {
		hold(o.node, o.chunk)
		return true
	})
	var faults []error
	s.nodes.Scan(func(num NodeNum, n *node) bool {
		if n.held != held[num] || n.digest != digests[num] {
			faults = append(faults, fmt.Errorf("DataNode number %d counts %d chunks (%s) and has %d (%s)", num, n.held, n.digest, held[num], digests[num]))
		}
		if n.inventoried && (n.count != n.held) {
			faults = append(faults, fmt.Errorf("DataNode number %d is said to agree with %d chunks of %d", num, n.held, n.count))
		}
		return true
	})
	return errors.Join(faults...)
}

// checkGarbage finds the garbage by looking at every chunk, file and upload.
func checkGarbage(s *State) error {
	used := make(map[dfs.ChunkID]bool)
	s.inodes.Scan(func(n *inode) bool {
		for _, id := range n.chunks() {
			used[id] = true
		}
		return true
	})
	s.uploads.Scan(func(_ dfs.UploadID, u *upload) bool {
		for _, a := range u.allocated {
			used[a.id] = true
		}
		return true
	})
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		if _, open := s.pools.Get(c.upload); open {
			used[id] = true
		}
		return true
	})
	garbage, replicas := 0, int64(s.orphans.Len())
	var faults []error
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		since, listed := s.garbage.Get(id)
		if is := !used[id] && c.replicaCount() > 0; is != listed {
			faults = append(faults, fmt.Errorf("chunk %s is garbage: %v; listed as garbage: %v", id, is, listed))
		}
		if listed {
			garbage, replicas = garbage+1, replicas+int64(c.replicaCount())
			if since == 0 || since > s.applied {
				faults = append(faults, fmt.Errorf("chunk %s is garbage since %d", id, since))
			}
		}
		return true
	})
	if garbage != s.garbage.Len() || replicas != s.Orphaned() {
		faults = append(faults, fmt.Errorf("%d chunks are garbage, %d are listed; %d replicas belong to nothing, %d are counted", garbage, s.garbage.Len(), replicas, s.Orphaned()))
	}
	return errors.Join(faults...)
}

func checkOrphans(s *State) error {
	unissued := make(map[dfs.ChunkID]int)
	var faults []error
	s.orphans.Scan(func(o orphan) bool {
		if _, known := s.chunks.Get(o.chunk); known {
			faults = append(faults, fmt.Errorf("chunk %s is known and an orphan", o.chunk))
		}
		if _, listed := s.unissued.Get(o.chunk); listed || o.chunk >= s.nextChunk {
			unissued[o.chunk]++
		}
		return true
	})
	s.unissued.Scan(func(id dfs.ChunkID, nodes int) bool {
		if unissued[id] != nodes {
			faults = append(faults, fmt.Errorf("chunk %s, never handed out, is counted on %d nodes and is on %d", id, nodes, unissued[id]))
		}
		delete(unissued, id)
		return true
	})
	if len(unissued) > 0 {
		faults = append(faults, fmt.Errorf("chunks %v were never handed out and are not listed as such", unissued))
	}
	return errors.Join(faults...)
}

func checkNames(s *State) error {
	var faults []error
	s.nodesByID.Scan(func(id dfs.NodeID, num NodeNum) bool {
		if n, ok := s.nodes.Get(num); !ok || n.id != id || n.num != num {
			faults = append(faults, fmt.Errorf("the name %s does not lead to DataNode number %d", id, num))
		}
		return true
	})
	if s.nodes.Len() != s.nodesByID.Len() {
		faults = append(faults, fmt.Errorf("%d DataNodes, %d in their index", s.nodes.Len(), s.nodesByID.Len()))
	}
	return errors.Join(faults...)
}

func checkRequests(s *State) error {
	var faults []error
	last := uint64(0)
	s.requestOrder.Scan(func(_ uint64, id dfs.RequestID) bool {
		known, ok := s.requests.Get(id)
		if !ok {
			faults = append(faults, fmt.Errorf("request %s is not remembered", id))
			return true
		}
		if known.index < last {
			faults = append(faults, fmt.Errorf("request %s of entry %d comes after one of %d", id, known.index, last))
		}
		last = known.index
		return true
	})
	if s.requests.Len() != s.requestOrder.Len() || s.requests.Len() > maxRequests {
		faults = append(faults, fmt.Errorf("%d requests, %d in their order", s.requests.Len(), s.requestOrder.Len()))
	}
	return errors.Join(faults...)
}

// busyRig has some of everything: files, an overwritten one, trash, open
// uploads (one half committed), garbage, orphans, unconfirmed replicas,
// remembered answers, nodes and members.
func busyRig(t testing.TB) *rig {
	t.Helper()
	r := newRig(t)
	r.must(&InitCluster{ClusterID: "00112233445566778899aabbccddeeff"})
	r.nodes(3)
	r.mkdir("/d/e")
	r.mkdir("/empty")
	first := r.write("/d/a <&> ü", 3)
	second := r.write("/d/e/b", 2)
	r.mkdir("/gone/deep")
	r.write("/gone/deep/file", 1)
	r.must(&Delete{Path: r.path("/gone"), Recursive: true})
	half := r.begin("/d/half", 4)
	r.must(&Commit{Upload: half.id, Chunks: stored(half.chunks[:2]...)})
	r.begin("/d/new", 1)
	stock := r.reserve(3) // one becomes a file, one is stored, one is left
	r.must(stock.put("/d/small", stock.chunks[0]))
	disk1, disk2 := newDisk(1), newDisk(2)
	r.beat(disk1.report(slices.Concat(first, second, []dfs.ChunkID{900_000}), nil))
	r.beat(disk2.report([]dfs.ChunkID{first[0], stock.chunks[1]}, nil))
	over := r.beginOver("/d/a <&> ü", 1)
	r.must(over.commit())
	r.must(&SetMember{ID: "nn1", Instance: "i1", URL: "http://nn1:8000", RaftAddr: "nn1:7000"})
	r.must(&RemoveMember{ID: "nn9"})
	r.must(&SetLiveness{Nodes: []NodeLiveness{{Node: 3, Liveness: Down}}})
	r.must(&SetService{Node: 3, Service: Draining})
	for i, c := range []Command{
		&Mkdir{Path: r.path("/asked")},
		&Mkdir{Path: r.path("/asked/for/no/parents")},
		begin(r.path("/asked/file"), 2),
		&Heartbeats{Reports: []NodeReport{{Node: 3, Incarnation: 1, Seq: 1, Count: 7}}},
		&Purge{Limit: 1},
	} {
		_, _ = r.applyAs(dfs.RequestID(fmt.Sprintf("request-%d", i)), c) // refusals are remembered, too
	}
	return r
}

func changeChunk(s *State, id dfs.ChunkID, change func(*chunk)) {
	c, _ := s.chunks.Get(id)
	change(&c)
	s.chunks.Set(id, c)
}

// TestInvariantsAreSeen breaks each invariant, so that the checks of the other
// tests are known to see it.
func TestInvariantsAreSeen(t *testing.T) {
	anyFile := func(s *State) *inode {
		var file *inode
		s.inodes.Scan(func(n *inode) bool {
			file = n
			return n.directory || n.parent == trashInode
		})
		return file
	}
	anyGarbage := func(s *State) dfs.ChunkID {
		id, _, _ := s.garbage.Min()
		return id
	}
	tests := []struct {
		name, want string
		spoil      func(*State)
	}{
		{"inode without its directory", "not there", func(s *State) { s.link(&inode{parent: 77777, name: "x"}) }},
		{"directories in a ring", "lies in itself", func(s *State) {
			s.put(&inode{id: 5000, parent: 5001, name: "a", directory: true})
			s.put(&inode{id: 5001, parent: 5000, name: "b", directory: true})
			s.nextInode = 6000
		}},
		{"directory missing in the index", "index", func(s *State) {
			s.link(&inode{parent: rootInode, name: "x", directory: true})
			s.dirs.Delete(s.nextInode - 1)
		}},
		{"too much in the index", "index", func(s *State) { s.dirs.Set(9, &inode{id: 9, parent: rootInode, directory: true}) }},
		{"inode ID used twice", "share an ID", func(s *State) { s.put(&inode{id: anyFile(s).id, parent: rootInode, name: "x"}) }},
		{"inode beyond the counter", "counter", func(s *State) { s.nextInode-- }},
		{"directory with chunks", "has chunks", func(s *State) {
			s.link(&inode{parent: rootInode, name: "x", directory: true, only: [1]dfs.ChunkID{1}})
		}},
		{"chunk beyond the counter", "counter", func(s *State) { s.nextChunk-- }},
		{"upload beyond the counter", "counter", func(s *State) { s.nextUpload-- }},
		{"node beyond the counter", "counter", func(s *State) { s.nextNode-- }},
		{"missing counter", "counter", func(s *State) { s.nextNode = 0 }},
		{"clock out of range", "clock", func(s *State) { s.clock = -1 }},
		{"wrong number of references", "references", func(s *State) { changeChunk(s, anyFile(s).chunks()[0], func(c *chunk) { c.refs = 5 }) }},
		{"file of a chunk that is not there", "not there", func(s *State) { s.chunks.Delete(anyFile(s).chunks()[0]) }},
		{"size of a file", "bytes", func(s *State) { anyFile(s).size++ }},
		{"size of an upload", "bytes", func(s *State) { u, _ := s.uploads.Get(s.nextUpload - 1); u.size++ }},
		{"chunk that nothing is left of", "forgotten", func(s *State) { s.allocate(new(upload), 12345, [][]NodeNum{{1}}) }},
		{"chunk of another upload", "not its own", func(s *State) {
			u, _ := s.uploads.Get(s.nextUpload - 1)
			u.allocated = append(u.allocated, allocated{1, nil})
		}},
		{"sealed chunk of another upload", "not its own", func(s *State) {
			u, _ := s.uploads.Get(s.nextUpload - 1)
			u.sealed = append(u.sealed, 1)
		}},
		{"upload without a name", "name", func(s *State) { u, _ := s.uploads.Get(s.nextUpload - 1); u.name = "" }},
		{"target that is not there", "not there", func(s *State) {
			u, _ := s.uploads.Get(s.nextUpload - 1)
			u.allocated[0].targets = []NodeNum{99}
		}},
		{"pool beyond the counter", "counter", func(s *State) { s.pools.Set(s.nextUpload, &pool{first: 1, reserved: 1, left: 1}) }},
		{"pool with the ID of an upload", "ID of an upload", func(s *State) {
			s.uploads.Scan(func(id dfs.UploadID, _ *upload) bool {
				s.pools.Set(id, &pool{first: 1, reserved: 1, left: 1})
				return false
			})
		}},
		{"pool of no chunk", "beyond the counter", func(s *State) { _, p, _ := s.pools.Min(); p.first = 0 }},
		{"pool of chunks that are none yet", "beyond the counter", func(s *State) { _, p, _ := s.pools.Min(); p.first = s.nextChunk - 1 }},
		{"pool of chunks beyond all numbers", "beyond the counter", func(s *State) { _, p, _ := s.pools.Min(); p.first = ^dfs.ChunkID(0) }},
		{"empty pool", "left", func(s *State) { _, p, _ := s.pools.Min(); p.left = 0 }},
		{"overfull pool", "left", func(s *State) { _, p, _ := s.pools.Min(); p.left = p.reserved + 1 }},
		{"pool that counts wrongly", "left", func(s *State) { _, p, _ := s.pools.Min(); p.left++ }},
		{"file of a chunk in a pool", "can have left", func(s *State) {
			id, _, _ := s.pools.Min()
			changeChunk(s, anyFile(s).chunks()[0], func(c *chunk) { c.upload = id })
		}},
		{"chunk of a pool that has others", "can have left", func(s *State) { _, p, _ := s.pools.Min(); p.first += 2 }},
		{"garbage in a pool", "is not", func(s *State) { _, p, _ := s.pools.Min(); s.garbage.Set(p.first+1, 1) }},
		{"replicas out of order", "order", func(s *State) { changeChunk(s, 1, func(c *chunk) { c.setReplicas([]NodeNum{2, 1}) }) }},
		{"replica on a node that is not there", "not there", func(s *State) { changeChunk(s, 1, func(c *chunk) { c.setReplicas([]NodeNum{1, 2, 99}) }) }},
		{"replica that was not counted", "counts", func(s *State) { changeChunk(s, 1, func(c *chunk) { c.setReplicas([]NodeNum{1, 2, 3}) }) }},
		{"digest", "counts", func(s *State) { n, _ := s.nodes.Get(1); n.digest++ }},
		{"false agreement", "agree", func(s *State) { n, _ := s.nodes.Get(1); n.inventoried, n.count = true, n.held+1 }},
		{"state of a node", "state", func(s *State) { n, _ := s.nodes.Get(1); n.liveness = Down + 1 }},
		{"unconfirmed without replica", "no replica", func(s *State) { s.unconfirmed.Set(replica{3, 1, 1}) }},
		{"orphan on no node", "not there", func(s *State) { s.orphans.Set(orphan{99, 77, 1}) }},
		{"orphan of the future", "log entry", func(s *State) { s.orphans.Set(orphan{1, 77, s.applied + 1}) }},
		{"orphan that is a chunk", "known and an orphan", func(s *State) { s.orphans.Set(orphan{1, anyFile(s).chunks()[0], 1}) }},
		{"chunk in use that never was handed out", "handed out", func(s *State) { s.unissued.Set(anyFile(s).chunks()[0], 1) }},
		{"orphan never handed out that is not listed", "not listed", func(s *State) { s.unissued.Delete(900_000) }},
		{"orphan miscounted", "counted on", func(s *State) { s.unissued.Set(900_000, 2) }},
		{"garbage that is in use", "is not", func(s *State) { s.garbage.Set(anyFile(s).chunks()[0], 1) }},
		{"garbage of an open upload", "is not", func(s *State) {
			u, _ := s.uploads.Get(s.nextUpload - 1)
			s.garbage.Set(u.allocated[0].id, 1)
		}},
		{"garbage that is not there", "is not", func(s *State) { s.garbage.Set(77, 1) }},
		{"garbage of the future", "log entry", func(s *State) { s.garbage.Set(anyGarbage(s), s.applied+1) }},
		{"garbage that is not listed", "listed", func(s *State) { s.garbage.Delete(anyGarbage(s)) }},
		{"name of a node", "lead to", func(s *State) { s.nodesByID.Set("dn1", 2) }},
		{"node without a name", "index", func(s *State) { s.nodesByID.Delete("dn1") }},
		{"name in the trash", "in the trash", func(s *State) { s.link(&inode{parent: trashInode, name: "x"}) }},
		{"request without order", "requests", func(s *State) { s.requestOrder.PopMin() }},
		{"order without request", "remembered", func(s *State) { s.requests.Delete("request-0") }},
		{"request of the future", "log entry", func(s *State) {
			_, newest, _ := s.requestOrder.Max()
			r, _ := s.requests.Get(newest)
			r.index = s.applied + 1
		}},
		{"requests out of order", "comes after", func(s *State) { s.requestOrder.Set(s.nextTurn(), "request-0") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			good := restored(t, busyRig(t).m).Freeze() // records of its own
			if err := checkInvariants(good); err != nil {
				t.Fatalf("before: %v", err)
			}
			test.spoil(good)
			if err := checkInvariants(good); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("the check said: %v\nwant it to speak of %q", err, test.want)
			}
		})
	}
}
