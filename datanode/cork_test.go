package datanode_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// TestAnswersOnOneConnection asks for chunks of all sizes, one after the other on
// one connection: each answer ends where the next one begins. And who wants to be
// told to send a body is told.
func TestAnswersOnOneConnection(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	answered := func(method string) (int, string) {
		t.Helper()
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	for i, size := range []int{1, 3 << 10, 4 << 10, 8 << 10, 20 << 10, 64 << 10, 64<<10 + 1, 1 << 20} {
		id, data := dfs.ChunkID(i+1), content(byte(i), size)
		fmt.Fprintf(conn, "PUT /chunks/%s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n%s: %s\r\n\r\n",
			id, size, protocol.HeaderChecksum, dfs.ChecksumOf(data))
		if status, _ := answered("PUT"); status != http.StatusContinue {
			t.Fatalf("%d bytes: %d", size, status)
		}
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		if status, body := answered("PUT"); status != http.StatusCreated {
			t.Fatalf("%d bytes: %d %s", size, status, body)
		}
		for _, method := range []string{"GET", "HEAD", "GET"} {
			fmt.Fprintf(conn, "%s /chunks/%s HTTP/1.1\r\nHost: x\r\n\r\n", method, id)
			status, body := answered(method)
			if status != http.StatusOK || method == "GET" && body != string(data) {
				t.Fatalf("%s of %d bytes: %d, %d bytes", method, size, status, len(body))
			}
		}
		fmt.Fprintf(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n") // the first one in chunks
		if status, body := answered("GET"); status != http.StatusOK || !strings.Contains(body, "dfs_datanode") {
			t.Fatalf("metrics: %d %.100s", status, body)
		}
		if status, _ := answered("GET"); status != http.StatusNotFound {
			t.Fatalf("nothing: %d", status)
		}
	}
}
