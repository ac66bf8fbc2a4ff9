package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// The first byte of an entry: of one command, or of a group of such entries.
const (
	entryFormat = 1
	groupFormat = 2
)

// MaxGroup is how many commands one entry may carry. Whoever reads waits while
// they are applied.
const MaxGroup = 256

// GroupOverhead is how many bytes at most a group takes for each of its
// commands, beyond those of the command's own entry.
const GroupOverhead = 8

// entry is a log entry: a command, the time its proposer stamped on it, and
// the request that asked for it (may be empty).
type entry struct {
	stamp   int64 // Unix milliseconds
	request dfs.RequestID
	command Command
}

// Encode makes the log entry that asks for command on behalf of request (may
// be empty), stamped with the proposer's time.
func Encode(command Command, request dfs.RequestID, stamp time.Time) []byte {
	e := &encoder{buf: make([]byte, 0, 128)}
	e.buf = append(e.buf, entryFormat)
	e.uint(uint64(command.number()))
	e.int(stamp.UnixMilli())
	e.string(string(request))
	command.encode(e)
	return e.buf
}

// EncodeGroup makes one log entry of 1 to MaxGroup entries from Encode. They take
// effect in their order, each as if it stood alone.
func EncodeGroup(entries [][]byte) []byte {
	if len(entries) == 1 {
		return entries[0]
	}
	size := GroupOverhead
	for _, entry := range entries {
		size += len(entry) + GroupOverhead
	}
	e := &encoder{buf: make([]byte, 0, size)}
	e.buf = append(e.buf, groupFormat)
	e.uint(uint64(len(entries)))
	for _, entry := range entries {
		e.uint(uint64(len(entry)))
		e.buf = append(e.buf, entry...)
	}
	return e.buf
}

// errUnknownCommand means that the log was written by a newer version: going
// on without the command would make this copy of the state differ.
var errUnknownCommand = errors.New("the log holds a command that this version does not know; upgrade this NameNode")

var errMalformed = errors.New("malformed log entry")

// decodeEntries decodes an entry of one command or of a group. A group is
// malformed as a whole: whoever wrote one part of it wrote the others.
func decodeEntries(data []byte) ([]entry, error) {
	if len(data) == 0 || data[0] != groupFormat {
		e, err := decodeEntry(data)
		return []entry{e}, err
	}
	d := &decoder{buf: data[1:]}
	count := d.length()
	if count == 0 || count > MaxGroup {
		return nil, errMalformed
	}
	entries := make([]entry, count)
	for i := range entries {
		length := d.length()
		if d.err != nil {
			return nil, d.err
		}
		part := d.buf[:length]
		d.buf = d.buf[length:]
		if len(part) > 0 && part[0] == groupFormat {
			return nil, errMalformed // groups are not nested
		}
		var err error
		if entries[i], err = decodeEntry(part); err != nil {
			return nil, fmt.Errorf("command %d of %d: %w", i+1, count, err)
		}
	}
	if len(d.buf) != 0 {
		return nil, errMalformed
	}
	return entries, nil
}

func decodeEntry(data []byte) (entry, error) {
	if len(data) == 0 {
		return entry{}, errMalformed
	}
	if data[0] != entryFormat {
		return entry{}, fmt.Errorf("format %d: %w", data[0], errUnknownCommand)
	}
	d := &decoder{buf: data[1:]}
	n := number(d.uint())
	e := entry{stamp: d.int(), request: d.requestID()}
	if d.err != nil {
		return entry{}, d.err
	}
	e.command = newCommand(n)
	if e.command == nil {
		return entry{}, fmt.Errorf("command %d: %w", n, errUnknownCommand)
	}
	e.command.decode(d)
	if d.err == nil && len(d.buf) != 0 {
		d.fail()
	}
	return e, d.err
}

// encoder appends: integers as varints, strings and lists with their length
// before them.
type encoder struct{ buf []byte }

func (e *encoder) uint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) int(v int64)   { e.buf = binary.AppendVarint(e.buf, v) }

func (e *encoder) bool(v bool) {
	if v {
		e.buf = append(e.buf, 1)
		return
	}
	e.buf = append(e.buf, 0)
}

func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) uint32(v uint32) { e.buf = binary.LittleEndian.AppendUint32(e.buf, v) }
func (e *encoder) uint64(v uint64) { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }

func (e *encoder) nodes(nodes []NodeNum) {
	e.uint(uint64(len(nodes)))
	for _, n := range nodes {
		e.uint(uint64(n))
	}
}

// chunkIDs writes IDs as differences, which are small when the list is sorted.
func (e *encoder) chunkIDs(ids []dfs.ChunkID) {
	e.uint(uint64(len(ids)))
	previous := dfs.ChunkID(0)
	for _, id := range ids {
		e.int(int64(id - previous))
		previous = id
	}
}

// decoder reads what encoder wrote. After the first fault it returns zero
// values, and err says so. A length is believed only as far as bytes are left,
// so a damaged entry cannot ask for much memory.
type decoder struct {
	buf []byte
	err error
}

func (d *decoder) fail() {
	d.err = errMalformed
	d.buf = nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

// atMost reads an integer that is not larger than limit.
func (d *decoder) atMost(limit uint64) uint64 {
	v := d.uint()
	if v > limit {
		d.fail()
		return 0
	}
	return v
}

func (d *decoder) node() NodeNum { return NodeNum(d.atMost(math.MaxUint32)) }

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.buf)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

// small reads an integer that fits an int on every machine.
func (d *decoder) small() int {
	v := d.int()
	if v != int64(int32(v)) {
		d.fail()
		return 0
	}
	return int(v)
}

func (d *decoder) bool() bool {
	if len(d.buf) == 0 || d.buf[0] > 1 {
		d.fail()
		return false
	}
	v := d.buf[0] == 1
	d.buf = d.buf[1:]
	return v
}

func (d *decoder) string(limit int) string {
	n := d.uint()
	if n > uint64(limit) || n > uint64(len(d.buf)) {
		d.fail()
		return ""
	}
	if !utf8.Valid(d.buf[:n]) { // JSON, and so a snapshot, could not hold it
		d.fail()
		return ""
	}
	s := string(d.buf[:n])
	d.buf = d.buf[n:]
	return s
}

func (d *decoder) requestID() dfs.RequestID {
	s := d.string(dfs.MaxRequestIDLength)
	if s == "" {
		return ""
	}
	id, err := dfs.ParseRequestID(s)
	if err != nil {
		d.fail()
	}
	return id
}

func (d *decoder) nodeID() dfs.NodeID {
	id, err := dfs.ParseNodeID(d.string(dfs.MaxNodeIDLength))
	if err != nil {
		d.fail()
	}
	return id
}

func (d *decoder) uint32() uint32 {
	if len(d.buf) < 4 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint32(d.buf)
	d.buf = d.buf[4:]
	return v
}

func (d *decoder) uint64() uint64 {
	if len(d.buf) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.buf)
	d.buf = d.buf[8:]
	return v
}

// length reads the length of a list whose elements take at least one byte each.
func (d *decoder) length() int {
	n := d.uint()
	if n > uint64(len(d.buf)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) path() dfs.Path {
	path, err := dfs.ParsePath(d.string(dfs.MaxPathLength))
	if err != nil {
		d.fail()
	}
	return path
}

func (d *decoder) nodes() []NodeNum {
	n := d.length()
	if n == 0 {
		return nil
	}
	nodes := make([]NodeNum, 0, min(n, dfs.MaxReplication))
	for range n {
		nodes = append(nodes, d.node())
	}
	return nodes
}

func (d *decoder) chunkIDs() []dfs.ChunkID {
	n := d.length()
	if n == 0 {
		return nil
	}
	ids := make([]dfs.ChunkID, 0, n)
	previous := dfs.ChunkID(0)
	for range n {
		previous += dfs.ChunkID(d.int())
		if previous == 0 { // not an ID
			d.fail()
			return nil
		}
		ids = append(ids, previous)
	}
	return ids
}

func (*InitCluster) number() number      { return numInitCluster }
func (c *InitCluster) encode(e *encoder) { e.string(string(c.ClusterID)) }
func (c *InitCluster) decode(d *decoder) { c.ClusterID = dfs.ClusterID(d.string(dfs.MaxNodeIDLength)) }

func (*Mkdir) number() number { return numMkdir }
func (c *Mkdir) encode(e *encoder) {
	e.string(c.Path.String())
	e.bool(c.Parents)
}
func (c *Mkdir) decode(d *decoder) {
	c.Path = d.path()
	c.Parents = d.bool()
}

func (*BeginUpload) number() number { return numBeginUpload }
func (c *BeginUpload) encode(e *encoder) {
	e.string(c.Path.String())
	e.int(int64(c.Replication))
	e.int(c.ChunkSize)
	e.bool(c.Overwrite)
	e.targets(c.Targets)
}
func (c *BeginUpload) decode(d *decoder) {
	c.Path = d.path()
	c.Replication = d.small()
	c.ChunkSize = d.int()
	c.Overwrite = d.bool()
	c.Targets = d.targets()
}

func (e *encoder) targets(targets [][]NodeNum) {
	e.uint(uint64(len(targets)))
	for _, nodes := range targets {
		e.nodes(nodes)
	}
}

func (d *decoder) targets() [][]NodeNum {
	n := d.length()
	if n == 0 {
		return nil
	}
	targets := make([][]NodeNum, 0, min(n, dfs.MaxChunksPerAllocation))
	for range n {
		if d.err != nil {
			return nil
		}
		targets = append(targets, d.nodes())
	}
	return targets
}

func (*ReserveChunks) number() number      { return numReserveChunks }
func (c *ReserveChunks) encode(e *encoder) { e.uint(uint64(c.Count)) }
func (c *ReserveChunks) decode(d *decoder) { c.Count = int(d.atMost(dfs.MaxChunksPerAllocation)) }

func (*PutFile) number() number { return numPutFile }
func (c *PutFile) encode(e *encoder) {
	e.string(c.Path.String())
	e.int(int64(c.Replication))
	e.int(c.ChunkSize)
	e.bool(c.Overwrite)
	e.uint(uint64(c.Pool))
	if c.Pool != 0 {
		e.uint(c.Base)
		e.chunk(&c.Chunk)
	}
}
func (c *PutFile) decode(d *decoder) {
	c.Path = d.path()
	c.Replication = d.small()
	c.ChunkSize = d.int()
	c.Overwrite = d.bool()
	c.Pool = dfs.UploadID(d.uint())
	if c.Pool != 0 {
		c.Base = d.uint()
		c.Chunk = d.chunk()
	}
}

func (e *encoder) chunk(stored *StoredChunk) {
	e.uint(uint64(stored.ID))
	e.int(stored.Size)
	e.uint32(uint32(stored.Checksum))
	e.nodes(stored.Nodes)
}

func (d *decoder) chunk() StoredChunk {
	return StoredChunk{
		ID:       dfs.ChunkID(d.uint()),
		Size:     d.int(),
		Checksum: dfs.Checksum(d.uint32()),
		Nodes:    d.nodes(),
	}
}

func (*AddChunks) number() number { return numAddChunks }
func (c *AddChunks) encode(e *encoder) {
	e.uint(uint64(c.Upload))
	e.targets(c.Targets)
}
func (c *AddChunks) decode(d *decoder) {
	c.Upload = dfs.UploadID(d.uint())
	c.Targets = d.targets()
}

func (*Commit) number() number { return numCommit }
func (c *Commit) encode(e *encoder) {
	e.uint(uint64(c.Upload))
	e.uint(uint64(c.Position))
	e.bool(c.Final)
	e.uint(uint64(len(c.Chunks)))
	for i := range c.Chunks {
		e.chunk(&c.Chunks[i])
	}
}
func (c *Commit) decode(d *decoder) {
	c.Upload = dfs.UploadID(d.uint())
	c.Position = int(d.atMost(dfs.MaxChunksPerFile))
	c.Final = d.bool()
	for range d.length() {
		if d.err != nil {
			return
		}
		c.Chunks = append(c.Chunks, d.chunk())
	}
}

func (*AbortUpload) number() number      { return numAbortUpload }
func (c *AbortUpload) encode(e *encoder) { e.uint(uint64(c.Upload)) }
func (c *AbortUpload) decode(d *decoder) { c.Upload = dfs.UploadID(d.uint()) }

func (*ExpireUploads) number() number { return numExpireUploads }
func (c *ExpireUploads) encode(e *encoder) {
	e.uint(uint64(len(c.Uploads)))
	for _, u := range c.Uploads {
		e.uint(uint64(u.Upload))
		e.int(u.Touched)
	}
}
func (c *ExpireUploads) decode(d *decoder) {
	for range d.length() {
		c.Uploads = append(c.Uploads, ExpiredUpload{Upload: dfs.UploadID(d.uint()), Touched: d.int()})
	}
}

func (*Delete) number() number { return numDelete }
func (c *Delete) encode(e *encoder) {
	e.string(c.Path.String())
	e.bool(c.Recursive)
}
func (c *Delete) decode(d *decoder) {
	c.Path = d.path()
	c.Recursive = d.bool()
}

func (*Rename) number() number { return numRename }
func (c *Rename) encode(e *encoder) {
	e.string(c.From.String())
	e.string(c.To.String())
}
func (c *Rename) decode(d *decoder) {
	c.From = d.path()
	c.To = d.path()
}

func (*SetReplication) number() number { return numSetReplication }
func (c *SetReplication) encode(e *encoder) {
	e.string(c.Path.String())
	e.int(int64(c.Replication))
}
func (c *SetReplication) decode(d *decoder) {
	c.Path = d.path()
	c.Replication = d.small()
}

func (*RegisterNode) number() number { return numRegisterNode }
func (c *RegisterNode) encode(e *encoder) {
	e.string(string(c.ID))
	e.string(c.URL)
	e.string(c.Rack)
	e.string(c.Instance)
	e.uint(c.Incarnation)
}
func (c *RegisterNode) decode(d *decoder) {
	c.ID = d.nodeID()
	c.URL = d.string(dfs.MaxURLLength)
	c.Rack = d.string(dfs.MaxRackLength)
	c.Instance = d.string(dfs.MaxNodeIDLength)
	c.Incarnation = d.uint()
}

func (*Heartbeats) number() number { return numHeartbeats }
func (c *Heartbeats) encode(e *encoder) {
	e.uint(uint64(len(c.Reports)))
	for i := range c.Reports {
		c.Reports[i].encode(e)
	}
}
func (c *Heartbeats) decode(d *decoder) {
	for range d.length() {
		if d.err != nil {
			return
		}
		var r NodeReport
		r.decode(d)
		c.Reports = append(c.Reports, r)
	}
}

func (r *NodeReport) encode(e *encoder) {
	e.uint(uint64(r.Node))
	e.uint(r.Incarnation)
	e.uint(r.Seq)
	e.int(r.Capacity)
	e.int(r.Used)
	e.int(r.Free)
	e.bool(r.Writable)
	e.int(r.Count)
	e.uint64(uint64(r.Digest))
	e.chunkIDs(r.Added)
	e.chunkIDs(r.Removed)
	e.chunkIDs(r.Corrupt)
	e.bool(r.InventoryDone)
}

func (r *NodeReport) decode(d *decoder) {
	r.Node = d.node()
	r.Incarnation = d.uint()
	r.Seq = d.uint()
	r.Capacity = d.int()
	r.Used = d.int()
	r.Free = d.int()
	r.Writable = d.bool()
	r.Count = d.int()
	r.Digest = dfs.Digest(d.uint64())
	r.Added = d.chunkIDs()
	r.Removed = d.chunkIDs()
	r.Corrupt = d.chunkIDs()
	r.InventoryDone = d.bool()
}

// EncodedSize returns how many bytes the report takes in a Heartbeats command.
func (r *NodeReport) EncodedSize() int {
	var e encoder
	r.encode(&e)
	return len(e.buf)
}

func (*SetLiveness) number() number { return numSetLiveness }
func (c *SetLiveness) encode(e *encoder) {
	e.uint(uint64(len(c.Nodes)))
	for _, n := range c.Nodes {
		e.uint(uint64(n.Node))
		e.uint(uint64(n.Liveness))
	}
}
func (c *SetLiveness) decode(d *decoder) {
	for range d.length() {
		c.Nodes = append(c.Nodes, NodeLiveness{Node: d.node(), Liveness: Liveness(d.atMost(uint64(Down)))})
	}
}

func (*SetService) number() number { return numSetService }
func (c *SetService) encode(e *encoder) {
	e.uint(uint64(c.Node))
	e.uint(uint64(c.Service))
}
func (c *SetService) decode(d *decoder) {
	c.Node = d.node()
	c.Service = Service(d.atMost(uint64(Drained)))
}

func (*Purge) number() number      { return numPurge }
func (c *Purge) encode(e *encoder) { e.uint(uint64(c.Limit)) }
func (c *Purge) decode(d *decoder) { c.Limit = int(d.atMost(maxPurge)) }

func (*SetMember) number() number { return numSetMember }
func (c *SetMember) encode(e *encoder) {
	e.string(string(c.ID))
	e.string(c.Instance)
	e.string(c.URL)
	e.string(c.RaftAddr)
}
func (c *SetMember) decode(d *decoder) {
	c.ID = d.nodeID()
	c.Instance = d.string(dfs.MaxNodeIDLength)
	c.URL = d.string(dfs.MaxURLLength)
	c.RaftAddr = d.string(dfs.MaxURLLength)
}

func (*RemoveMember) number() number      { return numRemoveMember }
func (c *RemoveMember) encode(e *encoder) { e.string(string(c.ID)) }
func (c *RemoveMember) decode(d *decoder) { c.ID = d.nodeID() }
