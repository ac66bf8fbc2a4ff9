package fsm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// validate makes sure of what the commands rely on: whatever refers to
// something finds it, every path up ends at the root or in the trash, lists
// that are searched are sorted. A state without that is refused before it
// replaces a good one.
//
// Sums (references, digests) are not judged: if a bug made them wrong, they are
// equally wrong on every NameNode, and to refuse them would keep all of them
// from starting.
func (s *State) validate() error {
	for _, check := range []func() error{
		s.validateHeader, s.validateInodes, s.validateTree, s.validateChunks, s.validateUploads, s.validatePools, s.validateNodes, s.validateReplicas, s.validateOrphans, s.validateGarbage,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) validateHeader() error {
	if s.nextInode <= trashInode || s.nextChunk == 0 || s.nextUpload == 0 || s.nextNode == 0 {
		return errors.New("a counter is missing")
	}
	if s.clock < 0 || s.clock > maxClock {
		return fmt.Errorf("its clock says %d", s.clock)
	}
	_, newest, _ := s.requestOrder.Max()
	if r, ok := s.requests.Get(newest); ok && r.index > s.applied {
		return fmt.Errorf("it remembers a request of log entry %d and ends at %d", r.index, s.applied)
	}
	return nil
}

func (s *State) validateInodes() error {
	var fault error
	ids := make([]uint64, 0, s.inodes.Len())
	s.inodes.Scan(func(n *inode) bool {
		ids = append(ids, n.id)
		fault = s.validateInode(n)
		return fault == nil
	})
	if fault != nil {
		return fault
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != s.inodes.Len() {
		return errors.New("two inodes share an ID")
	}
	return nil
}

func (s *State) validateInode(n *inode) error {
	if _, ok := s.dirs.Get(n.parent); !ok && n.parent != trashInode {
		return fmt.Errorf("inode %d is in directory %d, which is not there", n.id, n.parent)
	}
	if n.id <= trashInode || n.id >= s.nextInode {
		return fmt.Errorf("inode %d is not within the counter", n.id)
	}
	if n.directory && len(n.chunks()) > 0 {
		return fmt.Errorf("directory %d has chunks", n.id)
	}
	for _, id := range n.chunks() {
		if c, ok := s.chunks.Get(id); !ok || c.refs == 0 {
			return fmt.Errorf("inode %d refers to chunk %s, which is not there", n.id, id)
		}
	}
	return nil
}

// validateTree looks for directories that lie in themselves. It walks up from
// each directory to one that is known to end at the top.
func (s *State) validateTree() error {
	good := map[uint64]bool{rootInode: true, trashInode: true}
	var fault error
	s.dirs.Scan(func(id uint64, _ *inode) bool {
		var way []uint64
		for !good[id] {
			if len(way) > s.dirs.Len() {
				fault = fmt.Errorf("directory %d lies in itself", id)
				return false
			}
			way = append(way, id)
			dir, _ := s.dirs.Get(id) // validateInodes has seen the parents
			id = dir.parent
		}
		for _, passed := range way {
			good[passed] = true
		}
		return true
	})
	return fault
}

func (s *State) validateChunks() error {
	var fault error
	var replicas []NodeNum
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		replicas = c.appendReplicas(replicas[:0])
		switch {
		case id >= s.nextChunk:
			fault = fmt.Errorf("chunk %s is beyond the counter", id)
		case !ascending(replicas):
			fault = fmt.Errorf("the replicas of chunk %s are not in order", id)
		case !ascending(c.damaged()):
			fault = fmt.Errorf("the damaged replicas of chunk %s are not in order", id)
		default:
			fault = errors.Join(s.knowsNodes(replicas), s.knowsNodes(c.damaged()))
		}
		return fault == nil
	})
	return fault
}

func ascending(nodes []NodeNum) bool {
	for i := range nodes {
		if i > 0 && nodes[i-1] >= nodes[i] {
			return false
		}
	}
	return true
}

func (s *State) knowsNodes(nodes []NodeNum) error {
	for _, num := range nodes {
		if _, ok := s.nodes.Get(num); !ok {
			return fmt.Errorf("it speaks of DataNode number %d, which is not there", num)
		}
	}
	return nil
}

func (s *State) validateUploads() error {
	var fault error
	s.uploads.Scan(func(id dfs.UploadID, u *upload) bool {
		fault = s.validateUpload(id, u)
		return fault == nil
	})
	return fault
}

func (s *State) validateUpload(id dfs.UploadID, u *upload) error {
	if id >= s.nextUpload {
		return fmt.Errorf("upload %s is beyond the counter", id)
	}
	if err := dfs.CheckName(u.name); err != nil {
		return fmt.Errorf("upload %s: %w", id, err)
	}
	for _, a := range u.allocated {
		if c, ok := s.chunks.Get(a.id); !ok || c.upload != id {
			return fmt.Errorf("upload %s refers to chunk %s, which is not its own", id, a.id)
		}
		if err := s.knowsNodes(a.targets); err != nil {
			return err
		}
	}
	for _, sealed := range u.sealed {
		if c, ok := s.chunks.Get(sealed); !ok || c.upload != id || c.refs == 0 {
			return fmt.Errorf("upload %s refers to chunk %s, which is not its own", id, sealed)
		}
	}
	return nil
}

func (s *State) validatePools() error {
	var fault error
	s.pools.Scan(func(id dfs.UploadID, p *pool) bool {
		_, taken := s.uploads.Get(id)
		end := p.first + dfs.ChunkID(p.reserved)
		switch {
		case id >= s.nextUpload:
			fault = fmt.Errorf("pool %s is beyond the counter", id)
		case taken:
			fault = fmt.Errorf("pool %s has the ID of an upload", id)
		case p.first == 0 || end < p.first || end > s.nextChunk:
			fault = fmt.Errorf("pool %s has chunks beyond the counter", id)
		case p.left < 1 || p.left > p.reserved:
			fault = fmt.Errorf("pool %s has %d chunks left of %d", id, p.left, p.reserved)
		}
		return fault == nil
	})
	if fault != nil || s.pools.Len() == 0 {
		return fault
	}
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		if c.upload == 0 {
			return true
		}
		if p, ok := s.pools.Get(c.upload); ok && (c.refs > 0 || id < p.first || id-p.first >= dfs.ChunkID(p.reserved)) {
			fault = fmt.Errorf("chunk %s is not one that pool %s can have left", id, c.upload)
		}
		return fault == nil
	})
	return fault
}

func (s *State) validateNodes() error {
	var fault error
	s.nodes.Scan(func(num NodeNum, n *node) bool {
		switch {
		case num == 0 || num >= s.nextNode || num >= maxNodes:
			fault = fmt.Errorf("DataNode number %d is not within the counter", num)
		case n.liveness > Down || n.service > Drained:
			fault = fmt.Errorf("DataNode number %d is in a state that is not known", num)
		}
		return fault == nil
	})
	return fault
}

// validateReplicas judges the lists beside the chunks' own.
func (s *State) validateReplicas() error {
	var fault error
	s.unconfirmed.Scan(func(r replica) bool {
		if c, ok := s.chunks.Get(r.chunk); !ok || !c.heldBy(r.node) {
			fault = fmt.Errorf("it waits for DataNode number %d to confirm chunk %s, of which that is no replica", r.node, r.chunk)
		}
		return fault == nil
	})
	return fault
}

func (s *State) validateOrphans() error {
	var fault error
	s.orphans.Scan(func(o orphan) bool {
		fault = s.knowsNodes([]NodeNum{o.node})
		if o.since > s.applied {
			fault = fmt.Errorf("chunk %s is an orphan since log entry %d and the snapshot ends at %d", o.chunk, o.since, s.applied)
		}
		return fault == nil
	})
	if fault != nil {
		return fault
	}
	s.unissued.Scan(func(id dfs.ChunkID, _ int) bool {
		if _, known := s.chunks.Get(id); known {
			fault = fmt.Errorf("chunk %s is said never to have been handed out", id)
		}
		return fault == nil
	})
	return fault
}

// validateGarbage makes sure that nothing which is in use is down to be deleted.
func (s *State) validateGarbage() error {
	var fault error
	s.garbage.Scan(func(id dfs.ChunkID, since uint64) bool {
		switch c, known := s.chunks.Get(id); {
		case !known || !s.unused(&c) || c.replicaCount() == 0:
			fault = fmt.Errorf("chunk %s is said to be garbage and is not", id)
		case since > s.applied:
			fault = fmt.Errorf("chunk %s is garbage since log entry %d and the snapshot ends at %d", id, since, s.applied)
		}
		return fault == nil
	})
	return fault
}
