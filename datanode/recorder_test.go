package datanode_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// impatient is a node that is waited for no longer than the tests wait.
func impatient(t *testing.T) *datanode.DataNode {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.BodyTimeout = 200 * time.Millisecond
	d := start(t, c)
	ready(t, n, d)
	return d
}

func dialPatiently(t *testing.T, d *datanode.DataNode) net.Conn {
	t.Helper()
	conn := dial(t, d)
	t.Cleanup(func() { _ = conn.Close() }) // nothing is to be told any more
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A body that never comes keeps neither the answer back nor the connection open.
func TestBodyThatNeverComes(t *testing.T) {
	d := impatient(t)
	for head, status := range map[string]int{
		"GET /health HTTP/1.1\r\nContent-Length: 10\r\n":                                                 200,
		"GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n":                                         200,
		"GET /metrics HTTP/1.1\r\nContent-Length: 10\r\n":                                                200,
		"GET /chunks/0000000000000001 HTTP/1.1\r\nContent-Length: 10\r\n":                                404,
		"GET /nowhere HTTP/1.1\r\nContent-Length: 10\r\n":                                                404,
		"PUT /chunks/0000000000000001 HTTP/1.1\r\nContent-Length: 1000\r\n":                              400, // for its headers
		"PUT /chunks/0000000000000001 HTTP/1.1\r\nContent-Length: 1000000\r\nX-DFS-Node-ID: dn2\r\n":     412,
		"PUT /chunks/0000000000000001 HTTP/1.1\r\nContent-Length: 1000000\r\nX-DFS-CRC32C: 12345678\r\n": 504,
		"POST /chunks/stat HTTP/1.1\r\nContent-Length: 1000\r\n":                                         400,
		"DELETE /chunks/0000000000000001 HTTP/1.1\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n":   403,
	} {
		inTime(t, fmt.Sprintf("%q", head), func() error {
			conn := dialPatiently(t, d)
			if _, err := fmt.Fprintf(conn, "%sHost: x\r\n\r\n", head); err != nil {
				return err
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return fmt.Errorf("no answer: %w", err)
			}
			if response.StatusCode != status || !response.Close {
				t.Errorf("%q: status %d instead of %d, connection closed: %v", head, response.StatusCode, status, response.Close)
			}
			_ = response.Body.Close() // the status was all
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q: the connection stays open", head)
			}
			return nil
		})
	}
}

// A caller who reads no answers is cut off.
func TestAnswerThatIsNotRead(t *testing.T) {
	d := impatient(t)
	conn := dialPatiently(t, d)
	for {
		_, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection stays open")
		}
		if err != nil {
			return
		}
	}
}

// A connection serves many requests, with pauses longer than one of them may
// take.
func TestConnectionIsKept(t *testing.T) {
	d := impatient(t)
	inTime(t, "many requests on one connection", func() error { return converse(t, d) })
}

func converse(t *testing.T, d *datanode.DataNode) error {
	conn := dialPatiently(t, d)
	reader := bufio.NewReader(conn)
	data := content(1, 1000)
	for _, request := range []string{
		"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
		fmt.Sprintf("PUT /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX-DFS-CRC32C: %s\r\n\r\n%s", dfs.ChecksumOf(data), data),
		"GET /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /chunks/stat HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{\"ids\":[]}",
		"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if _, err := io.WriteString(conn, request); err != nil {
			return err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return fmt.Errorf("%.40q: %w", request, err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err != nil || response.StatusCode >= 300 || response.Close {
			return fmt.Errorf("%.40q: status %d, closed %v, %w", request, response.StatusCode, response.Close, err)
		}
		time.Sleep(300 * time.Millisecond) // the subject of the test
	}
	return nil
}
