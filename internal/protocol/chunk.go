package protocol

import "github.com/dfs-go/dfs-go/internal/dfs"

// ChunkReply answers PUT /chunks/{id}: which nodes of the pipeline hold the
// chunk durably (the answering node first), and what went wrong on the others.
// The status is 201 when the answering node itself holds it.
type ChunkReply struct {
	ID     dfs.ChunkID  `json:"id"`
	Size   int64        `json:"size"`
	CRC32C dfs.Checksum `json:"crc32c"`
	Nodes  []dfs.NodeID `json:"nodes"`
	Failed []FailedHop  `json:"failed,omitempty"`
}

// FailedHop is a node of a pipeline that does not hold the chunk.
type FailedHop struct {
	ID    dfs.NodeID `json:"id"`
	Error ErrorBody  `json:"error"`
}

// StatChunksRequest is the body of POST /chunks/stat. With Verify, a chunk is
// listed only when it has just been read again from beginning to end and is
// good, and when the node is not about to give it up itself; at most
// MaxVerifiedChunks can be asked for then.
type StatChunksRequest struct {
	IDs    []dfs.ChunkID `json:"ids"` // at most MaxChunksPerReport
	Verify bool          `json:"verify,omitempty"`
}

// MaxVerifiedChunks bounds what a DataNode is asked to read again at once.
const MaxVerifiedChunks = 16

// ChunkInfo is what a DataNode knows of a chunk that it holds durably.
type ChunkInfo struct {
	ID     dfs.ChunkID  `json:"id"`
	Size   int64        `json:"size"`
	CRC32C dfs.Checksum `json:"crc32c"`
}

// StatChunksReply lists those of the asked chunks that the node holds, in the
// order asked.
type StatChunksReply struct {
	Chunks []ChunkInfo `json:"chunks"`
}

// HealthReply answers GET /health and GET /ready of any daemon.
type HealthReply struct {
	ID        dfs.NodeID    `json:"id"`
	ClusterID dfs.ClusterID `json:"cluster_id"`
	Status    string        `json:"status"` // "ok", or a sentence that says what is missing
}
