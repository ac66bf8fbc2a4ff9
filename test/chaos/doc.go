// Package chaos holds the cluster's promises against faults: it starts real
// processes, loads them, kills and stops them with signals, and then compares
// what was acknowledged with what is there.
//
// It runs with 'make chaos', which sets DFS_CHAOS to a duration, and is skipped
// otherwise. Every run prints its seed; DFS_CHAOS_SEED repeats the choice of
// faults (not their exact timing).
package chaos
