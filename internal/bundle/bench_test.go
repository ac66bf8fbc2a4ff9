package bundle_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/carrier"
)

// BenchmarkCalls compares callers who share requests with those who do not. The
// server is in the same process. Look at cpu-us/op: the time of the clock says more
// of the machine's other work.
func BenchmarkCalls(b *testing.B) {
	handle := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"0123456789abcdef","size":4096}`)
	})
	handler := &bundle.Handler{Next: handle, Timeout: time.Minute}
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != path {
			handle(w, r)
		} else if err := handler.Serve(w, r); err != nil {
			b.Error(err)
		}
	}))
	defer server.Close()
	under := carrier.New(carrier.Config{})
	defer under.CloseIdleConnections()
	for _, c := range []struct {
		name, method string
		body         string
	}{{"get", "GET", ""}, {"post 200", "POST", strings.Repeat("x", 200)}, {"put 4KiB", "PUT", strings.Repeat("x", 4<<10)}} {
		for _, callers := range []int{1, 16} {
			for _, kind := range []struct {
				name      string
				transport http.RoundTripper
			}{{"carrier", under}, {"bundle", bundle.New(bundle.Config{Under: under, Path: path})}} {
				b.Run(fmt.Sprintf("%s/callers=%d/%s", c.name, callers, kind.name), func(b *testing.B) {
					b.ReportAllocs()
					requests.Store(0)
					before := processorTime(b)
					var next atomic.Int64
					var all sync.WaitGroup
					for range callers {
						all.Go(func() {
							for next.Add(1) <= int64(b.N) {
								var body io.Reader
								if c.body != "" {
									body = strings.NewReader(c.body)
								}
								r, err := http.NewRequestWithContext(b.Context(), c.method, server.URL+"/files", body)
								if err != nil {
									b.Error(err)
									return
								}
								r.Header.Set("X-Dfs-Request-Id", "0123456789abcdef0123456789abcdef")
								if got := call(kind.transport, r); got.err != nil || got.status != 200 {
									b.Error(got)
									return
								}
							}
						})
					}
					all.Wait()
					b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
					b.ReportMetric(float64(requests.Load())/float64(b.N), "requests/op")
				})
			}
		}
	}
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
