// Package cli is the command line: `dfs`, with one file for each verb, and the
// three classic commands made of parts of it.
//
// A verb parses its arguments, makes a client.Client, calls it, and prints what
// came of it: for people, or with --json as the objects of internal/protocol.
// Errors go up to Main, which prints one line and chooses the exit code: 0 for
// done, 1 for failed, 2 for a wrong command line.
//
// Start reading at main.go. To add a verb, write a file like stat.go and name
// its constructor in clientVerbs.
package cli
