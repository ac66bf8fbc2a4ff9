package datanode

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// corkedPair returns a corked connection and what reads from its other end.
func corkedPair(t *testing.T) (*corked, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	reader, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	conn, err := corkedListener{listener}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) // may be closed already
	c, ok := conn.(*corked)
	if !ok {
		t.Fatalf("%T", conn)
	}
	return c, reader
}

// TestCork: whatever is written in whatever pieces arrives whole and in order, and
// what is short not before release.
func TestCork(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err == nil {
		_, err = file.Write(bytes.Repeat([]byte("f"), 5000))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	piece := func(letter byte, n int) []byte { return bytes.Repeat([]byte{letter}, n) }
	for name, test := range map[string]struct {
		pieces [][]byte
		file   bool
		held   int // before release
	}{
		"nothing":             {},
		"header and chunk":    {[][]byte{piece('h', 4096), piece('c', 300)}, false, 4396},
		"as much as there is": {[][]byte{piece('h', 4096), piece('c', 4096)}, false, heldBytes},
		"more than that":      {[][]byte{piece('h', 4096), piece('c', 4097)}, false, 0},
		"long at once":        {[][]byte{piece('h', 60000)}, false, 0},
		"short after long":    {[][]byte{piece('h', 300), piece('c', 60000), piece('d', 7)}, false, 0},
		"a file":              {[][]byte{piece('h', 300)}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, reader := corkedPair(t)
			for round := range 3 {
				var want []byte
				c.hold()
				for _, p := range test.pieces {
					want = append(want, p...)
					if n, err := c.Write(p); n != len(p) || err != nil {
						t.Fatal(n, err)
					}
				}
				if test.file {
					if _, err := file.Seek(0, io.SeekStart); err != nil {
						t.Fatal(err)
					}
					if n, err := c.ReadFrom(io.LimitReader(file, 5000)); n != 5000 || err != nil {
						t.Fatal(n, err)
					}
					want = append(want, piece('f', 5000)...)
				}
				if len(c.held) != test.held {
					t.Fatalf("%d bytes are held, want %d", len(c.held), test.held)
				}
				if err := c.release(); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write([]byte("after")); err != nil { // is not held
					t.Fatal(err)
				}
				want = append(want, "after"...)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(reader, got); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("round %d: %d bytes %.20q..., %v", round, len(got), got, err)
				}
			}
		})
	}
}

// TestCorkThatCannotRelease: after half an answer there must not be another one.
func TestCorkThatCannotRelease(t *testing.T) {
	c, _ := corkedPair(t)
	c.hold()
	if _, err := c.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := c.release(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("the connection is still open: %v", err)
	}
	var none *corked
	none.hold()
	if err := none.release(); err != nil {
		t.Fatal(err)
	}
}
