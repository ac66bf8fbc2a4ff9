package carrier

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"syscall"
	"time"
)

// promptBody is the largest body, in bytes, that is sent before anybody looks for
// an answer. The buffers of a socket have room for it, so that a server that does
// not read it cannot hold up the one who sends it.
const promptBody = 64 << 10

const (
	maxDrain     = 16 << 10 // bytes of an answer that nobody wants
	drainTimeout = 20 * time.Millisecond
)

// exchange is one request and its answer on one connection, and in the end the body
// of that answer. All of it happens on the goroutines of the caller, but for the
// watch on the context and, beside a large body, for the head of the answer.
type exchange struct {
	t       *Transport
	c       *conn
	request *http.Request
	reader  *bufio.Reader // nil when the exchange is over
	stop    func() bool   // ends the watch on the context; nil when that cannot end

	sent     int64 // bytes of the request that went into the connection
	whole    bool  // all of it did
	answered bool  // a byte of the answer came
	limited  bool  // a deadline is set besides that of the watch

	response http.Response
	frame    frame
	chunks   io.Reader // of a chunked body
	err      error     // what further reads return
}

// run sends the request with this body and returns the answer when its head is
// there. From then on the exchange is the body of that.
func (x *exchange) run(body io.ReadCloser) (*http.Response, error) {
	if body == http.NoBody {
		body = nil
	}
	x.reader = x.t.readers.Get().(*bufio.Reader)
	x.reader.Reset(x.c.tcp)
	ctx := x.request.Context()
	if ctx.Done() != nil {
		x.stop = context.AfterFunc(ctx, x.c.interrupt)
	}
	head, err := x.converse(body)
	if body != nil {
		closeBody(body)
	}
	if err == nil {
		err = x.begin(head)
	}
	if err != nil {
		x.end(false)
		return nil, x.blame(reveal(err))
	}
	return &x.response, nil
}

// blame says that it was the context, if it was.
func (x *exchange) blame(err error) error {
	if ctx := x.request.Context(); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (x *exchange) converse(body io.Reader) (*head, error) {
	if x.request.ContentLength > promptBody {
		return x.converseBoth(body)
	}
	err := x.send(body)
	if err != nil && !hungUp(err) {
		return nil, err
	}
	// A server that hangs up while it is being sent to may have said why.
	head, readErr := x.readHead()
	if readErr != nil && err != nil {
		return nil, err
	}
	return head, readErr
}

// converseBoth sends a large body while it looks for the answer, because a server
// that refuses early may never read the rest.
func (x *exchange) converseBoth(body io.Reader) (*head, error) {
	var head *head
	var readErr error
	read := make(chan struct{})
	x.limited = true
	go func() { // ends with the answer, or with the connection; waited for below
		defer close(read)
		head, readErr = x.readHead()
		_ = x.c.tcp.SetWriteDeadline(past) // fails only when it is closed
	}()
	err := x.send(body)
	if errors.As(err, new(*bodyError)) {
		_ = x.c.tcp.SetReadDeadline(past) // there will be no answer
	}
	<-read
	switch {
	case readErr == nil:
		return head, nil
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded): // the reader gave up first
		return nil, readErr
	}
	return nil, err
}

// hungUp tells whether an error says that the other side has closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// mayRepeat tells whether a request that failed on a kept connection may be sent
// once more. It is called when run has failed.
func (x *exchange) mayRepeat(err error) bool {
	r := x.request
	if x.answered || r.Context().Err() != nil || !hungUp(err) && !errors.Is(err, io.EOF) {
		return false
	}
	if r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		return false
	}
	if x.sent == 0 {
		return true
	}
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, idempotent := r.Header["Idempotency-Key"]
	return idempotent
}

// readHead waits for the head of the final answer.
func (x *exchange) readHead() (*head, error) {
	if _, err := x.reader.Peek(1); err != nil {
		return nil, err
	}
	x.answered = true
	for budget := x.t.maxHead; ; {
		text, err := readBlock(x.reader, &budget)
		if err != nil {
			return nil, err
		}
		head, err := parseHead(text)
		switch {
		case err != nil:
			return nil, err
		case head.status == http.StatusSwitchingProtocols:
			return nil, errors.New("the server changes to another protocol, which nobody asked for")
		case head.status >= 200:
			return head, nil
		}
		// It only says that it is at work; the budget bounds how often.
	}
}

// begin makes the response of its head.
func (x *exchange) begin(head *head) (err error) {
	if x.frame, err = head.framing(x.request.Method); err != nil {
		return err
	}
	x.frame.last = x.frame.last || wantsClose(x.request)
	x.response = http.Response{
		Status: head.text, StatusCode: head.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: head.minor,
		Header: head.fields, ContentLength: x.frame.announced, Close: x.frame.last, Request: x.request, Body: x,
	}
	if head.minor == 0 {
		x.response.Proto = "HTTP/1.0"
	}
	switch {
	case x.frame.chunked:
		x.response.TransferEncoding = []string{"chunked"}
		x.chunks = httputil.NewChunkedReader(x.reader)
	case x.frame.left == 0:
		x.response.Body = http.NoBody
		x.end(true)
	}
	return nil
}

// Read implements io.Reader for the body of the answer. Long reads go straight
// from the connection into p. When nothing has come yet, and p is long, Read may
// wait until p, the rest of the body or 256 KiB can be had at once.
func (x *exchange) Read(p []byte) (n int, err error) {
	switch {
	case x.err != nil:
		return 0, x.err
	case len(p) == 0:
		return 0, nil
	case x.frame.chunked:
		n, err = x.readChunked(p)
	case x.frame.left < 0:
		n, err = x.reader.Read(p)
	default:
		n, err = x.readCounted(p)
	}
	if err != nil {
		x.end(errors.Is(err, io.EOF))
		if !errors.Is(err, io.EOF) {
			err = x.blame(err)
		}
		x.err = err
	}
	return n, err
}

// readCounted returns io.EOF with the last byte, so that nobody needs to come back for it.
func (x *exchange) readCounted(p []byte) (int, error) {
	p = p[:min(int64(len(p)), x.frame.left)]
	if x.reader.Buffered() == 0 {
		x.c.wakeAt(len(p))
	}
	n, err := x.reader.Read(p)
	x.frame.left -= int64(n)
	switch {
	case x.frame.left == 0:
		return n, io.EOF
	case errors.Is(err, io.EOF):
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (x *exchange) readChunked(p []byte) (int, error) {
	n, err := x.chunks.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	// Trailers, which none of our servers send, and an empty line.
	budget := x.t.maxHead
	block, err := readBlock(x.reader, &budget)
	if err == nil {
		_, err = parseFields(block)
	}
	if err != nil {
		return n, err
	}
	return n, io.EOF
}

// Close implements io.Closer for the body of the answer. A short rest is read, so
// that the connection can be used again.
func (x *exchange) Close() error {
	if x.err == nil && x.whole && !x.frame.last && x.frame.left <= maxDrain {
		x.limited = true
		_ = x.c.tcp.SetReadDeadline(time.Now().Add(drainTimeout)) // fails only when it is closed
		_, _ = io.CopyN(io.Discard, x, maxDrain)                  // Read does what is to be done at the end
	}
	x.end(false)
	x.err = http.ErrBodyReadAfterClose
	return nil
}

// end gives everything back. The connection is kept when reuse says that it is at
// the end of an answer, and everything else is in order, too.
func (x *exchange) end(reuse bool) {
	if x.reader == nil {
		return
	}
	if x.stop != nil && !x.stop() {
		reuse = false // the deadline is, or is about to be, in the past
	}
	if x.reader.Buffered() > 0 {
		reuse = false // it sends more than it was asked for
	}
	if reuse && !x.c.wakeAt(0) {
		reuse = false // it would sleep through the next answer
	}
	x.reader.Reset(nil)
	x.t.readers.Put(x.reader)
	x.reader = nil
	if !reuse || !x.whole || x.frame.last || x.limited && x.c.tcp.SetDeadline(time.Time{}) != nil {
		x.c.close()
		return
	}
	x.t.idle.put(x.c)
}
