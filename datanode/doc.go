// Package datanode is one DataNode: it keeps chunks in a data directory, serves
// them over plain HTTP, passes them on to other DataNodes, and tells the
// NameNodes what it holds.
//
// Start reading at DataNode (life and death), then server.go (what every
// request goes through), put.go and forward.go (the way in), get.go (the way
// out) and heartbeat.go (the reports).
//
// # Writing
//
// The body of a PUT goes into a temporary file. When the request names further
// nodes, another goroutine reads that file as it grows and sends it to the
// first of them, together with the names of the rest. So a slow or dead node
// further down neither slows the local write nor costs memory, all disks of a
// pipeline fsync at the same time, and a node that fails is passed over: the
// file is there to begin again with the next one. The answer names the nodes
// that hold the chunk durably.
//
// Nodes are named by ID and never by address: the addresses come from the
// NameNodes alone, so nobody can make a DataNode call a stranger.
//
// Chunks are taken only by a node whose identity a NameNode has accepted since
// the node started. A copied data directory is refused there, and what it
// stored would be looked for at the original.
//
// # Reporting
//
// One goroutine sends heartbeats, one at a time. A heartbeat that was not
// answered is never repeated as it was; its news go into the next one, under a
// higher number. Whenever count or digest differ from what the NameNodes
// believe, they ask for the full inventory, which travels in pages, each
// together with the changes of its moment.
package datanode
