package leader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/carrier"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/stall"
)

const (
	maxAnswer      = 256 << 20 // bytes: a file of MaxChunksPerFile chunks with all its locations
	maxErrorAnswer = 64 << 10  // bytes
)

// verdict is what one try means for the call.
type verdict struct {
	err    error
	final  bool   // the call is over: done when err is nil, refused otherwise
	spoken bool   // a NameNode gave err, with a code of its own
	maybe  bool   // a mutation may have been carried out all the same
	hint   string // base URL of the leader, or ""

	stranger bool // what answered is not a NameNode
	over     bool // the caller's time ended the try
}

// try sends the task to one NameNode and judges the answer.
func (c *Caller) try(ctx context.Context, t *task, baseURL string) verdict {
	tryCtx, guard := stall.Watch(ctx, t.patience())
	defer guard.Stop()
	request, err := t.request(tryCtx, baseURL, c.known.clusterID())
	if err != nil {
		return verdict{err: err, final: true}
	}
	transport := c.transport
	if isShort(t.route) {
		transport = c.bundles
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		v := c.noAnswer(ctx, t, baseURL, guard, err)
		v.maybe = !errors.As(err, new(*carrier.NotSentError))
		return v
	}
	defer response.Body.Close()
	guard.Moved()
	if !fromNameNode(response) {
		return c.stranger(baseURL, response)
	}
	if err := c.known.answered(baseURL, response.Header.Get(protocol.HeaderClusterID)); err != nil {
		// A configured address is the operator's to fix. One that was learnt may
		// have passed on to another cluster long ago.
		return verdict{err: err, final: !c.known.forget(baseURL)}
	}
	if response.StatusCode/100 != 2 {
		return refusal(response)
	}
	body := &watchedBody{r: guard.Reader(response.Body)}
	err = t.decode(body)
	switch {
	case err == nil:
		return verdict{final: true}
	case body.err != nil: // the answer was cut off; asking again gives the whole of it
		v := c.noAnswer(ctx, t, baseURL, guard, body.err)
		v.maybe = true
		return v
	}
	return verdict{err: t.notUnderstood(baseURL, err), final: true}
}

// fromNameNode tells whether a NameNode answered. All say who they are, and no
// DataNode says what it has applied. The cluster ID may be missing: not until
// it is let in does a NameNode know it.
func fromNameNode(response *http.Response) bool {
	return response.Header.Get(protocol.HeaderNodeID) != "" && response.Header.Get(protocol.HeaderAppliedIndex) != ""
}

// stranger judges the answer of something that is not a NameNode: a proxy that
// cannot reach one, or a server that the address names by mistake. Whatever it
// says, it does not know; only where it points to may be looked at.
func (c *Caller) stranger(baseURL string, response *http.Response) verdict {
	c.known.down(baseURL)
	v := verdict{err: dfs.Errorf(dfs.Unavailable, "is not a NameNode (it answered %s); check %s", response.Status, c.setting), stranger: true}
	if response.StatusCode/100 == 3 {
		v.hint = hintOf(response.Header)
	}
	v.maybe = response.StatusCode >= 500 // a proxy's word; what it stands before may have done it
	return v
}

// noAnswer judges a try that ended without a whole answer.
func (c *Caller) noAnswer(ctx context.Context, t *task, baseURL string, guard *stall.Guard, err error) verdict {
	switch {
	case ctx.Err() != nil: // the caller's time was over; that says nothing about the NameNode
		return verdict{err: dfs.Errorf(dfs.Timeout, "no answer yet"), over: true}
	case guard.Stalled():
		c.known.silent(baseURL, time.Now())
		err = dfs.Errorf(dfs.Timeout, "no answer within %s", t.patience())
		t.impatience++
		return verdict{err: err}
	case isTimeout(err): // the dial ran out of time: packets vanish
		c.known.silent(baseURL, time.Now())
	default:
		c.known.down(baseURL)
	}
	return verdict{err: dfs.Errorf(dfs.Unavailable, "%s", plainReason(err))}
}

// refusal judges an answer that is not 2xx.
func refusal(response *http.Response) verdict {
	err, spoken := readRefusal(response)
	v := verdict{err: err, spoken: spoken}
	retryLater := response.Header.Get("Retry-After") != ""
	switch dfs.CodeOf(err) {
	case dfs.NotLeader:
		v.hint = hintOf(response.Header)
	case dfs.UnknownOutcome:
		v.final = spoken && !retryLater // it is forgotten what became of an earlier try
		v.maybe = true
	case dfs.Timeout:
		v.maybe = true
	case dfs.Unavailable, dfs.OverLimit:
		// Without Retry-After nothing will be different soon: too few
		// DataNodes, say.
		v.final = spoken && !retryLater
		v.maybe = !spoken
	default:
		v.final = spoken
	}
	return v
}

// readRefusal also tells whether the answer had an error body, as all of ours.
func readRefusal(response *http.Response) (err error, spoken bool) {
	var reply protocol.ErrorReply
	if protocol.DecodeJSON(response.Body, maxErrorAnswer, false, &reply) == nil && reply.Error.Code != "" {
		return reply.Error.Err(), true
	}
	return protocol.ReadError(response), false // by the status alone
}

func hintOf(header http.Header) string {
	for _, text := range []string{header.Get(protocol.HeaderLeader), header.Get("Location")} {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			continue
		}
		if baseURL, err := dfs.ParseBaseURL(u.Scheme + "://" + u.Host); err == nil {
			return baseURL
		}
	}
	return ""
}

// watchedBody keeps the error that ended a body early, to tell a cut
// connection from JSON that is wrong.
type watchedBody struct {
	r   io.Reader
	err error
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// task is a call under way, through all its tries.
type task struct {
	route      protocol.Route
	target     string // path and query
	body       []byte // nil: none
	out        any
	requestID  dfs.RequestID
	begun      time.Time     // nothing was carried out before
	timeout    time.Duration // of one try
	stale      bool
	impatience int // tries that ended because nobody answered in time

	failures []failure // the last one of each endpoint
	maybe    bool      // some try may have been carried out

	endurance time.Duration // of refusals
	refusal   error         // the last dfs.Unavailable that a NameNode gave
	refusedAt time.Time     // when the first one came

	mu   sync.Mutex
	last string // why the last try failed, for the notice; guarded by mu
}

type failure struct {
	baseURL string
	verdict
}

// reason tells why this NameNode did not do.
func (f failure) reason() string {
	if f.stranger {
		return f.baseURL + " " + f.err.Error()
	}
	return f.baseURL + ": " + f.err.Error()
}

func (t *task) lastReason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == "" {
		return "no answer yet"
	}
	return t.last
}

func (c *Caller) newTask(route protocol.Route, call Call) (*task, error) {
	t := &task{route: route, target: route.Path(call.Args...), out: call.Out, begun: time.Now()}
	if len(call.Query) > 0 {
		t.target += "?" + call.Query.Encode()
	}
	t.stale = call.Query.Get(protocol.QueryConsistency) == protocol.Stale
	if call.Body != nil {
		body, err := json.Marshal(call.Body)
		if err != nil {
			return nil, dfs.Errorf(dfs.Invalid, "the request cannot be encoded: %w", err)
		}
		t.body = body
	}
	if route.Mutates() {
		t.requestID = call.RequestID
		if t.requestID == "" {
			t.requestID = dfs.NewRequestID()
		}
	}
	t.timeout = call.TryTimeout
	if t.timeout <= 0 {
		t.timeout = c.timeoutOf(route)
	}
	t.endurance = call.Patience
	if t.endurance <= 0 {
		t.endurance = math.MaxInt64
	}
	return t, nil
}

// timeoutOf gives more time to routes that ask other nodes before they answer.
func (c *Caller) timeoutOf(route protocol.Route) time.Duration {
	switch route {
	case protocol.CommitUpload, protocol.PutFile, protocol.JoinCluster, protocol.RemoveMember, protocol.TransferLead, protocol.TakeSnapshot:
		return max(c.tryTimeout, slowTryTimeout)
	}
	return c.tryTimeout
}

// isShort tells whether a call is answered soon and shortly, so that it may share a
// request with others.
func isShort(route protocol.Route) bool {
	switch route {
	case protocol.CreateFile, protocol.PutFile, protocol.GetFile, protocol.DeleteFile, protocol.AddChunks, protocol.AbortUpload,
		protocol.Stat, protocol.Mkdir, protocol.Rename, protocol.SetReplication:
		return true
	}
	return false
}

// patience doubles with each silence, so that a leader that is slow but alive
// gets to answer.
func (t *task) patience() time.Duration {
	return max(t.timeout, min(t.timeout<<min(t.impatience, 10), slowTryTimeout))
}

func (t *task) request(ctx context.Context, baseURL string, cluster dfs.ClusterID) (*http.Request, error) {
	var body io.Reader
	if t.body != nil {
		body = bytes.NewReader(t.body)
	}
	request, err := http.NewRequestWithContext(ctx, t.route.Method, baseURL+t.target, body)
	if err != nil {
		return nil, dfs.Errorf(dfs.Invalid, "the request cannot be made: %w", err)
	}
	if t.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if t.requestID != "" {
		request.Header.Set(protocol.HeaderRequestID, string(t.requestID))
		if t.maybe {
			request.Header.Set(protocol.HeaderRequestAge, strconv.FormatInt(time.Since(t.begun).Milliseconds()+1, 10))
		}
	}
	if cluster != "" {
		request.Header.Set(protocol.HeaderClusterID, string(cluster))
	}
	return request, nil
}

// decode reads the answer into a fresh value first: what a cut answer left
// behind must not mix with the next one.
func (t *task) decode(body io.Reader) error {
	if t.out == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(body, maxErrorAnswer))
		return err
	}
	fresh := reflect.New(reflect.TypeOf(t.out).Elem())
	if err := protocol.DecodeJSON(body, maxAnswer, false, fresh.Interface()); err != nil {
		return err
	}
	reflect.ValueOf(t.out).Elem().Set(fresh.Elem())
	return nil
}

// notUnderstood is the error of a success that cannot be read. A change was made
// all the same.
func (t *task) notUnderstood(baseURL string, err error) error {
	if t.route.Mutates() {
		return dfs.Errorf(dfs.UnknownOutcome, "%s says that it was done, but answered what this version does not understand; look before you try again: %w", baseURL, err)
	}
	return dfs.Errorf(dfs.Internal, "%s answered what this version does not understand: %w", baseURL, err)
}

// inDoubt tells whether an earlier try may be carried out in spite of a refusal.
// What the state refuses it remembers under the request ID; want of room or of
// nodes is found before it is asked. What was allocated in vain does no harm.
func (t *task) inDoubt(refusal error) bool {
	if !t.maybe || t.route == protocol.CreateFile || t.route == protocol.AddChunks {
		return false
	}
	code := dfs.CodeOf(refusal)
	return code == dfs.NoSpace || code == dfs.Unavailable
}

// answeredByLeader tells whether an answer shows who leads.
func (t *task) answeredByLeader() bool {
	return t.route.Rule == protocol.LeaderOnly || t.route.Rule == protocol.Linearizable && !t.stale
}

// refusedFor tells how long the call has been refused for certain, 0 when it
// was not or may have been carried out.
func (t *task) refusedFor() time.Duration {
	if t.refusal == nil || t.maybe {
		return 0
	}
	return time.Since(t.refusedAt)
}

func (t *task) failed(baseURL string, v verdict) {
	t.maybe = t.maybe || v.maybe && t.route.Mutates()
	if v.spoken && dfs.CodeOf(v.err) == dfs.Unavailable {
		if t.refusal == nil {
			t.refusedAt = time.Now()
		}
		t.refusal = v.err
	}
	f := failure{baseURL, v}
	t.mu.Lock()
	t.last = f.reason()
	t.mu.Unlock()
	for i := range t.failures {
		if t.failures[i].baseURL != baseURL {
			continue
		}
		if !v.over { // or what it said before tells more
			t.failures[i] = f
		}
		return
	}
	t.failures = append(t.failures, f)
}
