package protocol

import (
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// MkdirRequest is the body of POST /mkdir. With Parents, missing parents are
// made and a directory that exists is no error. The answer is a PathReply.
type MkdirRequest struct {
	Path    string `json:"path"`
	Parents bool   `json:"parents"`
}

// PathReply names the path that a mutation made or changed.
type PathReply struct {
	Path string `json:"path"`
}

// RenameRequest is the body of POST /rename. To must not exist.
type RenameRequest struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// ReplicationRequest is the body of POST /replication.
type ReplicationRequest struct {
	Path        string `json:"path"`
	Replication int    `json:"replication"`
}

// CreateRequest is the body of POST /files: it begins an upload. A nil
// Replication or ChunkSize takes the default. Single says that one chunk is all
// there will be: then the answer may be a chunk in stock for PUT /files.
type CreateRequest struct {
	Path        string       `json:"path"`
	NumChunks   int64        `json:"num_chunks"`
	Single      bool         `json:"single,omitempty"`
	Replication *int         `json:"replication,omitempty"`
	ChunkSize   *int64       `json:"chunk_size,omitempty"`
	Overwrite   bool         `json:"overwrite,omitempty"`
	Exclude     []dfs.NodeID `json:"exclude,omitempty"` // DataNodes the caller could not reach
}

// Target is a DataNode that a chunk should be written to or can be read from.
type Target struct {
	ID  dfs.NodeID `json:"id"`
	URL string     `json:"url"`
}

// AllocatedChunk is a chunk ID and the DataNodes that should get the chunk, in
// pipeline order.
type AllocatedChunk struct {
	ID      dfs.ChunkID `json:"id"`
	Targets []Target    `json:"targets"`
}

// Allocation answers POST /files and POST /uploads/{id}/chunks. ExpiresIn says
// how many seconds without a sign of life the upload is kept. When there is a
// Pool, no upload was begun: the one chunk is from that pool, and goes with the
// Pool and the Base into PUT /files.
type Allocation struct {
	UploadID    dfs.UploadID     `json:"upload_id,omitempty"`
	Pool        dfs.UploadID     `json:"pool,omitempty"`
	Base        uint64           `json:"base,omitempty"` // inode that stands at the path, 0 for none
	Path        string           `json:"path"`
	ChunkSize   int64            `json:"chunk_size"`
	Replication int              `json:"replication"`
	MinReplicas int              `json:"min_replicas"`
	ExpiresIn   int64            `json:"expires_in"`
	Chunks      []AllocatedChunk `json:"chunks"`
}

// PutRequest is the body of PUT /files: a whole file at once. Its Chunk was
// stored under an ID that POST /files has given, with the Pool and the Base. An
// empty file has none of the three, and nothing has to be asked for before.
type PutRequest struct {
	Path        string          `json:"path"`
	Replication *int            `json:"replication,omitempty"`
	ChunkSize   *int64          `json:"chunk_size,omitempty"`
	Overwrite   bool            `json:"overwrite,omitempty"`
	Pool        dfs.UploadID    `json:"pool,omitempty"`
	Base        uint64          `json:"base,omitempty"`
	Chunk       *CommittedChunk `json:"chunk,omitempty"`
}

// PutReply answers PUT /files.
type PutReply struct {
	CommitReply
	Replication int `json:"replication"`
}

// AddChunksRequest is the body of POST /uploads/{id}/chunks. Zero chunks is a
// sign of life.
type AddChunksRequest struct {
	NumChunks int64        `json:"num_chunks"`
	Exclude   []dfs.NodeID `json:"exclude,omitempty"`
}

// CommittedChunk is one chunk of a commit: what was stored, and where.
type CommittedChunk struct {
	ID     dfs.ChunkID  `json:"id"`
	Size   int64        `json:"size"`
	CRC32C dfs.Checksum `json:"crc32c"`
	Nodes  []dfs.NodeID `json:"nodes"`
}

// CommitRequest is the body of POST /uploads/{id}/commit: the chunks of the
// file in their order. Allocated chunks that it leaves out are given up.
type CommitRequest struct {
	Chunks []CommittedChunk `json:"chunks"`
}

// CommitReply answers a commit.
type CommitReply struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// File types.
const (
	TypeFile      = "file"
	TypeDirectory = "directory"
)

// Entry is one name in a directory, and the answer of GET /stat.
type Entry struct {
	Name        string    `json:"name"`
	Path        string    `json:"path"`
	Type        string    `json:"type"`
	Size        int64     `json:"size"`
	MTime       time.Time `json:"mtime"`
	Inode       uint64    `json:"inode"`
	Replication int       `json:"replication,omitempty"`
	ChunkSize   int64     `json:"chunk_size,omitempty"`
	Chunks      int       `json:"chunks,omitempty"`
}

// Listing answers GET /list: a page of entries ordered by name. Cursor is
// empty on the last page and goes into the next request otherwise.
type Listing struct {
	Entries []Entry `json:"entries"`
	Cursor  string  `json:"cursor"`
}

// LocatedChunk is one chunk of a file with the DataNodes that can be asked for
// it, best first.
type LocatedChunk struct {
	ID        dfs.ChunkID  `json:"id"`
	Size      int64        `json:"size"`
	CRC32C    dfs.Checksum `json:"crc32c"`
	Locations []Target     `json:"locations"`
}

// File answers GET /files: everything needed to read it.
type File struct {
	Path        string         `json:"path"`
	Type        string         `json:"type"`
	Size        int64          `json:"size"`
	MTime       time.Time      `json:"mtime"`
	Inode       uint64         `json:"inode"`
	Replication int            `json:"replication"`
	ChunkSize   int64          `json:"chunk_size"`
	Chunks      []LocatedChunk `json:"chunks"`
}
