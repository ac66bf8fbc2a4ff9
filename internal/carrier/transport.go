package carrier

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	defaultIdleTimeout = 30 * time.Second
	defaultIdlePerHost = 64
	defaultMaxHead     = 64 << 10
	readBuffer         = 16 << 10 // bytes; what a caller wants beyond goes straight to its own
	writeBuffer        = 32 << 10 // bytes
	minLow             = 64 << 10 // bytes; to wait for fewer costs more than it saves
	maxLow             = 256 << 10
)

// Config says how a Transport connects. The zero Config is a good one.
type Config struct {
	DialTimeout time.Duration // 0: no other end than that of the request's context
	// IdleTimeout is how long a connection is kept that nobody uses; 0 means
	// 30 s. It should be less than that of the servers.
	IdleTimeout time.Duration
	IdlePerHost int // connections kept for each host; 0 means 64
	MaxHead     int // bytes of the head of an answer; 0 means 64 KiB
}

// Transport is an http.RoundTripper. It is safe for concurrent use, and must not
// be copied. See RoundTrip for what it promises beyond the interface.
type Transport struct {
	dialer  net.Dialer
	maxHead int
	idle    pool
	readers sync.Pool // of *bufio.Reader
	buffers sync.Pool // of *[writeBuffer]byte
}

// New makes a Transport. It connects to nobody yet.
func New(config Config) *Transport {
	if config.IdleTimeout <= 0 {
		config.IdleTimeout = defaultIdleTimeout
	}
	if config.IdlePerHost <= 0 {
		config.IdlePerHost = defaultIdlePerHost
	}
	if config.MaxHead <= 0 {
		config.MaxHead = defaultMaxHead
	}
	return &Transport{
		dialer:  net.Dialer{Timeout: config.DialTimeout},
		maxHead: config.MaxHead,
		idle:    pool{timeout: config.IdleTimeout, perHost: config.IdlePerHost},
		readers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }},
		buffers: sync.Pool{New: func() any { return new([writeBuffer]byte) }},
	}
}

// CloseIdleConnections closes the connections that are not used. Requests under
// way are not touched.
func (t *Transport) CloseIdleConnections() { t.idle.closeAll() }

// NotSentError is the failure of a request of which nothing has left: it was not
// a valid one, or there was no connection.
type NotSentError struct{ Err error }

// Error implements error.
func (e *NotSentError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *NotSentError) Unwrap() error { return e.Err }

// RoundTrip implements http.RoundTripper. When it returns, the body of the
// request is closed and not touched any more. That body must end, or fail, with
// the context of the request. The body of the answer must be closed, and not
// while it is read; reading it to its end lets the connection be used again.
//
// The context ends the exchange at any point, and is then the error. Other
// errors: a *NotSentError; io.EOF, io.ErrUnexpectedEOF or one of the network
// when the connection ended before the answer; a sentence when something else
// than HTTP answered.
//
// A request is sent once more on a new connection only when a kept one turns out
// to be closed before the first byte of an answer, its body is none or can be
// had again by GetBody, and nothing of it was sent or it may be repeated: GET,
// HEAD, OPTIONS, TRACE, and what has an Idempotency-Key in its Header (with no
// value, it is not sent).
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	address, err := check(request)
	if err != nil {
		closeBody(request.Body)
		return nil, &NotSentError{err}
	}
	c, err := t.connect(request.Context(), address, true)
	if err != nil {
		closeBody(request.Body)
		return nil, &NotSentError{err}
	}
	x := exchange{t: t, c: c, request: request}
	response, err := x.run(request.Body)
	if err == nil || !c.reused || !x.mayRepeat(err) {
		return response, err
	}
	body, err := bodyAgain(request)
	if err != nil {
		return nil, err
	}
	if c, err = t.connect(request.Context(), address, false); err != nil {
		closeBody(body)
		if x.sent == 0 {
			err = &NotSentError{err}
		}
		return nil, err
	}
	x = exchange{t: t, c: c, request: request}
	return x.run(body)
}

func closeBody(body io.Closer) {
	if body != nil {
		_ = body.Close() // by contract; it has been read, or never will be
	}
}

func bodyAgain(request *http.Request) (io.ReadCloser, error) {
	if request.Body == nil || request.Body == http.NoBody {
		return request.Body, nil
	}
	body, err := request.GetBody()
	if err != nil {
		return nil, fmt.Errorf("the body of the request cannot be had again: %w", err)
	}
	return body, nil
}

// connect takes a kept connection, if reuse says so and there is one that is
// still open, and otherwise makes one.
func (t *Transport) connect(ctx context.Context, address string, reuse bool) (*conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for reuse {
		c := t.idle.take(address)
		if c == nil {
			break
		}
		if c.quiet() {
			c.reused = true
			return c, nil
		}
		c.close()
	}
	dialed, err := t.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	tcp, ok := dialed.(*net.TCPConn)
	if !ok {
		_ = dialed.Close() // nothing was sent
		return nil, fmt.Errorf("the connection to %s is a %T, not one of TCP", address, dialed)
	}
	return newConn(tcp, address)
}

// conn is a connection. One exchange at a time uses it.
type conn struct {
	tcp       *net.TCPConn
	address   string
	reused    bool
	since     time.Time // when it was put away; guarded by the pool
	interrupt func()

	low int // bytes that must have come before who waits is woken; 0 when the kernel's default holds

	raw  syscall.RawConn
	peek func(fd uintptr) bool // sets open
	open bool
}

func newConn(tcp *net.TCPConn, address string) (*conn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		_ = tcp.Close() // nothing was sent
		return nil, fmt.Errorf("the connection to %s: %w", address, err)
	}
	c := &conn{tcp: tcp, address: address, raw: raw}
	// Both are made once, because a request is to cost no allocation for them.
	c.interrupt = func() { _ = tcp.SetDeadline(past) } // fails only when it is closed
	c.peek = func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.open = errors.Is(err, syscall.EAGAIN)
		return true // do not wait
	}
	return c, nil
}

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// quiet tells whether the connection is open and the server has sent nothing
// that nobody asked for. One that is not quiet is of no use.
func (c *conn) quiet() bool {
	c.open = false
	return c.raw.Read(c.peek) == nil && c.open
}

// wakeAt lets the kernel wake who reads, when nothing is there, only for as many
// bytes as a long read wants: otherwise it is for each packet, and the reader and
// the server get in each other's way. The kernel makes room for that many, and
// wakes at the end of the connection, too. It returns false when it cannot be
// known for how many bytes it wakes.
func (c *conn) wakeAt(want int) bool {
	want = min(want, maxLow)
	if want < minLow || runtime.GOOS != "linux" {
		want = 0
	}
	if want == c.low {
		return true
	}
	var err error
	set := func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, max(1, want))
	}
	if c.raw.Control(set) != nil || err != nil {
		return false // it is closed, or the kernel cannot: to read is right all the same
	}
	c.low = want
	return true
}

func (c *conn) close() { _ = c.tcp.Close() } // what mattered has been sent, or has failed already

// check refuses what this package does not do, and returns where to connect.
func check(request *http.Request) (address string, err error) {
	hasBody := request.Body != nil && request.Body != http.NoBody
	switch {
	case request.URL == nil || request.URL.Scheme != "http" || request.URL.Host == "":
		return "", fmt.Errorf("the request needs a URL like http://host:port/")
	case request.Method == http.MethodConnect || !isToken(request.Method) && request.Method != "":
		return "", fmt.Errorf("the method %.20q cannot be sent", request.Method)
	case request.ContentLength < 0, hasBody && request.ContentLength == 0:
		return "", fmt.Errorf("the request needs the length of its body")
	case !hasBody && request.ContentLength > 0:
		return "", fmt.Errorf("the request has no body of %d bytes", request.ContentLength)
	case len(request.TransferEncoding) > 0 || len(request.Trailer) > 0:
		return "", fmt.Errorf("transfer encodings and trailers of requests cannot be sent")
	}
	return addressOf(request.URL), checkHead(request)
}

func addressOf(u *url.URL) string {
	if strings.LastIndexByte(u.Host, ':') > strings.LastIndexByte(u.Host, ']') && !strings.HasSuffix(u.Host, ":") {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), "80")
}
