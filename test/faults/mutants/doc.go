// Package mutants holds bugs that are planted to prove that the scenarios of
// test/faults find them. A mutant is data: which text of which file is replaced,
// which scenario must go red for it, and what that says then. The tree itself
// stays as it is; go build takes the changed file as an overlay.
//
// Who changes the code around a planted bug changes the text here, too: a test
// makes sure that each text is there exactly once and that the result compiles.
package mutants
