package datanode_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func TestRanges(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	const size = 300_000
	data := content(1, size)
	put(t, d, 1, data, "")
	whole := fmt.Sprintf("bytes 0-%d/%d", size-1, size)
	for _, c := range []struct {
		header       string
		status       int
		from, to     int
		contentRange string
	}{
		{"", 200, 0, size, ""},
		{"bytes=0-0", 206, 0, 1, "bytes 0-0/300000"},
		{"bytes=10-19", 206, 10, 20, "bytes 10-19/300000"},
		{"bytes=131071-262145", 206, 131071, 262146, "bytes 131071-262145/300000"},
		{"bytes=299999-299999", 206, size - 1, size, "bytes 299999-299999/300000"},
		{"bytes=100-", 206, 100, size, "bytes 100-299999/300000"},
		{"bytes=0-", 206, 0, size, whole},
		{"bytes=-5", 206, size - 5, size, "bytes 299995-299999/300000"},
		{"bytes=-300000", 206, 0, size, whole},
		{"bytes=-9999999", 206, 0, size, whole},
		{"bytes=0-9999999", 206, 0, size, whole},
		{"bytes=0-9223372036854775807", 206, 0, size, whole},
		{"bytes=0-99999999999999999999", 206, 0, size, whole},
		{"bytes=10-99999999999999999999", 206, 10, size, "bytes 10-299999/300000"},
		{"bytes=-99999999999999999999", 206, 0, size, whole},
		{"bytes=0-1,5-6", 200, 0, size, ""}, // several: the whole is allowed
		{"chunks=0-1", 200, 0, size, ""},    // another unit
		{"bytes=300000-", 416, 0, 0, "bytes */300000"},
		{"bytes=300000-300001", 416, 0, 0, "bytes */300000"},
		{"bytes=5-4", 416, 0, 0, "bytes */300000"},
		{"bytes=-0", 416, 0, 0, "bytes */300000"},
		{"bytes=-", 416, 0, 0, "bytes */300000"},
		{"bytes=", 416, 0, 0, "bytes */300000"},
		{"bytes=5", 416, 0, 0, "bytes */300000"},
		{"bytes=a-b", 416, 0, 0, "bytes */300000"},
		{"bytes=--5", 416, 0, 0, "bytes */300000"},
		{"bytes=+1-5", 416, 0, 0, "bytes */300000"},
		{"bytes=1-+5", 416, 0, 0, "bytes */300000"},
		{"bytes=--99999999999999999999", 416, 0, 0, "bytes */300000"},
		{"bytes=99999999999999999999-", 416, 0, 0, "bytes */300000"},
		{"bytes=99999999999999999999-99999999999999999999", 416, 0, 0, "bytes */300000"},
		{"bytes=0-99999999999999999999x", 416, 0, 0, "bytes */300000"},
	} {
		header := http.Header{}
		if c.header != "" {
			header.Set("Range", c.header)
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := do(t, request(t, method, chunkURL(d, 1), header, nil))
			if a.status != c.status || a.header.Get("Content-Range") != c.contentRange || a.header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s %q: status %d, header %v", method, c.header, a.status, a.header)
				continue
			}
			switch {
			case method == http.MethodHead:
				if len(a.body) > 0 || c.status != 416 && a.header.Get("Content-Length") != strconv.Itoa(c.to-c.from) {
					t.Errorf("HEAD %q: %d bytes, header %v", c.header, len(a.body), a.header)
				}
			case c.status == 416:
				if a.code(t) != dfs.Invalid {
					t.Errorf("%q: %s", c.header, a.body)
				}
			case !bytes.Equal(a.body, data[c.from:c.to]):
				t.Errorf("%q: %d other bytes", c.header, len(a.body))
			}
		}
	}
	a := get(t, chunkURL(d, 1), http.Header{"Range": {"bytes=0-1"}, "If-Range": {`"x"`}})
	if a.status != 200 || len(a.body) != size {
		t.Errorf("If-Range: status %d", a.status)
	}
}

func TestGetRefuses(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	checkHoldsNot(t, d, 1)
	for _, id := range []string{"1", "0000000000000000", "000000000000000G", "..", "%00"} {
		if a := get(t, d.URL()+"/chunks/"+id, nil); a.status != 400 && a.status != 404 && a.status != 307 {
			t.Errorf("%q: %d", id, a.status)
		}
	}
	data := content(1, 1000)
	put(t, d, 1, data, "")
	damage(t, filepath.Join(c.DataDirs[0], "chunks", "01", "0000000000000001"), 1010)
	if a := get(t, chunkURL(d, 1), nil); a.code(t) != dfs.Corrupt {
		t.Errorf("%d %s", a.status, a.body)
	}
	checkHoldsNot(t, d, 1)
	n.heard(t, "dn1", "word of the damage", func(h heartbeat) bool { return len(h.Corrupt) == 1 || h.ChunkCount == 0 })
	put(t, d, 1, data, "")
	checkHolds(t, d, 1, data)
}

// A reader that does not read is cut off, and its slot is free again.
func TestReadersAreBounded(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.Reads = 1
	c.Limits.ForwardTimeout = 100 * time.Millisecond // twice what is waited for a slot
	c.Limits.BodyTimeout = time.Second
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 32<<20) // more than the kernel keeps for a connection
	put(t, d, 1, data, "")
	small := http.Header{"Range": {"bytes=0-0"}}
	waitUntil(t, "the slot to be taken", func() bool {
		readNothing(t, d) // the one before may have been cut off already
		a := get(t, chunkURL(d, 1), small)
		return a.code(t) == dfs.OverLimit && a.header.Get("Retry-After") != ""
	})
	waitUntil(t, "the slot to be free again", func() bool { return get(t, chunkURL(d, 1), small).status == 206 })
	inTime(t, "the next reader", func() error {
		a, err := try(request(t, http.MethodGet, chunkURL(d, 1), http.Header{protocol.HeaderNodeID: {"dn1"}}, nil))
		if err != nil || a.status != http.StatusOK {
			return fmt.Errorf("status %d, %v", a.status, err)
		}
		if !bytes.Equal(a.body, data) {
			t.Error("the next reader got something else")
		}
		return nil
	})
}

// readNothing asks for a chunk and leaves the answer where it is.
func readNothing(t *testing.T, d *datanode.DataNode) {
	t.Helper()
	conn := dial(t, d)
	t.Cleanup(func() { _ = conn.Close() }) // nothing is to be told any more
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}
