// Package placement decides which DataNodes get a chunk. It is a pure function
// of a view of the nodes and a source of randomness: no network, no Raft, no
// clock.
//
// The rules, in this order: the replicas of a chunk are on distinct nodes; on
// as many racks as there are; never on a node that is not live, in service and
// writable with room for a chunk; and a node is drawn with a weight that grows
// with its free space and shrinks with what is already on its way to it, so
// that disks fill evenly and no node is flooded.
package placement
