package fsm

import "github.com/dfs-go/dfs-go/internal/dfs"

// NodeNum is a DataNode's row in the node table: chunks refer to nodes by this
// small number. Numbers begin at 1 and are never used twice.
type NodeNum uint32

// number tells commands apart in the log. Numbers are never changed or reused.
type number uint64

const (
	numInitCluster    number = 1
	numMkdir          number = 2
	numBeginUpload    number = 3
	numAddChunks      number = 4
	numCommit         number = 5
	numAbortUpload    number = 6
	numExpireUploads  number = 7
	numDelete         number = 8
	numRename         number = 9
	numSetReplication number = 10
	numRegisterNode   number = 11
	numHeartbeats     number = 12
	numSetLiveness    number = 13
	numSetService     number = 14
	numPurge          number = 15
	numSetMember      number = 16
	numRemoveMember   number = 17
	numReserveChunks  number = 18
	numPutFile        number = 19
)

// Command is one change of the state. Encode turns it into a log entry.
type Command interface {
	number() number
	encode(*encoder)
	decode(*decoder)
	apply(*State) (Result, error)
}

// newCommand returns an empty command to decode into, nil for a number that
// this version does not know.
func newCommand(n number) Command {
	switch n {
	case numInitCluster:
		return new(InitCluster)
	case numMkdir:
		return new(Mkdir)
	case numBeginUpload:
		return new(BeginUpload)
	case numAddChunks:
		return new(AddChunks)
	case numCommit:
		return new(Commit)
	case numAbortUpload:
		return new(AbortUpload)
	case numExpireUploads:
		return new(ExpireUploads)
	case numDelete:
		return new(Delete)
	case numRename:
		return new(Rename)
	case numSetReplication:
		return new(SetReplication)
	case numRegisterNode:
		return new(RegisterNode)
	case numHeartbeats:
		return new(Heartbeats)
	case numSetLiveness:
		return new(SetLiveness)
	case numSetService:
		return new(SetService)
	case numPurge:
		return new(Purge)
	case numSetMember:
		return new(SetMember)
	case numRemoveMember:
		return new(RemoveMember)
	case numReserveChunks:
		return new(ReserveChunks)
	case numPutFile:
		return new(PutFile)
	}
	return nil
}

// InitCluster gives the cluster its ID. The first one wins.
type InitCluster struct {
	ClusterID dfs.ClusterID
}

// Mkdir makes a directory; with Parents also those above it, and then a
// directory that exists is no error.
type Mkdir struct {
	Path    dfs.Path
	Parents bool
}

// BeginUpload makes the missing parents of Path and an upload with one chunk
// for each list of targets.
type BeginUpload struct {
	Path        dfs.Path
	Replication int
	ChunkSize   int64
	Overwrite   bool
	Targets     [][]NodeNum
}

// ReserveChunks makes a pool: Count chunks that files of one chunk may be made
// of by PutFile. Like an upload it is open until it expires, which no use of it puts
// off, or until all of its chunks are in files.
type ReserveChunks struct {
	Count int
}

// PutFile makes the missing parents of Path and the whole file, of one chunk of
// a pool, or of none when Pool is 0. Base is the inode that stood at Path when
// the chunk was handed out, 0 for none; something else there is a Conflict. An
// empty file has no such moment, and takes the place of whatever stands there.
type PutFile struct {
	Path        dfs.Path
	Replication int
	ChunkSize   int64
	Overwrite   bool
	Pool        dfs.UploadID
	Base        uint64      // not of an empty file
	Chunk       StoredChunk // likewise
}

// AddChunks adds a chunk to an upload for each list of targets, and is a sign
// of life of the upload also when there is none.
type AddChunks struct {
	Upload  dfs.UploadID
	Targets [][]NodeNum
}

// StoredChunk is a chunk that has been stored, with the nodes that hold it
// durably.
type StoredChunk struct {
	ID       dfs.ChunkID
	Size     int64
	Checksum dfs.Checksum
	Nodes    []NodeNum
}

// Commit takes note of the chunks of an upload, in their order: Chunks are
// those from Position on. A file with many chunks is committed by several
// commands; the last, with Final, makes the file appear.
type Commit struct {
	Upload   dfs.UploadID
	Position int
	Chunks   []StoredChunk
	Final    bool
}

// AbortUpload gives an upload up.
type AbortUpload struct {
	Upload dfs.UploadID
}

// ExpiredUpload names an upload and the sign of life it is judged by: a later
// one saves it.
type ExpiredUpload struct {
	Upload  dfs.UploadID
	Touched int64 // State clock, milliseconds
}

// ExpireUploads gives up uploads that nobody works on any more.
type ExpireUploads struct {
	Uploads []ExpiredUpload
}

// Delete removes a file or a directory; a directory that is not empty only
// when Recursive.
type Delete struct {
	Path      dfs.Path
	Recursive bool
}

// Rename moves a file or directory to a path that does not exist.
type Rename struct {
	From, To dfs.Path
}

// SetReplication changes how many replicas a file should have.
type SetReplication struct {
	Path        dfs.Path
	Replication int
}

// RegisterNode makes a DataNode known, or takes note of a new start
// (Incarnation) or of another address.
type RegisterNode struct {
	ID          dfs.NodeID
	URL         string
	Rack        string
	Instance    string
	Incarnation uint64
}

// NodeReport is what one DataNode reported in a heartbeat.
type NodeReport struct {
	Node          NodeNum
	Incarnation   uint64
	Seq           uint64
	Capacity      int64 // bytes
	Used          int64 // bytes
	Free          int64 // bytes
	Writable      bool
	Count         int64      // chunks the node says it holds
	Digest        dfs.Digest // of those chunks
	Added         []dfs.ChunkID
	Removed       []dfs.ChunkID
	Corrupt       []dfs.ChunkID
	InventoryDone bool // this report ends a full inventory
}

// Heartbeats carries what all DataNodes reported in one tick.
type Heartbeats struct {
	Reports []NodeReport
}

// Liveness is what the leader thinks of a DataNode's being there.
type Liveness uint8

// Livenesses, in the log as these numbers.
const (
	Up      Liveness = 0
	Suspect Liveness = 1 // no new chunks, read last
	Down    Liveness = 2 // its replicas do not count
)

// NodeLiveness is the liveness of one node.
type NodeLiveness struct {
	Node     NodeNum
	Liveness Liveness
}

// SetLiveness takes note of DataNodes that fell silent. Heartbeats bring them
// back.
type SetLiveness struct {
	Nodes []NodeLiveness
}

// Service is what the operator wants of a DataNode.
type Service uint8

// Services, in the log as these numbers.
const (
	InService Service = 0
	Draining  Service = 1 // no new chunks; being emptied
	Drained   Service = 2 // empty as far as the namespace is concerned
)

// SetService changes the service of a DataNode.
type SetService struct {
	Node    NodeNum
	Service Service
}

// Purge works off deleted directories and large deleted files, at most Limit
// names and chunks at a time.
type Purge struct {
	Limit int
}

// SetMember takes note of a NameNode: where it is, and which meta-dir it runs
// from. An empty Instance stays open for the member's first announcement.
type SetMember struct {
	ID       dfs.NodeID
	Instance string
	URL      string
	RaftAddr string
}

// RemoveMember takes note that a NameNode was removed for good. Its ID can be
// used again by another Instance.
type RemoveMember struct {
	ID dfs.NodeID
}
