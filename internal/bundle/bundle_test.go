package bundle_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/carrier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 45 * time.Second
	path     = "/bundle"
)

// until waits until something is so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("never: ", what)
		panic("unreachable")
	}
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
	return fmt.Sprintf("%q, length %d, %.80q, error %v", o.text, o.length, o.body, o.err)
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

// bed is a server, and a Transport whose flights land when the test says so.
type bed struct {
	*bundle.Transport
	under   *carrier.Transport
	url     string
	host    string
	bundles atomic.Int64 // that came
	single  atomic.Int64 // requests that came by themselves
	held    chan struct{}
	release chan struct{}
}

const holdPath = "/hold"

// newBed serves what comes by itself, or in bundles, with handle. Bundles go to
// refuse when that is set.
func newBed(t *testing.T, handle, refuse http.HandlerFunc) *bed {
	t.Helper()
	b := &bed{held: make(chan struct{}), release: make(chan struct{})}
	unpack := &bundle.Handler{Next: handle, Timeout: patience}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == holdPath:
			b.held <- struct{}{}
			<-b.release
		case r.URL.Path != path:
			b.single.Add(1)
			handle(w, r)
		case refuse != nil:
			b.bundles.Add(1)
			refuse(w, r)
		default:
			b.bundles.Add(1)
			if err := unpack.Serve(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}
	}))
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	b.url, b.host = server.URL, strings.TrimPrefix(server.URL, "http://")
	b.under = carrier.New(carrier.Config{})
	t.Cleanup(b.under.CloseIdleConnections)
	b.Transport = bundle.New(bundle.Config{Under: b.under, Path: path})
	b.SetPatience(time.Hour)
	return b
}

// hold sends a request that keeps the lane taken until land is called.
func (b *bed) hold(t *testing.T, changes bool) (land func()) {
	t.Helper()
	method := http.MethodGet
	if changes {
		method = http.MethodDelete
	}
	r := request(t, t.Context(), method, b.url+holdPath, "")
	ended := make(chan outcome, 1)
	go func() { ended <- call(b, r) }()
	receive(t, "the request that holds the lane", b.held)
	return func() {
		b.release <- struct{}{}
		if got := receive(t, "the answer of the one that held the lane", ended); got.err != nil {
			t.Error(got)
		}
	}
}

// enqueue makes the requests wait for the same flight, in order.
func (b *bed) enqueue(t *testing.T, changes bool, requests ...*http.Request) []<-chan outcome {
	t.Helper()
	var outcomes []<-chan outcome
	for i, r := range requests {
		before := b.Queued(b.host, changes)
		ended := make(chan outcome, 1)
		outcomes = append(outcomes, ended)
		go func() { ended <- call(b, r) }()
		until(t, fmt.Sprintf("request %d waits", i), func() bool { return b.Queued(b.host, changes) > before })
	}
	return outcomes
}

// share carries the requests in one bundle.
func (b *bed) share(t *testing.T, changes bool, requests ...*http.Request) []outcome {
	t.Helper()
	land := b.hold(t, changes)
	ended := b.enqueue(t, changes, requests...)
	land()
	return collect(t, ended)
}

func collect(t *testing.T, ended []<-chan outcome) []outcome {
	t.Helper()
	var outcomes []outcome
	for i, o := range ended {
		outcomes = append(outcomes, receive(t, fmt.Sprintf("the end of request %d", i), o))
	}
	return outcomes
}

func request(t *testing.T, ctx context.Context, method, url, body string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantSettled makes sure that nobody holds a lane any more: the next request would
// wait for ever.
func (b *bed) wantSettled(t *testing.T) {
	t.Helper()
	until(t, "the lanes are free", func() bool {
		return !b.Taken(b.host, true) && !b.Taken(b.host, false) && b.Queued(b.host, true)+b.Queued(b.host, false) == 0
	})
}

// echo answers with what it sees of a request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	for _, name := range []string{"Accept-Encoding", "Content-Length", "User-Agent"} {
		r.Header.Del(name) // may differ
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s %q %q %s %q %d %q %v %d %t", r.Method, r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Proto, r.Header,
		r.ContentLength, body, err, len(r.Host), r.RemoteAddr != "")
}

var conformance = []struct {
	name, method, target, body string
	header                     http.Header
	serve                      http.HandlerFunc // nil echoes
	plain                      bool             // does not go in a bundle
	cutOff                     bool
}{
	{name: "GET", method: "GET", target: "/x"},
	{name: "a query and escapes", method: "GET", target: "/a%2Fb%20c/%C3%BC?q=a+b&r=%26;x"},
	{name: "no path", method: "GET", target: "?x"},
	{name: "fields", method: "GET", target: "/x", header: http.Header{"X-Twice": {"a", "b"}, "X-Empty": {""}, "x-low": {" padded\t"}, "X-High": {"ü"}}},
	{name: "DELETE", method: "DELETE", target: "/x"},
	{name: "POST", method: "POST", target: "/x", body: "hello"},
	{name: "POST without body", method: "POST", target: "/x"},
	{name: "PUT", method: "PUT", target: "/x", body: strings.Repeat("0123456789abcdef", 1<<10)},
	{name: "too large", method: "PUT", target: "/x", body: strings.Repeat("0123456789abcdef", 1<<10) + "x", plain: true},
	{name: "HEAD", method: "HEAD", target: "/x", plain: true},
	{name: "PATCH", method: "PATCH", target: "/x", body: "x", plain: true},
	{name: "to be closed", method: "GET", target: "/x", header: http.Header{"Connection": {"close"}}, plain: true},

	{name: "nothing", method: "GET", target: "/x", serve: func(http.ResponseWriter, *http.Request) {}},
	{name: "204", method: "DELETE", target: "/x", serve: func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		if _, err := io.WriteString(w, "x"); err == nil {
			panic("a body was taken")
		}
	}},
	{name: "a refusal", method: "POST", target: "/x", serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "no", http.StatusServiceUnavailable)
	}},
	{name: "fields of the answer", method: "GET", target: "/x", serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "x/y")
		w.Header()["X-Twice"] = []string{"a", "b"}
		w.Header()["X-Empty"] = []string{""}
		w.Header()["X-Lines"] = []string{" a\r\nb\n"}
		w.Header()["Not a name"] = []string{"x"}
		io.WriteString(w, "x")
	}},
	{name: "of the connection of the answer", method: "GET", target: "/x", serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "x/y")
		w.Header().Set("Content-Length", "1")
		io.WriteString(w, "x")
	}},
	{name: "said twice", method: "GET", target: "/x", serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "x/y")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
		w.(http.Flusher).Flush()
		io.WriteString(w, "x")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "y")
	}},
	{name: "deadlines", method: "PUT", target: "/x", body: "hello", serve: func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if control.SetReadDeadline(time.Now().Add(patience)) != nil || control.SetWriteDeadline(time.Now().Add(patience)) != nil {
			panic("no deadlines")
		}
		echo(w, r)
	}},
	{name: "a body that is left", method: "PUT", target: "/x", body: "hello", serve: func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
	}},
	{name: "cut off before", method: "POST", target: "/x", cutOff: true, serve: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{name: "cut off within", method: "GET", target: "/x", cutOff: true, serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}},
}

// TestConformance: a request in a bundle is to its server what it is by itself, and
// so is the answer to its caller.
func TestConformance(t *testing.T) {
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		var test int
		fmt.Sscan(r.Header.Get("X-Test"), &test)
		if serve := conformance[test].serve; serve != nil {
			serve(w, r)
			return
		}
		echo(w, r)
	}, nil)
	make1 := func(test int) *http.Request {
		c := conformance[test]
		r := request(t, t.Context(), c.method, b.url+c.target, c.body)
		for key, values := range c.header {
			r.Header[key] = values
		}
		r.Header.Set("X-Test", fmt.Sprint(test))
		return r
	}
	for _, changes := range []bool{false, true} {
		var tests []int
		var requests []*http.Request
		for i, c := range conformance {
			if !c.plain && (c.method != "GET") == changes {
				tests = append(tests, i)
				requests = append(requests, make1(i))
			}
		}
		before := b.bundles.Load()
		got := b.share(t, changes, requests...)
		if b.bundles.Load() != before+1 {
			t.Fatalf("%d bundles", b.bundles.Load()-before)
		}
		for i, test := range tests {
			compare(t, test, got[i], call(b.under, make1(test)))
		}
	}
	for i, c := range conformance {
		if c.plain {
			land := b.hold(t, c.method != "GET") // who would share a bundle waits now
			ended := make(chan outcome, 1)
			go func() { ended <- call(b, make1(i)) }()
			compare(t, i, receive(t, c.name+" does not wait", ended), call(b.under, make1(i)))
			land()
		}
	}
	b.wantSettled(t)
}

func compare(t *testing.T, test int, got, want outcome) {
	t.Helper()
	c := conformance[test]
	if (want.err != nil) != c.cutOff {
		t.Fatalf("%s by itself: %v", c.name, want)
	}
	if c.cutOff {
		if got.err == nil || notSent(got.err) {
			t.Errorf("%s: %v", c.name, got)
		}
		return
	}
	for _, h := range []http.Header{got.header, want.header} {
		h.Del("Date")
		h.Del("Content-Length")
	}
	if want.length < 0 {
		got.length = want.length // in a bundle it is always known
	}
	if fmt.Sprint(got.header) != fmt.Sprint(want.header) || got.String() != want.String() {
		t.Errorf("%s:\n got %v %q\nwant %v %q", c.name, got, got.header, want, want.header)
	}
}

func notSent(err error) bool {
	_, is := err.(*carrier.NotSentError)
	return is
}
