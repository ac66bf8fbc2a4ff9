package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/carrier"
)

const (
	// flightPatience is how long a flight without an answer keeps others on the
	// ground: one slow request must not hold up those that could go.
	flightPatience = 20 * time.Millisecond
	maxLanes       = 1024        // that are remembered
	plainFor       = time.Minute // that a server is left alone with bundles once it refused one
)

// Config says how requests are bundled.
type Config struct {
	Under http.RoundTripper // carries bundles, and what is in none
	Path  string            // that bundles are posted to
}

// Transport is an http.RoundTripper for small requests. It is safe for concurrent
// use. It has nothing to be closed: what it starts ends with the requests.
type Transport struct {
	config   Config
	patience time.Duration
	mu       sync.Mutex
	lanes    map[destination]*lane // guarded by mu
}

// destination tells the lanes apart. Changes wait for disks, and must not keep
// reads waiting.
type destination struct {
	host    string
	changes bool
}

// New makes a Transport.
func New(config Config) *Transport {
	return &Transport{config: config, patience: flightPatience, lanes: make(map[destination]*lane)}
}

// RoundTrip implements http.RoundTripper. The body of the answer of a request that
// was in a bundle lies in memory. When the context of the request ends, so does
// the wait for the answer, but others may be in the same bundle, and then the
// request is carried out nevertheless. Errors are those of Config.Under: a
// *carrier.NotSentError when nothing has left.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	l := t.lane(request)
	if l == nil {
		return t.config.Under.RoundTrip(request)
	}
	switch l.enter() {
	case plainly:
		return t.config.Under.RoundTrip(request)
	case alone:
		return l.goAlone(request)
	}
	p, err := newPart(request)
	if err != nil {
		return nil, err
	}
	l.queue(p)
	return l.wait(p)
}

// lane returns where a request has to queue, or nil for one that is not for a bundle.
func (t *Transport) lane(r *http.Request) *lane {
	hasBody := r.Body != nil && r.Body != http.NoBody
	switch {
	case r.ContentLength < 0 || r.ContentLength > MaxBody || hasBody != (r.ContentLength > 0), r.Context().Err() != nil:
		return nil
	case r.URL == nil || r.URL.Scheme != "http" || r.URL.Host == "" || r.Host != "" && r.Host != r.URL.Host:
		return nil
	case r.Close || r.Header["Connection"] != nil || r.TransferEncoding != nil || r.Trailer != nil: // of the connection
		return nil
	}
	switch r.Method {
	case http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		return nil
	}
	key := destination{r.URL.Host, r.Method != http.MethodGet}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lanes[key]
	if l == nil {
		if len(t.lanes) >= maxLanes { // addresses come and go; whoever is on a lane stays there
			clear(t.lanes)
		}
		l = &lane{under: t.config.Under, url: "http://" + key.host + t.config.Path, patience: t.patience}
		t.lanes[key] = l
	}
	return l
}

// part is a request that may share a bundle.
type part struct {
	request *http.Request
	encoded []byte
	body    []byte
	// repeatable tells whether the request may be sent again when it is not known
	// what became of it. The request itself is its owner's again once they have left.
	repeatable bool

	// What follows is set before done is closed.
	done     chan struct{}
	response *http.Response
	err      error
	alone    bool // it is to go by itself

	flight  *flight // nil as long as it is queued, and when it goes alone; guarded by the mutex of the lane
	settled bool    // nobody waits for the answer any more; guarded by the mutex of the flight
	over    bool    // done is closed; of the goroutine of the flight
}

// newPart reads the body of a request, and closes it.
func newPart(r *http.Request) (*part, error) {
	_, repeatable := r.Header["Idempotency-Key"]
	p := &part{request: r, done: make(chan struct{}), repeatable: repeatable || r.Method == http.MethodGet}
	body, err := readBody(r)
	if err != nil {
		if r.Context().Err() != nil {
			return nil, &carrier.NotSentError{Err: context.Cause(r.Context())}
		}
		return nil, &carrier.NotSentError{Err: fmt.Errorf("the body of the request: %w", err)}
	}
	encoded, err := appendRequest(make([]byte, 0, 512+len(body)), r, body)
	if err != nil || len(encoded) > maxPart {
		encoded = nil // too long for a bundle
	}
	p.encoded, p.body = encoded, body
	return p, nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	body := make([]byte, r.ContentLength+1)
	n, err := io.ReadFull(r.Body, body)
	closeErr := r.Body.Close()
	switch {
	case err == nil:
		return nil, errors.New("it is longer than was announced")
	case !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
		return nil, err
	case int64(n) < r.ContentLength:
		return nil, io.ErrUnexpectedEOF
	}
	return body[:n], closeErr
}

// again is the request with the body that has been read from it.
func (p *part) again() *http.Request {
	if len(p.body) == 0 {
		return p.request
	}
	r := p.request.WithContext(p.request.Context())
	r.Body = &memory{p.body}
	r.GetBody = func() (io.ReadCloser, error) { return &memory{p.body}, nil }
	return r
}

// answered makes the response of its answer.
func (p *part) answered(a *answer) {
	p.response = &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header,
		Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: p.request,
	}
}

func (p *part) ctx() context.Context { return p.request.Context() }
