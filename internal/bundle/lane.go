package bundle

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/carrier"
)

// lane is where requests of one kind to one server wait for each other. Those that
// are queued take off when the flight before them lands, which is when its answer
// begins to come.
type lane struct {
	under http.RoundTripper
	url   string // that bundles are posted to
	// patience is how long a flight without an answer keeps others on the ground.
	patience time.Duration

	mu     sync.Mutex
	taken  bool      // by a flight in the air, or about to take off; guarded by mu
	queued []*part   // in order; guarded by mu
	plain  time.Time // until then no bundles are sent; guarded by mu
}

// way is how a request goes.
type way int

const (
	plainly way = iota // as if there were no bundles
	alone              // on the lane, which it has taken
	queued             // with the next flight
)

// enter takes the lane, if it is free.
func (l *lane) enter() way {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.plain.IsZero() && time.Now().Before(l.plain):
		return plainly
	case l.taken:
		return queued
	}
	l.taken = true
	return alone
}

// queue makes a request wait for the next flight.
func (l *lane) queue(p *part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued = append(l.queued, p)
	if !l.taken {
		l.taken = true
		l.depart()
	}
}

// depart sends off those who are queued, on a lane that has been taken. The caller
// holds mu.
func (l *lane) depart() {
	parts, size := 0, 0
	for _, p := range l.queued {
		size += len(p.encoded)
		if parts > 0 && (parts == MaxParts || size > MaxBytes || p.encoded == nil) {
			break
		}
		parts++
		if p.encoded == nil { // it has no room in a bundle
			break
		}
	}
	passengers := slices.Clone(l.queued[:parts])
	l.queued = slices.Delete(l.queued, 0, parts)
	if parts == 1 { // its own goroutine sends it
		passengers[0].alone = true
		close(passengers[0].done)
		return
	}
	f := newFlight(l, passengers)
	go f.run() // ends with its last passenger at the latest, who waits for it
}

// land frees the lane for the next flight.
func (l *lane) land() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken = len(l.queued) > 0; l.taken {
		l.depart()
	}
}

// goAlone sends a request by itself, on a lane that has been taken.
func (l *lane) goAlone(r *http.Request) (*http.Response, error) {
	land := sync.OnceFunc(l.land)
	timer := time.AfterFunc(l.patience, land)
	response, err := l.under.RoundTrip(r)
	timer.Stop()
	land()
	return response, err
}

// wait returns what becomes of a request.
func (l *lane) wait(p *part) (*http.Response, error) {
	select {
	case <-p.done:
	case <-p.ctx().Done():
		return nil, l.leave(p)
	}
	if p.alone && p.flight == nil {
		return l.goAlone(p.again())
	}
	if p.alone { // the flight took nobody
		return l.under.RoundTrip(p.again())
	}
	return p.response, p.err
}

// leave is for one whose time is over.
func (l *lane) leave(p *part) error {
	cause := context.Cause(p.ctx())
	l.mu.Lock()
	f := p.flight
	at := slices.Index(l.queued, p)
	if at >= 0 {
		l.queued = slices.Delete(l.queued, at, at+1)
	}
	l.mu.Unlock()
	switch {
	case at >= 0:
		return &carrier.NotSentError{Err: cause}
	case f == nil: // it was about to go by itself
		l.land()
		return &carrier.NotSentError{Err: cause}
	}
	f.leave(p)
	return cause
}

// refused notes that the server takes no bundles.
func (l *lane) refused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plain = time.Now().Add(plainFor)
}
