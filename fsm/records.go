package fsm

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxFileSize bounds, in bytes, what a file may be said to have.
const maxFileSize = dfs.MaxChunksPerFile * dfs.MaxChunkSize

// fileRecords takes the records of files.json into a state. The slices are
// used again for each record.
type fileRecords struct {
	s      *State
	d      *documentReader
	chunks []dfs.ChunkID
	nodes  []NodeNum
	newest uint64 // log index of the last request
}

func (r *fileRecords) inode() error {
	d, n := r.d, new(inode)
	r.chunks = r.chunks[:0]
	known := false
	d.object(func(key []byte) bool {
		switch string(key) {
		case "id":
			n.id = d.uint(math.MaxUint64)
		case "parent":
			n.parent = d.uint(math.MaxUint64)
		case "name":
			n.name = d.string()
		case "type":
			kind := d.text()
			n.directory = string(kind) == typeDirectory
			known = n.directory || string(kind) == typeFile
		case "mtime_ms":
			n.mtime = d.int()
		case "size":
			n.size = int64(d.uint(maxFileSize))
		case "replication":
			n.replication = uint8(d.uint(dfs.MaxReplication))
		case "chunk_size":
			n.chunkSize = int32(d.uint(dfs.MaxChunkSize))
		case "chunks":
			r.chunks = d.appendChunks(r.chunks[:0])
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return d.err
	}
	if !known {
		return errors.New("its type is not known")
	}
	if err := dfs.CheckName(n.name); err != nil {
		return err
	}
	chunks := r.chunks
	if len(chunks) > 1 {
		chunks = slices.Clone(chunks) // to stay
	}
	n.setChunks(chunks)
	if _, twice := r.s.inodes.Load(n); twice {
		return errTwice
	}
	if n.directory {
		r.s.dirs.Set(n.id, n)
	}
	return nil
}

func (r *fileRecords) chunk() error {
	d := r.d
	var c chunk
	var id dfs.ChunkID
	var garbageSince uint64
	var damaged []NodeNum
	r.nodes = r.nodes[:0]
	d.object(func(key []byte) bool {
		switch string(key) {
		case "id":
			id = d.chunk()
		case "size":
			c.size = int32(d.uint(dfs.MaxChunkSize))
		case "crc32c":
			c.checksum = dfs.Checksum(d.hex(checksumDigits))
		case "refs":
			c.refs = uint32(d.uint(math.MaxUint32))
		case "upload":
			c.upload = dfs.UploadID(d.uint(math.MaxUint64))
		case "replicas":
			r.nodes = d.appendNodes(r.nodes[:0])
		case "damaged":
			damaged = d.appendNodes(nil)
		case "garbage_since":
			garbageSince = d.uint(math.MaxUint64)
		default:
			return false
		}
		return true
	})
	switch {
	case d.err != nil:
		return d.err
	case id == 0:
		return errors.New("it has no ID")
	}
	if len(r.nodes) > fewReplicas {
		c.setReplicas(slices.Clone(r.nodes))
	} else {
		c.setReplicas(r.nodes)
	}
	c.setDamaged(damaged)
	if garbageSince > 0 {
		r.s.garbage.Load(id, garbageSince)
	}
	if r.s.chunks.Set(id, c) {
		return errTwice
	}
	return nil
}

// upload reads an upload or a pool.
func (r *fileRecords) upload() error {
	d, u, p := r.d, new(upload), new(pool)
	var id dfs.UploadID
	d.object(func(key []byte) bool {
		switch string(key) {
		case "id":
			id = dfs.UploadID(d.id())
		case "parent":
			u.parent = d.uint(math.MaxUint64)
		case "name":
			u.name = d.string()
		case "base":
			u.base = d.uint(math.MaxUint64)
		case "overwrite":
			u.overwrite = d.bool()
		case "replication":
			u.replication = int(d.uint(dfs.MaxReplication))
		case "chunk_size":
			u.chunkSize = int64(d.uint(dfs.MaxChunkSize))
		case "touched_ms":
			u.touched = d.int()
		case "allocated":
			u.allocated = nil
			d.list(func() { u.allocated = append(u.allocated, r.allocated()) })
		case "sealed":
			u.sealed = d.appendChunks(nil)
		case "size":
			u.size = int64(d.uint(maxFileSize))
		case "first":
			p.first = d.chunk()
		case "reserved":
			p.reserved = int(d.uint(dfs.MaxChunksPerAllocation))
		case "left":
			p.left = int(d.uint(dfs.MaxChunksPerAllocation))
		default:
			return false
		}
		return true
	})
	switch {
	case d.err != nil:
		return d.err
	case id == 0:
		return errors.New("it has no ID")
	case p.reserved > 0:
		p.touched = u.touched
		return setOnce(r.s.pools, id, p)
	}
	return setOnce(r.s.uploads, id, u)
}

func (r *fileRecords) allocated() (a allocated) {
	d := r.d
	d.object(func(key []byte) bool {
		switch string(key) {
		case "id":
			a.id = d.chunk()
		case "targets":
			a.targets = d.appendNodes(nil)
		default:
			return false
		}
		return true
	})
	return a
}

func (r *fileRecords) request() error {
	d, known := r.d, new(request)
	var id dfs.RequestID
	var refused dfs.Error
	d.object(func(key []byte) bool {
		switch string(key) {
		case "id":
			id = dfs.RequestID(d.string())
		case "index":
			known.index = d.uint(math.MaxUint64)
		case "command":
			known.command = number(d.uint(math.MaxUint64))
		case "code":
			refused.Code = dfs.Code(d.string())
		case "message":
			refused.Message = d.string()
		default:
			return r.result(&known.result, key)
		}
		return true
	})
	if d.err != nil {
		return d.err
	}
	if refused.Code != "" {
		known.err = &refused
	}
	if known.index < r.newest {
		return fmt.Errorf("a request of log entry %d comes after one of %d", known.index, r.newest)
	}
	r.newest = known.index
	r.s.requestOrder.Set(r.s.nextTurn(), id)
	return setOnce(r.s.requests, id, known)
}

// result reads a field of an answer.
func (r *fileRecords) result(result *Result, key []byte) bool {
	d := r.d
	switch string(key) {
	case "at":
		result.Index = d.uint(math.MaxUint64)
	case "upload":
		result.Upload = dfs.UploadID(d.uint(math.MaxUint64))
	case "first":
		result.First = dfs.ChunkID(d.uint(math.MaxUint64))
	case "count":
		result.Count = int(d.uint(math.MaxInt32))
	case "path":
		result.Path = d.string()
	case "size":
		result.Size = d.int()
	case "node":
		result.Node = d.node()
	case "need_inventory":
		result.NeedInventory = d.appendNodes(nil)
	case "more":
		result.More = d.bool()
	default:
		return false
	}
	return true
}

// nodeRecords takes the records of nodes.json into a state.
type nodeRecords struct {
	s *State
	d *documentReader
}

func (r *nodeRecords) node() error {
	d, n := r.d, new(node)
	d.object(func(key []byte) bool {
		switch string(key) {
		case "num":
			n.num = d.node()
		case "id":
			n.id = dfs.NodeID(d.string())
		case "url":
			n.url = d.string()
		case "rack":
			n.rack = d.string()
		case "instance":
			n.instance = d.string()
		case "incarnation":
			n.incarnation = d.uint(math.MaxUint64)
		case "seq":
			n.seq = d.uint(math.MaxUint64)
		case "capacity":
			n.capacity = d.int()
		case "used":
			n.used = d.int()
		case "free":
			n.free = d.int()
		case "writable":
			n.writable = d.bool()
		case "liveness":
			n.liveness = Liveness(d.uint(uint64(Down)))
		case "service":
			n.service = Service(d.uint(uint64(Drained)))
		case "last_heartbeat_ms":
			n.lastHeartbeat = d.int()
		case "count":
			n.count = d.int()
		case "held":
			n.held = d.int()
		case "digest":
			n.digest = dfs.Digest(d.hex(idDigits))
		case "inventoried":
			n.inventoried = d.bool()
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return d.err
	}
	if err := setOnce(r.s.nodes, n.num, n); err != nil {
		return err
	}
	return setOnce(r.s.nodesByID, n.id, n.num)
}

func (r *nodeRecords) member() error {
	d, m := r.d, new(member)
	d.object(func(key []byte) bool {
		switch string(key) {
		case "id":
			m.id = dfs.NodeID(d.string())
		case "instance":
			m.instance = d.string()
		case "url":
			m.url = d.string()
		case "raft_addr":
			m.raftAddr = d.string()
		case "removed":
			m.removed = d.bool()
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return d.err
	}
	return setOnce(r.s.members, m.id, m)
}

func (r *nodeRecords) unconfirmed() error {
	d := r.d
	var waiting replica
	d.object(func(key []byte) bool {
		switch string(key) {
		case "node":
			waiting.node = d.node()
		case "chunk":
			waiting.chunk = d.chunk()
		case "since_ms":
			waiting.since = d.int()
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return d.err
	}
	if _, twice := r.s.unconfirmed.Load(waiting); twice {
		return errTwice
	}
	return nil
}

func (r *nodeRecords) orphan() error {
	d := r.d
	var o orphan
	unissued := false
	d.object(func(key []byte) bool {
		switch string(key) {
		case "node":
			o.node = d.node()
		case "chunk":
			o.chunk = d.chunk()
		case "since":
			o.since = d.uint(math.MaxUint64)
		case "since_ms": // of older snapshots, which have no since
			d.int()
		case "unissued":
			unissued = d.bool()
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return d.err
	}
	if o.since == 0 {
		o.since = r.s.applied // an older snapshot does not say
	}
	if _, twice := r.s.orphans.Load(o); twice {
		return errTwice
	}
	if unissued || o.chunk >= r.s.nextChunk {
		nodes, _ := r.s.unissued.Get(o.chunk)
		r.s.unissued.Set(o.chunk, nodes+1)
	}
	return nil
}
