package fsm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// The two documents of a snapshot.
const (
	FilesDocument = "files.json"
	NodesDocument = "nodes.json"
)

// snapshotFormat is raised when a reader of the earlier one would go wrong.
const snapshotFormat = 1

// A document is one JSON object: first the header, then one array per kind of
// record with a record a line, then how many there were of each, then the
// CRC-32C of all bytes before the comma that leads to it. That comma begins a
// tail of fixed length, so that a reader knows where the checksum lies.

type filesHeader struct {
	Format       int           `json:"format"`
	ClusterID    dfs.ClusterID `json:"cluster_id"`
	AppliedIndex uint64        `json:"applied_index"`
	ClockMS      int64         `json:"clock_ms"`
	NextInode    uint64        `json:"next_inode"`
	NextChunk    dfs.ChunkID   `json:"next_chunk"`
	NextUpload   dfs.UploadID  `json:"next_upload"`
}

type nodesHeader struct {
	Format       int           `json:"format"`
	ClusterID    dfs.ClusterID `json:"cluster_id"`
	AppliedIndex uint64        `json:"applied_index"`
	NextNode     NodeNum       `json:"next_node"`
}

type inodeRecord struct {
	ID          uint64        `json:"id"`
	Parent      uint64        `json:"parent"`
	Name        string        `json:"name"`
	Type        string        `json:"type"`
	MTimeMS     int64         `json:"mtime_ms"`
	Size        int64         `json:"size,omitempty"`
	Replication int           `json:"replication,omitempty"`
	ChunkSize   int64         `json:"chunk_size,omitempty"`
	Chunks      []dfs.ChunkID `json:"chunks,omitempty"`
}

const (
	typeFile      = "file"
	typeDirectory = "directory"
)

type chunkRecord struct {
	ID       dfs.ChunkID  `json:"id"`
	Size     int64        `json:"size"`
	Checksum dfs.Checksum `json:"crc32c"`
	Refs     uint32       `json:"refs"`
	Upload   uint64       `json:"upload"`
	Replicas []NodeNum    `json:"replicas,omitempty"`
	Damaged  []NodeNum    `json:"damaged,omitempty"`
	Garbage  uint64       `json:"garbage_since,omitempty"`
}

type allocatedRecord struct {
	ID      dfs.ChunkID `json:"id"`
	Targets []NodeNum   `json:"targets"`
}

type uploadRecord struct {
	ID          dfs.UploadID      `json:"id"`
	Parent      uint64            `json:"parent"`
	Name        string            `json:"name"`
	Base        uint64            `json:"base,omitempty"`
	Overwrite   bool              `json:"overwrite,omitempty"`
	Replication int               `json:"replication"`
	ChunkSize   int64             `json:"chunk_size"`
	TouchedMS   int64             `json:"touched_ms"`
	Allocated   []allocatedRecord `json:"allocated,omitempty"`
	Sealed      []dfs.ChunkID     `json:"sealed,omitempty"`
	Size        int64             `json:"size,omitempty"`
}

type requestRecord struct {
	ID      dfs.RequestID `json:"id"`
	Index   uint64        `json:"index"`
	Command number        `json:"command"`
	At      uint64        `json:"at,omitempty"`
	Upload  uint64        `json:"upload,omitempty"`
	First   uint64        `json:"first,omitempty"`
	Count   int           `json:"count,omitempty"`
	Path    string        `json:"path,omitempty"`
	Size    int64         `json:"size,omitempty"`
	Node    NodeNum       `json:"node,omitempty"`
	Need    []NodeNum     `json:"need_inventory,omitempty"`
	More    bool          `json:"more,omitempty"`
	Code    dfs.Code      `json:"code,omitempty"`
	Message string        `json:"message,omitempty"`
}

type nodeRecord struct {
	Num             NodeNum    `json:"num"`
	ID              dfs.NodeID `json:"id"`
	URL             string     `json:"url"`
	Rack            string     `json:"rack"`
	Instance        string     `json:"instance"`
	Incarnation     uint64     `json:"incarnation"`
	Seq             uint64     `json:"seq"`
	Capacity        int64      `json:"capacity"`
	Used            int64      `json:"used"`
	Free            int64      `json:"free"`
	Writable        bool       `json:"writable"`
	Liveness        Liveness   `json:"liveness"`
	Service         Service    `json:"service"`
	LastHeartbeatMS int64      `json:"last_heartbeat_ms"`
	Count           int64      `json:"count"`
	Held            int64      `json:"held"`
	Digest          dfs.Digest `json:"digest"`
	Inventoried     bool       `json:"inventoried"`
}

type memberRecord struct {
	ID       dfs.NodeID `json:"id"`
	Instance string     `json:"instance"`
	URL      string     `json:"url"`
	RaftAddr string     `json:"raft_addr"`
	Removed  bool       `json:"removed,omitempty"`
}

type replicaRecord struct {
	Node    NodeNum     `json:"node"`
	Chunk   dfs.ChunkID `json:"chunk"`
	SinceMS int64       `json:"since_ms"`
}

type orphanRecord struct {
	Node     NodeNum     `json:"node"`
	Chunk    dfs.ChunkID `json:"chunk"`
	Since    uint64      `json:"since"`
	Unissued bool        `json:"unissued,omitempty"`
	SinceMS  int64       `json:"since_ms,omitempty"` // of older snapshots, which have no Since
}

// WriteFiles writes files.json: namespace, chunks, uploads and requests. The
// same state gives the same bytes on every NameNode.
func (s *State) WriteFiles(w io.Writer) error {
	d := newDocument(w, filesHeader{
		snapshotFormat, s.clusterID, s.applied, s.clock, s.nextInode, s.nextChunk, s.nextUpload,
	})
	d.begin("inodes")
	s.inodes.Scan(func(n *inode) bool { return d.record(n.record()) })
	d.begin("chunks")
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		since, _ := s.garbage.Get(id)
		return d.record(chunkRecord{id, c.size, c.checksum, c.refs, uint64(c.upload), c.replicas, c.damaged, since})
	})
	d.begin("uploads")
	s.uploads.Scan(func(id dfs.UploadID, u *upload) bool { return d.record(u.record(id)) })
	d.begin("requests")
	s.requestOrder.Scan(func(_ uint64, id dfs.RequestID) bool {
		r, _ := s.requests.Get(id)
		return d.record(r.record(id))
	})
	return d.finish()
}

// WriteNodes writes nodes.json: DataNodes, what is known of each, and the
// NameNodes.
func (s *State) WriteNodes(w io.Writer) error {
	d := newDocument(w, nodesHeader{snapshotFormat, s.clusterID, s.applied, s.nextNode})
	d.begin("nodes")
	s.nodes.Scan(func(_ NodeNum, n *node) bool { return d.record(n.record()) })
	d.begin("members")
	s.members.Scan(func(_ dfs.NodeID, m *member) bool {
		return d.record(memberRecord{m.id, m.instance, m.url, m.raftAddr, m.removed})
	})
	d.begin("unconfirmed")
	s.unconfirmed.Scan(func(r replica) bool { return d.record(replicaRecord{r.node, r.chunk, r.since}) })
	d.begin("orphans")
	s.orphans.Scan(func(o orphan) bool {
		_, unissued := s.unissued.Get(o.chunk)
		return d.record(orphanRecord{Node: o.node, Chunk: o.chunk, Since: o.since, Unissued: unissued})
	})
	return d.finish()
}

func (n *inode) record() inodeRecord {
	r := inodeRecord{
		ID: n.id, Parent: n.parent, Name: n.name, Type: typeFile, MTimeMS: n.mtime,
		Size: n.size, Replication: n.replication, ChunkSize: n.chunkSize, Chunks: n.chunks,
	}
	if n.directory {
		r.Type = typeDirectory
	}
	return r
}

func (u *upload) record(id dfs.UploadID) uploadRecord {
	r := uploadRecord{
		ID: id, Parent: u.parent, Name: u.name, Base: u.base, Overwrite: u.overwrite,
		Replication: u.replication, ChunkSize: u.chunkSize, TouchedMS: u.touched,
		Sealed: u.sealed, Size: u.size,
	}
	for _, a := range u.allocated {
		r.Allocated = append(r.Allocated, allocatedRecord{a.id, a.targets})
	}
	return r
}

func (r *request) record(id dfs.RequestID) requestRecord {
	record := requestRecord{
		ID: id, Index: r.index, Command: r.command, At: r.result.Index, Upload: uint64(r.result.Upload),
		First: uint64(r.result.First), Count: r.result.Count, Path: r.result.Path, Size: r.result.Size,
		Node: r.result.Node, Need: r.result.NeedInventory, More: r.result.More,
	}
	if r.err != nil {
		record.Code, record.Message = r.err.Code, r.err.Message
	}
	return record
}

func (n *node) record() nodeRecord {
	return nodeRecord{
		Num: n.num, ID: n.id, URL: n.url, Rack: n.rack, Instance: n.instance,
		Incarnation: n.incarnation, Seq: n.seq, Capacity: n.capacity, Used: n.used, Free: n.free,
		Writable: n.writable, Liveness: n.liveness, Service: n.service, LastHeartbeatMS: n.lastHeartbeat,
		Count: n.count, Held: n.held, Digest: n.digest, Inventoried: n.inventoried,
	}
}

// document writes one of the two JSON documents, a record at a time.
type document struct {
	w      *bufio.Writer
	sum    hash.Hash32
	counts []sectionCount
	err    error
}

type sectionCount struct {
	name  string
	count int
}

func newDocument(w io.Writer, header any) *document {
	d := &document{w: bufio.NewWriterSize(w, 1<<16), sum: dfs.NewHash()}
	encoded, err := json.Marshal(header)
	d.err = err
	if err == nil {
		d.write(encoded[:len(encoded)-1]) // the object stays open
	}
	return d
}

func (d *document) write(p []byte) {
	if d.err != nil {
		return
	}
	_, _ = d.sum.Write(p) // never fails: see package hash
	_, d.err = d.w.Write(p)
}

// begin ends the array before and begins the next.
func (d *document) begin(section string) {
	if len(d.counts) > 0 {
		d.write([]byte("]"))
	}
	d.write([]byte(",\n\"" + section + "\":["))
	d.counts = append(d.counts, sectionCount{name: section})
}

// record writes one record and tells whether to go on.
func (d *document) record(v any) bool {
	encoded, err := json.Marshal(v)
	if err != nil && d.err == nil {
		d.err = err
	}
	current := &d.counts[len(d.counts)-1]
	if current.count > 0 {
		d.write([]byte(","))
	}
	current.count++
	d.write([]byte("\n"))
	d.write(encoded)
	return d.err == nil
}

// tailLength is that of the last line: a comma, the checksum, a brace.
const tailLength = len(",\n\"crc32c\":\"00000000\"}\n")

func (d *document) finish() error {
	d.write([]byte("],\n\"counts\":{"))
	for i, c := range d.counts {
		if i > 0 {
			d.write([]byte(","))
		}
		d.write(fmt.Appendf(nil, "%q:%d", c.name, c.count))
	}
	d.write([]byte("}"))
	tail := fmt.Sprintf(",\n\"crc32c\":\"%s\"}\n", dfs.Checksum(d.sum.Sum32()))
	d.write([]byte(tail))
	if d.err != nil {
		return fmt.Errorf("write snapshot: %w", d.err)
	}
	return d.w.Flush()
}
