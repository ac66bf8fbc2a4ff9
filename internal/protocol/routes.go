package protocol

import (
	"net/http"
	"net/url"
	"strings"
)

// Permission is what a caller must be allowed to do. Every route names one;
// Public is an explicit choice, never a forgotten check.
type Permission string

// The permissions.
const (
	Public Permission = "public" // anyone: probes, metrics, who leads
	Read   Permission = "read"   // look at the namespace
	Write  Permission = "write"  // change the namespace
	Node   Permission = "node"   // a DataNode or NameNode of the cluster
	Admin  Permission = "admin"  // change the cluster itself
)

// Rule says which NameNode may answer.
type Rule int

const (
	// AnyNode lets every NameNode answer from what it knows.
	AnyNode Rule = iota
	// LeaderOnly sends everyone else's callers to the leader.
	LeaderOnly
	// Linearizable is answered by the leader after it has made sure that it
	// still leads; with ?consistency=stale by any NameNode, without that check.
	Linearizable
)

// Route is one call: how it is addressed, who may make it, who answers it, and
// how long its body may be in bytes (0: no body is read).
type Route struct {
	Method     string
	Pattern    string // of net/http.ServeMux
	Permission Permission
	Rule       Rule
	MaxBody    int64
}

const (
	smallBody     = 64 << 10 // a path or two and some numbers
	commitBody    = 32 << 20 // MaxChunksPerFile chunks with 16 node IDs each do not fit; with 3 they do
	heartbeatBody = 8 << 20  // MaxChunksPerReport IDs in each list
	inventoryBody = 64 << 20 // the short heartbeat: a full inventory in one list
)

// The routes of a NameNode.
var (
	CreateFile     = Route{http.MethodPost, "/files", Write, LeaderOnly, smallBody}
	PutFile        = Route{http.MethodPut, "/files", Write, LeaderOnly, smallBody}
	GetFile        = Route{http.MethodGet, "/files", Read, Linearizable, 0}
	DeleteFile     = Route{http.MethodDelete, "/files", Write, LeaderOnly, 0}
	AddChunks      = Route{http.MethodPost, "/uploads/{id}/chunks", Write, LeaderOnly, smallBody}
	CommitUpload   = Route{http.MethodPost, "/uploads/{id}/commit", Write, LeaderOnly, commitBody}
	AbortUpload    = Route{http.MethodDelete, "/uploads/{id}", Write, LeaderOnly, 0}
	Stat           = Route{http.MethodGet, "/stat", Read, Linearizable, 0}
	List           = Route{http.MethodGet, "/list", Read, Linearizable, 0}
	Mkdir          = Route{http.MethodPost, "/mkdir", Write, LeaderOnly, smallBody}
	Rename         = Route{http.MethodPost, "/rename", Write, LeaderOnly, smallBody}
	SetReplication = Route{http.MethodPost, "/replication", Write, LeaderOnly, smallBody}
	Heartbeat      = Route{http.MethodPost, "/heartbeat", Node, LeaderOnly, inventoryBody}
	Announce       = Route{http.MethodPost, "/cluster/announce", Node, LeaderOnly, smallBody}
	ListNodes      = Route{http.MethodGet, "/nodes", Read, Linearizable, 0}
	DrainNode      = Route{http.MethodPost, "/nodes/drain", Admin, LeaderOnly, smallBody}
	UndrainNode    = Route{http.MethodPost, "/nodes/undrain", Admin, LeaderOnly, smallBody}
	Fsck           = Route{http.MethodGet, "/fsck", Read, Linearizable, 0}
	GetLeader      = Route{http.MethodGet, "/leader", Public, AnyNode, 0}
	JoinCluster    = Route{http.MethodPost, "/cluster/join", Admin, LeaderOnly, smallBody}
	RemoveMember   = Route{http.MethodPost, "/cluster/remove", Admin, LeaderOnly, smallBody}
	TransferLead   = Route{http.MethodPost, "/cluster/transfer", Admin, LeaderOnly, smallBody}
	TakeSnapshot   = Route{http.MethodPost, "/cluster/snapshot", Admin, AnyNode, smallBody}
)

// The routes of a DataNode.
var (
	PutChunk    = Route{http.MethodPut, "/chunks/{id}", Write, AnyNode, 0} // the body is the chunk; its own limits hold
	GetChunk    = Route{http.MethodGet, "/chunks/{id}", Read, AnyNode, 0}  // also answers HEAD
	DeleteChunk = Route{http.MethodDelete, "/chunks/{id}", Node, AnyNode, 0}
	StatChunks  = Route{http.MethodPost, "/chunks/stat", Node, AnyNode, heartbeatBody}
	// VerifyChunk tells a node that its replica looked bad to a reader. The node
	// reads it again in its own time and believes only what it finds itself.
	VerifyChunk = Route{http.MethodPost, "/chunks/{id}/verify", Read, AnyNode, 0}
)

// The routes that every daemon has.
var (
	Health  = Route{http.MethodGet, "/health", Public, AnyNode, 0}
	Ready   = Route{http.MethodGet, "/ready", Public, AnyNode, 0}
	Metrics = Route{http.MethodGet, "/metrics", Public, AnyNode, 0}
	// Bundle is several requests at once, as package bundle makes them. Each needs
	// its own permission and follows its own rule.
	Bundle = Route{http.MethodPost, "/bundle", Public, AnyNode, 0}
)

// Path fills the pattern's {wildcards}, in order, with args.
func (r Route) Path(args ...string) string {
	path := r.Pattern
	for _, arg := range args {
		open, end := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
		path = path[:open] + url.PathEscape(arg) + path[end+1:]
	}
	return path
}

// Mutates tells whether the route changes something, so that a retry needs the
// request ID of the first attempt.
func (r Route) Mutates() bool { return r.Method != http.MethodGet }

// Query parameters.
const (
	QueryPath        = "path"
	QueryRecursive   = "recursive"
	QueryCursor      = "cursor"
	QueryLimit       = "limit"
	QueryConsistency = "consistency" // "stale" is the only value besides the default
	Stale            = "stale"
)

// Headers, spelt as net/http keeps them: to look up any other spelling takes an
// allocation.
const (
	HeaderRequestID    = "X-Dfs-Request-Id"    // of a mutation, the same in every retry
	HeaderRequestAge   = "X-Dfs-Request-Age"   // milliseconds since the first try of a mutation, with a retry of one that may have been carried out
	HeaderLeader       = "X-Dfs-Leader"        // base URL of the leader, with a not_leader answer
	HeaderAppliedIndex = "X-Dfs-Applied-Index" // the log index that the answering NameNode had applied
	HeaderClusterID    = "X-Dfs-Cluster-Id"    // both ways; a mismatch is refused as wrong_cluster
	HeaderNodeID       = "X-Dfs-Node-Id"       // both ways, to DataNodes: who is meant, who answers
	HeaderChecksum     = "X-Dfs-Crc32c"        // of a whole chunk: required with PUT, sent with GET
	HeaderPipeline     = "X-Dfs-Pipeline"      // node IDs, comma separated, to forward a PUT to, in order
	HeaderWantBlocks   = "X-Dfs-Want-Blocks"   // "1" with GET of a chunk asks for HeaderBlocks
	HeaderBlocks       = "X-Dfs-Block-Crc32c"  // of each block of a chunk, as FormatBlocks writes it
)

// WantBlocks is the value of HeaderWantBlocks that means yes.
const WantBlocks = "1"

// List paging.
const (
	DefaultListLimit = 1000
	MaxListLimit     = 10000
)
