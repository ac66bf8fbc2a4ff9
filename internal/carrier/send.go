package carrier

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// bodyError is the failure of a request's body, as opposed to that of the
// connection. It hides what it wraps until it has been told apart.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }

// reveal takes off what send put on.
func reveal(err error) error {
	if b, ok := err.(*bodyError); ok {
		return fmt.Errorf("the body of the request: %w", b.err)
	}
	return err
}

// send writes the request. An error is a *bodyError, or one of the connection. The
// body comes in whatever way copies it least: what can write itself does, and a
// file is sent by the kernel.
func (x *exchange) send(body io.Reader) error {
	buffer := x.t.buffers.Get().(*[writeBuffer]byte)
	defer x.t.buffers.Put(buffer)
	out := &outgoing{x: x, pending: appendHead(buffer[:0], x.request), left: x.request.ContentLength}
	var err error
	switch source := body.(type) {
	case nil:
	case *os.File:
		_, err = out.ReadFrom(source)
	case io.WriterTo:
		_, err = source.WriteTo(out)
	default:
		err = out.copy(body)
	}
	if err == nil && out.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = out.flush()
	}
	switch {
	case out.err != nil:
		return out.err
	case err != nil:
		return &bodyError{err}
	}
	x.whole = true
	return nil
}

var errTooLong = errors.New("it is longer than was announced")

// atEnd makes sure that the body has no more than was announced.
func atEnd(body io.Reader) error {
	if n, _ := io.ReadFull(body, make([]byte, 1)); n > 0 { // all that was announced has come
		return errTooLong
	}
	return nil
}

// outgoing writes a request to its connection. What is pending goes out together
// with what comes next.
type outgoing struct {
	x       *exchange
	pending []byte
	left    int64 // bytes of the body to come
	err     error // of the connection
}

// Write implements io.Writer for bodies that write themselves. What is short is
// gathered, what is long is not copied.
func (o *outgoing) Write(p []byte) (int, error) {
	if int64(len(p)) > o.left {
		return 0, errTooLong
	}
	o.left -= int64(len(p))
	if len(o.pending)+len(p) <= cap(o.pending) && o.left == 0 {
		o.pending = append(o.pending, p...)
		return len(p), nil
	}
	if len(o.pending) == 0 {
		n, err := o.x.c.tcp.Write(p)
		return n, o.wrote(int64(n), err)
	}
	both := net.Buffers{o.pending, p}
	o.pending = o.pending[:0]
	n, err := both.WriteTo(o.x.c.tcp)
	if err := o.wrote(n, err); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom: a file, or a piece of one in an
// io.LimitedReader, goes out without coming into this process.
func (o *outgoing) ReadFrom(source io.Reader) (int64, error) {
	piece, ok := source.(*io.LimitedReader)
	if !ok { // keep the last byte back until this is known to be all
		piece = &io.LimitedReader{R: source, N: max(o.left-1, 0)}
	}
	if _, isFile := piece.R.(syscall.Conn); !isFile {
		before := o.left
		err := o.copy(source)
		return before - o.left, err
	}
	if piece.N > o.left {
		return 0, errTooLong
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	n, err := o.x.c.tcp.ReadFrom(piece)
	o.left -= n
	if err != nil && !hungUp(err) && !errors.Is(err, os.ErrDeadlineExceeded) {
		o.x.sent += n
		return n, err // of the file, as far as one can tell
	}
	if err := o.wrote(n, err); err != nil || ok || o.left > 1 {
		return n, err
	}
	before := o.left
	err = o.copy(source)
	return n + before - o.left, err
}

// copy passes on what the body gives to be read, up to its end. A short body is
// gathered, a long one may be coming just now and is passed on as it comes.
func (o *outgoing) copy(body io.Reader) error {
	gather := o.left <= promptBody
	for o.left > 0 {
		used := len(o.pending)
		end := int(min(int64(cap(o.pending)-used), o.left))
		n, err := body.Read(o.pending[used : used+end])
		o.pending = o.pending[:used+n]
		o.left -= int64(n)
		if errors.Is(err, io.EOF) {
			return nil // of this source; a body may have several
		}
		if err != nil {
			return err
		}
		if o.left > 0 && (!gather || len(o.pending) == cap(o.pending)) {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return atEnd(body)
}

// flush writes what is pending.
func (o *outgoing) flush() error {
	if len(o.pending) == 0 {
		return nil
	}
	n, err := o.x.c.tcp.Write(o.pending)
	o.pending = o.pending[:0]
	return o.wrote(int64(n), err)
}

func (o *outgoing) wrote(n int64, err error) error {
	o.x.sent += n
	if err != nil && o.err == nil {
		o.err = err
	}
	return err
}

// isOurs names what is written here, whatever the caller's headers say.
func isOurs(key string) bool {
	switch textproto.CanonicalMIMEHeaderKey(key) {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
		return true
	}
	return false
}

// appendHead appends the request line and the header of a request, which has
// been checked, to b.
func appendHead(b []byte, r *http.Request) []byte {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, r.URL.RequestURI()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, hostOf(r)...)
	b = append(b, "\r\n"...)
	if wantsClose(r) {
		b = append(b, "Connection: close\r\n"...)
	}
	if r.ContentLength > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	for key, values := range r.Header {
		if isOurs(key) {
			continue
		}
		for _, value := range values {
			b = append(b, key...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

func hostOf(r *http.Request) string {
	if r.Host != "" {
		return r.Host
	}
	return r.URL.Host
}

// checkHead refuses what would say something else on the wire than here.
func checkHead(r *http.Request) error {
	// The rest of the path is escaped when it is sent.
	if strings.ContainsFunc(hostOf(r), notPrintable) || strings.ContainsFunc(r.URL.RawQuery, notPrintable) || strings.ContainsFunc(r.URL.Opaque, notPrintable) {
		return errors.New("host and query of a request must not contain control characters or spaces")
	}
	for key, values := range r.Header {
		if !isToken(key) {
			return fmt.Errorf("the header %.40q has no valid name", key)
		}
		for _, value := range values {
			if !isValue(value) {
				return fmt.Errorf("the header %s must not contain control characters", key)
			}
		}
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r == 0x7f }

// wantsClose tells whether the connection is to be closed after the answer.
func wantsClose(r *http.Request) bool { return r.Close || closes(r.Header) }

func closes(header http.Header) bool {
	for _, value := range header["Connection"] {
		if hasItem(value, "close") {
			return true
		}
	}
	return false
}
