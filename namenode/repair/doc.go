// Package repair finds the chunks that are not as they should be, and decides
// which copies are to be made. It knows no network, no Raft and no clock: it is
// given a view of the state and the time, and returns what to do. Nothing it
// plans deletes anything.
//
//   - survey.go: Survey looks at every chunk of every file and counts what is
//     wrong; the worst are listed
//   - plan.go: Plan chooses copies, those with the fewest replicas left first
//   - ledger.go: Ledger keeps what was ordered until it is done or overdue
package repair
