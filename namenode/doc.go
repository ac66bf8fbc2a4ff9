// Package namenode is one NameNode: the HTTP server that clients and DataNodes
// talk to, the state machine under Raft behind it, and the duties it has while
// it leads.
//
// Where to start:
//
//   - namenode.go: New, Open, Wait, Close: what is started in which order
//   - server.go: the route table and what happens around every call
//   - propose.go: how a change gets into the log, and how a refusal is made
//     sure of before it is given; batcher.go lets changes share an entry
//   - verify.go, questions.go: how DataNodes are asked before a commit
//   - files.go, uploads.go, putfile.go, nodes.go, members.go: the calls themselves
//   - leadership.go: the duties of a leader, from election to loss
//   - repair.go, fsck.go: how chunks get the replicas they should have, and what is told
//     about it; what is decided is in package repair
//   - reclaim.go: how garbage is ordered to be deleted; what is decided is in
//     package reclaim
//   - drain.go: DataNodes that are to be emptied; watchednodes.go: who comes and goes
//   - heartbeats.go: how the reports of a tick become one log entry
//   - statemachine.go, metadir.go: what lies in the meta-dir
package namenode
