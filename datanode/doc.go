// Package datanode is one DataNode: it keeps chunks in data directories, serves
// them over plain HTTP, passes them on to other DataNodes, and tells the
// NameNodes what it holds.
//
// Start reading at DataNode (life and death), then server.go (what every
// request goes through), put.go and forward.go (the way in), get.go (the way
// out), heartbeat.go (the reports), order.go (what the leader wants done), with
// fetch.go, delete.go, trim.go and keep.go, and scrub.go and suspicion.go (the
// search for damage).
//
// # Writing
//
// The body of a PUT goes into a temporary file. When the request names further
// nodes, another goroutine reads that file as it grows and sends it to the
// first of them, together with the names of the rest. So a slow or dead node
// further down neither slows the local write nor costs memory, all disks of a
// pipeline fsync at the same time, and a node that fails is passed over: the
// file is there to begin again with the next one. The answer names the nodes
// that hold the chunk durably. A small chunk is received into memory, and is
// written and passed on from there.
//
// Nodes are named by ID and never by address: the addresses come from the
// NameNodes alone, so nobody can make a DataNode call a stranger.
//
// Chunks are taken only by a node whose identity a NameNode has accepted since
// the node started. A copied data directory is refused there, and what it
// stored would be looked for at the original.
//
// # Orders
//
// Answers to heartbeats carry orders of the leader (order.go): to copy a chunk
// from another node (fetch.go), to read one again, to delete chunks that nothing
// uses (delete.go), or to trim: to give up a replica too many (trim.go). They
// have the term of the answer, and an answer of a lower term than any seen
// before is not believed, orders and all; the highest term is kept in the data
// directory. An order that fails is not repeated here: the leader sees in the
// reports that nothing came of it.
//
// Each kind waits in a lane of its own (lane.go). Orders that take something
// away are void after a while, and ask for their term again right before they
// do. For a trim the leader's word is not enough: the node asks those that are
// to keep their replicas, and they read them again first. Why two nodes never
// give up theirs trusting each other is told in keep.go.
//
// # Scrubbing
//
// One goroutine reads all chunks again, in the order of their IDs and at a
// bounded rate (scrub.go), so that a replica that the disk has damaged is found
// and replaced while there are good ones. What a reader found bad is read again
// soon (suspicion.go), but not believed. A chunk found damaged, by whomever, is
// put into quarantine and reported at once.
//
// # Data directories
//
// A node serves and reports before its directories have been read, and looks
// after them every few seconds (upkeep.go). What is not known yet is neither
// reported nor denied: requests for chunks are answered Unavailable, heartbeats
// say that the node takes no chunks, and no inventory is begun.
//
// # Reporting
//
// One goroutine sends heartbeats, one at a time. A heartbeat that was not
// answered is never repeated as it was; its news go into the next one, under a
// higher number. Whenever count or digest differ from what the NameNodes
// believe, they ask for the full inventory, which travels in pages, each
// together with the changes of its moment.
package datanode
