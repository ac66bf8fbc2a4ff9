package carrier_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestLongBodies reads into buffers that are longer than what comes, from a server
// that sends the next part only when the one before has been read.
func TestLongBodies(t *testing.T) {
	const buffer = 1 << 20
	cases := []struct {
		name  string
		size  int   // announced
		parts []int // sent
		close int   // after so many bytes the body is closed; 0: not before its end
		err   error
	}{
		{"at once", 3 << 20, []int{3 << 20}, 0, nil},
		{"a short end", 512<<10 + 7, []int{512 << 10, 7}, 0, nil},
		{"small parts after a large one", 512<<10 + 600, []int{512 << 10, 599, 1}, 0, nil},
		{"hangs up in between", 1 << 20, []int{300 << 10}, 0, io.ErrUnexpectedEOF},
		{"hangs up after little", 1 << 20, []int{1}, 0, io.ErrUnexpectedEOF},
		{"closed before its end", 512<<10 + 7, []int{512<<10 + 7}, 512 << 10, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, ours bool, transport transport) {
				if c.close > 0 && !ours {
					t.Skip("it does not read the rest")
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				had := make(chan int, 1) // bytes of the body that the reader has
				server := newRawServer(t, func(conn *net.TCPConn, r *bufio.Reader) { sendParts(ctx, conn, r, c.size, c.parts, had) })
				response, err := transport.RoundTrip(request(t, ctx, "GET", server.url(), nil))
				if err != nil {
					t.Fatal(err)
				}
				n, data := 0, make([]byte, buffer)
				for err == nil && (c.close == 0 || n < c.close) {
					limit := buffer
					if c.close > 0 {
						limit = min(limit, c.close-n)
					}
					var got int
					got, err = response.Body.Read(data[:limit])
					n += got
					tellNewest(had, n)
				}
				if c.err != nil && errors.Is(err, c.err) && n == sum(c.parts) {
					response.Body.Close()
					return
				}
				if c.err != nil || err != nil && !errors.Is(err, io.EOF) || n != c.size && n != c.close {
					t.Fatalf("%d of %d bytes, %v", n, c.size, err)
				}
				response.Body.Close()
				// A short answer on the same connection.
				if got := call(transport, request(t, ctx, "GET", server.url(), nil)); got.err != nil || got.body != "short" {
					t.Fatal(got)
				}
				if n := server.connections.Load(); n != 1 && ours {
					t.Fatal(n, "connections")
				}
			})
		})
	}
}

func sum(numbers []int) (all int) {
	for _, n := range numbers {
		all += n
	}
	return all
}

// tellNewest replaces what nobody has looked at yet.
func tellNewest(to chan int, n int) {
	select {
	case <-to:
	default:
	}
	to <- n
}

// sendParts answers the first request in parts, and the second one shortly.
func sendParts(ctx context.Context, conn *net.TCPConn, r *bufio.Reader, size int, parts []int, had <-chan int) {
	if _, err := http.ReadRequest(r); err != nil {
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
	sent := 0
	for i, part := range parts {
		for n := 0; i > 0 && n < sent; {
			select {
			case n = <-had:
			case <-ctx.Done():
				return
			}
		}
		if _, err := io.WriteString(conn, strings.Repeat("x", part)); err != nil {
			return
		}
		sent += part
	}
	if sent < size {
		return
	}
	if _, err := http.ReadRequest(r); err == nil {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort")
		_, _ = http.ReadRequest(r) // until the client hangs up
	}
}
