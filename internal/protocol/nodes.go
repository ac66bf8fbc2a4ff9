package protocol

import (
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// HeartbeatRequest is the body of POST /heartbeat. DataNodes of this project
// send the long form: changes since the last acknowledged heartbeat, counts
// and a digest of everything they hold. The short form {id, chunks, capacity}
// is a full inventory from a node that knows no more than that; it is refused
// for a node that is registered by the long form.
type HeartbeatRequest struct {
	ID       dfs.NodeID    `json:"id"`
	Capacity int64         `json:"capacity"`         // bytes
	Chunks   []dfs.ChunkID `json:"chunks,omitempty"` // short form only; null means an empty node

	URL         string         `json:"url,omitempty"` // base URL for clients and other DataNodes
	Rack        string         `json:"rack,omitempty"`
	Instance    string         `json:"instance,omitempty"`    // random, lives and dies with the data directory
	Incarnation uint64         `json:"incarnation,omitempty"` // grows by one at each start; 0 marks the short form
	Seq         uint64         `json:"seq,omitempty"`         // grows by one with each new heartbeat of an incarnation
	Used        int64          `json:"used,omitempty"`        // bytes of chunks
	Free        int64          `json:"free,omitempty"`        // bytes that may still be written
	Unwritable  bool           `json:"unwritable,omitempty"`  // no new chunks: full or failing
	ChunkCount  int64          `json:"chunk_count,omitempty"`
	Digest      dfs.Digest     `json:"digest,omitempty"` // of all chunks held, changes of this heartbeat included
	Added       []dfs.ChunkID  `json:"added,omitempty"`
	Removed     []dfs.ChunkID  `json:"removed,omitempty"`
	Corrupt     []dfs.ChunkID  `json:"corrupt,omitempty"` // quarantined: no longer held because damaged
	Inventory   *InventoryPage `json:"inventory,omitempty"`
}

// InventoryPage is a part of a full inventory: exactly the chunks held with
// an ID above After and up to Through, in order, taken together with the
// changes of the same heartbeat. Last marks the final page, whose Through is
// the highest possible ID.
type InventoryPage struct {
	After   uint64        `json:"after"`
	Through uint64        `json:"through"`
	Last    bool          `json:"last"`
	Chunks  []dfs.ChunkID `json:"chunks"`
}

// HeartbeatReply answers a heartbeat, after what it reported is in the log of
// a majority.
type HeartbeatReply struct {
	ClusterID     dfs.ClusterID `json:"cluster_id"`
	Term          uint64        `json:"term"` // of the answering leader; lower ones are refused from now on
	WantInventory bool          `json:"want_inventory,omitempty"`
	Interval      int64         `json:"interval_ms"` // until the next heartbeat
	Nodes         []Target      `json:"nodes"`       // DataNodes that can be forwarded to
	Orders        []Order       `json:"orders,omitempty"`
}

// Kinds of orders.
const (
	OrderCopy   = "copy"   // fetch Chunk from one of the sources and keep it
	OrderVerify = "verify" // read Chunk again; quarantine it when it is damaged
	OrderDelete = "delete" // give up Chunks: no file and no upload will ever use them
	OrderTrim   = "trim"   // give up the replica of Chunk, if enough keepers confirm theirs
)

// MaxOrderChunks bounds the chunks of one order to delete.
const MaxOrderChunks = 4096

// OrderLifetime bounds how long a DataNode may wait before it carries an order
// to delete or to trim out. After that it is void: what the leader knew when it
// decided may have changed.
const OrderLifetime = 10 * time.Second

// Order is something that the leader wants a DataNode to do. Orders travel only
// in answers to heartbeats, under the answer's term, and a DataNode obeys none
// of a lower term than the highest it has seen. Each can be carried out twice
// without harm. What has come of it shows in later heartbeats; an order that
// failed is thought over anew by the leader.
//
// A trim is the only order that can take a replica from a file, so the leader's
// word is not enough for it: just before it obeys, the DataNode asks the keepers
// itself (POST /chunks/stat with verify), and needs Keep of them to have read
// their replica again and found it as the order says.
type Order struct {
	Kind    string        `json:"kind"`
	Chunk   dfs.ChunkID   `json:"chunk,omitempty"`
	Size    int64         `json:"size,omitempty"`    // of the chunk, as the namespace knows it
	CRC32C  dfs.Checksum  `json:"crc32c,omitempty"`  // likewise
	Sources []Target      `json:"sources,omitempty"` // of a copy, best first
	Keepers []Target      `json:"keepers,omitempty"` // of a trim: the other nodes that hold the chunk
	Keep    int           `json:"keep,omitempty"`    // of a trim: how many of them must confirm, at least 1
	Chunks  []dfs.ChunkID `json:"chunks,omitempty"`  // of a delete, at most MaxOrderChunks
}

// DataNode states.
const (
	StateUp       = "up"
	StateSuspect  = "suspect"
	StateDown     = "down"
	StateDraining = "draining"
	StateDrained  = "drained"
)

// InService is the service of a DataNode that is not to be emptied. The others
// are StateDraining and StateDrained.
const InService = "in_service"

// NodeInfo is a DataNode as GET /nodes shows it.
type NodeInfo struct {
	ID            dfs.NodeID `json:"id"`
	URL           string     `json:"url"`
	Rack          string     `json:"rack"`
	State         string     `json:"state"`   // what is wrong, or else what is wanted of it
	Service       string     `json:"service"` // what is wanted of it
	Writable      bool       `json:"writable"`
	Capacity      int64      `json:"capacity"`
	Used          int64      `json:"used"`
	Free          int64      `json:"free"`
	Chunks        int64      `json:"chunks"`
	Incarnation   uint64     `json:"incarnation"`
	LastHeartbeat time.Time  `json:"last_heartbeat"`
}

// NodesReply answers GET /nodes.
type NodesReply struct {
	Nodes []NodeInfo `json:"nodes"`
}

// Roles of a member of the Raft group.
const (
	RoleLeader   = "leader"
	RoleVoter    = "voter"
	RoleNonvoter = "nonvoter"
)

// Member is a NameNode of the group.
type Member struct {
	ID       dfs.NodeID `json:"id"`
	URL      string     `json:"url"`
	RaftAddr string     `json:"raft_addr"`
	Role     string     `json:"role"`
}

// LeaderReply answers GET /leader with what the asked NameNode knows. Leader
// is null while there is none.
type LeaderReply struct {
	ClusterID    dfs.ClusterID `json:"cluster_id"`
	Term         uint64        `json:"term"`
	NodeID       dfs.NodeID    `json:"node_id"` // who answers
	AppliedIndex uint64        `json:"applied_index"`
	Leader       *Target       `json:"leader"`
	Members      []Member      `json:"members"`
}

// JoinRequest is the body of POST /cluster/join.
type JoinRequest struct {
	ID       dfs.NodeID `json:"id"`
	RaftAddr string     `json:"raft_addr"`
	URL      string     `json:"url"`
}

// DrainRequest is the body of POST /nodes/drain and POST /nodes/undrain. Both
// are answered with the NodeInfo of the DataNode.
type DrainRequest struct {
	ID dfs.NodeID `json:"id"`
}

// MemberRequest is the body of POST /cluster/remove, and of
// POST /cluster/transfer, where an empty ID lets the leader choose.
type MemberRequest struct {
	ID dfs.NodeID `json:"id,omitempty"`
}

// AnnounceRequest is how a NameNode makes itself known to the leader at each
// start: where it can be reached, and which meta-dir (Instance, random) it
// runs from. A member that comes back with another Instance has lost its votes
// and its log, and is refused as conflict.
type AnnounceRequest struct {
	ID       dfs.NodeID `json:"id"`
	Instance string     `json:"instance"`
	URL      string     `json:"url"`
	RaftAddr string     `json:"raft_addr"`
}

// SnapshotRequest is the body of POST /cluster/snapshot. The snapshot is not
// taken before the NameNode has applied the log up to AtLeast, so that those
// of all members hold what was acknowledged before.
type SnapshotRequest struct {
	AtLeast uint64 `json:"at_least,omitempty"`
}

// SnapshotReply answers POST /cluster/snapshot: the log index that the newest
// snapshot covers.
type SnapshotReply struct {
	Index uint64 `json:"index"`
}

// Empty is the body of requests and answers that have nothing to say.
type Empty struct{}
