// Package bench measures a running cluster from the outside, as its clients see
// it. Start reading at Run, which lets workers repeat an operation and counts;
// works.go has the operations, servers.go asks the daemons what it cost them.
//
// Failover and Recover lose a daemon while a load (pulse.go) goes on. A client
// cannot kill, so their caller says how.
//
// Everything happens below a directory of its own, which is removed afterwards.
package bench
