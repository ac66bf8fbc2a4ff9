// Package reclaim finds what no file and no upload uses any more, and decides
// which DataNodes are to give it up. It knows no network, no Raft and no clock:
// it is given the state and the time, and returns what to do.
//
//   - plan.go: Plan chooses replicas of garbage, and orphans, that are old enough
//   - grace.go: Grace tells what is old enough, by the caller's own clock
//   - ledger.go: Ledger keeps what was ordered until it is done or overdue
//
// Garbage stays garbage: IDs are never used twice and no command brings a
// reference back. So a plan that is carried out late does no harm.
package reclaim
