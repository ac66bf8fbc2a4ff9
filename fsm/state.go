package fsm

import (
	"sync"

	"github.com/tidwall/btree"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Inodes that are always there.
const (
	rootInode  = 1
	trashInode = 2 // holds what was deleted and is not yet purged; no path leads here
)

// State is everything the NameNodes agree on. The records that the trees point
// to are never changed, only replaced, so that a copy of the trees (O(1), copy
// on write) is a copy of the state. Chunks are values in a table that is copied
// likewise.
type State struct {
	clusterID dfs.ClusterID
	applied   uint64 // log index
	clock     int64  // Unix milliseconds, never goes back

	nextInode  uint64
	nextChunk  dfs.ChunkID
	nextUpload dfs.UploadID
	nextNode   NodeNum

	inodes  *btree.BTreeG[*inode]      // by parent and name: a listing is a range
	keys    *sync.Pool                 // inodes to search with
	dirs    *btree.Map[uint64, *inode] // directories by their own ID, to walk up
	chunks  *chunkTable
	uploads *btree.Map[dfs.UploadID, *upload]
	pools   *btree.Map[dfs.UploadID, *pool] // by IDs of the same counter as uploads

	requests     *btree.Map[dfs.RequestID, *request]
	requestOrder *btree.Map[uint64, dfs.RequestID] // by their turn, later ones have higher numbers: the order of forgetting

	nodes       *btree.Map[NodeNum, *node]
	nodesByID   *btree.Map[dfs.NodeID, NodeNum]
	unconfirmed *btree.BTreeG[replica] // known from a commit, not yet from the node itself
	orphans     *btree.BTreeG[orphan]
	unissued    *btree.Map[dfs.ChunkID, int]    // orphans whose ID was never handed out, and on how many nodes; no upload gets such an ID
	garbage     *btree.Map[dfs.ChunkID, uint64] // chunks that nothing uses and some node holds, and the log index since when
	members     *btree.Map[dfs.NodeID, *member]
}

// inode is a file or a directory. It is kept small: a million files are no
// large cluster.
type inode struct {
	name        string
	parent      uint64
	id          uint64         // also the generation: an overwrite makes a new inode
	mtime       int64          // clock
	size        int64          // bytes
	only        [1]dfs.ChunkID // the chunk of a file that has just one, else 0
	many        *[]dfs.ChunkID // the chunks of a file that has several, else nil
	chunkSize   int32          // bytes
	replication uint8
	directory   bool
}

// chunks returns the chunks of a file in order. The slice must not be changed.
func (n *inode) chunks() []dfs.ChunkID {
	switch {
	case n.many != nil:
		return *n.many
	case n.only[0] != 0:
		return n.only[:]
	}
	return nil
}

// setChunks gives n, which is new, the chunks in order. They must not be changed
// after that, except when there is just one.
func (n *inode) setChunks(ids []dfs.ChunkID) {
	n.only[0], n.many = 0, nil
	switch len(ids) {
	case 0:
	case 1:
		n.only[0] = ids[0]
	default:
		all := ids // so that only this case takes memory
		n.many = &all
	}
}

type allocated struct {
	id      dfs.ChunkID
	targets []NodeNum
}

// upload is a file in the making.
type upload struct {
	parent      uint64 // inode of the directory, so that the upload moves with it
	name        string
	base        uint64 // inode that stood there at the beginning, 0 for none
	overwrite   bool
	replication int
	chunkSize   int64
	touched     int64 // clock at the last sign of life
	allocated   []allocated
	sealed      []dfs.ChunkID // chunks named by commits so far, in file order
	size        int64         // bytes sealed
}

// request is the remembered answer to a mutation.
type request struct {
	index   uint64 // log index
	command number
	result  Result
	err     *dfs.Error // nil unless it was refused
}

// node is a DataNode.
type node struct {
	num           NodeNum
	id            dfs.NodeID
	url           string
	rack          string
	instance      string
	incarnation   uint64
	seq           uint64 // of the last report taken in
	capacity      int64
	used          int64
	free          int64
	writable      bool
	liveness      Liveness
	service       Service
	lastHeartbeat int64      // clock
	count         int64      // chunks the node said it holds
	held          int64      // chunks the state knows from the node's own reports
	digest        dfs.Digest // of those
	inventoried   bool       // the two agreed at the last report of this incarnation
}

// member is a NameNode.
type member struct {
	id       dfs.NodeID
	instance string
	url      string
	raftAddr string
	removed  bool
}

// replica is a chunk on a node, and the clock when that was first known.
// Ordered by node, then chunk.
type replica struct {
	node  NodeNum
	chunk dfs.ChunkID
	since int64
}

// orphan is a chunk on a node that the namespace does not know, and the log
// index at which it was first heard of. Ordered by node, then chunk.
type orphan struct {
	node  NodeNum
	chunk dfs.ChunkID
	since uint64
}

func newInodeTree() *btree.BTreeG[*inode] {
	return btree.NewBTreeGOptions(func(a, b *inode) bool {
		if a.parent != b.parent {
			return a.parent < b.parent
		}
		return a.name < b.name
	}, btree.Options{NoLocks: true})
}

func newReplicaTree() *btree.BTreeG[replica] {
	return btree.NewBTreeGOptions(func(a, b replica) bool {
		if a.node != b.node {
			return a.node < b.node
		}
		return a.chunk < b.chunk
	}, btree.Options{NoLocks: true})
}

func newOrphanTree() *btree.BTreeG[orphan] {
	return btree.NewBTreeGOptions(func(a, b orphan) bool {
		if a.node != b.node {
			return a.node < b.node
		}
		return a.chunk < b.chunk
	}, btree.Options{NoLocks: true})
}

// newState returns the state before the first log entry: an empty root.
func newState() *State {
	s := &State{
		nextInode:    trashInode + 1,
		nextChunk:    1,
		nextUpload:   1,
		nextNode:     1,
		inodes:       newInodeTree(),
		keys:         &sync.Pool{New: func() any { return new(inode) }},
		dirs:         new(btree.Map[uint64, *inode]),
		chunks:       newChunkTable(),
		uploads:      new(btree.Map[dfs.UploadID, *upload]),
		pools:        new(btree.Map[dfs.UploadID, *pool]),
		requests:     new(btree.Map[dfs.RequestID, *request]),
		requestOrder: new(btree.Map[uint64, dfs.RequestID]),
		nodes:        new(btree.Map[NodeNum, *node]),
		nodesByID:    new(btree.Map[dfs.NodeID, NodeNum]),
		unconfirmed:  newReplicaTree(),
		orphans:      newOrphanTree(),
		unissued:     new(btree.Map[dfs.ChunkID, int]),
		garbage:      new(btree.Map[dfs.ChunkID, uint64]),
		members:      new(btree.Map[dfs.NodeID, *member]),
	}
	s.dirs.Set(rootInode, &inode{id: rootInode, directory: true})
	return s
}

// copy returns a state that later changes of s do not reach. It takes the same
// time whatever the size. Not safe beside any other use of s.
func (s *State) copy() *State {
	c := *s
	c.inodes = s.inodes.Copy()
	c.dirs = s.dirs.Copy()
	c.chunks = s.chunks.copy()
	c.uploads = s.uploads.Copy()
	c.pools = s.pools.Copy()
	c.requests = s.requests.Copy()
	c.requestOrder = s.requestOrder.Copy()
	c.nodes = s.nodes.Copy()
	c.nodesByID = s.nodesByID.Copy()
	c.unconfirmed = s.unconfirmed.Copy()
	c.orphans = s.orphans.Copy()
	c.unissued = s.unissued.Copy()
	c.garbage = s.garbage.Copy()
	c.members = s.members.Copy()
	return &c
}
