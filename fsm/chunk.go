package fsm

import (
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// fewReplicas is how many replicas a chunk holds in place.
const fewReplicas = 6

// chunk is a chunk that was allocated. It is unused when it has no reference
// and its upload is over, and stays so: then it is garbage while a node holds
// it, and forgotten after that.
//
// There are as many of them as of anything, so they are kept small (40 bytes),
// and by value: what one is given is a copy, to be put back when it was changed.
type chunk struct {
	upload   dfs.UploadID // that allocated it, or pool; 0 once it has left a pool for a file
	size     int32        // bytes, at most dfs.MaxChunkSize
	checksum dfs.Checksum
	refs     uint32              // files that use it
	few      [fewReplicas]uint16 // nodes that hold it, sorted, 0 after the last; unused when rare has them
	rare     *rareChunk          // nil for nearly all
}

// rareChunk is what few chunks have. It is never changed, only replaced.
type rareChunk struct {
	replicas []NodeNum // sorted; all of them when there are more than fewReplicas, else none
	damaged  []NodeNum // sorted; had a replica that was found damaged, and no new one has taken its place
}

// inPlace tells whether few has the replicas.
func (c *chunk) inPlace() bool { return c.rare == nil || len(c.rare.replicas) == 0 }

// replicaCount returns how many nodes hold the chunk.
func (c *chunk) replicaCount() int {
	if !c.inPlace() {
		return len(c.rare.replicas)
	}
	count := 0
	for count < fewReplicas && c.few[count] != 0 {
		count++
	}
	return count
}

// appendReplicas appends the nodes that hold the chunk, sorted.
func (c *chunk) appendReplicas(nodes []NodeNum) []NodeNum {
	if !c.inPlace() {
		return append(nodes, c.rare.replicas...)
	}
	for _, num := range c.few[:c.replicaCount()] {
		nodes = append(nodes, NodeNum(num))
	}
	return nodes
}

// replicas returns the nodes that hold the chunk, sorted, as a list of its own;
// nil for none.
func (c *chunk) replicas() []NodeNum {
	count := c.replicaCount()
	if count == 0 {
		return nil
	}
	return c.appendReplicas(make([]NodeNum, 0, count))
}

// heldBy tells whether the node is said to hold the chunk.
func (c *chunk) heldBy(num NodeNum) bool {
	if !c.inPlace() {
		_, found := slices.BinarySearch(c.rare.replicas, num)
		return found
	}
	for _, known := range c.few {
		if NodeNum(known) == num {
			return num != 0
		}
	}
	return false
}

// damaged returns the nodes with a damaged replica that was not replaced. The
// slice must not be changed.
func (c *chunk) damaged() []NodeNum {
	if c.rare == nil {
		return nil
	}
	return c.rare.damaged
}

// setReplicas makes the sorted nodes, none above maxNodes, those that hold the
// chunk. They must not be changed after that.
func (c *chunk) setReplicas(nodes []NodeNum) {
	damaged := c.damaged()
	c.few, c.rare = [fewReplicas]uint16{}, nil
	if len(nodes) > fewReplicas {
		c.rare = &rareChunk{replicas: nodes, damaged: damaged}
		return
	}
	for i, num := range nodes {
		c.few[i] = uint16(num)
	}
	c.setDamaged(damaged)
}

// setDamaged makes the sorted nodes those with a damaged replica. They must not
// be changed after that.
func (c *chunk) setDamaged(nodes []NodeNum) {
	var many []NodeNum
	if c.rare != nil {
		many = c.rare.replicas
	}
	if c.rare = nil; len(nodes)+len(many) > 0 {
		c.rare = &rareChunk{replicas: many, damaged: nodes}
	}
}

// addReplica takes note that the node holds the chunk, and tells whether that
// is new. A new replica takes the place of the node's own damaged one, or else of
// any other.
func (c *chunk) addReplica(num NodeNum) bool {
	if c.heldBy(num) {
		return false
	}
	if count := c.replicaCount(); count < fewReplicas {
		for ; count > 0 && NodeNum(c.few[count-1]) > num; count-- {
			c.few[count] = c.few[count-1]
		}
		c.few[count] = uint16(num)
	} else {
		nodes := c.replicas()
		at, _ := slices.BinarySearch(nodes, num)
		c.setReplicas(slices.Insert(nodes, at, num))
	}
	if damaged := c.damaged(); len(damaged) > 0 {
		c.setDamaged(replaced(damaged, num))
	}
	return true
}

// dropReplica takes note that the node does not hold the chunk any more, and
// tells whether it was known to.
func (c *chunk) dropReplica(num NodeNum) bool {
	if !c.heldBy(num) {
		return false
	}
	if !c.inPlace() {
		c.setReplicas(slices.DeleteFunc(c.replicas(), func(known NodeNum) bool { return known == num }))
		return true
	}
	at := slices.Index(c.few[:], uint16(num))
	copy(c.few[at:], c.few[at+1:])
	c.few[fewReplicas-1] = 0
	return true
}

// addDamaged takes note that the node had a damaged replica.
func (c *chunk) addDamaged(num NodeNum) {
	at, found := slices.BinarySearch(c.damaged(), num)
	if !found {
		c.setDamaged(slices.Insert(slices.Clone(c.damaged()), at, num))
	}
}

// replaced returns the nodes with damaged replicas after num got a new one: it
// takes the place of its own or else of any other. The slice it is given stays
// as it is.
func replaced(damaged []NodeNum, num NodeNum) []NodeNum {
	if len(damaged) <= 1 {
		return nil
	}
	at, found := slices.BinarySearch(damaged, num)
	if !found {
		at = 0
	}
	return slices.Concat(damaged[:at], damaged[at+1:])
}
