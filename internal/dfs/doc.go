// Package dfs is the vocabulary of the system: the identifiers, paths,
// checksums, error codes and limits that every other package speaks of.
//
// Text from outside (a path, a chunk ID, a node ID) is parsed here, once, at
// the edge; the rest of the code takes the parsed types and trusts them. The
// package imports only the standard library and nothing of this module.
package dfs
