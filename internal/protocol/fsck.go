package protocol

import "github.com/dfs-go/dfs-go/internal/dfs"

// FsckReply answers GET /fsck: how the chunks of all files are doing. The
// counts are of chunks; a chunk that is wrong in two ways counts in both.
// Healthy means that every file has all its replicas where they should be:
// surplus copies, orphans and DataNodes that are being emptied are no danger and do not make it false.
type FsckReply struct {
	Healthy         bool      `json:"healthy"`
	Files           int64     `json:"files"`
	Chunks          int64     `json:"chunks"`
	UnderReplicated int64     `json:"under_replicated"`
	OverReplicated  int64     `json:"over_replicated"`
	Missing         int64     `json:"missing"`   // no live replica: cannot be read now
	Corrupt         int64     `json:"corrupt"`   // a replica was found damaged and is not replaced yet
	Misplaced       int64     `json:"misplaced"` // enough replicas, on fewer racks than there could be
	Draining        int64     `json:"draining"`  // enough replicas, but too few of them on DataNodes in service
	Orphaned        int64     `json:"orphaned"`  // replicas on DataNodes that belong to no file or upload
	Repairing       int64     `json:"repairing"` // copies that have been ordered and not yet reported
	Problems        []Problem `json:"problems"`  // the worst first, at most MaxProblems
	Truncated       bool      `json:"truncated,omitempty"`
}

// MaxProblems bounds the list of a FsckReply.
const MaxProblems = 1000

// Kinds of problems, the worst first.
const (
	ProblemMissing         = "missing"
	ProblemUnderReplicated = "under_replicated"
	ProblemMisplaced       = "misplaced"
	ProblemDraining        = "draining" // enough replicas, but some on DataNodes that are being emptied
	ProblemOverReplicated  = "over_replicated"
)

// Problem is one chunk that is not as it should be.
type Problem struct {
	Kind   string       `json:"kind"`
	Chunk  dfs.ChunkID  `json:"chunk"`
	Files  []string     `json:"files"`           // paths that use it
	Wanted int          `json:"wanted"`          // replicas
	Live   []dfs.NodeID `json:"live"`            // DataNodes that hold it and answer
	Lost   []dfs.NodeID `json:"lost"`            // DataNodes that hold it and are down
	Action string       `json:"action"`          // what is being done about it, as a sentence
	Stuck  bool         `json:"stuck,omitempty"` // it needs another replica, and no DataNode can take one
}
