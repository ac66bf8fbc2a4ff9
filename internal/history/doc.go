// Package history tests whether a cluster keeps the promise of linearizable
// calls: clients work on a few paths at once (Load), every call is written down
// with its beginning and end (Recorder), and Check looks for an order of all
// calls that a single machine could have carried out one after the other,
// within the times that the callers saw.
//
// The checker is porcupine; see Herlihy and Wing, Linearizability: A Correctness
// Condition for Concurrent Objects, 1990. What this package adds is the model of
// the namespace (model.go), renames across directories included.
//
// A call whose outcome is unknown may have had its effect at any time after it
// began, or not at all. A read without an answer says nothing and is left out.
package history
