// Package protocol is what crosses a socket: the routes as data, the JSON
// bodies, the headers, and the one table between error codes and HTTP
// statuses. Servers and clients share it, so that a failure keeps its code and
// its sentence on the way.
//
// docs/http-api.md describes the same for people.
package protocol
