package bundle_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/carrier"
)

// answerOf is an answer as it lies in a bundle.
func answerOf(index, status int, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(5+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(index))
	b = binary.BigEndian.AppendUint16(b, uint16(status))
	return string(append(b, 0)) + body
}

func get(t *testing.T, b *bed, n int) []*http.Request {
	var requests []*http.Request
	for i := range n {
		requests = append(requests, request(t, t.Context(), "GET", fmt.Sprintf("%s/%d", b.url, i), ""))
	}
	return requests
}

func post(t *testing.T, b *bed, n int) []*http.Request {
	var requests []*http.Request
	for i := range n {
		requests = append(requests, request(t, t.Context(), "POST", fmt.Sprintf("%s/%d", b.url, i), fmt.Sprint("body ", i)))
	}
	return requests
}

// TestServers are those that do not answer as they should. A caller may believe that
// nothing has happened only when that is so.
func TestServers(t *testing.T) {
	bundled := func(w http.ResponseWriter) { w.Header().Set("Content-Type", bundle.ContentType) }
	send := func(answers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			bundled(w)
			io.WriteString(w, strings.Join(answers, ""))
		}
	}
	refuse := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no bundles", status) }
	}
	one, two, three := answerOf(0, 201, "one"), answerOf(1, 202, "two"), answerOf(2, 203, "three")
	tests := []struct {
		name   string
		server http.HandlerFunc
		want   [3]string // an answer, "error", or "alone"
	}{
		{"in another order", send(three, one, two), [3]string{"201 one", "202 two", "203 three"}},
		{"more than is answered", send(one, two, three, "surplus"), [3]string{"201 one", "202 two", "203 three"}},
		{"none", send(), [3]string{"error", "error", "error"}},
		{"one of three", send(two), [3]string{"error", "202 two", "error"}},
		{"cut off in the middle", func(w http.ResponseWriter, r *http.Request) {
			send(two)(w, r)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, [3]string{"error", "202 two", "error"}},
		{"cut off before", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}, [3]string{"error", "error", "error"}},
		{"half an answer", send(two, one[:7]), [3]string{"error", "202 two", "error"}},
		{"half a length", send(two, one[:2]), [3]string{"error", "202 two", "error"}},
		{"answered twice", send(one, one, two), [3]string{"201 one", "error", "error"}},
		{"an unknown request", send(two, answerOf(3, 200, "x"), one), [3]string{"error", "202 two", "error"}},
		{"a status that is none", send(two, answerOf(0, 199, "x"), one), [3]string{"error", "202 two", "error"}},
		{"a long one", send(two, "\xff\xff\xff\xff", one), [3]string{"error", "202 two", "error"}},
		{"a short one", send(two, "\x00\x00\x00\x01x", one), [3]string{"error", "202 two", "error"}},
		{"no header", send(two, "\x00\x00\x00\x05\x00\x00\x00\xc8\x01", one), [3]string{"error", "202 two", "error"}},
		{"a bad name", send(two, "\x00\x00\x00\x0a\x00\x00\x00\xc8\x01\x02 x\x00\x00", one), [3]string{"error", "202 two", "error"}},
		{"a bad value", send(two, "\x00\x00\x00\x0a\x00\x00\x00\xc8\x01\x01X\x00\x01\n", one), [3]string{"error", "202 two", "error"}},
		{"given up", send(two, answerOf(0, 0, ""), three), [3]string{"error", "202 two", "203 three"}},
		{"busy", refuse(503), [3]string{"alone", "alone", "alone"}},
		{"too much", refuse(413), [3]string{"alone", "alone", "alone"}},
		{"unknown", refuse(404), [3]string{"alone", "alone", "alone"}},
		{"another method", refuse(405), [3]string{"alone", "alone", "alone"}},
		{"somebody else", refuse(200), [3]string{"alone", "alone", "alone"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "alone %s %s", r.URL.Path, body)
			}, test.server)
			for i, got := range b.share(t, true, post(t, b, 3)...) {
				var is string
				switch {
				case got.err != nil && !notSent(got.err):
					is = "error"
				case got.body == fmt.Sprintf("alone /%d body %d", i, i):
					is = "alone"
				default:
					is = fmt.Sprint(got.status, " ", got.body)
				}
				if is != test.want[i] {
					t.Errorf("request %d: %v; want %s", i, got, test.want[i])
				}
			}
			b.wantSettled(t)
		})
	}
}

// TestRefusalIsRemembered: who does not know bundles is not asked each time; who is
// busy is.
func TestRefusalIsRemembered(t *testing.T) {
	for status, want := range map[int]int64{404: 1, 405: 1, 503: 2} {
		b := newBed(t, echo, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", status) })
		b.share(t, false, get(t, b, 2)...)
		b.wantSettled(t)
		if want == 2 {
			b.share(t, false, get(t, b, 2)...)
		} else {
			// The lane is not taken now, whatever is under way.
			land := b.hold(t, false)
			for i, r := range get(t, b, 2) {
				if got := call(b, r); got.err != nil || got.status != 200 {
					t.Errorf("request %d: %v", i, got)
				}
			}
			land()
		}
		if b.bundles.Load() != want || b.single.Load() != 4 {
			t.Errorf("%d: %d bundles, %d requests by themselves", status, b.bundles.Load(), b.single.Load())
		}
	}
}

// TestTooLong: a long answer is fetched once more by itself, where that changes
// nothing.
func TestTooLong(t *testing.T) {
	long := strings.Repeat("x", 1<<20+1)
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		body := long
		if r.URL.Path == "/0" {
			body = "short"
		}
		for ; body != ""; body = body[min(len(body), 64<<10):] {
			io.WriteString(w, body[:min(len(body), 64<<10)])
		}
	}, nil)
	got := b.share(t, false, get(t, b, 3)...)
	if got[0].body != "short" || got[1].body != long || got[2].body != long || b.single.Load() != 2 {
		t.Error(got, b.single.Load())
	}
	requests := post(t, b, 3)
	requests[2].Header["Idempotency-Key"] = nil
	got = b.share(t, true, requests...)
	if got[0].body != "short" || got[1].err == nil || notSent(got[1].err) || got[2].body != long || b.single.Load() != 3 {
		t.Error(got, b.single.Load())
	}
}

// TestStreams: who is served soon does not wait for the others in the bundle, nor
// does the next bundle.
func TestStreams(t *testing.T) {
	slow := make(chan struct{})
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			<-slow
		}
		io.WriteString(w, r.URL.Path)
	}, nil)
	land := b.hold(t, false)
	ended := b.enqueue(t, false, get(t, b, 3)...)
	land()
	for _, i := range []int{0, 2} {
		if got := receive(t, "the answer of a fast one", ended[i]); got.body != fmt.Sprint("/", i) {
			t.Error(got)
		}
	}
	b.wantSettled(t)
	if got := b.share(t, false, get(t, b, 1)...); got[0].body != "/0" {
		t.Error(got)
	}
	close(slow)
	if got := receive(t, "the answer of the slow one", ended[1]); got.body != "/1" {
		t.Error(got)
	}
}

// TestNobodyThere: all hear that nothing has left.
func TestNobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	under := carrier.New(carrier.Config{})
	gate := make(chan struct{})
	transport := bundle.New(bundle.Config{Path: path, Under: roundTripper(func(r *http.Request) (*http.Response, error) {
		<-gate
		return under.RoundTrip(r)
	})})
	b := &bed{Transport: transport, url: "http://" + listener.Addr().String(), host: listener.Addr().String()}
	land := make(chan outcome, 1)
	b.SetPatience(1 << 60)
	go func() { land <- call(b, request(t, t.Context(), "DELETE", b.url+"/first", "")) }()
	until(t, "the lane is taken", func() bool { return b.Taken(b.host, true) })
	ended := b.enqueue(t, true, post(t, b, 3)...)
	close(gate)
	for i, got := range append(collect(t, ended), receive(t, "the first", land)) {
		if !notSent(got.err) {
			t.Errorf("request %d: %v", i, got)
		}
	}
	b.wantSettled(t)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestContexts: a caller who leaves takes nobody along, whenever that is.
func TestContexts(t *testing.T) {
	cause := errors.New("I am off")
	var served atomic.Int64
	arrived, answer := make(chan struct{}, 9), make(chan struct{})
	b := newBed(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		arrived <- struct{}{}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
		io.WriteString(w, r.URL.Path)
	}, nil)
	leaving := func(n int) ([]*http.Request, []context.CancelCauseFunc) {
		var requests []*http.Request
		var leave []context.CancelCauseFunc
		for _, r := range post(t, b, n) {
			ctx, cancel := context.WithCancelCause(t.Context())
			r = r.WithContext(ctx)
			requests, leave = append(requests, r), append(leave, cancel)
		}
		return requests, leave
	}
	// A caller who has left may do with the request what they like.
	gone := func(t *testing.T, got outcome, r *http.Request, sent bool) {
		t.Helper()
		r.Header.Set("Idempotency-Key", "mine")
		if !errors.Is(got.err, cause) || notSent(got.err) == sent {
			t.Errorf("%v (not sent: %t)", got, notSent(got.err))
		}
	}
	for _, who := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("queued, number ", who), func(t *testing.T) {
			requests, leave := leaving(3)
			served.Store(0)
			land := b.hold(t, true)
			ended := b.enqueue(t, true, requests...)
			leave[who](cause)
			gone(t, receive(t, "one leaves", ended[who]), requests[who], false)
			land()
			for range 2 {
				receive(t, "a request arrives", arrived)
				answer <- struct{}{}
			}
			for i := range 3 {
				if i != who {
					if got := receive(t, "the others", ended[i]); got.body != fmt.Sprint("/", i) {
						t.Error(got)
					}
				}
			}
			if served.Load() != 2 {
				t.Errorf("%d were served", served.Load())
			}
			b.wantSettled(t)
		})
	}
	t.Run("all that are queued", func(t *testing.T) {
		requests, leave := leaving(3)
		served.Store(0)
		land := b.hold(t, true)
		ended := b.enqueue(t, true, requests...)
		for i := range 3 {
			leave[i](cause)
			gone(t, receive(t, "one leaves", ended[i]), requests[i], false)
		}
		land()
		b.wantSettled(t)
		if served.Load() != 0 {
			t.Errorf("%d were served", served.Load())
		}
	})
	t.Run("in the air", func(t *testing.T) {
		requests, leave := leaving(3)
		land := b.hold(t, true)
		ended := b.enqueue(t, true, requests...)
		land()
		for range 3 {
			receive(t, "a request arrives", arrived)
		}
		leave[1](cause)
		gone(t, receive(t, "one leaves", ended[1]), requests[1], true)
		for range 3 {
			answer <- struct{}{}
		}
		for _, i := range []int{0, 2} {
			if got := receive(t, "the others", ended[i]); got.body != fmt.Sprint("/", i) {
				t.Error(got)
			}
		}
		b.wantSettled(t)
	})
	t.Run("all in the air", func(t *testing.T) {
		requests, leave := leaving(3)
		land := b.hold(t, true)
		ended := b.enqueue(t, true, requests...)
		land()
		for range 3 {
			receive(t, "a request arrives", arrived)
		}
		for i := range 3 {
			leave[i](cause)
			gone(t, receive(t, "one leaves", ended[i]), requests[i], true)
		}
		b.wantSettled(t) // and the server hears of it: its handlers end, or it could not be closed
	})
	t.Run("ended before", func(t *testing.T) {
		requests, leave := leaving(1)
		leave[0](cause)
		gone(t, call(b, requests[0]), requests[0], false)
		b.wantSettled(t)
	})
}

// TestBodies: what is wrong with a body is seen before anything leaves, and nobody
// else waits for it.
func TestBodies(t *testing.T) {
	broken := errors.New("broken")
	b := newBed(t, echo, nil)
	land := b.hold(t, true)
	ended := b.enqueue(t, true, post(t, b, 2)...)
	for name, body := range map[string]io.Reader{
		"short": strings.NewReader("1234"), "long": strings.NewReader("123456"), "broken": io.MultiReader(strings.NewReader("123"), failing{broken}),
	} {
		closed := &closing{Reader: body}
		r := request(t, t.Context(), "PUT", b.url+"/x", "")
		r.Body, r.ContentLength = closed, 5
		if got := call(b, r); !notSent(got.err) || name == "broken" && !errors.Is(got.err, broken) || !closed.is {
			t.Errorf("%s: %v", name, got)
		}
	}
	land()
	for _, got := range collect(t, ended) {
		if got.status != 200 {
			t.Error(got)
		}
	}
	b.wantSettled(t)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type closing struct {
	io.Reader
	is bool
}

func (c *closing) Close() error { c.is = true; return nil }

// TestLimits: what does not fit into a bundle goes with the next, or by itself.
func TestLimits(t *testing.T) {
	b := newBed(t, echo, nil)
	share := func(changes bool, bundles, single int64, requests ...*http.Request) {
		t.Helper()
		beforeBundles, beforeSingle := b.bundles.Load(), b.single.Load()
		for i, got := range b.share(t, changes, requests...) {
			if want := fmt.Sprintf("%s %s", requests[i].Method, requests[i].URL.RequestURI()); got.status != 200 || !strings.HasPrefix(got.body, want) {
				t.Errorf("request %d: %v", i, got)
			}
		}
		if got, alone := b.bundles.Load()-beforeBundles, b.single.Load()-beforeSingle; got != bundles || alone != single {
			t.Errorf("%d bundles and %d by themselves; want %d and %d", got, alone, bundles, single)
		}
		b.wantSettled(t)
	}
	share(false, 1, 0, get(t, b, bundle.MaxParts)...)
	share(false, 1, 1, get(t, b, bundle.MaxParts+1)...)
	share(false, 2, 0, get(t, b, bundle.MaxParts+2)...)
	var large []*http.Request
	for i := range 8 {
		r := request(t, t.Context(), "PUT", fmt.Sprintf("%s/%d", b.url, i), strings.Repeat("x", bundle.MaxBody))
		large = append(large, r)
	}
	share(true, 3, 0, large...) // three have room in one
	odd := get(t, b, 5)
	odd[2].Header.Set("X-Long", strings.Repeat("x", 40<<10))
	share(false, 2, 1, odd...)
	odd = get(t, b, 5)
	for i := range 40 {
		odd[0].Header.Set(fmt.Sprint("X-", i), "x")
	}
	share(false, 1, 1, odd...)
}
