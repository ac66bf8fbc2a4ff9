// Package faults holds the cluster's promises against faults: it starts real
// processes, loads them, harms them, and then compares what was acknowledged with
// what is there. See docs/testing.md.
//
// It runs with 'make faults', which sets DFS_FAULTS to a duration, and is skipped
// otherwise. Every run prints its seed; DFS_FAULT_SEED repeats the choice of
// faults (not their exact timing).
package faults
