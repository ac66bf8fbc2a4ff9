package fsm

import (
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Entry is a file or directory as a reader sees it.
type Entry struct {
	Path        string
	Name        string
	Inode       uint64
	Directory   bool
	MTime       time.Time
	Size        int64 // bytes
	Replication int
	ChunkSize   int64 // bytes
	Chunks      int
}

// Chunk is one chunk of a file, with the nodes that are said to hold it.
type Chunk struct {
	ID       dfs.ChunkID
	Size     int64 // bytes
	Checksum dfs.Checksum
	Refs     int // files that use it
	Replicas []NodeNum
	Damaged  []NodeNum // where a replica was found damaged and no new one has taken its place
}

// File is an entry with its chunks in order.
type File struct {
	Entry
	Contents []Chunk
}

// Node is a row of the node table.
type Node struct {
	Num           NodeNum
	ID            dfs.NodeID
	URL           string
	Rack          string
	Instance      string
	Incarnation   uint64
	Seq           uint64
	Capacity      int64 // bytes
	Used          int64 // bytes
	Free          int64 // bytes
	Writable      bool
	Liveness      Liveness
	Service       Service
	LastHeartbeat time.Time
	Chunks        int64
	Inventoried   bool // its reports and the state agree
}

// Member is a NameNode.
type Member struct {
	ID       dfs.NodeID
	Instance string
	URL      string
	RaftAddr string
	Removed  bool
}

// Upload is a file in the making.
type Upload struct {
	ID          dfs.UploadID
	Path        string // "" when its directory was deleted
	Replication int
	ChunkSize   int64
	Touched     int64 // clock, milliseconds
	Allocated   []Allocation
}

// Allocation is a chunk that was allocated and where it should go.
type Allocation struct {
	ID      dfs.ChunkID
	Targets []NodeNum
}

// ClusterID returns the cluster's ID, "" before it is minted.
func (s *State) ClusterID() dfs.ClusterID { return s.clusterID }

// AppliedIndex returns the log index of the last entry that was applied.
func (s *State) AppliedIndex() uint64 { return s.applied }

// Clock returns the time of the state: that of the latest stamp.
func (s *State) Clock() time.Time { return time.UnixMilli(s.clock) }

// Counts returns how many names (the root not counted), chunks and open
// uploads there are. Chunks in pools are not counted: they are IDs in stock.
func (s *State) Counts() (inodes, chunks, uploads int) {
	chunks = s.chunks.Len()
	s.pools.Scan(func(_ dfs.UploadID, p *pool) bool {
		chunks -= p.left
		return true
	})
	return s.inodes.Len(), chunks, s.uploads.Len()
}

// Stat returns what stands at path.
func (s *State) Stat(path dfs.Path) (Entry, error) {
	n, err := s.lookup(path)
	if err != nil {
		return Entry{}, err
	}
	return n.entry(path.String()), nil
}

func (n *inode) entry(path string) Entry {
	return Entry{
		Path: path, Name: n.name, Inode: n.id, Directory: n.directory, MTime: time.UnixMilli(n.mtime),
		Size: n.size, Replication: int(n.replication), ChunkSize: int64(n.chunkSize), Chunks: len(n.chunks()),
	}
}

// File returns the file at path with its chunks.
func (s *State) File(path dfs.Path) (File, error) {
	n, err := s.file(path)
	if err != nil {
		return File{}, err
	}
	file := File{Entry: n.entry(path.String()), Contents: make([]Chunk, 0, len(n.chunks()))}
	for _, id := range n.chunks() {
		c, ok := s.chunks.Get(id)
		if !ok {
			return File{}, dfs.Errorf(dfs.Corrupt, "%s refers to chunk %s, which the namespace does not know", path, id)
		}
		file.Contents = append(file.Contents, c.view(id, c.replicas()))
	}
	return file, nil
}

// view shows the chunk with a list of its replicas.
func (c *chunk) view(id dfs.ChunkID, replicas []NodeNum) Chunk {
	return Chunk{id, int64(c.size), c.checksum, int(c.refs), replicas, c.damaged()}
}

// nodeSlab is memory for many short lists. Whoever keeps one of them keeps the
// slab, so it is small.
type nodeSlab []NodeNum

const nodeSlabSize = 64

// replicas returns what c.replicas would.
func (b *nodeSlab) replicas(c *chunk) []NodeNum {
	begin, count := len(*b), c.replicaCount()
	if cap(*b)-begin < count {
		*b, begin = make(nodeSlab, 0, max(nodeSlabSize, count)), 0
	}
	*b = c.appendReplicas(*b)
	return (*b)[begin:len(*b):len(*b)]
}

// Chunk returns what is known of a chunk.
func (s *State) Chunk(id dfs.ChunkID) (Chunk, bool) {
	c, ok := s.chunks.Get(id)
	if !ok {
		return Chunk{}, false
	}
	return c.view(id, c.replicas()), true
}

// Walk calls fn with every file that a path leads to, until fn returns false.
// What was deleted and what is still being uploaded is left out. The file's
// Contents are reused for the next file. The time it takes grows with the
// namespace: walk a frozen copy, so that Apply does not wait.
func (s *State) Walk(fn func(*File) bool) {
	var dir uint64 // of prefix; files of a directory follow each other
	var prefix string
	var reachable bool
	var file File
	var slab nodeSlab
	s.inodes.Scan(func(n *inode) bool {
		if n.directory {
			return true
		}
		if n.parent != dir {
			dir = n.parent
			prefix, reachable = s.pathOf(dir)
		}
		if !reachable {
			return true
		}
		file.Entry, file.Contents = n.entry(prefix+"/"+n.name), file.Contents[:0]
		for _, id := range n.chunks() {
			view := Chunk{ID: id} // no replica: a reader finds none either
			if c, ok := s.chunks.Get(id); ok {
				view = c.view(id, slab.replicas(&c))
			}
			file.Contents = append(file.Contents, view)
		}
		return fn(&file)
	})
}

// Garbage is a chunk that no file and no open upload uses, nor ever will, and
// that some nodes are said to hold.
type Garbage struct {
	ID       dfs.ChunkID
	Since    uint64 // log index of the entry that made it garbage
	Replicas []NodeNum
}

// Orphan is a chunk on a node that the namespace does not know.
type Orphan struct {
	ID    dfs.ChunkID
	Since uint64 // log index of the report that it was first heard of in
	// Issued is false when the node held it before the counter had come to its
	// ID: then it comes from a future that this namespace has lost.
	Issued bool
}

// Orphaned returns how many replicas on DataNodes belong to no file and no
// open upload. The time it takes grows with the garbage.
func (s *State) Orphaned() int64 {
	count := int64(s.orphans.Len())
	s.GarbageAfter(0, func(g Garbage) bool {
		count += int64(len(g.Replicas))
		return true
	})
	return count
}

// Reclaimable returns how many chunks are garbage and how many replicas are
// orphans.
func (s *State) Reclaimable() (garbage, orphans int) { return s.garbage.Len(), s.orphans.Len() }

// GarbageAfter calls fn with the garbage of IDs above after, in order, until it
// returns false.
func (s *State) GarbageAfter(after dfs.ChunkID, fn func(Garbage) bool) {
	if after == ^dfs.ChunkID(0) {
		return
	}
	s.garbage.Ascend(after+1, func(id dfs.ChunkID, since uint64) bool {
		// What is deleted for it had better be looked at twice.
		if c, ok := s.chunks.Get(id); ok && s.unused(&c) {
			return fn(Garbage{id, since, c.replicas()})
		}
		return true
	})
}

// OrphansAfter calls fn with the orphans on a node of IDs above after, in order,
// until it returns false.
func (s *State) OrphansAfter(num NodeNum, after dfs.ChunkID, fn func(Orphan) bool) {
	if after == ^dfs.ChunkID(0) {
		return
	}
	s.orphans.Ascend(orphan{node: num, chunk: after + 1}, func(o orphan) bool {
		if o.node != num {
			return false
		}
		if _, known := s.chunks.Get(o.chunk); known {
			return true
		}
		_, unissued := s.unissued.Get(o.chunk)
		return fn(Orphan{o.chunk, o.since, !unissued && o.chunk < s.nextChunk})
	})
}

// List returns up to limit entries of the directory at path whose names come
// after the name after ("" for the first page), and whether there are more.
func (s *State) List(path dfs.Path, after string, limit int) (entries []Entry, more bool, err error) {
	dir, err := s.directory(path)
	if err != nil {
		return nil, false, err
	}
	prefix := path.String()
	if !path.IsRoot() {
		prefix += "/"
	}
	s.inodes.Ascend(&inode{parent: dir.id, name: after}, func(n *inode) bool {
		switch {
		case n.parent != dir.id:
			return false
		case n.name == after && after != "":
			return true
		case len(entries) == limit:
			more = true
			return false
		}
		entries = append(entries, n.entry(prefix+n.name))
		return true
	})
	return entries, more, nil
}

// Answer returns what the request was answered, if it is remembered. An ID that
// was used for another kind of command gets the refusal that Apply would give.
func (s *State) Answer(id dfs.RequestID, command Command) (result Result, err error, known bool) {
	r, ok := s.requests.Get(id)
	if !ok || id == "" {
		return Result{}, nil, false
	}
	result, err = r.answer(command.number())
	return result, err, true
}

// Memory tells how far back answers are remembered: those of all requests after
// the log entry at oldest, and of every one ever when whole.
func (s *State) Memory() (oldest uint64, whole bool) {
	if s.requests.Len() < maxRequests {
		return 0, true
	}
	_, id, _ := s.requestOrder.Min()
	r, _ := s.requests.Get(id)
	return r.index, false
}

// Remembers tells whether the answer to a request is remembered.
func (s *State) Remembers(id dfs.RequestID) bool {
	_, ok := s.requests.Get(id)
	return ok
}

// Upload returns an open upload, or why there is none.
func (s *State) Upload(id dfs.UploadID) (Upload, error) {
	u, err := s.openUpload(id)
	if err != nil {
		return Upload{}, err
	}
	return s.uploadView(id, u), nil
}

func (s *State) uploadView(id dfs.UploadID, u *upload) Upload {
	view := Upload{ID: id, Replication: u.replication, ChunkSize: u.chunkSize, Touched: u.touched}
	if dir, ok := s.pathOf(u.parent); ok {
		view.Path = dir + "/" + u.name
	}
	view.Allocated = make([]Allocation, len(u.allocated))
	for i, a := range u.allocated {
		view.Allocated[i] = Allocation{a.id, a.targets}
	}
	return view
}

// TouchedUploads calls fn with each open upload and the clock, in milliseconds,
// of its last sign of life, and with each open pool and that of its reservation.
func (s *State) TouchedUploads(fn func(id dfs.UploadID, touched int64)) {
	s.uploads.Scan(func(id dfs.UploadID, u *upload) bool {
		fn(id, u.touched)
		return true
	})
	s.pools.Scan(func(id dfs.UploadID, p *pool) bool {
		fn(id, p.touched)
		return true
	})
}

// Base returns the inode of the file that a new one at path would replace, 0
// for none, or why none can be made there.
func (s *State) Base(path dfs.Path, overwrite bool) (inode uint64, err error) {
	if err := checkFile(path, dfs.DefaultReplication, dfs.DefaultChunkSize); err != nil {
		return 0, err
	}
	at, err := s.placeOf(path, overwrite)
	return at.base, err
}

// PoolOpen tells whether PutFile may use chunks of the pool.
func (s *State) PoolOpen(id dfs.UploadID) bool {
	_, open := s.pools.Get(id)
	return open
}

// InPool tells whether the chunk is one of an open pool that no file has got,
// and which nodes are said to hold it.
func (s *State) InPool(id dfs.ChunkID) (held func(NodeNum) bool, ok bool) {
	c, known := s.chunks.Get(id)
	if !known || !s.PoolOpen(c.upload) {
		return nil, false
	}
	return c.heldBy, true
}

// Untouched tells whether the chunk is one of an open pool that no file has got
// and no node is said to hold. One that was not handed out and is not so, a node
// holds from a future that this namespace has lost, or its caller made its ID up.
func (s *State) Untouched(id dfs.ChunkID) bool {
	c, known := s.chunks.Get(id)
	return known && s.PoolOpen(c.upload) && c.replicaCount() == 0
}

// InFlight calls fn with each chunk that was allocated but not yet reported
// by a target, and that target: what is on its way.
func (s *State) InFlight(fn func(target NodeNum, chunkSize int64)) {
	s.uploads.Scan(func(_ dfs.UploadID, u *upload) bool {
		for _, a := range u.allocated {
			c, ok := s.chunks.Get(a.id)
			if !ok {
				continue
			}
			for _, num := range a.targets {
				if !c.heldBy(num) {
					fn(num, u.chunkSize)
				}
			}
		}
		return true
	})
}

// Nodes returns the node table in order of numbers.
func (s *State) Nodes() []Node {
	nodes := make([]Node, 0, s.nodes.Len())
	s.nodes.Scan(func(_ NodeNum, n *node) bool {
		nodes = append(nodes, n.view())
		return true
	})
	return nodes
}

// Node returns the row of a DataNode.
func (s *State) Node(id dfs.NodeID) (Node, bool) {
	num, ok := s.nodesByID.Get(id)
	if !ok {
		return Node{}, false
	}
	return s.NodeByNum(num)
}

// NodeByNum returns the row with a number.
func (s *State) NodeByNum(num NodeNum) (Node, bool) {
	n, ok := s.nodes.Get(num)
	if !ok {
		return Node{}, false
	}
	return n.view(), true
}

func (n *node) view() Node {
	return Node{
		Num: n.num, ID: n.id, URL: n.url, Rack: n.rack, Instance: n.instance,
		Incarnation: n.incarnation, Seq: n.seq, Capacity: n.capacity, Used: n.used, Free: n.free,
		Writable: n.writable, Liveness: n.liveness, Service: n.service,
		LastHeartbeat: time.UnixMilli(n.lastHeartbeat), Chunks: n.count, Inventoried: n.inventoried,
	}
}

// Members returns the NameNodes that were announced, removed ones included,
// in order of IDs.
func (s *State) Members() []Member {
	members := make([]Member, 0, s.members.Len())
	s.members.Scan(func(_ dfs.NodeID, m *member) bool {
		members = append(members, Member{m.id, m.instance, m.url, m.raftAddr, m.removed})
		return true
	})
	return members
}

// Member returns what is known of a NameNode.
func (s *State) Member(id dfs.NodeID) (Member, bool) {
	m, ok := s.members.Get(id)
	if !ok {
		return Member{}, false
	}
	return Member{m.id, m.instance, m.url, m.raftAddr, m.removed}, true
}

// Trashed tells whether there is anything to Purge.
func (s *State) Trashed() bool { return s.firstChild(trashInode) != nil }

// Reported tells whether the node itself reported that it holds the chunk.
func (s *State) Reported(num NodeNum, id dfs.ChunkID) bool {
	if c, ok := s.chunks.Get(id); ok {
		_, waiting := s.unconfirmed.Get(replica{node: num, chunk: id})
		return !waiting && c.heldBy(num)
	}
	_, known := s.orphans.Get(orphan{node: num, chunk: id})
	return known
}

// ReportedBetween calls fn with the chunks above after and up to
// through that the node itself reported to hold. Replicas that are known only
// from a commit are left out: their report may still be on its way.
func (s *State) ReportedBetween(num NodeNum, after, through dfs.ChunkID, fn func(dfs.ChunkID)) {
	if after == ^dfs.ChunkID(0) {
		return
	}
	s.chunks.Ascend(after+1, func(id dfs.ChunkID, c *chunk) bool {
		if id > through {
			return false
		}
		if c.heldBy(num) {
			if _, waiting := s.unconfirmed.Get(replica{node: num, chunk: id}); !waiting {
				fn(id)
			}
		}
		return true
	})
	s.orphans.Ascend(orphan{node: num, chunk: after + 1}, func(o orphan) bool {
		if o.node != num || o.chunk > through {
			return false
		}
		fn(o.chunk)
		return true
	})
}

// Empty tells whether nothing lies on the node: nothing that it reported itself,
// and nothing that a commit named.
func (s *State) Empty(num NodeNum) bool {
	n, ok := s.nodes.Get(num)
	if !ok || n.held != 0 || n.count != 0 {
		return false
	}
	empty := true
	s.unconfirmed.Ascend(replica{node: num}, func(r replica) bool {
		empty = r.node != num
		return false
	})
	return empty
}

// Unconfirmed tells whether a replica of the node, known from a commit, has
// waited for the node's own report for longer than age.
func (s *State) Unconfirmed(num NodeNum, age time.Duration) bool {
	stale := false
	s.unconfirmed.Ascend(replica{node: num}, func(r replica) bool {
		stale = r.node == num && r.since+age.Milliseconds() < s.clock
		return r.node == num && !stale
	})
	return stale
}
