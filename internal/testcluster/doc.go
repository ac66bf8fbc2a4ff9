// Package testcluster is a whole cluster inside one process, over real TCP on
// loopback: NameNodes that elect a leader, and DataNodes. Tests use it on ports
// that the system chooses, and 'dfs dev' on fixed ones for a first look.
//
// Stop and Start end and begin one node gracefully, on the same ports and
// directories. Crashes need processes of their own: see test/faults.
package testcluster
