// Package lint holds the rules that the whole module keeps and no compiler
// checks: who may import whom, what the state machine must not use, what every
// package has. It has only tests; they parse the sources of the module and name
// the place of each breach and what to do instead.
//
// Where to start: the tables at the top of imports_test.go and code_test.go.
package lint
