// Package bundle lets small HTTP requests that go to the same server at the same
// time share one. What a call of some hundred bytes costs is system calls and
// processes that are woken, on both sides; sixteen calls in a bundle cost little
// more of both than one.
//
// A Transport is an http.RoundTripper. A request that meets no other goes as it
// is. While one is on its way to a server and has no answer, further ones wait, for
// 20 ms at most, and then go together; reads and changes do not wait for each other.
// Each request keeps its own context, answer and failure.
//
// A Handler serves a bundle: all its parts at once, each as if it had come by
// itself, and answers each as soon as it is done, so that a slow one keeps nobody
// waiting. A server that refuses bundles, or does not know them, gets the requests
// one by one.
//
// Where to start: Transport.RoundTrip in transport.go; lane.go decides what goes
// when, flight.go carries a bundle, handler.go is the other side, wire.go what
// lies between.
package bundle
