package bundle_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// partOf is a request as it lies in a bundle.
func partOf(method, target, body string) string {
	b := append([]byte{byte(len(method))}, method...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(target)))
	b = append(append(append(b, target...), 0), body...)
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + string(b)
}

// TestRefusedBundles: nothing of a bundle that is refused has been served.
func TestRefusedBundles(t *testing.T) {
	good := partOf("GET", "/x", "")
	tests := []struct {
		name, kind, body string
		short            int // bytes that are announced and do not come
		chunked, stalls  bool
		want             dfs.Code
	}{
		{name: "fine", body: good + good},
		{name: "another type", kind: "application/json", body: good, want: dfs.Invalid},
		{name: "nothing", want: dfs.Invalid},
		{name: "no length", body: good, chunked: true, want: dfs.Invalid},
		{name: "too long", body: strings.Repeat(good, bundle.MaxBytes/len(good)+1), want: dfs.TooLarge},
		{name: "too many", body: strings.Repeat(good, bundle.MaxParts+1), want: dfs.Invalid},
		{name: "damaged in the end", body: good + good[:5], want: dfs.Invalid},
		{name: "another method", body: good + partOf("HEAD", "/x", ""), want: dfs.Invalid},
		{name: "no target", body: good + partOf("GET", "x", ""), want: dfs.Invalid},
		{name: "a bad target", body: good + partOf("GET", "/%zz", ""), want: dfs.Invalid},
		{name: "two lines", body: good + partOf("GET", "/x HTTP/1.1\r\nX: y", ""), want: dfs.Invalid},
		{name: "a long request", body: good + partOf("PUT", "/x", strings.Repeat("x", 40<<10)), want: dfs.Invalid},
		{name: "cut off", body: good, short: 5, want: dfs.Invalid},
		{name: "slow", body: good, short: 5, stalls: true, want: dfs.Timeout},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var served atomic.Int64
			handler := &bundle.Handler{Timeout: patience, Next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) })}
			if test.stalls {
				handler.Timeout = 20 * time.Millisecond
			}
			result := make(chan error, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { result <- handler.Serve(w, r) }))
			defer server.Close()
			conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			kind := test.kind
			if kind == "" {
				kind = bundle.ContentType
			}
			fmt.Fprintf(conn, "POST /bundle HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n", kind)
			if test.chunked {
				fmt.Fprintf(conn, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(test.body), test.body)
			} else {
				fmt.Fprintf(conn, "Content-Length: %d\r\n\r\n%s", len(test.body)+test.short, test.body)
			}
			if test.short > 0 && !test.stalls {
				conn.(*net.TCPConn).CloseWrite()
			}
			err = receive(t, "the bundle is served or refused", result)
			if test.want == "" {
				if err != nil || served.Load() != 2 {
					t.Fatalf("%v, %d served", err, served.Load())
				}
				return
			}
			if dfs.CodeOf(err) != test.want || served.Load() > 0 {
				t.Fatalf("%v (%s), %d served", err, dfs.CodeOf(err), served.Load())
			}
		})
	}
}

// TestWaitsForHandlers: when Serve returns, nobody uses what belongs to its caller.
func TestWaitsForHandlers(t *testing.T) {
	var inside atomic.Int64
	arrived, finish := make(chan struct{}, 3), make(chan struct{})
	handler := &bundle.Handler{Timeout: patience, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		defer inside.Add(-1)
		arrived <- struct{}{}
		<-r.Context().Done() // the caller has hung up
		if r.URL.Path == "/slow" {
			<-finish
		}
		io.WriteString(w, "nobody reads this")
	})}
	returned := make(chan int64, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handler.Serve(w, r); err != nil {
			t.Error(err)
		}
		returned <- inside.Load()
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	body := partOf("GET", "/x", "") + partOf("GET", "/slow", "") + partOf("PUT", "/x", "body")
	fmt.Fprintf(conn, "POST /bundle HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", bundle.ContentType, len(body), body)
	for range 3 {
		receive(t, "all are served at once", arrived)
	}
	conn.Close()
	until(t, "only the slow one is left", func() bool { return inside.Load() == 1 })
	select {
	case <-returned:
		t.Error("Serve did not wait")
	default:
	}
	close(finish)
	if left := receive(t, "Serve returns", returned); left != 0 {
		t.Errorf("%d handlers go on", left)
	}
}

// deadlines notes what is set.
type deadlines struct {
	http.ResponseWriter
	reading []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.reading = append(d.reading, at)
	return nil
}

func (d *deadlines) SetWriteDeadline(time.Time) error { return nil }

func (d *deadlines) FlushError() error { return nil }

// TestDeadlineEnds: requests may take longer than their bundle may take to come. A
// deadline that stays would end their context: the server reads on.
func TestDeadlineEnds(t *testing.T) {
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	r := httptest.NewRequest("POST", "/bundle", strings.NewReader(partOf("GET", "/x", "")))
	r.Header.Set("Content-Type", bundle.ContentType)
	served := false
	handler := &bundle.Handler{Timeout: time.Minute, Next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		served = true
		if n := len(w.reading); n < 2 || w.reading[0].IsZero() || !w.reading[n-1].IsZero() {
			t.Errorf("deadlines: %v", w.reading)
		}
	})}
	if err := handler.Serve(w, r); err != nil || !served {
		t.Fatal(served, err)
	}
}

// TestPanic: it costs one request its answer, and nobody else; the log of the server
// has it.
func TestPanic(t *testing.T) {
	var lines strings.Builder
	logged := log.New(&lines, "", 0)
	handler := &bundle.Handler{Timeout: patience, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path)
		if r.URL.Path == "/oh" {
			panic("my fault")
		}
		if r.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
	})}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handler.Serve(w, r); err != nil {
			t.Error(err)
		}
	}))
	server.Config.ErrorLog = logged
	server.Start()
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for range 2 { // on the same connection
		body := partOf("GET", "/oh", "") + partOf("GET", "/x", "") + partOf("GET", "/cut", "")
		fmt.Fprintf(conn, "POST /bundle HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", bundle.ContentType, len(body), body)
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := io.ReadAll(response.Body)
		for _, want := range []string{answerOf(0, 0, ""), answerOf(1, 200, "/x"), answerOf(2, 0, "")} {
			if !strings.Contains(string(answers), want) || err != nil {
				t.Errorf("%q lacks %q; %v", answers, want, err)
			}
		}
	}
	server.Close()
	if n := strings.Count(lines.String(), "my fault"); n != 2 || strings.Contains(lines.String(), "abort") {
		t.Errorf("%d panics in the log: %s", n, lines.String())
	}
}

// deaf takes no answer.
type deaf struct{ deadlines }

func (d *deaf) Write([]byte) (int, error) { return 0, net.ErrClosed }

// TestWaitsUnheard: an answer that cannot be sent ends nothing early.
func TestWaitsUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := map[string]chan struct{}{"/0": make(chan struct{}), "/1": make(chan struct{}), "/2": make(chan struct{})}
		returned := make(chan error, 1)
		handler := &bundle.Handler{Timeout: patience, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-finish[r.URL.Path] })}
		w := &deaf{deadlines{ResponseWriter: httptest.NewRecorder()}}
		r := httptest.NewRequest("POST", "/bundle", strings.NewReader(partOf("GET", "/0", "")+partOf("GET", "/1", "")+partOf("GET", "/2", "")))
		r.Header.Set("Content-Type", bundle.ContentType)
		go func() { returned <- handler.Serve(w, r) }()
		for i := range 3 {
			synctest.Wait()
			if len(returned) > 0 {
				t.Errorf("it returns after %d of 3", i)
			}
			close(finish[fmt.Sprint("/", i)])
		}
		if err := <-returned; err != nil {
			t.Error(err)
		}
	})
}
