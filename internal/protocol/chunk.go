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
	Status    string        `json:"status"` // StatusOK, or a sentence that says what is missing
	// Volumes are the data directories of a DataNode; GET /health alone tells them.
	Volumes []VolumeHealth `json:"volumes,omitempty"`
}

// StatusOK is the status of what works.
const StatusOK = "ok"

// VolumeHealth is how a data directory of a DataNode is doing. Sizes are in
// bytes.
type VolumeHealth struct {
	Dir        string `json:"dir"`
	ID         string `json:"id"`
	Status     string `json:"status"`         // StatusOK, or a sentence that says why it takes no chunks
	Gone       bool   `json:"gone,omitempty"` // out of service: its chunks do not count
	Capacity   int64  `json:"capacity"`       // of the file system
	Free       int64  `json:"free"`           // that chunks may still take
	Used       int64  `json:"used"`           // by the data of chunks
	Chunks     int64  `json:"chunks"`
	TrashBytes int64  `json:"trash_bytes"` // waiting to be removed for good
	TrashFiles int64  `json:"trash_files"`
}
