package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.ErrClosedPipe }

// TestLeaveBeforeGoingAlone: the lane was the leaver's, and nobody else gives it back.
func TestLeaveBeforeGoingAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", "http://server:1/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPart(r)
	if err != nil {
		t.Fatal(err)
	}
	l := &lane{patience: time.Hour, under: failing{}}
	l.queue(p)
	cancel()
	if err := l.leave(p); err == nil || l.taken {
		t.Errorf("taken: %t; %v", l.taken, err)
	}
}

// TestLastPassenger: whoever leaves last waits for the flight, so that nothing goes on
// when all calls have returned.
func TestLastPassenger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var parts []*part
		for range 2 {
			r, err := http.NewRequestWithContext(ctx, "GET", "http://server:1/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			p, err := newPart(r)
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, p)
		}
		u := &stubborn{over: make(chan struct{})}
		l := &lane{patience: time.Hour, taken: true, under: u, url: "http://server:1/bundle"}
		f := newFlight(l, parts)
		go f.run()
		synctest.Wait()
		cancel()
		l.leave(parts[0])
		left := make(chan struct{})
		go func() { l.leave(parts[1]); close(left) }()
		synctest.Wait()
		select {
		case <-left:
			t.Error("the last one did not wait")
		default:
		}
		if u.ctx.Err() == nil {
			t.Error("the flight is not told to end")
		}
		close(u.over)
		<-left
		if l.taken {
			t.Error("the lane stays taken")
		}
	})
}

// stubborn ends when it likes to.
type stubborn struct {
	ctx  context.Context
	over chan struct{}
}

func (s *stubborn) RoundTrip(r *http.Request) (*http.Response, error) {
	s.ctx = r.Context()
	<-s.over
	return nil, r.Context().Err()
}

// TestLanesAreBounded: hosts that are called once are not remembered for ever.
func TestLanesAreBounded(t *testing.T) {
	transport := New(Config{Under: failing{}, Path: "/bundle"})
	for i := range 3 * maxLanes {
		r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://server:%d/x", i+1), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := transport.RoundTrip(r); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
	}
	if len(transport.lanes) > maxLanes {
		t.Errorf("%d lanes", len(transport.lanes))
	}
}
