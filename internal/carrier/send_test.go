package carrier_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/dfs-go/dfs-go/internal/carrier"
)

// describe answers with what it got.
func describe(w http.ResponseWriter, r *http.Request) {
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, r.Body)
	fmt.Fprintf(w, "%s %s %s, %d announced, %d bytes, %08x, %v, %q %q", r.Method, r.Host, r.RequestURI, r.ContentLength, n, sum.Sum32(), err, r.Header["X-Many"], r.Header.Get("X-One"))
}

// pieces writes itself, in parts of a file and of memory, as a chunk that is
// still coming does.
type pieces struct {
	file   *os.File
	memory []byte
	plain  io.Reader // the same once more, for those who do not know WriteTo
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.plain == nil {
		var all bytes.Buffer
		if _, err := p.WriteTo(&all); err != nil {
			return 0, err
		}
		p.plain = &all
	}
	return p.plain.Read(b)
}

func (p *pieces) WriteTo(w io.Writer) (int64, error) {
	if p.plain != nil {
		return io.Copy(w, p.plain)
	}
	var all int64
	for range 3 {
		n, err := io.CopyN(w, p.file, 1000)
		all += n
		if err != nil {
			return all, err
		}
		m, err := w.Write(p.memory)
		all += int64(m)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// TestRequests sends all kinds of bodies, and compares what arrives.
func TestRequests(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(describe))
	defer server.Close()
	content := make([]byte, 5<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	name := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	bodies := map[string]func(size int) (io.Reader, int){
		"none":     func(int) (io.Reader, int) { return nil, 0 },
		"empty":    func(int) (io.Reader, int) { return http.NoBody, 0 },
		"memory":   func(n int) (io.Reader, int) { return bytes.NewReader(content[:n]), n },
		"a stream": func(n int) (io.Reader, int) { return io.MultiReader(bytes.NewReader(content[:n])), n },
		"drops":    func(n int) (io.Reader, int) { return iotest.HalfReader(bytes.NewReader(content[:n])), n },
		"data with its end": func(n int) (io.Reader, int) {
			return iotest.DataErrReader(io.MultiReader(bytes.NewReader(content[:n]))), n
		},
		"a file": func(int) (io.Reader, int) { return open(), len(content) },
		"readers in turn": func(n int) (io.Reader, int) { // copied one by one with ReadFrom
			one := func(b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) }
			return io.MultiReader(one(content[:n/2]), one(nil), one(content[n/2:n])), n
		},
		"pieces": func(int) (io.Reader, int) {
			return &pieces{file: open(), memory: content[:100<<10]}, 3 * (1000 + 100*1024)
		},
	}
	for kind, make := range bodies {
		for _, size := range []int{1, 4 << 10, 32 << 10, 64 << 10, 64<<10 + 1, len(content)} {
			t.Run(fmt.Sprint(kind, size), func(t *testing.T) {
				var results []string
				eachKind(t, func(t *testing.T, _ bool, transport transport) {
					for _, method := range []string{"GET", "PUT"} {
						body, n := make(size)
						r := request(t, t.Context(), method, server.URL+"/a%20b/c?d=e&f=%2F", nil)
						if body != nil {
							r.Body, r.ContentLength = io.NopCloser(body), int64(n)
							if own, ok := body.(io.ReadCloser); ok {
								r.Body = own
							}
						}
						r.Header["X-Many"] = []string{"a", "b"}
						r.Header.Set("X-One", "c")
						got := call(transport, r)
						if got.err != nil || !strings.Contains(got.body, fmt.Sprintf(" %d announced, %d bytes", n, n)) {
							t.Fatal(got)
						}
						results = append(results, got.body)
					}
				})
				if len(results) != 4 || results[0] != results[2] || results[1] != results[3] {
					t.Fatalf("%q", results)
				}
			})
		}
	}
}

// TestFramingOfCallers: no header of the caller says where a request ends, however
// it is spelt.
func TestFramingOfCallers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(describe))
	defer server.Close()
	transport := carrier.New(carrier.Config{})
	defer transport.CloseIdleConnections()
	for _, key := range []string{"Content-Length", "content-length", "Transfer-Encoding", "transfer-encoding", "TRAILER", "host"} {
		r := request(t, t.Context(), "PUT", server.URL, strings.NewReader("0\r\n\r\n"))
		r.Header[key] = []string{"chunked"}
		if got := call(transport, r); got.err != nil || got.status != http.StatusOK || !strings.Contains(got.body, " 5 announced, 5 bytes") {
			t.Errorf("%s: %v", key, got)
		}
	}
}

// closing counts how often a body is closed.
type closing struct {
	io.Reader
	closed int
}

func (c *closing) Close() error {
	c.closed++
	return nil
}

// inTurn writes itself by having each of its readers read.
type inTurn []io.Reader

func (i inTurn) Read(p []byte) (int, error) { return io.MultiReader(i...).Read(p) }

func (i inTurn) WriteTo(w io.Writer) (all int64, err error) {
	for _, r := range i {
		n, err := w.(io.ReaderFrom).ReadFrom(struct{ io.Reader }{r})
		all += n
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// TestBodiesThatFail: a server must not take a part for the whole, and the
// transport is done with the body when it returns.
func TestBodiesThatFail(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int{100, 32 << 10, 64 << 10, 1 << 20} {
		content := strings.Repeat("x", size)
		for name, test := range map[string]struct {
			body   io.Reader
			length int
			want   error
		}{
			"too short":           {io.MultiReader(strings.NewReader(content)), size + 1, io.ErrUnexpectedEOF},
			"too short, memory":   {strings.NewReader(content), size + 1, io.ErrUnexpectedEOF},
			"much too short":      {strings.NewReader(content), 16 * size, io.ErrUnexpectedEOF},
			"too long":            {io.MultiReader(strings.NewReader(content)), size - 1, nil},
			"too long, memory":    {strings.NewReader(content), size - 1, nil},
			"too long, in turn":   {inTurn{strings.NewReader(content[:size/2]), strings.NewReader(content[size/2:])}, size - 1, nil},
			"one too many":        {inTurn{strings.NewReader(content), strings.NewReader("x")}, size, nil},
			"too short, in turn":  {inTurn{strings.NewReader(content[:size/2]), strings.NewReader(content[size/2:])}, size + 1, io.ErrUnexpectedEOF},
			"broken in the end":   {io.MultiReader(strings.NewReader(content), iotest.ErrReader(broken)), size + 1, broken},
			"broken in the front": {iotest.ErrReader(broken), size, broken},
		} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				var whole atomic.Int64
				server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if n, err := io.Copy(io.Discard, r.Body); err == nil && n == int64(size) {
						whole.Add(1)
					}
				}))
				transport := carrier.New(carrier.Config{})
				defer transport.CloseIdleConnections()
				body := &closing{Reader: test.body}
				r := request(t, t.Context(), "PUT", server.URL, nil)
				r.Body, r.ContentLength = body, int64(test.length)
				if own, ok := test.body.(io.WriterTo); ok {
					r.Body = struct {
						*closing
						io.WriterTo
					}{body, own}
				}
				got := call(transport, r)
				server.Close() // waits for the handler
				if got.err == nil || test.want != nil && !errors.Is(got.err, test.want) || whole.Load() > 0 || body.closed != 1 {
					t.Fatalf("%v; closed %d times", got, body.closed)
				}
			})
		}
	}
}

// TestFileThatIsTooLong: the kernel would send as much as was announced, and
// that is not all of it.
func TestFileThatIsTooLong(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(describe))
	defer server.Close()
	name := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(name, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 64 << 10, 200<<10 - 1} {
		eachKind(t, func(t *testing.T, ours bool, transport transport) {
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			r := request(t, t.Context(), "PUT", server.URL, nil)
			r.Body, r.ContentLength = file, size
			// net/http notices it as well, but takes an answer that is faster.
			if got := call(transport, r); got.err == nil && ours {
				t.Fatalf("%d bytes: %v", size, got)
			}
		})
	}
}

// interrupted writes itself in two pieces, between which something happens.
type interrupted struct {
	io.Reader
	first, second []byte
	between       func()
}

func (i *interrupted) Close() error { return nil }

func (i *interrupted) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i.first)
	if err != nil {
		return int64(n), err
	}
	i.between()
	m, err := w.Write(i.second)
	return int64(n + m), err
}

// TestAnswerBeforeHangingUp: a server that answers, and resets the connection
// while a short body is still being sent, has answered.
func TestAnswerBeforeHangingUp(t *testing.T) {
	hungUp := make(chan struct{})
	server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) {
		defer close(hungUp)
		if _, err := r.ReadString('\n'); err == nil {
			io.WriteString(conn, "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 4\r\n\r\nfull")
			conn.SetLinger(0)
			conn.Close()
		}
	})
	transport := carrier.New(carrier.Config{})
	defer transport.CloseIdleConnections()
	body := &interrupted{first: make([]byte, 40<<10), second: make([]byte, 10<<10), between: func() { <-hungUp }}
	r := request(t, t.Context(), "PUT", server.url(), nil)
	r.Body, r.ContentLength = body, 50<<10
	if got := call(transport, r); got.err != nil || got.status != 507 || got.body != "full" {
		t.Fatal(got)
	}
}

// TestRefusedRequests are those that are not sent at all.
func TestRefusedRequests(t *testing.T) {
	transport := carrier.New(carrier.Config{})
	defer transport.CloseIdleConnections()
	for name, change := range map[string]func(r *http.Request){
		"https":             func(r *http.Request) { r.URL.Scheme = "https" },
		"no URL":            func(r *http.Request) { r.URL = nil },
		"no host":           func(r *http.Request) { r.URL.Host = "" },
		"a broken method":   func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
		"CONNECT":           func(r *http.Request) { r.Method = "CONNECT" },
		"unknown length":    func(r *http.Request) { r.ContentLength = -1 },
		"length not said":   func(r *http.Request) { r.ContentLength = 0 },
		"length of nothing": func(r *http.Request) { r.Body.Close(); r.Body = nil },
		"chunked":           func(r *http.Request) { r.TransferEncoding = []string{"chunked"} },
		"trailers":          func(r *http.Request) { r.Trailer = http.Header{"X": nil} },
		"a header in a value": func(r *http.Request) {
			r.Header.Set("X", "a\r\nY: b")
		},
		"a header in a name": func(r *http.Request) { r.Header["X: a\r\nY"] = []string{"b"} },
		"a header in a host": func(r *http.Request) { r.Host = "x\r\nY: b" },
		"a header in a path": func(r *http.Request) { r.URL.RawQuery = "a\r\nY: b" },
		"nobody there":       func(r *http.Request) { r.URL.Host = "127.0.0.1:1" },
	} {
		t.Run(name, func(t *testing.T) {
			server := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
			body := &closing{Reader: strings.NewReader("x")}
			r := request(t, t.Context(), "PUT", server.url(), nil)
			r.Body, r.ContentLength = body, 1
			change(r)
			if got := call(transport, r); !errors.As(got.err, new(*carrier.NotSentError)) || body.closed != 1 {
				t.Fatalf("%v; closed %d times", got, body.closed)
			}
		})
	}
}

// TestManyAtOnce mixes calls of all sizes, some of which are given up at any
// moment: nobody gets what another one asked for.
func TestManyAtOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 100<<10 && r.Header.Get("X-Early") != "" {
			w.WriteHeader(http.StatusInsufficientStorage)
			return
		}
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return // given up
		}
		w.Header().Set("X-Who", r.Header.Get("X-Who"))
		w.Write(content)
	}))
	defer server.Close()
	transport := carrier.New(carrier.Config{IdlePerHost: 8})
	defer transport.CloseIdleConnections()
	var callers sync.WaitGroup
	for caller := range 16 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			for i := range 60 {
				who := fmt.Sprint(caller, ".", i)
				content := bytes.Repeat([]byte(who+" "), 1+random.IntN(1<<random.IntN(16)))
				ctx, cancel := context.WithCancel(t.Context())
				r := request(t, ctx, "PUT", server.URL, bytes.NewReader(content))
				r.Header.Set("X-Who", who)
				early := random.IntN(8) == 0
				if early {
					r.Header.Set("X-Early", "x")
				}
				if random.IntN(4) == 0 {
					go cancel()
				}
				got := call(transport, r)
				switch {
				case got.err != nil && ctx.Err() == nil:
					t.Error(got.err)
				case got.err == nil && early && got.status == http.StatusInsufficientStorage && len(content) > 100<<10:
				case got.err == nil && (got.status != http.StatusOK || got.header.Get("X-Who") != who || got.body != string(content)):
					t.Errorf("%s got %d, and what %q asked for", who, got.status, got.header.Get("X-Who"))
				}
				cancel()
			}
		})
	}
	callers.Wait()
}
