package carrier_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// processorTime is what this process has used so far. The server of a benchmark
// is in it: what differs between the transports is theirs alone.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCalls compares the transports. Look at cpu-us/op: the time of the clock
// says more of the machine's other work.
func BenchmarkCalls(b *testing.B) {
	chunk := make([]byte, 4<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			size := int64(300)
			fmt.Sscan(r.URL.RawQuery, &size)
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(chunk[:size])
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"id":"0123456789abcdef","size":4096}`)
	}))
	defer server.Close()
	calls := []struct {
		name, method, target string
		size                 int
	}{
		{"get 300", "GET", "/files?300", 0},
		{"get 4KiB", "GET", "/chunks/0123456789abcdef?4096", 0},
		{"get 4MiB", "GET", "/chunks/0123456789abcdef?4194304", 0},
		{"post 200", "POST", "/files", 200},
		{"put 4KiB", "PUT", "/chunks/0123456789abcdef", 4 << 10},
		{"put 4MiB", "PUT", "/chunks/0123456789abcdef", 4 << 20},
	}
	for _, c := range calls {
		for _, kind := range kinds {
			for _, callers := range []int{1, 8} {
				b.Run(fmt.Sprintf("%s/callers=%d/%s", c.name, callers, kind.name), func(b *testing.B) {
					transport := kind.make()
					defer transport.CloseIdleConnections()
					b.SetParallelism(callers)
					b.ReportAllocs()
					before := processorTime(b)
					b.RunParallel(func(pb *testing.PB) {
						buffer := make([]byte, 4<<20)
						for pb.Next() {
							r, _ := http.NewRequestWithContext(b.Context(), c.method, server.URL+c.target, nil)
							if c.size > 0 {
								r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(chunk[:c.size])), int64(c.size)
							}
							r.Header.Set("X-Dfs-Cluster-Id", strings.Repeat("x", 32))
							r.Header.Set("X-Dfs-Request-Id", strings.Repeat("x", 32))
							response, err := transport.RoundTrip(r)
							if err != nil {
								b.Error(err)
								return
							}
							io.ReadFull(response.Body, buffer[:max(0, response.ContentLength)])
							response.Body.Read(buffer[:1]) // the end
							response.Body.Close()
						}
					})
					b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
				})
			}
		}
	}
}
