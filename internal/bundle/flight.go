package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// flight is a bundle on its way.
type flight struct {
	lane   *lane
	parts  []*part
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	waiting int // passengers that have no answer and want one; guarded by mu
}

// newFlight is called with the mutex of the lane.
func newFlight(l *lane, parts []*part) *flight {
	f := &flight{lane: l, parts: parts, ended: make(chan struct{}), waiting: len(parts)}
	f.ctx, f.cancel = context.WithCancel(context.Background()) // that of nobody alone
	for _, p := range parts {
		p.flight = f
	}
	return f
}

// leave is for a passenger who does not wait any more. The last one ends the flight.
func (f *flight) leave(p *part) {
	if f.settle(p) == 0 {
		f.cancel()
		<-f.ended
	}
}

// settle returns how many passengers still wait when p does not.
func (f *flight) settle(p *part) (waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !p.settled {
		p.settled = true
		f.waiting--
	}
	return f.waiting
}

// run carries the bundle and hands out the answers.
func (f *flight) run() {
	defer close(f.ended)
	defer f.cancel()
	land := sync.OnceFunc(f.lane.land)
	defer land()
	timer := time.AfterFunc(f.lane.patience, land)
	defer timer.Stop()
	response, err := f.send()
	if err != nil {
		f.fail(err)
		return
	}
	defer response.Body.Close() // waits shortly for the end, so that the connection can be used again
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != ContentType {
		// None of the requests has been served: they go one by one.
		if response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusMethodNotAllowed {
			f.lane.refused()
		}
		f.disperse()
		return
	}
	land()
	f.fail(f.handOut(response.Body))
}

func (f *flight) send() (*http.Response, error) {
	size := 0
	repeatable := true
	for _, p := range f.parts {
		size += len(p.encoded)
		repeatable = repeatable && p.repeatable
	}
	data := make([]byte, 0, size)
	for _, p := range f.parts {
		data = append(data, p.encoded...)
	}
	request, err := http.NewRequestWithContext(f.ctx, http.MethodPost, f.lane.url, nil)
	if err != nil {
		return nil, fmt.Errorf("the bundle cannot be sent: %w", err)
	}
	request.Body, request.ContentLength = &memory{data}, int64(size)
	request.GetBody = func() (io.ReadCloser, error) { return &memory{data}, nil }
	request.Header.Set("Content-Type", ContentType)
	if repeatable {
		request.Header["Idempotency-Key"] = nil // see carrier.Transport
	}
	return f.lane.under.RoundTrip(request)
}

// handOut gives everybody their answer. It returns why there are no more.
func (f *flight) handOut(r io.Reader) error {
	for range f.parts {
		a, err := readAnswer(r)
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case a.index >= len(f.parts) || f.parts[a.index].over:
			return fmt.Errorf("%w: request %d is answered twice, or is none", errDamaged, a.index)
		}
		p := f.parts[a.index]
		switch {
		case a.status == statusTooLong && p.repeatable:
			p.alone = true
		case a.status == statusTooLong:
			p.err = errTooLong
		case a.status == statusCutOff:
			p.err = io.ErrUnexpectedEOF
		default:
			p.answered(a)
		}
		f.finish(p)
	}
	return nil
}

// finish lets a passenger go.
func (f *flight) finish(p *part) {
	f.settle(p)
	p.over = true
	close(p.done)
}

// fail tells those who have no answer why.
func (f *flight) fail(err error) {
	for _, p := range f.parts {
		if !p.over {
			p.err = err
			f.finish(p)
		}
	}
}

// disperse sends everybody by themselves.
func (f *flight) disperse() {
	for _, p := range f.parts {
		p.alone = true
		f.finish(p)
	}
}
