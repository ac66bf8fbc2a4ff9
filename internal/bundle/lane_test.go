package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/carrier"
)

// sky records what is under way below a Transport, and answers when told.
type sky struct {
	mu      sync.Mutex
	flights []string        // what was sent, in order; guarded by mu
	open    []chan struct{} // lets the answer of a flight come
}

// RoundTrip implements http.RoundTripper. What is in a bundle is answered when all
// of it is.
func (s *sky) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Err() != nil {
		return nil, &carrier.NotSentError{Err: context.Cause(r.Context())}
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	name := "alone " + r.URL.Path
	if r.URL.Path == path {
		name = fmt.Sprint("bundle of ", bytes.Count(body, []byte("GET"))+bytes.Count(body, []byte("PUT")))
		if _, ok := r.Header["Idempotency-Key"]; ok {
			name += ", repeatable"
		}
	}
	s.mu.Lock()
	open := make(chan struct{})
	s.flights, s.open = append(s.flights, name), append(s.open, open)
	s.mu.Unlock()
	select {
	case <-open:
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	response := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}
	if r.URL.Path == path {
		response.Header.Set("Content-Type", bundle.ContentType)
		var answers strings.Builder
		for i := range bytes.Count(body, []byte("GET")) + bytes.Count(body, []byte("PUT")) {
			answers.WriteString(answerOf(i, 200, ""))
		}
		response.Body = io.NopCloser(strings.NewReader(answers.String()))
	}
	return response, nil
}

func (s *sky) land(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.open[n])
}

func (s *sky) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if fmt.Sprint(s.flights) != fmt.Sprint(want) {
		t.Fatalf("%q took off; want %q", s.flights, want)
	}
}

// TestLanes follows who goes when.
func TestLanes(t *testing.T) {
	const host = "server:1"
	const url = "http://" + host
	begin := func(t *testing.T) (*sky, *bundle.Transport, func(r *http.Request) <-chan outcome) {
		s := new(sky)
		transport := bundle.New(bundle.Config{Under: s, Path: path})
		return s, transport, func(r *http.Request) <-chan outcome {
			ended := make(chan outcome, 1)
			go func() { ended <- call(transport, r) }()
			synctest.Wait()
			return ended
		}
	}
	free := func(t *testing.T, transport *bundle.Transport) {
		t.Helper()
		synctest.Wait()
		if transport.Taken(host, true) || transport.Taken(host, false) || transport.Queued(host, true)+transport.Queued(host, false) > 0 {
			t.Error("a lane stays taken")
		}
	}
	bubble := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
	bubble("one after another", func(t *testing.T) {
		s, transport, send := begin(t)
		for i := range 3 {
			send(request(t, t.Context(), "GET", url+"/a", ""))
			s.land(i)
		}
		s.want(t, "alone /a", "alone /a", "alone /a")
		free(t, transport)
	})
	bubble("those who wait go together", func(t *testing.T) {
		s, transport, send := begin(t)
		for range 4 {
			send(request(t, t.Context(), "GET", url+"/a", ""))
		}
		s.want(t, "alone /a")
		s.land(0)
		s.want(t, "alone /a", "bundle of 3, repeatable")
		send(request(t, t.Context(), "GET", url+"/b", ""))
		s.want(t, "alone /a", "bundle of 3, repeatable")
		s.land(1)
		s.want(t, "alone /a", "bundle of 3, repeatable", "alone /b")
		s.land(2)
		free(t, transport)
	})
	bubble("reads and changes, and other servers, do not wait", func(t *testing.T) {
		s, transport, send := begin(t)
		send(request(t, t.Context(), "GET", url+"/a", ""))
		send(request(t, t.Context(), "PUT", url+"/b", ""))
		send(request(t, t.Context(), "GET", "http://server:2/c", ""))
		s.want(t, "alone /a", "alone /b", "alone /c")
		for i := range 3 {
			s.land(i)
		}
		free(t, transport)
	})
	bubble("nobody waits longer than the patience", func(t *testing.T) {
		s, transport, send := begin(t)
		first := send(request(t, t.Context(), "GET", url+"/a", ""))
		for range 2 {
			send(request(t, t.Context(), "GET", url+"/b", ""))
		}
		time.Sleep(19 * time.Millisecond)
		s.want(t, "alone /a")
		time.Sleep(2 * time.Millisecond)
		s.want(t, "alone /a", "bundle of 2, repeatable")
		send(request(t, t.Context(), "GET", url+"/c", ""))
		s.land(0) // it has lost the lane, and must not give away that of the second
		if got := <-first; got.err != nil {
			t.Error(got)
		}
		s.want(t, "alone /a", "bundle of 2, repeatable")
		time.Sleep(20 * time.Millisecond)
		s.want(t, "alone /a", "bundle of 2, repeatable", "alone /c")
		time.Sleep(20 * time.Millisecond)
		free(t, transport)
		send(request(t, t.Context(), "GET", url+"/d", ""))
		s.want(t, "alone /a", "bundle of 2, repeatable", "alone /c", "alone /d")
		for i := 1; i < 4; i++ {
			s.land(i)
		}
		free(t, transport)
	})
	bubble("a flight whose passengers all leave", func(t *testing.T) {
		s, transport, send := begin(t)
		send(request(t, t.Context(), "GET", url+"/a", ""))
		ctx, cancel := context.WithCancel(t.Context())
		one, two := send(request(t, ctx, "GET", url+"/b", "")), send(request(t, ctx, "GET", url+"/b", ""))
		s.land(0)
		s.want(t, "alone /a", "bundle of 2, repeatable")
		three := send(request(t, t.Context(), "GET", url+"/c", ""))
		cancel()
		for _, ended := range []<-chan outcome{one, two} {
			if got := <-ended; !errors.Is(got.err, context.Canceled) || notSent(got.err) {
				t.Error(got)
			}
		}
		s.want(t, "alone /a", "bundle of 2, repeatable", "alone /c") // at once
		s.land(2)
		if got := <-three; got.err != nil {
			t.Error(got)
		}
		free(t, transport)
	})
	bubble("a bundle is sent again only when all that is in it may be", func(t *testing.T) {
		for _, test := range []struct {
			keyed int
			want  string
		}{{0, "bundle of 2"}, {1, "bundle of 2"}, {2, "bundle of 2, repeatable"}} {
			s, transport, send := begin(t)
			send(request(t, t.Context(), "PUT", url+"/a", ""))
			for i := range 2 {
				r := request(t, t.Context(), "PUT", url+"/b", "")
				if i < test.keyed {
					r.Header["Idempotency-Key"] = nil
				}
				send(r)
			}
			s.land(0)
			s.want(t, "alone /a", test.want)
			s.land(1)
			free(t, transport)
		}
	})
	bubble("one about to go alone leaves", func(t *testing.T) {
		s, transport, send := begin(t)
		send(request(t, t.Context(), "GET", url+"/a", ""))
		ctx, cancel := context.WithCancel(t.Context())
		two := send(request(t, ctx, "GET", url+"/b", ""))
		three := send(request(t, t.Context(), "PUT", url+"/c", "")) // of another lane
		s.land(0)
		cancel() // now or never: both wake it
		if got := <-two; got.err == nil {
			t.Error(got)
		}
		send(request(t, t.Context(), "GET", url+"/d", ""))
		time.Sleep(time.Second)
		for i := 1; i < len(s.open); i++ {
			s.land(i)
		}
		if got := <-three; got.err != nil {
			t.Error(got)
		}
		free(t, transport)
	})
}

// TestStress: whatever happens, everybody gets the answer to their own request, and
// who is told that nothing was sent has not been served.
func TestStress(t *testing.T) {
	const callers, calls = 24, 60
	var mu sync.Mutex
	served := make(map[string]int)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		mu.Lock()
		served[r.URL.Path]++
		mu.Unlock()
		seed := len(r.URL.Path) * (1 + len(body))
		switch seed % 7 {
		case 0:
			select {
			case <-time.After(time.Duration(seed%5) * time.Millisecond):
			case <-r.Context().Done():
			}
		case 1:
			if strings.HasSuffix(r.URL.Path, "7") {
				panic(http.ErrAbortHandler)
			}
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
	}, nil)
	b.SetPatience(2 * time.Millisecond)
	var all sync.WaitGroup
	var answered, cut, left atomic.Int64
	for caller := range callers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			for n := range calls {
				method := []string{"GET", "PUT", "POST", "DELETE"}[random.IntN(4)]
				where, body := fmt.Sprintf("/%d/%d", caller, n), ""
				if method[0] == 'P' {
					body = strings.Repeat(fmt.Sprintf("<%s>", where), 1+random.IntN(1200))
				}
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if random.IntN(4) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(random.IntN(3000))*time.Microsecond)
				}
				r := request(t, ctx, method, b.url+where, body)
				got := call(b, r)
				mu.Lock()
				times := served[where]
				mu.Unlock()
				switch {
				case got.err == nil:
					answered.Add(1)
					if want := fmt.Sprintf("%s %s %s", method, where, body); got.body != want || times < 1 {
						t.Errorf("%s %s, served %d times: %v", method, where, times, got)
					}
				case notSent(got.err) && times > 0:
					t.Errorf("%s %s was served, and its caller told that it was not sent: %v", method, where, got.err)
				case ctx.Err() != nil:
					left.Add(1)
				default:
					cut.Add(1)
				}
				r.Header.Set("X-Mine", "again") // nobody else looks at it any more
				cancel()
			}
		})
	}
	all.Wait()
	b.wantSettled(t)
	mu.Lock()
	defer mu.Unlock()
	for where, times := range served {
		if times > 1 {
			t.Logf("%s was served %d times", where, times)
		}
	}
	if answered.Load() < callers*calls/2 || b.bundles.Load() == 0 || left.Load() == 0 {
		t.Errorf("%d answered, %d left, %d cut off, %d bundles", answered.Load(), left.Load(), cut.Load(), b.bundles.Load())
	}
	t.Logf("%d answered, %d left, %d cut off, %d bundles, %d by themselves", answered.Load(), left.Load(), cut.Load(), b.bundles.Load(), b.single.Load())
}
