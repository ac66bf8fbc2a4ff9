package namenode

import (
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (n *NameNode) mkdir(c *call) (reply, error) {
	var request protocol.MkdirRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	path, err := dfs.ParsePath(request.Path)
	if err != nil {
		return reply{}, err
	}
	if _, err := n.propose(c.Context(), &fsm.Mkdir{Path: path, Parents: request.Parents}, c.requestID); err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, protocol.PathReply{Path: path.String()}}, nil
}

func (n *NameNode) deleteFile(c *call) (reply, error) {
	path, err := c.path()
	if err != nil {
		return reply{}, err
	}
	recursive, err := c.flag(protocol.QueryRecursive)
	if err != nil {
		return reply{}, err
	}
	if _, err := n.propose(c.Context(), &fsm.Delete{Path: path, Recursive: recursive}, c.requestID); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.PathReply{Path: path.String()}}, nil
}

func (n *NameNode) rename(c *call) (reply, error) {
	var request protocol.RenameRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	from, err := dfs.ParsePath(request.From)
	if err != nil {
		return reply{}, err
	}
	to, err := dfs.ParsePath(request.To)
	if err != nil {
		return reply{}, err
	}
	if _, err := n.propose(c.Context(), &fsm.Rename{From: from, To: to}, c.requestID); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.PathReply{Path: to.String()}}, nil
}

func (n *NameNode) setReplication(c *call) (reply, error) {
	var request protocol.ReplicationRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	path, err := dfs.ParsePath(request.Path)
	if err != nil {
		return reply{}, err
	}
	if err := dfs.CheckReplication(request.Replication); err != nil {
		return reply{}, err
	}
	err = n.confirmed(c.Context(), func() error { return n.enoughNodes(request.Replication) })
	if err != nil {
		return reply{}, err
	}
	command := &fsm.SetReplication{Path: path, Replication: request.Replication}
	if _, err := n.propose(c.Context(), command, c.requestID); err != nil {
		return reply{}, err
	}
	n.unsettle()
	return reply{http.StatusOK, protocol.ReplicationRequest{Path: path.String(), Replication: request.Replication}}, nil
}

// enoughNodes refuses a replication that was asked for by number and that no
// set of the registered DataNodes can give.
func (n *NameNode) enoughNodes(replication int) error {
	registered := 0
	n.machine.Read(func(s *fsm.State) { registered = len(s.Nodes()) })
	if replication > registered {
		return dfs.Errorf(dfs.Invalid, "replication %d was asked for, but %d DataNodes are registered: add DataNodes or ask for less", replication, registered)
	}
	return nil
}

func (n *NameNode) stat(c *call) (reply, error) {
	path, err := c.path()
	if err != nil {
		return reply{}, err
	}
	var entry fsm.Entry
	n.machine.Read(func(s *fsm.State) { entry, err = s.Stat(path) })
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, entryOf(entry)}, nil
}

func entryOf(e fsm.Entry) protocol.Entry {
	entry := protocol.Entry{
		Name: e.Name, Path: e.Path, Type: protocol.TypeFile, Size: e.Size, MTime: e.MTime.UTC(), Inode: e.Inode,
		Replication: e.Replication, ChunkSize: e.ChunkSize, Chunks: e.Chunks,
	}
	if e.Directory {
		entry.Type = protocol.TypeDirectory
	}
	return entry
}

func (n *NameNode) list(c *call) (reply, error) {
	path, err := c.path()
	if err != nil {
		return reply{}, err
	}
	query := c.query
	limit := protocol.DefaultListLimit
	if text := query.Get(protocol.QueryLimit); text != "" {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 1 || limit > protocol.MaxListLimit {
			return reply{}, dfs.Errorf(dfs.Invalid, "limit is a number from 1 to %d, not %.40q", protocol.MaxListLimit, text)
		}
	}
	cursor := query.Get(protocol.QueryCursor)
	if cursor != "" {
		if err := dfs.CheckName(cursor); err != nil {
			return reply{}, dfs.Errorf(dfs.Invalid, "the cursor is not one that a listing gave: %w", err)
		}
	}
	var entries []fsm.Entry
	var more bool
	n.machine.Read(func(s *fsm.State) { entries, more, err = s.List(path, cursor, limit) })
	if err != nil {
		return reply{}, err
	}
	listing := protocol.Listing{Entries: make([]protocol.Entry, len(entries))}
	for i, e := range entries {
		listing.Entries[i] = entryOf(e)
	}
	if more {
		listing.Cursor = entries[len(entries)-1].Name
	}
	return reply{http.StatusOK, listing}, nil
}

func (n *NameNode) getFile(c *call) (reply, error) {
	path, err := c.path()
	if err != nil {
		return reply{}, err
	}
	var file fsm.File
	var nodes []fsm.Node
	n.machine.Read(func(s *fsm.State) {
		file, err = s.File(path)
		nodes = s.Nodes()
	})
	if err != nil {
		return reply{}, err
	}
	locate := newLocator(nodes)
	answer := protocol.File{
		Path: file.Path, Type: protocol.TypeFile, Size: file.Size, MTime: file.MTime.UTC(), Inode: file.Inode,
		Replication: file.Replication, ChunkSize: file.ChunkSize, Chunks: make([]protocol.LocatedChunk, len(file.Contents)),
	}
	for i, chunk := range file.Contents {
		answer.Chunks[i] = protocol.LocatedChunk{
			ID: chunk.ID, Size: chunk.Size, CRC32C: chunk.Checksum, Locations: locate.replicas(chunk.Replicas),
		}
	}
	return reply{http.StatusOK, answer}, nil
}

// locator turns node numbers into addresses.
type locator map[fsm.NodeNum]fsm.Node

func newLocator(nodes []fsm.Node) locator {
	l := make(locator, len(nodes))
	for _, node := range nodes {
		l[node.Num] = node
	}
	return l
}

// replicas returns where a chunk can be read: live nodes in random order, so
// that readers spread, then suspect ones. Nodes that are down are left out.
func (l locator) replicas(nums []fsm.NodeNum) []protocol.Target {
	targets := make([]protocol.Target, 0, len(nums))
	live := 0
	for _, i := range rand.Perm(len(nums)) {
		node := l[nums[i]]
		if node.Liveness == fsm.Down || node.URL == "" {
			continue
		}
		targets = append(targets, protocol.Target{ID: node.ID, URL: node.URL})
		if node.Liveness == fsm.Up {
			last := len(targets) - 1
			targets[live], targets[last] = targets[last], targets[live]
			live++
		}
	}
	return targets
}

// targets returns where a chunk should be written, in pipeline order.
func (l locator) targets(nums []fsm.NodeNum) []protocol.Target {
	targets := make([]protocol.Target, 0, len(nums))
	for _, num := range nums {
		if node, ok := l[num]; ok {
			targets = append(targets, protocol.Target{ID: node.ID, URL: node.URL})
		}
	}
	return targets
}
