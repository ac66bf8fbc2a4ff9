// Package repair finds the chunks that are not as they should be, and decides
// which replicas are to be made and which are too many. It knows no network, no
// Raft and no clock: it is given a view of the state and the time, and returns
// what to do.
//
//   - fleet.go: how the replicas of a chunk stand, given the DataNodes
//   - survey.go: Survey looks at every chunk of every file and counts what is
//     wrong; the worst are listed. Refresh looks at the listed ones again
//   - plan.go: Plan chooses copies, those with the fewest replicas left first
//   - trim.go: PlanTrims chooses which replicas of chunks with too many go
//   - loads.go: how full the DataNodes will be when what is under way is done
//   - balance.go: Balancer chooses copies that make the DataNodes equally full
//   - ledger.go, trims.go: what was ordered, until it is done or overdue
package repair
