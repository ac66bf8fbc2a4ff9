package fsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// The documents as encoding/json writes them: the contract that the hand-written
// code keeps.

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

type poolRecord struct {
	ID        dfs.UploadID `json:"id"`
	TouchedMS int64        `json:"touched_ms"`
	First     dfs.ChunkID  `json:"first"`
	Reserved  int          `json:"reserved"`
	Left      int          `json:"left"`
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
}

// reference writes a document with encoding/json.
type reference struct {
	t      testing.TB
	out    bytes.Buffer
	counts []sectionCount
}

func (d *reference) marshal(v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		d.t.Fatal(err)
	}
	return encoded
}

func (d *reference) header(v any) {
	encoded := d.marshal(v)
	d.out.Write(encoded[:len(encoded)-1]) // the object stays open
}

func (d *reference) begin(section string) {
	if len(d.counts) > 0 {
		d.out.WriteString("]")
	}
	d.out.WriteString(",\n\"" + section + "\":[")
	d.counts = append(d.counts, sectionCount{name: section})
}

func (d *reference) record(v any) bool {
	current := &d.counts[len(d.counts)-1]
	if current.count > 0 {
		d.out.WriteString(",")
	}
	current.count++
	d.out.WriteString("\n")
	d.out.Write(d.marshal(v))
	return true
}

func (d *reference) finish() []byte {
	d.out.WriteString("],\n\"counts\":{")
	for i, c := range d.counts {
		if i > 0 {
			d.out.WriteString(",")
		}
		fmt.Fprintf(&d.out, "%q:%d", c.name, c.count)
	}
	d.out.WriteString("}")
	return fmt.Appendf(d.out.Bytes(), ",\n\"crc32c\":\"%s\"}\n", dfs.ChecksumOf(d.out.Bytes()))
}

// referenceFiles is files.json, referenceNodes nodes.json.
func referenceFiles(t testing.TB, s *State) []byte {
	d := &reference{t: t}
	d.header(filesHeader{snapshotFormat, s.clusterID, s.applied, s.clock, s.nextInode, s.nextChunk, s.nextUpload})
	d.begin("inodes")
	s.inodes.Scan(func(n *inode) bool {
		r := inodeRecord{
			ID: n.id, Parent: n.parent, Name: n.name, Type: "file", MTimeMS: n.mtime,
			Size: n.size, Replication: int(n.replication), ChunkSize: int64(n.chunkSize), Chunks: n.chunks(),
		}
		if n.directory {
			r.Type = "directory"
		}
		return d.record(r)
	})
	d.begin("chunks")
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		since, _ := s.garbage.Get(id)
		return d.record(chunkRecord{id, int64(c.size), c.checksum, c.refs, uint64(c.upload), c.replicas(), c.damaged(), since})
	})
	d.begin("uploads")
	s.uploads.Scan(func(id dfs.UploadID, u *upload) bool {
		r := uploadRecord{
			ID: id, Parent: u.parent, Name: u.name, Base: u.base, Overwrite: u.overwrite,
			Replication: u.replication, ChunkSize: u.chunkSize, TouchedMS: u.touched, Sealed: u.sealed, Size: u.size,
		}
		for _, a := range u.allocated {
			r.Allocated = append(r.Allocated, allocatedRecord{a.id, a.targets})
		}
		return d.record(r)
	})
	s.pools.Scan(func(id dfs.UploadID, p *pool) bool {
		return d.record(poolRecord{id, p.touched, p.first, p.reserved, p.left})
	})
	d.begin("requests")
	s.requestOrder.Scan(func(_ uint64, id dfs.RequestID) bool {
		known, _ := s.requests.Get(id)
		r := requestRecord{
			ID: id, Index: known.index, Command: known.command, At: known.result.Index, Upload: uint64(known.result.Upload),
			First: uint64(known.result.First), Count: known.result.Count, Path: known.result.Path, Size: known.result.Size,
			Node: known.result.Node, Need: known.result.NeedInventory, More: known.result.More,
		}
		if known.err != nil {
			r.Code, r.Message = known.err.Code, known.err.Message
		}
		return d.record(r)
	})
	return d.finish()
}

func referenceNodes(t testing.TB, s *State) []byte {
	d := &reference{t: t}
	d.header(nodesHeader{snapshotFormat, s.clusterID, s.applied, s.nextNode})
	d.begin("nodes")
	s.nodes.Scan(func(_ NodeNum, n *node) bool {
		return d.record(nodeRecord{
			Num: n.num, ID: n.id, URL: n.url, Rack: n.rack, Instance: n.instance,
			Incarnation: n.incarnation, Seq: n.seq, Capacity: n.capacity, Used: n.used, Free: n.free,
			Writable: n.writable, Liveness: n.liveness, Service: n.service, LastHeartbeatMS: n.lastHeartbeat,
			Count: n.count, Held: n.held, Digest: n.digest, Inventoried: n.inventoried,
		})
	})
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

func sameAsReference(t *testing.T, s *State) {
	t.Helper()
	files, nodes := documents(t, s)
	if want := referenceFiles(t, s); !bytes.Equal(files, want) {
		t.Fatalf("%s is\n%s\nand encoding/json writes\n%s", FilesDocument, files, want)
	}
	if want := referenceNodes(t, s); !bytes.Equal(nodes, want) {
		t.Fatalf("%s is\n%s\nand encoding/json writes\n%s", NodesDocument, nodes, want)
	}
}

func TestDocumentsAreWhatEncodingJSONWrites(t *testing.T) {
	t.Run("empty", func(t *testing.T) { sameAsReference(t, newState()) })
	t.Run("busy", func(t *testing.T) { sameAsReference(t, busyRig(t).m.Freeze()) })
	t.Run("random", func(t *testing.T) {
		m := New(nil)
		d := newDriver(t, m)
		for i := range *stepsFlag {
			_, _ = m.Apply(uint64(i+1), d.next()) // refusals are fine
			if i%100 == 0 {
				sameAsReference(t, m.Freeze())
			}
		}
	})
	t.Run("extremes", func(t *testing.T) {
		s := restored(t, busyRig(t).m).Freeze() // records of its own
		s.applied, s.nextInode, s.nextChunk, s.nextUpload = 1<<64-1, 1<<64-1, 1<<64-1, 1<<64-1
		n, _ := s.nodes.Get(1)
		n.incarnation, n.seq, n.capacity, n.free, n.digest = 1<<64-1, 1<<64-1, -1<<63, 1<<63-1, 1<<64-1
		n.url, n.rack = "\"\\/\b\f\n\r\t\x00\x1f\x7f", "<&>\u2028\u2029\xff\u00e9\U0001f600"
		s.clock = -5
		sameAsReference(t, s)
		s.requestOrder.Set(s.nextTurn(), "x")
		s.requests.Set("x", &request{index: 1<<64 - 1, result: Result{
			Index: 1<<64 - 1, Upload: 1<<64 - 1, First: 1<<64 - 1, Count: -1, Size: -1, Node: 5, NeedInventory: []NodeNum{1, 4}, More: true,
		}})
		s.requestOrder.Set(s.nextTurn(), "y")
		s.requests.Set("y", &request{err: &dfs.Error{Message: "a message without a code"}})
		sameAsReference(t, s)
	})
}
