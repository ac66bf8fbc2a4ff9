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
//   - state.go: what there is
//   - namespace.go, upload.go, node.go: what each command does
//   - query.go: what may be asked without changing anything
//   - snapshot.go, restore.go, validate.go: files.json and nodes.json
//
// The bytes of commands and snapshots are described in docs/disk-formats.md.
package fsm
