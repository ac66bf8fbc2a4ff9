// Package carrier carries HTTP/1.1 requests on the goroutine of the caller.
//
// The Transport of net/http hands each request to two goroutines of its
// connection and waits for both; for calls of some hundred bytes that costs more
// than the call. A carrier.Transport is an http.RoundTripper, too: it writes the
// request, reads the answer, and puts the connection away until the next one,
// without handing anything to anybody. Only a body that is too large for the
// buffers of a socket has a goroutine beside it, which reads the answer: a server
// may refuse long before it has the whole body.
//
// It speaks plain HTTP to servers of our own: no TLS, no proxy, no redirects, no
// cookies, no compression, no upgrade, and request bodies of known length only.
// What it does not understand, it refuses.
//
// Where to start: Transport.RoundTrip in transport.go; exchange.go is one request
// and its answer on one connection, pool.go what happens to connections in between.
package carrier
