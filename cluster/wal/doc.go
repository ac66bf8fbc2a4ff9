// Package wal puts a journal in front of a raft.LogStore whose transactions are
// dear: an append is one write and one fdatasync, and a carrier brings what has
// gathered to the store behind with one transaction, in the background.
//
// # What holds at any time
//
//   - An entry is in the journal or in the store behind, mostly in both. It is
//     durable in one of them before StoreLogs returns, and readable from memory
//     until it is in the store behind.
//   - The journal holds appends only, each entry after the one before it. All
//     else (deleting, storing what does not follow the last entry) is done by the
//     store behind, after everything was carried there and the journal was
//     emptied. So to carry the journal again, from its beginning, never brings
//     back what was deleted.
//   - A process appends only to a journal that it has emptied itself: Open carries
//     what the last one left.
//
// # A torn tail is not damage
//
// A record is written only after the fdatasync of the one before. So any record,
// however broken, that is followed by the header of another one was durable: then
// Open refuses. Only what nothing follows was perhaps never acknowledged. To make
// this rare, a mark, a header without entries, is written behind a record once it is
// durable, without an fdatasync of its own; the next record takes its place.
//
// Files: record.go (the format), scan.go (reading a journal that may be torn or
// damaged), file.go (writing it), log.go (the raft.LogStore), carry.go (the
// carrier), open.go (what the last process left).
package wal
