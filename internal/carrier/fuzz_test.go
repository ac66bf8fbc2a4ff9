package carrier

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// connected returns a connection to nobody: what is read comes from elsewhere.
func connected(f *testing.F) *conn {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer listener.Close()
	dialed, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { dialed.Close() })
	c, err := newConn(dialed.(*net.TCPConn), "nobody")
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// FuzzAnswer reads what may be the answer of anything. What is taken for one, the
// parser of net/http takes for the same; nothing is read beyond its end, and the
// connection is kept only at that end.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 206 Partial Content\nx: 1\nX: 2\nContent-Length: 1\n\nh",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;e=1\r\nllo\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 \r\nConnection: close\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end",
	} {
		f.Add("GET", []byte(seed))
		f.Add("HEAD", []byte(seed))
	}
	c := connected(f)
	f.Fuzz(func(t *testing.T, method string, input []byte) {
		if method != "GET" && method != "HEAD" {
			return
		}
		request, err := http.NewRequest(method, "http://nobody/", nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := New(Config{MaxHead: 1 << 10})
		source := bytes.NewReader(input)
		x := &exchange{t: transport, c: c, request: request, reader: bufio.NewReaderSize(source, 64), whole: true}
		head, err := x.readHead()
		if err == nil {
			err = x.begin(head)
		}
		if err != nil {
			return
		}
		body, err := io.ReadAll(x.response.Body)
		x.response.Body.Close()
		kept := transport.idle.count() == 1
		transport.idle.byHost = nil // the connection is used again
		transport.CloseIdleConnections()
		x.response.Header.Del("Connection") // which net/http drops when it has understood it
		status, header, wanted, rest, wantErr := reference(input, request)
		if status != x.response.StatusCode || fmt.Sprint(header) != fmt.Sprint(x.response.Header) || (wantErr == nil) != (err == nil) || !bytes.Equal(wanted, body) {
			t.Fatalf("%q: %d %q %q %v; net/http: %d %q %q %v", input, x.response.StatusCode, x.response.Header, body, err, status, header, wanted, wantErr)
		}
		if kept && (err != nil || rest > 0) {
			t.Fatalf("%q: the connection is kept with %d bytes and %v", input, rest, err)
		}
	})
}

// reference is what net/http makes of the input, and how many bytes it leaves.
func reference(input []byte, request *http.Request) (status int, header http.Header, body []byte, rest int, err error) {
	r := bufio.NewReader(bytes.NewReader(input))
	for {
		response, err := http.ReadResponse(r, request)
		if err != nil {
			return 0, nil, nil, 0, err
		}
		if response.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(response.Body)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		response.Header.Del("Connection")
		left, _ := io.Copy(io.Discard, r) // from memory
		return response.StatusCode, response.Header, body, int(left), err
	}
}
