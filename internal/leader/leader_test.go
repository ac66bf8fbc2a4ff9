package leader_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clusterA = "0123456789abcdef0123456789abcdef"
	clusterB = "fedcba9876543210fedcba9876543210"
)

// nameNode is a fake one: it answers as its handler says and notes what it was
// asked.
type nameNode struct {
	*httptest.Server
	cluster string

	mu       sync.Mutex
	handler  http.HandlerFunc // guarded by mu
	requests []*http.Request  // guarded by mu
}

func newNameNode(t *testing.T, handler http.HandlerFunc) *nameNode {
	n := &nameNode{handler: handler, cluster: clusterA}
	n.Server = httptest.NewServer(n)
	t.Cleanup(func() {
		n.CloseClientConnections()
		n.Close()
	})
	return n
}

func (n *nameNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.requests = append(n.requests, r)
	handler := n.handler
	n.mu.Unlock()
	if n.cluster != "" {
		w.Header().Set(protocol.HeaderClusterID, n.cluster)
	}
	w.Header().Set(protocol.HeaderNodeID, "nn1")
	w.Header().Set(protocol.HeaderAppliedIndex, "7")
	handler(w, r)
}

func (n *nameNode) set(handler http.HandlerFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handler = handler
}

func (n *nameNode) asked() []*http.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*http.Request(nil), n.requests...)
}

// newStranger is a server that does not say that it is a NameNode.
func newStranger(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func answer(w http.ResponseWriter, _ *http.Request) {
	protocol.WriteJSON(w, http.StatusOK, protocol.PathReply{Path: "/done"})
}

func refuse(code dfs.Code, message string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		protocol.WriteError(w, dfs.Errorf(code, "%s", message))
	}
}

func pointTo(n *nameNode) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(protocol.HeaderLeader, n.URL)
		w.Header().Set("Location", n.URL+r.URL.RequestURI())
		protocol.WriteError(w, dfs.Errorf(dfs.NotLeader, "not the leader"))
	}
}

var noLeader = refuse(dfs.NotLeader, "there is no leader", "Retry-After", "1")

// silence reads the request and never answers.
func silence(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // net/http notices that the caller left only after this
	<-r.Context().Done()
}

// inTurn answers the first request with the first handler and so on; the last
// one stays.
func inTurn(handlers ...http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		handler := handlers[0]
		if len(handlers) > 1 {
			handlers = handlers[1:]
		}
		mu.Unlock()
		handler(w, r)
	}
}

// newCaller takes nobody for silent.
func newCaller(t *testing.T, urls ...string) *leader.Caller {
	return callerWith(t, leader.Config{Endpoints: urls, TryTimeout: time.Minute})
}

// newImpatient soon takes for silent who does not answer, be it the fault of a
// busy machine: how often it asks depends on that.
func newImpatient(t *testing.T, urls ...string) *leader.Caller {
	return callerWith(t, leader.Config{Endpoints: urls, TryTimeout: 200 * time.Millisecond})
}

func callerWith(t *testing.T, config leader.Config) *leader.Caller {
	c, err := leader.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// givenUpAfter returns a caller, and a context that ends when so many of its
// tries have failed.
func givenUpAfter(t *testing.T, tries int64, urls ...string) (context.Context, *leader.Caller) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	var failed atomic.Int64
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: writerFunc(func(line string) {
		if strings.Contains(line, "trying on") && failed.Add(1) == tries {
			cancel()
		}
	})})
	return ctx, callerWith(t, leader.Config{Endpoints: urls, TryTimeout: time.Minute, Logger: log})
}

type writerFunc func(line string)

func (f writerFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

func deadURL(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return "http://" + listener.Addr().String()
}

func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// givenUpWhenAsked returns a context and a handler that ends it instead of
// answering.
func givenUpWhenAsked(t *testing.T) (context.Context, http.HandlerFunc) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		silence(w, r)
	}
}

func mkdir(ctx context.Context, c *leader.Caller) error {
	var reply protocol.PathReply
	err := c.Do(ctx, protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{Path: "/done"}, Out: &reply})
	if err == nil && reply.Path != "/done" {
		return errors.New("the answer did not arrive")
	}
	return err
}

// stat is a read: however it ends, nothing can have happened.
func stat(ctx context.Context, c *leader.Caller) error {
	return c.Do(ctx, protocol.Stat, leader.Call{})
}

func wantCode(t *testing.T, err error, code dfs.Code, words ...string) {
	t.Helper()
	if dfs.CodeOf(err) != code {
		t.Fatalf("got %q (%v), want code %q", dfs.CodeOf(err), err, code)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func TestNewRefusesBadEndpoints(t *testing.T) {
	for _, list := range [][]string{nil, {""}, {"localhost:8000"}, {"http://a:1/x"}, {"http://a:8000", "ftp://b:1"}} {
		if _, err := leader.New(leader.Config{Endpoints: list}); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%q: got %v, want it refused", list, err)
		}
	}
	c := newCaller(t, "http://a:8000", "http://a:8000/", "http://b:8000")
	if got := c.Endpoints(); len(got) != 2 {
		t.Errorf("duplicates stay: %q", got)
	}
}

func TestFailover(t *testing.T) {
	var leads *nameNode
	for name, first := range map[string]func(*testing.T) string{
		"connection refused": deadURL,
		"black hole":         func(t *testing.T) string { return newNameNode(t, silence).URL },
		"points to the leader": func(t *testing.T) string {
			return newNameNode(t, func(w http.ResponseWriter, r *http.Request) { pointTo(leads)(w, r) }).URL
		},
		"has no leader": func(t *testing.T) string { return newNameNode(t, noLeader).URL },
		"unknown outcome": func(t *testing.T) string {
			return newNameNode(t, refuse(dfs.UnknownOutcome, "lost leadership", "Retry-After", "1")).URL
		},
		"time-out": func(t *testing.T) string { return newNameNode(t, refuse(dfs.Timeout, "too slow")).URL },
		"not ready": func(t *testing.T) string {
			return newNameNode(t, refuse(dfs.Unavailable, "wait", "Retry-After", "1")).URL
		},
		"proxy without a backend": func(t *testing.T) string {
			return newStranger(t, func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "<html>Bad Gateway</html>", http.StatusBadGateway)
			}).URL
		},
		"hangs up": func(t *testing.T) string {
			return newNameNode(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }).URL
		},
		"answer cut off": func(t *testing.T) string {
			return newNameNode(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write([]byte(`{"path":"/do`))
			}).URL
		},
	} {
		t.Run(name, func(t *testing.T) {
			leads = newNameNode(t, answer)
			urls := []string{first(t), leads.URL}
			c, silent := newCaller(t, urls...), name == "black hole"
			if silent {
				c = newImpatient(t, urls...)
			}
			if err := mkdir(within(t, 20*time.Second), c); err != nil {
				t.Fatal(err)
			}
			if err := mkdir(within(t, 20*time.Second), c); err != nil {
				t.Fatal(err)
			}
			if n := len(leads.asked()); n < 2 || n > 2 && !silent {
				t.Errorf("the leader was asked %d times, want 2", n)
			}
		})
	}
}

func TestLastLeaderIsAskedFirst(t *testing.T) {
	leads := newNameNode(t, answer)
	follows := newNameNode(t, pointTo(leads))
	c := newCaller(t, follows.URL, leads.URL)
	for range 5 {
		if err := mkdir(within(t, 20*time.Second), c); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(follows.asked()); n != 1 {
		t.Errorf("the follower was asked %d times, want once", n)
	}
}

func TestHintsBeyondTheConfigured(t *testing.T) {
	leads := newNameNode(t, answer)
	follows := newNameNode(t, pointTo(leads))
	c := newCaller(t, follows.URL)
	if err := mkdir(within(t, 20*time.Second), c); err != nil {
		t.Fatal(err)
	}
	follows.Close()
	if err := mkdir(within(t, 20*time.Second), c); err != nil {
		t.Fatal("the learnt leader is forgotten:", err)
	}
}

func TestMembersAreLearnt(t *testing.T) {
	third := newNameNode(t, answer)
	second := newNameNode(t, answer)
	first := newNameNode(t, func(w http.ResponseWriter, _ *http.Request) {
		protocol.WriteJSON(w, http.StatusOK, protocol.LeaderReply{
			NodeID:  "nn1",
			Leader:  &protocol.Target{ID: "nn1"},
			Members: []protocol.Member{{ID: "nn2", URL: second.URL}, {ID: "nn3", URL: third.URL}, {ID: "nn4", URL: "gopher://x"}},
		})
	})
	c := newCaller(t, first.URL)
	if _, err := c.Leader(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := c.Endpoints(); len(got) != 3 {
		t.Fatalf("endpoints: %q", got)
	}
	first.Close()
	second.Close()
	if err := mkdir(within(t, 20*time.Second), c); err != nil {
		t.Fatal(err)
	}
}

// Two that point at each other must not keep a call from the third, nor spin.
func TestHintLoop(t *testing.T) {
	a := newNameNode(t, nil)
	b := newNameNode(t, pointTo(a))
	a.set(pointTo(b))
	leads := newNameNode(t, answer)
	if err := mkdir(within(t, 20*time.Second), newCaller(t, a.URL, b.URL, leads.URL)); err != nil {
		t.Fatal(err)
	}
	if n := len(a.asked()) + len(b.asked()); n != 2 {
		t.Errorf("the two were asked %d times, want once each", n)
	}
	const rounds = 8
	ctx, c := givenUpAfter(t, 2*rounds, a.URL, b.URL)
	before, began := len(a.asked()), time.Now()
	wantCode(t, stat(ctx, c), dfs.Unavailable, a.URL, b.URL)
	if n := len(a.asked()) - before; n != rounds {
		t.Errorf("asked %d times in %d rounds", n, rounds)
	}
	if took := time.Since(began); took < 400*time.Millisecond { // the least that the pauses add up to is 412.5 ms
		t.Errorf("%d rounds in %s: the back-off is gone", rounds, took)
	}
}

func TestHintsAreNotAPath(t *testing.T) {
	bad := newNameNode(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(protocol.HeaderLeader, "file:///etc/passwd")
		w.Header().Set("Location", "javascript:alert(1)")
		protocol.WriteError(w, dfs.Errorf(dfs.NotLeader, "not the leader"))
	})
	ctx, c := givenUpAfter(t, 2, bad.URL)
	wantCode(t, stat(ctx, c), dfs.Unavailable, bad.URL)
	if got := c.Endpoints(); len(got) != 1 {
		t.Errorf("endpoints: %q", got)
	}
}

func TestRequestIDStaysTheSame(t *testing.T) {
	n := newNameNode(t, inTurn(
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		refuse(dfs.UnknownOutcome, "lost leadership", "Retry-After", "1"), silence, noLeader, answer))
	c := newImpatient(t, n.URL)
	if err := mkdir(within(t, 30*time.Second), c); err != nil {
		t.Fatal(err)
	}
	requests := n.asked()
	first := requests[0].Header.Get(protocol.HeaderRequestID)
	if _, err := dfs.ParseRequestID(first); err != nil {
		t.Fatal(err)
	}
	if len(requests) < 5 { // more when an answer comes too late
		t.Errorf("%d tries, want 5", len(requests))
	}
	age := -1
	for i, r := range requests {
		if got := r.Header.Get(protocol.HeaderRequestID); got != first {
			t.Errorf("request ID %q, first %q", got, first)
		}
		text := r.Header.Get(protocol.HeaderRequestAge)
		older, err := strconv.Atoi(text)
		if i == 0 && text != "" || i > 0 && (err != nil || older <= age) {
			t.Errorf("try %d is of age %q, after %d", i, text, age)
		}
		age = older
	}
	if err := mkdir(within(t, 20*time.Second), c); err != nil {
		t.Fatal(err)
	}
	requests = n.asked()
	if got := requests[len(requests)-1].Header.Get(protocol.HeaderRequestAge); got != "" {
		t.Errorf("the first try of another call is of age %q", got)
	}
	if got := requests[len(requests)-1].Header.Get(protocol.HeaderRequestID); got == first {
		t.Error("another call has the same request ID")
	}
}

// A NameNode that has forgotten what became of an earlier try is believed.
func TestForgotten(t *testing.T) {
	n := newNameNode(t, inTurn(
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		refuse(dfs.UnknownOutcome, "it is not known any more"), answer))
	wantCode(t, mkdir(within(t, 30*time.Second), newImpatient(t, n.URL)), dfs.UnknownOutcome, "it is not known any more")
	if got := len(n.asked()); got != 2 {
		t.Errorf("%d tries", got)
	}
}

func TestRequestIDOfTheCaller(t *testing.T) {
	n := newNameNode(t, answer)
	c := newCaller(t, n.URL)
	ctx := within(t, 20*time.Second)
	if err := c.Do(ctx, protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{}, RequestID: "mine"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Do(ctx, protocol.Stat, leader.Call{Query: url.Values{"path": {"/a b"}}}); err != nil {
		t.Fatal(err)
	}
	requests := n.asked()
	if got := requests[0].Header.Get(protocol.HeaderRequestID); got != "mine" {
		t.Errorf("request ID %q", got)
	}
	if got := requests[1].Header.Get(protocol.HeaderRequestID); got != "" {
		t.Errorf("a read has the request ID %q", got)
	}
	if got := requests[1].URL.Query().Get("path"); got != "/a b" {
		t.Errorf("path %q", got)
	}
}

func TestFinalRefusals(t *testing.T) {
	for _, code := range []dfs.Code{dfs.Invalid, dfs.NotFound, dfs.Exists, dfs.Conflict, dfs.NoSpace, dfs.Internal, dfs.TooLarge, dfs.Unavailable, dfs.OverLimit, dfs.WrongCluster} {
		first := newNameNode(t, refuse(code, "the very sentence"))
		second := newNameNode(t, answer)
		err := mkdir(within(t, 20*time.Second), newCaller(t, first.URL, second.URL))
		wantCode(t, err, code, "the very sentence")
		if len(first.asked()) != 1 || len(second.asked()) != 0 {
			t.Errorf("%s was tried again", code)
		}
	}
}

// What a server says that is no NameNode is not believed: neither that a thing
// is not there, nor that a deed is done. The NameNodes that there are decide.
func TestStrangers(t *testing.T) {
	asDataNode := func(handler http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(protocol.HeaderNodeID, "dn1")
			w.Header().Set(protocol.HeaderClusterID, clusterA)
			handler(w, r)
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"404":                    http.NotFound,
		"404 like ours":          refuse(dfs.NotFound, "nothing here"),
		"404 of a DataNode":      asDataNode(refuse(dfs.NotFound, "a DataNode has no such thing")),
		"405 of a DataNode":      asDataNode(refuse(dfs.MethodNotAllowed, "no")),
		"200 of a web server":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) },
		"200 with JSON":          func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) },
		"302 to somewhere":       http.RedirectHandler("/login", http.StatusFound).ServeHTTP,
		"500 with an empty body": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			stranger := newStranger(t, handler)
			n := newNameNode(t, answer)
			if err := mkdir(within(t, 20*time.Second), newCaller(t, stranger.URL, n.URL)); err != nil || len(n.asked()) != 1 {
				t.Errorf("with a NameNode behind it: %v", err)
			}
			ctx, c := givenUpAfter(t, 2, stranger.URL) // what may be a proxy is asked again
			wantCode(t, stat(ctx, c), dfs.Unavailable, stranger.URL+" is not a NameNode", "check the addresses of the NameNodes")
			err := c.DoAt(within(t, 20*time.Second), stranger.URL, protocol.Stat, leader.Call{})
			wantCode(t, err, dfs.Unavailable, "is not a NameNode")
		})
	}
}

// A NameNode that waits to be let in does not know the cluster yet; its word
// counts all the same.
func TestJoinerIsBelieved(t *testing.T) {
	n := newNameNode(t, refuse(dfs.Conflict, "not let in yet"))
	n.cluster = ""
	wantCode(t, mkdir(within(t, 20*time.Second), newCaller(t, n.URL)), dfs.Conflict, "not let in yet")
}

func TestSettingIsNamed(t *testing.T) {
	stranger := newStranger(t, http.NotFound)
	c, err := leader.New(leader.Config{Endpoints: []string{stranger.URL}, Setting: "-namenode"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = stat(within(t, 20*time.Second), c)
	wantCode(t, err, dfs.Unavailable, "check -namenode")
	if strings.Contains(err.Error(), "--") {
		t.Errorf("%v names the flag of another program", err)
	}
}

// A call that takes long says why, once; one that does not says nothing.
func TestNotice(t *testing.T) {
	const after = 2 * time.Second
	dead := deadURL(t)
	var mu sync.Mutex
	var notices []string
	var noticed func() // guarded by mu
	taken := func() []string {
		mu.Lock()
		defer mu.Unlock()
		all := notices
		notices = nil
		return all
	}
	c := callerWith(t, leader.Config{Endpoints: []string{dead}, Notice: func(reason string) {
		mu.Lock()
		defer mu.Unlock()
		notices = append(notices, reason)
		if noticed != nil {
			noticed()
		}
	}})
	for quick := false; !quick; { // on a busy machine any call may take long
		began := time.Now()
		_ = stat(within(t, 100*time.Millisecond), c) // only its notices count
		early := taken()
		if quick = time.Since(began) < after; quick && len(early) != 0 {
			t.Errorf("too early: %q", early)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	mu.Lock()
	noticed = func() { time.AfterFunc(time.Second, cancel) } // time for another one
	mu.Unlock()
	_ = stat(ctx, c)
	if got := taken(); len(got) != 1 || got[0] != dead+": connection refused" {
		t.Errorf("got %q", got)
	}
}

func TestSchemeIsMissing(t *testing.T) {
	_, err := leader.New(leader.Config{Endpoints: []string{"localhost:8000"}})
	wantCode(t, err, dfs.Invalid, "http:// is missing", "http://localhost:8000")
}

func TestUnknownOutcome(t *testing.T) {
	ctx, giveUp := givenUpWhenAsked(t)
	lost := newNameNode(t, inTurn(silence, noLeader, giveUp))
	wantCode(t, mkdir(ctx, newImpatient(t, lost.URL)), dfs.UnknownOutcome, "may have happened", lost.URL)

	// What a NameNode said last says more than that the time was over then.
	ctx, giveUp = givenUpWhenAsked(t)
	c := newCaller(t, newNameNode(t, inTurn(refuse(dfs.UnknownOutcome, "lost", "Retry-After", "1"), giveUp)).URL)
	wantCode(t, mkdir(ctx, c), dfs.UnknownOutcome, "lost")

	ctx, giveUp = givenUpWhenAsked(t)
	wantCode(t, stat(ctx, newImpatient(t, newNameNode(t, inTurn(silence, giveUp)).URL)), dfs.Unavailable) // a read has no outcome

	ctx, c = givenUpAfter(t, 1, deadURL(t))
	wantCode(t, mkdir(ctx, c), dfs.Unavailable, "connection refused") // never left

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := stat(ctx, c)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A call that is not to be refused for ever ends with the leader's sentence,
// but not at once, nor while an earlier try may have been carried out.
func TestPatience(t *testing.T) {
	const patience = 300 * time.Millisecond
	refusal := refuse(dfs.Unavailable, "too few replicas", "Retry-After", "1")
	n := newNameNode(t, refusal)
	follower := newNameNode(t, refuse(dfs.NotLeader, "elsewhere", protocol.HeaderLeader, n.URL))
	call := leader.Call{Body: protocol.MkdirRequest{}, Patience: patience}
	err := newCaller(t, n.URL, follower.URL).Do(within(t, 20*time.Second), protocol.Mkdir, call)
	if dfs.CodeOf(err) != dfs.Unavailable || err.Error() != "too few replicas" {
		t.Errorf("got %v", err)
	}

	n.set(inTurn(refusal, answer))
	call.Patience = time.Minute
	if err := newCaller(t, n.URL, follower.URL).Do(within(t, 20*time.Second), protocol.Mkdir, call); err != nil {
		t.Errorf("refused once: %v", err)
	}

	// The call goes on for longer than the patience: it is given up only then.
	ctx, giveUp := givenUpWhenAsked(t)
	refused := refusing{serve: refusal, giveUp: giveUp, patience: 2 * patience}
	n.set(inTurn(refuse(dfs.UnknownOutcome, "lost"), refused.ServeHTTP))
	call.Patience = patience
	if err := newCaller(t, n.URL).Do(ctx, protocol.Mkdir, call); dfs.CodeOf(err) != dfs.UnknownOutcome {
		t.Errorf("after a lost answer: %v", err)
	}
}

// refusing serves for a while from the first request on; then the caller gives up.
type refusing struct {
	serve, giveUp http.HandlerFunc
	patience      time.Duration
	first         sync.Once
	began         time.Time
}

func (r *refusing) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.first.Do(func() { r.began = time.Now() })
	if time.Since(r.began) > r.patience {
		r.giveUp(w, request)
		return
	}
	r.serve(w, request)
}

func TestWrongCluster(t *testing.T) {
	a := newNameNode(t, inTurn(answer, noLeader))
	b := newNameNode(t, answer)
	b.cluster = clusterB
	c := newCaller(t, a.URL, b.URL)
	if err := mkdir(within(t, 20*time.Second), c); err != nil {
		t.Fatal(err)
	}
	err := mkdir(within(t, 20*time.Second), c)
	wantCode(t, err, dfs.WrongCluster, a.URL, clusterA, b.URL, clusterB, "fix the addresses of the NameNodes")
	if got := a.asked()[1].Header.Get(protocol.HeaderClusterID); got != clusterA {
		t.Errorf("cluster ID sent: %q", got)
	}
	if c.ClusterID() != clusterA {
		t.Errorf("cluster ID: %q", c.ClusterID())
	}
}

// A learnt address may have passed on to another cluster; that is no reason to
// fail as long as the configured ones work.
func TestWrongClusterAtALearntAddress(t *testing.T) {
	stranger := newNameNode(t, answer)
	stranger.cluster = clusterB
	n := newNameNode(t, inTurn(pointTo(stranger), answer))
	c := newCaller(t, n.URL)
	if err := mkdir(within(t, 20*time.Second), c); err != nil {
		t.Fatal(err)
	}
	if got := c.Endpoints(); len(got) != 1 {
		t.Errorf("endpoints: %q", got)
	}
}

// Whoever answers a change with success has made it, however little else can be
// understood.
func TestAnswerThatIsNotJSON(t *testing.T) {
	n := newNameNode(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) })
	c := newCaller(t, n.URL)
	wantCode(t, mkdir(within(t, 20*time.Second), c), dfs.UnknownOutcome, n.URL, "look before you try again")
	wantCode(t, c.Do(within(t, 20*time.Second), protocol.Stat, leader.Call{Out: new(protocol.Entry)}), dfs.Internal, n.URL)
}

// A refusal for want of room says nothing of an earlier try whose answer was
// lost: it may be carried out yet. Allocations leave nothing that matters.
func TestRefusalAfterALostAnswer(t *testing.T) {
	for _, code := range []dfs.Code{dfs.NoSpace, dfs.Unavailable} {
		ctx, giveUp := givenUpWhenAsked(t)
		n := newNameNode(t, inTurn(refuse(dfs.UnknownOutcome, "lost", "Retry-After", "1"), refuse(code, "the disk is full"), giveUp))
		wantCode(t, mkdir(ctx, newCaller(t, n.URL)), dfs.UnknownOutcome, "the disk is full")

		n.set(inTurn(refuse(dfs.UnknownOutcome, "lost", "Retry-After", "1"), refuse(code, "too few DataNodes")))
		err := newCaller(t, n.URL).Do(within(t, 20*time.Second), protocol.AddChunks, leader.Call{Args: []string{"u1"}})
		wantCode(t, err, code, "too few DataNodes")
	}
	n := newNameNode(t, inTurn(refuse(dfs.UnknownOutcome, "lost", "Retry-After", "1"), refuse(dfs.NoSpace, "full"), answer))
	if err := mkdir(within(t, 20*time.Second), newCaller(t, n.URL)); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

func TestSlowButAliveIsWaitedFor(t *testing.T) {
	slow := newNameNode(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(500 * time.Millisecond): // more than one try's time
			answer(w, r)
		case <-r.Context().Done():
		}
	})
	if err := mkdir(within(t, 30*time.Second), newImpatient(t, slow.URL)); err != nil {
		t.Fatal(err)
	}
}

func TestDoAt(t *testing.T) {
	leads := newNameNode(t, answer)
	follows := newNameNode(t, pointTo(leads))
	c := newCaller(t, leads.URL)
	ctx := within(t, 20*time.Second)
	if err := c.DoAt(ctx, follows.URL, protocol.TakeSnapshot, leader.Call{}); dfs.CodeOf(err) != dfs.NotLeader {
		t.Errorf("got %v, want what that one said", err)
	}
	if n := len(leads.asked()); n != 0 {
		t.Error("another NameNode was asked")
	}
	if err := c.DoAt(ctx, deadURL(t), protocol.GetLeader, leader.Call{}); dfs.CodeOf(err) != dfs.Unavailable {
		t.Errorf("dead: %v", err)
	}
	if err := c.DoAt(ctx, "nonsense", protocol.GetLeader, leader.Call{}); dfs.CodeOf(err) != dfs.Invalid {
		t.Errorf("nonsense: %v", err)
	}
}

// What a cut answer left behind must not show in the next one.
func TestAnswersDoNotMix(t *testing.T) {
	n := newNameNode(t, inTurn(
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"cursor":"old","entries":[{"name":"old","size":7}],`))
		},
		func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"entries":[{"name":"new"}]}`))
		}))
	var reply protocol.Listing
	err := newCaller(t, n.URL).Do(within(t, 20*time.Second), protocol.List, leader.Call{Out: &reply})
	if err != nil || len(reply.Entries) != 1 || reply.Entries[0].Name != "new" || reply.Entries[0].Size != 0 || reply.Cursor != "" {
		t.Errorf("got %+v, %v", reply, err)
	}
}

func TestConcurrentCallsSurviveALeaderChange(t *testing.T) {
	a, b := newNameNode(t, answer), newNameNode(t, nil)
	b.set(pointTo(a))
	c := newImpatient(t, a.URL, b.URL)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for range 20 {
				if err := mkdir(within(t, 30*time.Second), c); err != nil {
					t.Error(err)
				}
			}
		})
		if i == 16 {
			b.set(answer)
			a.set(pointTo(b))
		}
	}
	wg.Wait()
}
