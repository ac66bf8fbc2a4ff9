package carrier_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/internal/carrier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 45 * time.Second

type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

// kinds are the transports that the cases are run with: what ours is to do is what
// that of net/http does, but for the cases that say otherwise.
var kinds = []struct {
	name string
	make func() transport
}{
	{"net/http", func() transport {
		return &http.Transport{MaxIdleConnsPerHost: 64, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true}
	}},
	{"carrier", func() transport { return carrier.New(carrier.Config{}) }},
}

// eachKind runs a test with every transport.
func eachKind(t *testing.T, test func(t *testing.T, ours bool, transport transport)) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			transport := kind.make()
			defer transport.CloseIdleConnections()
			test(t, kind.name == "carrier", transport)
		})
	}
}

// rawServer answers with whatever bytes a test likes. serve is called for each
// connection, which is closed when it returns.
type rawServer struct {
	listener    net.Listener
	connections atomic.Int64
}

func newRawServer(t *testing.T, serve func(conn *net.TCPConn, r *bufio.Reader)) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{listener: listener}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn), bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s
}

func (s *rawServer) url() string { return "http://" + s.listener.Addr().String() + "/x" }

// answering serves each request with the same bytes.
func answering(t *testing.T, answer string, hangUp bool) *rawServer {
	return newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
		for {
			request, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, request.Body)
			if _, err := io.WriteString(conn, answer); err != nil || hangUp {
				return
			}
		}
	})
}

func request(t *testing.T, ctx context.Context, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// outcome is what a caller gets to see.
type outcome struct {
	status int
	text   string
	header http.Header
	length int64
	body   string
	err    error
}

func (o outcome) String() string {
	return fmt.Sprintf("%d %q, length %d, %.80q, error %v", o.status, o.text, o.length, o.body, o.err)
}

func call(transport http.RoundTripper, r *http.Request) outcome {
	response, err := transport.RoundTrip(r)
	if err != nil {
		return outcome{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return outcome{response.StatusCode, response.Status, response.Header, response.ContentLength, string(body), err}
}

var answers = []struct {
	name, method, answer string
	hangUp               bool
	status               int
	body                 string
	length               int64
	fails                bool // for both
	strict               bool // ours refuses what net/http puts up with
	kept                 bool // the connection serves a second request
	surplus              bool // more than the answer comes; net/http may take it for the next one
}{
	{name: "counted", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5, kept: true},
	{name: "empty", answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, kept: true},
	{name: "no reason", answer: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", status: 200, kept: true},
	{name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, kept: true},
	{name: "304 with a length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", status: 304, kept: true},
	{name: "HEAD", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, length: 5, kept: true},
	{name: "HEAD without length", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", status: 200, length: -1, kept: true},
	{name: "HEAD, chunked", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200, length: -1, kept: true},
	{name: "chunked", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n", status: 200, body: "hello", length: -1, kept: true},
	{name: "trailers", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", status: 200, body: "hello", length: -1, kept: true},
	{name: "until the end", answer: "HTTP/1.1 200 OK\r\n\r\nhello", hangUp: true, status: 200, body: "hello", length: -1},
	{name: "said to be the last", answer: "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5},
	{name: "1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5},
	{name: "1.0, kept", answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5, kept: true},
	{name: "plain line ends", answer: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", strict: true},
	{name: "informational", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5, kept: true},
	{name: "refusal", answer: "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}", status: 503, body: "{}", length: 2, kept: true},
	{name: "a redirect is an answer", answer: "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", status: 307, kept: true},
	{name: "a long line", answer: "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("y", 50<<10) + "\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5, kept: true},
	{name: "longer than the buffers", answer: "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("0123456789", 30000), status: 200, body: strings.Repeat("0123456789", 30000), length: 300000, kept: true},
	{name: "a surplus", answer: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello", status: 200, body: "hell", length: 4, surplus: true},
	{name: "two answers", answer: strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 2), status: 200, body: "hello", length: 5, surplus: true},
	{name: "a body after 204", answer: "HTTP/1.1 204 No Content\r\n\r\nhello", status: 204, surplus: true},

	{name: "nothing", answer: "", hangUp: true, fails: true},
	{name: "another protocol", answer: "SSH-2.0-OpenSSH_9.2\r\n\r\n", hangUp: true, fails: true},
	{name: "HTTP/2", answer: "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", strict: true},
	{name: "a status that is none", answer: "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", fails: true},
	{name: "a status with a sign", answer: "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", strict: true},
	{name: "a status below 100", answer: "HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", strict: true},
	{name: "a negative length", answer: "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", fails: true},
	{name: "an empty length", answer: "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello", strict: true},
	{name: "a huge length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello", fails: true},
	{name: "two lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nhello", fails: true},
	{name: "the same length twice", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", strict: true},
	{name: "a length and chunks", answer: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", strict: true},
	{name: "an unknown coding", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", fails: true},
	{name: "chunks of 1.0", answer: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", hangUp: true, strict: true},
	{name: "a space in a name", answer: "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", hangUp: true, strict: true},
	{name: "a name without a value", answer: "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", hangUp: true, fails: true},
	{name: "a folded line", answer: "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", strict: true},
	{name: "a control character", answer: "HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n", strict: true},
	{name: "endless headers", answer: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 30000), fails: true},
	{name: "an endless line", answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 100<<10), fails: true},
	{name: "endless news", answer: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 30000), fails: true},
	{name: "a change of protocol", answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", hangUp: true, strict: true},
	{name: "a bad chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", fails: true},
	{name: "endless trailers", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", 30000), fails: true},
}

func TestAnswers(t *testing.T) {
	for _, test := range answers {
		t.Run(test.name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, ours bool, transport transport) {
				server := answering(t, test.answer, test.hangUp)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				for range 2 {
					got := call(transport, request(t, ctx, test.method, server.url(), nil))
					if test.fails || test.strict {
						if got.err == nil && (ours || test.fails) || ctx.Err() != nil {
							t.Fatalf("%d, %.80q, %v", got.status, got.body, got.err)
						}
						continue
					}
					if got.err != nil || got.status != test.status || got.body != test.body || got.length != test.length {
						t.Fatalf("%d %q, length %d, %.80q, %v", got.status, got.text, got.length, got.body, got.err)
					}
					if test.surplus && !ours {
						return
					}
				}
				// net/http keeps no connection whose writer takes long to come back.
				if got := server.connections.Load(); !test.strict && !test.fails && test.kept != (got == 1) && (ours || !test.kept) {
					t.Fatalf("%d connections; kept should be %t", got, test.kept)
				}
			})
		})
	}
}

// TestNotKept are answers after which net/http keeps the connection, although
// something may come yet that the next request would take for its answer.
func TestNotKept(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		close  bool // asked for by the caller
	}{
		"204 with a length":    {answer: "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n"},
		"204 with chunks":      {answer: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"asked to be the last": {answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", close: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := answering(t, test.answer, false)
			transport := carrier.New(carrier.Config{})
			defer transport.CloseIdleConnections()
			for n := range int64(2) {
				r := request(t, t.Context(), "GET", server.url(), nil)
				r.Close = test.close
				if got := call(transport, r); got.err != nil || server.connections.Load() != n+1 {
					t.Fatalf("%v; %d connections for %d requests", got, server.connections.Load(), n+1)
				}
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nx-low: 1\r\nX-Twice:  a \r\nX-TWICE:\tb\r\nX-Empty:\r\nX-Colon: a:b\r\nContent-Length: 0\r\n\r\n"
	var results []http.Header
	eachKind(t, func(t *testing.T, _ bool, transport transport) {
		got := call(transport, request(t, t.Context(), "GET", answering(t, answer, false).url(), nil))
		if got.err != nil || got.text != "200 OK" {
			t.Fatal(got)
		}
		results = append(results, got.header)
	})
	if len(results) != 2 || fmt.Sprint(results[0]) != fmt.Sprint(results[1]) {
		t.Fatalf("%q", results)
	}
}

// TestCutOff cuts answers at each byte: a part is never taken for the whole.
func TestCutOff(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
	} {
		eachKind(t, func(t *testing.T, ours bool, transport transport) {
			var cut atomic.Int64
			server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(conn, answer[:cut.Load()])
				}
			})
			for n := range len(answer) {
				cut.Store(int64(n))
				if got := call(transport, request(t, t.Context(), "POST", server.url(), nil)); got.err == nil {
					// Between the last chunk and the end of the trailers net/http does not mind.
					if ours || got.body != "hello" {
						t.Fatalf("cut after %d bytes: %d %q", n, got.status, got.body)
					}
				}
			}
			cut.Store(int64(len(answer)))
			if got := call(transport, request(t, t.Context(), "POST", server.url(), nil)); got.err != nil || got.body != "hello" {
				t.Fatal(got)
			}
		})
	}
}

// TestDripping sends answers byte by byte, as packets may come.
func TestDripping(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
	eachKind(t, func(t *testing.T, _ bool, transport transport) {
		server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
			if _, err := http.ReadRequest(r); err == nil {
				for i := range len(answer) {
					io.WriteString(conn, answer[i:i+1])
				}
			}
		})
		if got := call(transport, request(t, t.Context(), "GET", server.url(), nil)); got.err != nil || got.body != "hello" || got.header.Get("X") != "y" {
			t.Fatal(got)
		}
	})
}

// TestCancelled ends the context at each stage of an exchange with a server that
// has stopped in the middle of its answer.
func TestCancelled(t *testing.T) {
	reason := errors.New("enough")
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"
	for _, part := range []int{0, 1, 20, len(answer)} {
		eachKind(t, func(t *testing.T, _ bool, transport transport) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
				http.ReadRequest(r)
				io.WriteString(conn, answer[:part])
				if part < len(answer) {
					cancel(reason)
				}
				r.ReadByte() // until the other side hangs up
			})
			response, err := transport.RoundTrip(request(t, ctx, "GET", server.url(), nil))
			if part == len(answer) {
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				if _, err = io.ReadFull(response.Body, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
				cancel(reason)
				_, err = response.Body.Read(make([]byte, 1))
			}
			if !errors.Is(err, reason) {
				t.Fatalf("after %d bytes: %v", part, err)
			}
		})
	}
	eachKind(t, func(t *testing.T, ours bool, transport transport) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		_, err := transport.RoundTrip(request(t, ctx, "GET", "http://127.0.0.1:1/", nil))
		if !errors.Is(err, reason) || ours && !errors.As(err, new(*carrier.NotSentError)) {
			t.Fatal(err)
		}
	})
}

// TestEarlyAnswer sends more than a server wants: it refuses, and then hangs up,
// or goes on without reading.
func TestEarlyAnswer(t *testing.T) {
	const refusal = "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 4\r\n\r\nfull"
	for _, size := range []int{100, 60 << 10, 8 << 20} {
		for _, hangUp := range []bool{false, true} {
			t.Run(fmt.Sprint(size, hangUp), func(t *testing.T) {
				eachKind(t, func(t *testing.T, ours bool, transport transport) {
					over := make(chan struct{})
					server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
						if line, err := r.ReadString('\n'); err != nil || line == "" {
							return
						}
						io.WriteString(conn, refusal)
						if hangUp {
							conn.CloseWrite()
						}
						<-over
					})
					defer close(over)
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					got := call(transport, request(t, ctx, "PUT", server.url(), bytes.NewReader(make([]byte, size))))
					if got.err != nil || got.status != 507 || got.body != "full" {
						t.Fatal(got)
					}
					if size < 1<<20 {
						return // may have been sent wholly
					}
					// What was not sent to its end is not the place for the next request.
					if got := call(transport, request(t, ctx, "GET", server.url(), nil)); got.err != nil || got.status != 507 {
						t.Fatal(got)
					}
				})
			})
		}
	}
}

// TestNewsWhileSending: that the server is at work is no reason to stop sending.
func TestNewsWhileSending(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	eachKind(t, func(t *testing.T, _ bool, transport transport) {
		server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
			request, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 102 Processing\r\n\r\n")
			got, _ := io.ReadAll(request.Body)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%-5t", bytes.Equal(got, content))
		})
		if got := call(transport, request(t, t.Context(), "PUT", server.url(), bytes.NewReader(content))); got.err != nil || got.body != "true " {
			t.Fatal(got)
		}
	})
}

// TestRepeats says which requests are sent again when a kept connection turns out
// to be dead.
func TestRepeats(t *testing.T) {
	unrewindable := func(r *http.Request) { r.GetBody = nil }
	keyed := func(r *http.Request) { r.Header["Idempotency-Key"] = nil }
	tests := []struct {
		name   string
		method string
		body   string
		change func(*http.Request)
		part   string // of the second answer, before the connection ends
		reset  bool   // and not in an orderly way
		again  bool
	}{
		{name: "GET", method: "GET", again: true},
		{name: "HEAD", method: "HEAD", again: true},
		{name: "POST", method: "POST", body: "x"},
		{name: "POST without body", method: "POST"},
		{name: "PUT", method: "PUT", body: "x"},
		{name: "PUT with a key", method: "PUT", body: "x", change: keyed, again: true},
		{name: "PUT with a key, large", method: "PUT", body: strings.Repeat("x", 300<<10), change: keyed, again: true},
		{name: "POST with a key and without body", method: "POST", change: keyed, again: true},
		{name: "PUT that cannot begin again", method: "PUT", body: "x", change: func(r *http.Request) { keyed(r); unrewindable(r) }},
		{name: "GET with a first byte", method: "GET", part: "H"},
		{name: "GET, reset", method: "GET", reset: true, again: true},
		{name: "GET with a first byte, reset", method: "GET", part: "H", reset: true},
		{name: "GET with half an answer", method: "GET", part: "HTTP/1.1 200 OK\r\nContent-Le"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, ours bool, transport transport) {
			again:
				var requests atomic.Int64
				server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
					for {
						request, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						io.Copy(io.Discard, request.Body)
						if requests.Add(1) == 2 {
							io.WriteString(conn, test.part)
							if test.reset {
								conn.SetLinger(0)
							}
							return
						}
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				})
				if got := call(transport, request(t, t.Context(), "GET", server.url(), nil)); got.err != nil {
					t.Fatal(got.err)
				}
				var body io.Reader
				if test.body != "" {
					body = strings.NewReader(test.body)
				}
				r := request(t, t.Context(), test.method, server.url(), body)
				if test.change != nil {
					test.change(r)
				}
				want := int64(2)
				if test.again {
					want = 3
				}
				got := call(transport, r)
				if !ours && server.connections.Load() == 2 && requests.Load() == 2 {
					goto again // it did not keep the connection, see TestAnswers
				}
				if (got.err == nil) != test.again || requests.Load() != want {
					t.Fatalf("%d requests, %v", requests.Load(), got.err)
				}
			})
		})
	}
}
