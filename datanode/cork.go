package datanode

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
)

// heldBytes is how much of an answer a connection keeps back at most.
const heldBytes = 8 << 10

// corked is a connection that can keep back what is written to it until there is
// more. The server's own buffer has no room for a chunk of 4 KiB and its header:
// it would send each in two packets, and wake the one who waits for it twice.
// Only the goroutine that answers writes to it.
type corked struct {
	*net.TCPConn
	holding bool
	held    []byte
}

// corkedListener makes every connection a corked one.
type corkedListener struct{ net.Listener }

// Accept implements net.Listener.
func (l corkedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		return &corked{TCPConn: tcp}, nil
	}
	return conn, err
}

// corkKey is the key of a connection in the context of its requests.
type corkKey struct{}

// withCork is for http.Server.ConnContext.
func withCork(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, corkKey{}, conn)
}

// corkOf returns the connection of a request, nil when it cannot be corked.
func corkOf(r *http.Request) *corked {
	c, _ := r.Context().Value(corkKey{}).(*corked)
	return c
}

// withoutCork is the request without its connection, for those who must not write to it.
func withoutCork(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), corkKey{}, (*corked)(nil)))
}

// hold begins to keep back. Whoever calls it must call release.
func (c *corked) hold() {
	if c != nil {
		c.holding = true
		if c.held == nil {
			c.held = make([]byte, 0, heldBytes)
		}
	}
}

// release sends what is kept. When it fails, half an answer may be out, and the
// connection is of no use any more.
func (c *corked) release() error {
	if c == nil {
		return nil
	}
	c.holding = false
	if len(c.held) == 0 {
		return nil
	}
	_, err := c.TCPConn.Write(c.held)
	c.held = c.held[:0]
	if err != nil {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Write implements net.Conn.
func (c *corked) Write(p []byte) (int, error) {
	if !c.holding {
		return c.TCPConn.Write(p)
	}
	if len(c.held)+len(p) <= heldBytes {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	c.holding = false // what comes now is long enough
	before := len(c.held)
	both := net.Buffers{c.held, p}
	c.held = c.held[:0]
	n, err := both.WriteTo(c.TCPConn)
	return max(0, int(n)-before), err
}

// ReadFrom implements io.ReaderFrom: the kernel sends what lies in a file.
func (c *corked) ReadFrom(source io.Reader) (int64, error) {
	if err := c.release(); err != nil {
		return 0, err
	}
	return c.TCPConn.ReadFrom(source)
}
