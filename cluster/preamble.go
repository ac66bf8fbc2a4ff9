package cluster

import (
	"encoding/binary"
	"io"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Every connection to a Raft port begins with one frame each way, before any
// byte of raft's own protocol:
//
//	magic "DFSR" | version 1 byte | length of the body, 2 bytes | body
//
// Numbers are big-endian; a string is one length byte and its bytes. The body
// from the dialler is a hello, the body of the answer a welcome.
const (
	preambleMagic   = "DFSR"
	preambleVersion = 1
	frameHeader     = len(preambleMagic) + 1 + 2
	maxFrameBody    = 1024 // bytes; the longest welcome is about half of it
	maxInstance     = 64   // bytes
	maxReason       = 200  // bytes
)

// kind says what the dialler wants.
type kind byte

const (
	kindRaft  kind = 1 // talk raft
	kindProbe kind = 2 // read the welcome and hang up
)

// status says whether the dialler is welcome.
type status byte

const (
	statusOK           status = 0
	statusWrongCluster status = 1
	statusWrongNode    status = 2 // another node was meant, or both claim one ID
	statusNotReady     status = 3 // not admitted to a group yet
	statusInvalid      status = 4
)

// Flags in a welcome.
const (
	flagHasState byte = 1 << iota
	flagFull
)

// code is what a refusal means to the dialler.
func (s status) code() dfs.Code {
	switch s {
	case statusWrongCluster:
		return dfs.WrongCluster
	case statusWrongNode:
		return dfs.Conflict
	case statusNotReady:
		return dfs.Unavailable
	}
	return dfs.Invalid
}

// hello is what the dialler says of itself and of whom it expects.
type hello struct {
	kind        kind
	cluster     dfs.ClusterID // "" while unknown
	id          dfs.NodeID
	instance    string
	expected    dfs.NodeID // "" when the dialler does not know who is there
	peersDigest dfs.Checksum
}

// welcome is the answer.
type welcome struct {
	status status
	reason string // a sentence, when refused
	info   PeerInfo
}

// PeerInfo is what a node tells anyone who connects to its Raft port.
type PeerInfo struct {
	ID           dfs.NodeID
	Instance     string
	ClusterID    dfs.ClusterID // "" while it belongs to no cluster
	Term         uint64
	LastIndex    uint64 // of its log
	AppliedIndex uint64
	HasState     bool // it is, or was, a member of a group
	Full         bool // its disk has no room for more log
	peersDigest  dfs.Checksum
}

func (h hello) marshal() []byte {
	b := []byte{byte(h.kind)}
	b = binary.BigEndian.AppendUint32(b, uint32(h.peersDigest))
	b = appendString(b, string(h.cluster))
	b = appendString(b, string(h.id))
	b = appendString(b, h.instance)
	b = appendString(b, string(h.expected))
	return frame(b)
}

func parseHello(body []byte) (hello, error) {
	d := decoder{rest: body}
	h := hello{kind: kind(d.byte()), peersDigest: dfs.Checksum(d.uint32())}
	h.cluster = d.clusterID()
	h.id = d.nodeID()
	h.instance = d.string(maxInstance)
	h.expected = d.optionalNodeID()
	if h.kind != kindRaft && h.kind != kindProbe {
		d.fail("unknown kind of connection")
	}
	return h, d.end()
}

func (w welcome) marshal() []byte {
	b := []byte{byte(w.status)}
	b = appendString(b, w.reason[:min(len(w.reason), maxReason)])
	b = binary.BigEndian.AppendUint32(b, uint32(w.info.peersDigest))
	b = appendString(b, string(w.info.ClusterID))
	b = appendString(b, string(w.info.ID))
	b = appendString(b, w.info.Instance)
	b = binary.BigEndian.AppendUint64(b, w.info.Term)
	b = binary.BigEndian.AppendUint64(b, w.info.LastIndex)
	b = binary.BigEndian.AppendUint64(b, w.info.AppliedIndex)
	var flags byte
	if w.info.HasState {
		flags |= flagHasState
	}
	if w.info.Full {
		flags |= flagFull
	}
	return frame(append(b, flags))
}

func parseWelcome(body []byte) (welcome, error) {
	d := decoder{rest: body}
	w := welcome{status: status(d.byte()), reason: d.string(maxReason)}
	w.info.peersDigest = dfs.Checksum(d.uint32())
	w.info.ClusterID = d.clusterID()
	w.info.ID = d.nodeID()
	w.info.Instance = d.string(maxInstance)
	w.info.Term = d.uint64()
	w.info.LastIndex = d.uint64()
	w.info.AppliedIndex = d.uint64()
	flags := d.byte()
	w.info.HasState, w.info.Full = flags&flagHasState != 0, flags&flagFull != 0
	if w.status > statusInvalid || flags&^(flagHasState|flagFull) != 0 {
		d.fail("unknown status")
	}
	return w, d.end()
}

func frame(body []byte) []byte {
	b := append([]byte(preambleMagic), preambleVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// readFrame takes exactly one frame from r, so that what follows is left to
// raft, and returns its body.
func readFrame(r io.Reader) ([]byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, dfs.Errorf(dfs.Unavailable, "no preamble on a Raft connection: %w", err)
	}
	size := int(binary.BigEndian.Uint16(header[frameHeader-2:]))
	switch {
	case string(header[:len(preambleMagic)]) != preambleMagic:
		return nil, dfs.Errorf(dfs.Invalid, "what answers is not the Raft port of a NameNode")
	case header[len(preambleMagic)] != preambleVersion:
		return nil, dfs.Errorf(dfs.Invalid, "the other side speaks version %d of the Raft preamble, this node version %d: run the same release on both", header[len(preambleMagic)], preambleVersion)
	case size > maxFrameBody:
		return nil, dfs.Errorf(dfs.Invalid, "a Raft preamble of %d bytes is too long", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, dfs.Errorf(dfs.Unavailable, "incomplete preamble on a Raft connection: %w", err)
	}
	return body, nil
}

// appendString needs len(s) <= 255, which the limits above ensure.
func appendString(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

// decoder takes fields off a body and remembers the first fault.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = dfs.Errorf(dfs.Invalid, "malformed Raft preamble: %s", why)
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || len(d.rest) < n {
		d.fail("it ends early")
		return make([]byte, n)
	}
	field := d.rest[:n]
	d.rest = d.rest[n:]
	return field
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

// string takes printable ASCII of at most limit bytes: it ends up in logs.
func (d *decoder) string(limit int) string {
	n := int(d.byte())
	if n > limit {
		d.fail("a field is too long")
		return ""
	}
	s := d.take(n)
	for _, c := range s {
		if c < ' ' || c > '~' {
			d.fail("a field is not printable")
			return ""
		}
	}
	return string(s)
}

func (d *decoder) nodeID() dfs.NodeID {
	id, err := dfs.ParseNodeID(d.string(dfs.MaxNodeIDLength))
	if err != nil {
		d.fail("not a node ID")
	}
	return id
}

func (d *decoder) optionalNodeID() dfs.NodeID {
	if len(d.rest) > 0 && d.rest[0] == 0 {
		d.take(1)
		return ""
	}
	return d.nodeID()
}

func (d *decoder) clusterID() dfs.ClusterID {
	s := d.string(32)
	if s == "" {
		return ""
	}
	id, err := dfs.ParseClusterID(s)
	if err != nil {
		d.fail("not a cluster ID")
	}
	return id
}

func (d *decoder) end() error {
	if len(d.rest) > 0 {
		d.fail("it goes on too long")
	}
	return d.err
}
