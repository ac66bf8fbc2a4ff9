package fsm

import (
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// maxNodes bounds the node table; numbers are never used twice.
	maxNodes = 1 << 16
	// unconfirmedGrace is how long, in clock milliseconds, a replica that is
	// known from a commit may be missing from its node's inventories: the
	// report of the new chunk may still be on its way.
	unconfirmedGrace = 30_000
)

func (c *RegisterNode) apply(s *State) (Result, error) {
	num, known := s.nodesByID.Get(c.ID)
	if !known {
		return s.addNode(c)
	}
	old, _ := s.nodes.Get(num)
	replaced := c.Instance != old.instance // another disk, which counts its starts anew
	if c.Incarnation < old.incarnation && !replaced {
		return Result{}, dfs.Errorf(dfs.Conflict, "DataNode %s has been started again since; this is an earlier start of it", c.ID)
	}
	changed := *old
	if c.Incarnation > old.incarnation || replaced {
		changed.incarnation, changed.seq, changed.inventoried = c.Incarnation, 0, false
	}
	changed.url, changed.rack, changed.instance = c.URL, c.Rack, c.Instance
	s.nodes.Set(num, &changed)
	return Result{Node: num}, nil
}

func (s *State) addNode(c *RegisterNode) (Result, error) {
	if s.nextNode >= maxNodes {
		return Result{}, dfs.Errorf(dfs.OverLimit, "%d DataNodes have been registered; no more can be", maxNodes-1)
	}
	num := s.nextNode
	s.nextNode++
	s.nodes.Set(num, &node{
		num: num, id: c.ID, url: c.URL, rack: c.Rack, instance: c.Instance,
		incarnation: c.Incarnation, lastHeartbeat: s.clock,
		liveness: Suspect, // until its first report says how much room it has
	})
	s.nodesByID.Set(c.ID, num)
	return Result{Node: num}, nil
}

func (c *Heartbeats) apply(s *State) (Result, error) {
	var result Result
	for i := range c.Reports {
		num := c.Reports[i].Node
		// Of the parts of one report, only the last can add up.
		result.NeedInventory = slices.DeleteFunc(result.NeedInventory, func(n NodeNum) bool { return n == num })
		if s.report(&c.Reports[i]) {
			result.NeedInventory = append(result.NeedInventory, num)
		}
	}
	return result, nil
}

// report takes in one node's report and tells whether a full inventory of the
// node is needed. A report of an earlier start is ignored; one that was taken
// in before is only a sign of life.
func (s *State) report(r *NodeReport) (needInventory bool) {
	old, ok := s.nodes.Get(r.Node)
	if !ok || r.Incarnation != old.incarnation {
		return false
	}
	n := *old
	n.liveness, n.lastHeartbeat = Up, s.clock
	if r.Seq >= n.seq { // equal: another part of the same report, or the same again, which changes nothing
		n.seq = r.Seq
		n.capacity, n.used, n.free, n.writable, n.count = r.Capacity, r.Used, r.Free, r.Writable, r.Count
		s.changeReplicas(&n, r)
		n.inventoried = n.held == r.Count && n.digest == r.Digest
	}
	s.nodes.Set(n.num, &n)
	return !n.inventoried
}

func (s *State) changeReplicas(n *node, r *NodeReport) {
	for _, id := range r.Removed {
		s.dropReplica(n, id)
	}
	for _, id := range r.Corrupt {
		s.dropDamaged(n, id)
	}
	for _, id := range r.Added {
		s.addReplica(n, id)
	}
	if r.InventoryDone {
		s.dropUnconfirmed(n)
	}
}

// addReplica takes note that the node itself says it holds the chunk.
func (s *State) addReplica(n *node, id dfs.ChunkID) {
	c, known := s.chunks.Get(id)
	if !known {
		s.addOrphan(n, id)
		return
	}
	s.dropOrphan(n, id) // of a snapshot from before allocation kept clear of orphans
	if !c.addReplica(n.num) {
		if _, waiting := s.unconfirmed.Delete(replica{node: n.num, chunk: id}); waiting {
			n.hold(id)
		}
		return
	}
	s.chunks.Set(id, c)
	n.hold(id)
}

func (s *State) addOrphan(n *node, id dfs.ChunkID) {
	if _, known := s.orphans.Get(orphan{node: n.num, chunk: id}); known {
		return
	}
	s.orphans.Set(orphan{n.num, id, s.applied})
	s.countUnissued(id)
	n.hold(id)
}

// countUnissued takes note of another node with the chunk when its ID was not
// handed out: it comes from a future that this namespace has lost.
func (s *State) countUnissued(id dfs.ChunkID) {
	if nodes, unissued := s.unissued.Get(id); unissued || id >= s.nextChunk {
		s.unissued.Set(id, nodes+1)
	}
}

func (s *State) dropOrphan(n *node, id dfs.ChunkID) {
	if _, known := s.orphans.Delete(orphan{node: n.num, chunk: id}); !known {
		return
	}
	n.letGo(id)
	if nodes, unissued := s.unissued.Get(id); unissued && nodes > 1 {
		s.unissued.Set(id, nodes-1)
	} else {
		s.unissued.Delete(id)
	}
}

// dropDamaged takes note that the node's replica was damaged. The chunk
// remembers it until it has a new replica instead.
func (s *State) dropDamaged(n *node, id dfs.ChunkID) {
	if !s.dropReplica(n, id) {
		return
	}
	c, known := s.chunks.Get(id)
	if !known {
		return
	}
	c.addDamaged(n.num)
	s.chunks.Set(id, c)
}

// dropReplica takes note that the node does not hold the chunk any more, and
// tells whether it was known to.
func (s *State) dropReplica(n *node, id dfs.ChunkID) bool {
	s.dropOrphan(n, id)
	c, known := s.chunks.Get(id)
	if !known {
		return false
	}
	if !c.dropReplica(n.num) {
		return false
	}
	if _, waiting := s.unconfirmed.Delete(replica{node: n.num, chunk: id}); !waiting {
		n.letGo(id)
	}
	s.chunks.Set(id, c)
	s.settle(id, &c)
	return true
}

// dropUnconfirmed drops the replicas that a full inventory of the node did not
// confirm in time.
func (s *State) dropUnconfirmed(n *node) {
	var stale []dfs.ChunkID
	s.unconfirmed.Ascend(replica{node: n.num}, func(r replica) bool {
		if r.node == n.num && r.since+unconfirmedGrace < s.clock {
			stale = append(stale, r.chunk)
		}
		return r.node == n.num
	})
	for _, id := range stale {
		s.dropReplica(n, id)
	}
}

// hold and letGo keep the count and digest of what the node reported.
func (n *node) hold(id dfs.ChunkID) {
	n.held++
	n.digest = n.digest.Add(id)
}

func (n *node) letGo(id dfs.ChunkID) {
	n.held--
	n.digest = n.digest.Remove(id)
}

func (c *SetLiveness) apply(s *State) (Result, error) {
	for _, change := range c.Nodes {
		if old, ok := s.nodes.Get(change.Node); ok {
			n := *old
			n.liveness = change.Liveness
			s.nodes.Set(n.num, &n)
		}
	}
	return Result{}, nil
}

func (c *SetService) apply(s *State) (Result, error) {
	old, ok := s.nodes.Get(c.Node)
	if !ok {
		return Result{}, dfs.Errorf(dfs.NotFound, "there is no such DataNode")
	}
	n := *old
	n.service = c.Service
	s.nodes.Set(n.num, &n)
	return Result{}, nil
}

func (c *SetMember) apply(s *State) (Result, error) {
	old, known := s.members.Get(c.ID)
	if known && !old.removed && old.instance != "" && c.Instance != "" && old.instance != c.Instance {
		return Result{}, dfs.Errorf(dfs.Conflict, "NameNode %s is a member with another meta-dir; its votes and log were lost with that. Remove it with 'dfs admin remove %s', then start it with -join and let it in with 'dfs admin join'", c.ID, c.ID)
	}
	if known && old.removed && old.instance == c.Instance && c.Instance != "" {
		return Result{}, dfs.Errorf(dfs.Forbidden, "NameNode %s was removed; empty its meta-dir before it joins again", c.ID)
	}
	m := &member{id: c.ID, instance: c.Instance, url: c.URL, raftAddr: c.RaftAddr}
	if known && !old.removed && c.Instance == "" {
		m.instance = old.instance
	}
	s.members.Set(c.ID, m)
	return Result{}, nil
}

func (c *RemoveMember) apply(s *State) (Result, error) {
	old, known := s.members.Get(c.ID)
	if !known {
		s.members.Set(c.ID, &member{id: c.ID, removed: true})
		return Result{}, nil
	}
	gone := *old
	gone.removed = true
	s.members.Set(c.ID, &gone)
	return Result{}, nil
}
