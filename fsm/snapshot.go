package fsm

import (
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

// idDigits and checksumDigits are how long the texts of IDs and checksums are.
const (
	idDigits       = 16
	checksumDigits = 8
)

const (
	typeFile      = "file"
	typeDirectory = "directory"
)

// A document is one JSON object: first the header, then one array per kind of
// record with a record a line, then how many there were of each, then the
// CRC-32C of all bytes before the comma that leads to it. That comma begins a
// tail of fixed length, so that a reader knows where the checksum lies.
//
// What is zero and says nothing is left out. The texts are those that
// encoding/json would write.

// WriteFiles writes files.json: namespace, chunks, uploads and requests. The
// same state gives the same bytes on every NameNode.
func (s *State) WriteFiles(w io.Writer) error {
	d := newDocument(w)
	d.text.uint(`{"format":`, snapshotFormat)
	d.text.string(`,"cluster_id":`, string(s.clusterID))
	d.text.uint(`,"applied_index":`, s.applied)
	d.text.int(`,"clock_ms":`, s.clock)
	d.text.uint(`,"next_inode":`, s.nextInode)
	d.text.chunk(`,"next_chunk":`, s.nextChunk)
	d.text.hex(`,"next_upload":`, uint64(s.nextUpload), idDigits)
	d.begin("inodes")
	s.inodes.Scan(func(n *inode) bool {
		n.write(d.record())
		return d.recorded()
	})
	d.begin("chunks")
	var nodes []NodeNum
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		nodes = c.appendReplicas(nodes[:0])
		since := uint64(0)
		if c.refs == 0 {
			since, _ = s.garbage.Get(id)
		}
		c.write(d.record(), id, nodes, since)
		return d.recorded()
	})
	d.begin("uploads")
	s.uploads.Scan(func(id dfs.UploadID, u *upload) bool {
		u.write(d.record(), id)
		return d.recorded()
	})
	s.pools.Scan(func(id dfs.UploadID, p *pool) bool {
		p.write(d.record(), id)
		return d.recorded()
	})
	d.begin("requests")
	s.requestOrder.Scan(func(_ uint64, id dfs.RequestID) bool {
		r, _ := s.requests.Get(id)
		r.write(d.record(), id)
		return d.recorded()
	})
	return d.finish()
}

// WriteNodes writes nodes.json: DataNodes, what is known of each, and the
// NameNodes.
func (s *State) WriteNodes(w io.Writer) error {
	d := newDocument(w)
	d.text.uint(`{"format":`, snapshotFormat)
	d.text.string(`,"cluster_id":`, string(s.clusterID))
	d.text.uint(`,"applied_index":`, s.applied)
	d.text.uint(`,"next_node":`, uint64(s.nextNode))
	d.begin("nodes")
	s.nodes.Scan(func(_ NodeNum, n *node) bool {
		n.write(d.record())
		return d.recorded()
	})
	d.begin("members")
	s.members.Scan(func(_ dfs.NodeID, m *member) bool {
		m.write(d.record())
		return d.recorded()
	})
	d.begin("unconfirmed")
	s.unconfirmed.Scan(func(r replica) bool {
		t := d.record()
		t.uint(`{"node":`, uint64(r.node))
		t.chunk(`,"chunk":`, r.chunk)
		t.int(`,"since_ms":`, r.since)
		t.raw("}")
		return d.recorded()
	})
	d.begin("orphans")
	s.orphans.Scan(func(o orphan) bool {
		_, unissued := s.unissued.Get(o.chunk)
		o.write(d.record(), unissued)
		return d.recorded()
	})
	return d.finish()
}

func (n *inode) write(t *jsonText) {
	t.uint(`{"id":`, n.id)
	t.uint(`,"parent":`, n.parent)
	t.string(`,"name":`, n.name)
	if n.directory {
		t.raw(`,"type":"` + typeDirectory + `"`)
	} else {
		t.raw(`,"type":"` + typeFile + `"`)
	}
	t.int(`,"mtime_ms":`, n.mtime)
	t.someInt(`,"size":`, n.size)
	t.someUint(`,"replication":`, uint64(n.replication))
	t.someInt(`,"chunk_size":`, int64(n.chunkSize))
	if chunks := n.chunks(); len(chunks) > 0 {
		t.chunks(`,"chunks":`, chunks)
	}
	t.raw("}")
}

func (c *chunk) write(t *jsonText, id dfs.ChunkID, replicas []NodeNum, garbageSince uint64) {
	t.chunk(`{"id":`, id)
	t.int(`,"size":`, int64(c.size))
	t.hex(`,"crc32c":`, uint64(c.checksum), checksumDigits)
	t.uint(`,"refs":`, uint64(c.refs))
	t.uint(`,"upload":`, uint64(c.upload))
	if len(replicas) > 0 {
		t.nodes(`,"replicas":`, replicas)
	}
	if damaged := c.damaged(); len(damaged) > 0 {
		t.nodes(`,"damaged":`, damaged)
	}
	t.someUint(`,"garbage_since":`, garbageSince)
	t.raw("}")
}

func (u *upload) write(t *jsonText, id dfs.UploadID) {
	t.hex(`{"id":`, uint64(id), idDigits)
	t.uint(`,"parent":`, u.parent)
	t.string(`,"name":`, u.name)
	t.someUint(`,"base":`, u.base)
	if u.overwrite {
		t.raw(`,"overwrite":true`)
	}
	t.int(`,"replication":`, int64(u.replication))
	t.int(`,"chunk_size":`, u.chunkSize)
	t.int(`,"touched_ms":`, u.touched)
	if len(u.allocated) > 0 {
		t.raw(`,"allocated":[`)
		for i, a := range u.allocated {
			t.chunk(comma(i)+`{"id":`, a.id)
			t.nodes(`,"targets":`, a.targets)
			t.raw("}")
		}
		t.raw("]")
	}
	if len(u.sealed) > 0 {
		t.chunks(`,"sealed":`, u.sealed)
	}
	t.someInt(`,"size":`, u.size)
	t.raw("}")
}

// A pool stands among the uploads. What tells it from one is its reserved,
// which is never 0.
func (p *pool) write(t *jsonText, id dfs.UploadID) {
	t.hex(`{"id":`, uint64(id), idDigits)
	t.int(`,"touched_ms":`, p.touched)
	t.chunk(`,"first":`, p.first)
	t.int(`,"reserved":`, int64(p.reserved))
	t.int(`,"left":`, int64(p.left))
	t.raw("}")
}

func (r *request) write(t *jsonText, id dfs.RequestID) {
	t.string(`{"id":`, string(id))
	t.uint(`,"index":`, r.index)
	t.uint(`,"command":`, uint64(r.command))
	t.someUint(`,"at":`, r.result.Index)
	t.someUint(`,"upload":`, uint64(r.result.Upload))
	t.someUint(`,"first":`, uint64(r.result.First))
	t.someInt(`,"count":`, int64(r.result.Count))
	t.someString(`,"path":`, r.result.Path)
	t.someInt(`,"size":`, r.result.Size)
	t.someUint(`,"node":`, uint64(r.result.Node))
	if len(r.result.NeedInventory) > 0 {
		t.nodes(`,"need_inventory":`, r.result.NeedInventory)
	}
	if r.result.More {
		t.raw(`,"more":true`)
	}
	if r.err != nil {
		t.someString(`,"code":`, string(r.err.Code))
		t.someString(`,"message":`, r.err.Message)
	}
	t.raw("}")
}

func (n *node) write(t *jsonText) {
	t.uint(`{"num":`, uint64(n.num))
	t.string(`,"id":`, string(n.id))
	t.string(`,"url":`, n.url)
	t.string(`,"rack":`, n.rack)
	t.string(`,"instance":`, n.instance)
	t.uint(`,"incarnation":`, n.incarnation)
	t.uint(`,"seq":`, n.seq)
	t.int(`,"capacity":`, n.capacity)
	t.int(`,"used":`, n.used)
	t.int(`,"free":`, n.free)
	t.bool(`,"writable":`, n.writable)
	t.uint(`,"liveness":`, uint64(n.liveness))
	t.uint(`,"service":`, uint64(n.service))
	t.int(`,"last_heartbeat_ms":`, n.lastHeartbeat)
	t.int(`,"count":`, n.count)
	t.int(`,"held":`, n.held)
	t.hex(`,"digest":`, uint64(n.digest), idDigits)
	t.bool(`,"inventoried":`, n.inventoried)
	t.raw("}")
}

func (m *member) write(t *jsonText) {
	t.string(`{"id":`, string(m.id))
	t.string(`,"instance":`, m.instance)
	t.string(`,"url":`, m.url)
	t.string(`,"raft_addr":`, m.raftAddr)
	if m.removed {
		t.raw(`,"removed":true`)
	}
	t.raw("}")
}

func (o orphan) write(t *jsonText, unissued bool) {
	t.uint(`{"node":`, uint64(o.node))
	t.chunk(`,"chunk":`, o.chunk)
	t.uint(`,"since":`, o.since)
	if unissued {
		t.raw(`,"unissued":true`)
	}
	t.raw("}")
}
