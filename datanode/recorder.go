package datanode

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// recorder remembers the status and sees to it that nobody holds a connection
// for ever, by a body that does not come or an answer that is not read. It
// passes ReadFrom on, without which nothing is sent straight from the page
// cache.
type recorder struct {
	http.ResponseWriter
	status int
	body   *body
	cork   *corked
	limit  time.Duration // for the rest of the body, and for the answer; transfers extend it piece by piece
}

// record begins with a request. The handler must use the request that it
// returns.
func record(w http.ResponseWriter, r *http.Request, limit time.Duration) (*recorder, *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // the last answer's; fails only when the connection is closed
	rec := &recorder{ResponseWriter: w, body: &body{done: true}, cork: corkOf(r), limit: limit}
	if r.Body == nil || r.Body == http.NoBody {
		return rec, r
	}
	_ = control.SetReadDeadline(time.Now().Add(limit)) // fails only when the connection is closed
	rec.body = &body{ReadCloser: r.Body, left: r.ContentLength, control: control}
	// A copy: the server looks at the body of its own request in the end.
	r = r.WithContext(r.Context())
	r.Body = rec.body
	return rec, r
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
		if !r.body.done {
			// The server would wait for the rest before it answers.
			r.Header().Set("Connection", "close")
		}
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(r.limit)) // fails only when the connection is closed
		r.cork.hold()                                                                              // not before: what tells the caller to send the body must go out
	}
	r.ResponseWriter.WriteHeader(status)
}

// finish puts the answer on its way.
func (r *recorder) finish() {
	_ = http.NewResponseController(r.ResponseWriter).Flush() // fails when the caller is gone
	_ = r.cork.release()                                     // the same
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return io.Copy(r.ResponseWriter, src)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// body is the body of a request. When it has come wholly, the deadline for
// reading ends: the server goes on reading, to notice when the caller goes
// away, and the rest of the request may take longer.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	left    int64 // negative when the length is not known
	done    bool
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if !b.done && (b.left == 0 || errors.Is(err, io.EOF)) {
		b.done = true
		_ = b.control.SetReadDeadline(time.Time{}) // fails only when the connection is closed
	}
	return n, err
}
