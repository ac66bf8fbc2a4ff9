package bundle

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Handler answers bundles.
type Handler struct {
	// Next serves the requests of a bundle, at the same time. It must not take
	// bundles itself.
	Next http.Handler
	// Timeout is how long a bundle may take to come, and each piece of the answer
	// to go.
	Timeout time.Duration
}

// Serve answers a bundle. When it returns an error, none of its requests has been
// served, and nothing has been answered. Errors: dfs.Invalid, dfs.TooLarge,
// dfs.Timeout.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) error {
	parts, err := h.receive(w, r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if len(parts) > 1 {
		ctx = context.WithValue(ctx, sharedKey{}, true)
	}
	served := make(chan *recorder, len(parts))
	for i, part := range parts {
		go h.serve(part.WithContext(ctx), i, served) // waited for by reply
	}
	reply(http.NewResponseController(w), w, h.Timeout, served, len(parts))
	return nil
}

// sharedKey is the key of true in the context of requests that share a bundle.
type sharedKey struct{}

// Shared tells whether a request that is being served came in a bundle with
// others. They want the same things at the same moment, so whoever shares work
// among requests may expect more.
func Shared(ctx context.Context) bool { return ctx.Value(sharedKey{}) != nil }

func (h *Handler) receive(w http.ResponseWriter, r *http.Request) ([]*http.Request, error) {
	switch {
	case r.Header.Get("Content-Type") != ContentType:
		return nil, dfs.Errorf(dfs.Invalid, "a bundle of requests has the Content-Type %s", ContentType)
	case r.ContentLength < 1:
		return nil, dfs.Errorf(dfs.Invalid, "a bundle of requests needs a Content-Length, and is not empty")
	case r.ContentLength > MaxBytes:
		return nil, dfs.Errorf(dfs.TooLarge, "a bundle has at most %d bytes, not %d", MaxBytes, r.ContentLength)
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(h.Timeout)); err != nil {
		return nil, dfs.Errorf(dfs.Internal, "no deadline can be set: %w", err)
	}
	data := make([]byte, r.ContentLength) // kept by the requests
	if n, err := io.ReadFull(r.Body, data); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, dfs.Errorf(dfs.Timeout, "the bundle came too slowly: %d of %d bytes within %s", n, len(data), h.Timeout)
		}
		return nil, dfs.Errorf(dfs.Invalid, "the bundle ended after %d of %d bytes", n, len(data))
	}
	// The server goes on reading, to notice when the caller goes away: that is not
	// the case when the requests take longer than the bundle may.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return nil, dfs.Errorf(dfs.Internal, "no deadline can be taken back: %w", err)
	}
	parts, err := parseRequests(data)
	if err != nil {
		return nil, dfs.Errorf(dfs.Invalid, "%w", err)
	}
	for _, part := range parts {
		part.Host, part.RemoteAddr = r.Host, r.RemoteAddr
	}
	return parts, nil
}

// serve answers one request. What it panics with cuts off that one.
func (h *Handler) serve(part *http.Request, index int, served chan<- *recorder) {
	rec := &recorder{answer: answer{index: index, header: make(http.Header, 6)}}
	defer func() {
		if p := recover(); p != nil {
			report(part.Context(), p)
			rec.answer = answer{index: index, status: statusCutOff}
		}
		served <- rec
	}()
	h.Next.ServeHTTP(rec, part)
	rec.WriteHeader(http.StatusOK) // unless it has a status
}

// report does with a panic what the server does with one.
func report(ctx context.Context, p any) {
	server, ok := ctx.Value(http.ServerContextKey).(*http.Server)
	if ok && server.ErrorLog != nil && p != http.ErrAbortHandler {
		server.ErrorLog.Printf("panic serving a request of a bundle: %v\n%s", p, debug.Stack())
	}
}

// reply sends the answers as they come. Those that are finished at the same moment
// go together. It returns when all requests have been served.
func reply(control *http.ResponseController, w http.ResponseWriter, timeout time.Duration, served <-chan *recorder, left int) {
	var out []byte
	var broken error // the caller is gone
	w.Header().Set("Content-Type", ContentType)
	for flushed := false; left > 0; {
		out = (<-served).append(out[:0])
		left--
		runtime.Gosched()
		for more := true; more && left > 0; {
			select {
			case rec := <-served:
				out = rec.append(out)
				left--
			default:
				more = false
			}
		}
		if broken != nil {
			continue
		}
		if !flushed && left == 0 {
			w.Header().Set("Content-Length", strconv.Itoa(len(out)))
		}
		_ = control.SetWriteDeadline(time.Now().Add(timeout)) // fails only when the connection is closed
		if _, broken = w.Write(out); broken == nil && left > 0 {
			broken = control.Flush()
			flushed = true
		}
	}
}

// recorder is the http.ResponseWriter of a request in a bundle.
type recorder struct{ answer }

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	switch {
	case r.status != 0 || status < 200: // said already, or news on the way
	case status > 999: // none of HTTP
		r.status = http.StatusInternalServerError
	default:
		r.status = status
	}
}

var errTooLong = errors.New("the answer is too long for a bundle")

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	if r.status == statusTooLong || len(r.body)+len(p) > maxAnswer {
		r.status, r.header, r.body = statusTooLong, make(http.Header), nil
		return 0, errTooLong
	}
	r.body = append(r.body, p...)
	return len(p), nil
}

// Flush implements http.Flusher: there is nothing to flush.
func (r *recorder) Flush() {}

// SetReadDeadline is for http.ResponseController: the body is here already.
func (r *recorder) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for http.ResponseController: the bundle has one.
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }
