// Package fsm is the replicated state machine: the namespace, the chunks, the
// open uploads, the nodes and the memory of requests.
//
// Every NameNode holds a Machine and feeds it the same log entries in the same
// order, so all hold the same State. Apply therefore uses no clock, no
// randomness, no I/O and no map order; time and placement are stamped into a
// command by the leader that proposes it. A command that makes no sense in the
// present state is refused with a typed error, the same on every NameNode.
//
// Where to start:
//
//   - command.go: what can be asked of the machine, numbered for ever
//   - machine.go: Apply, the clock, and exactly-once through request IDs
//   - state.go: what there is; chunk.go and chunktable.go: what there is most of
//   - namespace.go, upload.go, pool.go, node.go: what each command does
//   - query.go: what may be asked without changing anything
//   - snapshot.go, restore.go, records.go, validate.go: files.json and nodes.json;
//     jsonwrite.go and jsonread.go are the JSON they are made of
//
// A file of one chunk with three replicas takes about 160 bytes of memory: 80 for
// the inode, 16 for its name, 17 for its place in the tree, 43 for its chunk.
// Remembered answers take some 35 MB on top. Why it is kept that way is told in
// docs/decisions/0011-compact-namespace.md. BenchmarkMillionFiles measures it.
//
// The bytes of commands and snapshots are described in docs/disk-formats.md.
package fsm
