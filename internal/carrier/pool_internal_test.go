package carrier

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// until waits for a condition that another goroutine or the kernel brings about.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(45 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what, "did not come about")
		}
	}
}

func (p *pool) count() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kept := range p.byHost {
		n += len(kept)
	}
	return n
}

func get(t *testing.T, transport *Transport, method, url string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// manyOpen makes n connections at once and gives all of them back.
func manyOpen(t *testing.T, transport *Transport, url string, n int) {
	t.Helper()
	var bodies []io.ReadCloser
	for range n {
		bodies = append(bodies, get(t, transport, "GET", url).Body)
	}
	for _, body := range bodies {
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
		if err := body.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

func TestLimitOfKeptConnections(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	transport := New(Config{IdlePerHost: 3})
	manyOpen(t, transport, server.URL, 5)
	if n := transport.idle.count(); n != 3 {
		t.Fatalf("%d are kept", n)
	}
	manyOpen(t, transport, server.URL, 2)
	if n := transport.idle.count(); n != 3 {
		t.Fatalf("%d are kept after some were used", n)
	}
	transport.CloseIdleConnections()
	if n := transport.idle.count(); n != 0 || transport.idle.timer != nil {
		t.Fatalf("%d are kept after all were closed", n)
	}
}

func TestIdleTimeout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	transport := New(Config{IdleTimeout: 20 * time.Millisecond})
	for range 2 { // the timer starts again
		manyOpen(t, transport, server.URL, 3)
		until(t, "the end of idle connections", func() bool {
			transport.idle.mu.Lock()
			defer transport.idle.mu.Unlock()
			return len(transport.idle.byHost) == 0 && transport.idle.timer == nil
		})
	}
}

func TestSweepKeepsWhatIsFresh(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	transport := New(Config{IdleTimeout: time.Hour})
	defer transport.CloseIdleConnections()
	manyOpen(t, transport, server.URL, 3)
	kept := transport.idle.byHost[strings.TrimPrefix(server.URL, "http://")]
	kept[0].since = time.Now().Add(-2 * time.Hour)
	transport.idle.sweep()
	if n := transport.idle.count(); n != 2 || transport.idle.timer == nil {
		t.Fatalf("%d are kept", n)
	}
}

// TestSweepComesAgain as long as something is kept.
func TestSweepComesAgain(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	transport := New(Config{IdleTimeout: time.Hour})
	defer transport.CloseIdleConnections()
	manyOpen(t, transport, server.URL, 1)
	transport.idle.mu.Lock()
	transport.idle.timer.Stop() // as if it had come, and found something fresh
	transport.idle.timeout = 20 * time.Millisecond
	transport.idle.mu.Unlock()
	transport.idle.byHost[strings.TrimPrefix(server.URL, "http://")][0].since = time.Now().Add(time.Second)
	transport.idle.sweep()
	until(t, "the end of idle connections", func() bool { return transport.idle.count() == 0 })
}

// TestEndedWithItsContext: a connection that was interrupted, or is about to be, is
// not kept, even if the whole answer had come.
func TestEndedWithItsContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	transport := New(Config{})
	defer transport.CloseIdleConnections()
	until(t, "an answer in one piece", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.Body.(*exchange).reader.Buffered() < 5 {
			return false
		}
		cancel()
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "hello" {
			t.Fatal(string(body), err)
		}
		if n := transport.idle.count(); n != 0 {
			t.Fatalf("%d are kept", n)
		}
		return true
	})
}

// TestClosedWhileKept: a request that must not be repeated does not meet a
// connection that the server has closed in between.
func TestClosedWhileKept(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	transport := New(Config{})
	defer transport.CloseIdleConnections()
	manyOpen(t, transport, server.URL, 3)
	kept := transport.idle.byHost[strings.TrimPrefix(server.URL, "http://")]
	for _, c := range kept {
		if !c.quiet() {
			t.Fatal("an open connection is taken for a closed one")
		}
	}
	server.CloseClientConnections()
	for _, c := range kept {
		until(t, "the end of a connection", func() bool { return !c.quiet() })
	}
	response := get(t, transport, "POST", server.URL)
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "hello" {
		t.Fatal(string(body), err)
	}
	if n := transport.idle.count(); n != 1 {
		t.Fatalf("%d are kept", n)
	}
}

// TestUnreadAnswers: a short rest is read for the sake of the connection, for a
// long one it is given up.
func TestUnreadAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := maxDrain
		if r.URL.Path == "/long" {
			size = 10 << 20
		}
		w.Write(make([]byte, size)) // more than a buffer: chunked
	}))
	defer server.Close()
	transport := New(Config{})
	defer transport.CloseIdleConnections()
	response := get(t, transport, "GET", server.URL+"/long")
	response.Body.Close()
	if n := transport.idle.count(); n != 0 {
		t.Fatalf("%d are kept after a long answer", n)
	}
	if _, err := response.Body.Read(make([]byte, 1)); err == nil {
		t.Fatal("a closed body can be read")
	}
	until(t, "a rest that is there in time", func() bool {
		response := get(t, transport, "GET", server.URL+"/short")
		if _, err := io.ReadFull(response.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return transport.idle.count() == 1
	})
}

func TestAddressOf(t *testing.T) {
	for host, want := range map[string]string{
		"a": "a:80", "a:": "a:80", "a:8000": "a:8000", "10.0.0.1": "10.0.0.1:80", "[::1]": "[::1]:80", "[::1]:9000": "[::1]:9000", "[::1]:": "[::1]:80",
	} {
		request, err := http.NewRequest("GET", "http://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := addressOf(request.URL); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}
