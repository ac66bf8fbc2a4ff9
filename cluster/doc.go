// Package cluster runs one member of the Raft group that replicates the
// namespace. It is given a raft.FSM and moves bytes: what an entry means is
// none of its business.
//
// Open starts a member and returns a Group. From then on:
//
//   - Apply puts an entry into the replicated log and returns what the state
//     machine answered, or an error that says whether the entry can still take
//     effect (dfs.UnknownOutcome) or never will (dfs.NotLeader and others).
//   - ReadIndex returns nil when the state machine of this node may be read
//     linearizably: it holds everything acknowledged before the call.
//   - Config.Lead is run while this node leads, after a barrier has brought its
//     state machine up to date, under a context that ends with the leadership.
//   - Join, Remove, Transfer and UpdateAddress change the group.
//
// # How a group comes to be, and why it cannot fork
//
// A directory that holds state never bootstraps (form.go). An empty one first
// asks its peers: if any of them belongs to a cluster, the group exists, and
// this member takes no part (it refuses Raft connections, so it neither votes
// nor acknowledges entries) until Config.Admit has said that it never was a
// member before. A member that lost its directory has forgotten votes and
// entries that others counted on.
//
// # What is stacked on what
//
//	raft ── transport ── stream            handshake on every connection (preamble.go, stream.go)
//	  ├──── rebasedLog ─ LogCache ─ diskStore              (log.go, store.go)
//	  │                               ├── wal.Log ─ raft.journal   entries (journal.go)
//	  │                               └── raft.db                  terms, votes; entries, a second later
//	  ├──── snapshotStore ─ FileSnapshotStore              (fsm.go)
//	  └──── stateMachine ─ Config.FSM                      (fsm.go)
//
// A node that can no longer trust its disk, or whose disk hangs, reports it to
// Config.Fatal: the process must exit, so that the others elect a new leader.
package cluster
