package namenode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	maxHeaderBytes    = 64 << 10
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	callTimeout       = 60 * time.Second // from the header to the answer
	maxCalls          = 4096             // of clients at once; more are told to come back
	maxBundles        = 256              // of calls, each with at most bundle.MaxBytes in memory
	maxNodeCalls      = 256              // of DataNodes and NameNodes at once, whose bodies are large
	writeTimeout      = 3 * time.Minute  // from the header to the last byte of the answer
	bodyGrace         = 15 * time.Second // to send a body, and a second more for each of
	bodyPace          = 64 << 10         // bytes
)

// call is one request on its way through a handler.
type call struct {
	*http.Request
	w         http.ResponseWriter
	query     url.Values    // of the URL
	requestID dfs.RequestID // of a mutation; made up when the caller gave none
	maxBody   int64
	strict    bool
}

// reply is what a handler answers with when there is no error.
type reply struct {
	status int
	body   any
}

type handler func(*NameNode, *call) (reply, error)

// endpoints is the table of everything this server answers, but for the two
// routes that are not JSON.
func endpoints() []struct {
	protocol.Route
	serve handler
} {
	return []struct {
		protocol.Route
		serve handler
	}{
		{protocol.CreateFile, (*NameNode).createFile},
		{protocol.PutFile, (*NameNode).putFile},
		{protocol.GetFile, (*NameNode).getFile},
		{protocol.DeleteFile, (*NameNode).deleteFile},
		{protocol.AddChunks, (*NameNode).addChunks},
		{protocol.CommitUpload, (*NameNode).commitUpload},
		{protocol.AbortUpload, (*NameNode).abortUpload},
		{protocol.Stat, (*NameNode).stat},
		{protocol.List, (*NameNode).list},
		{protocol.Mkdir, (*NameNode).mkdir},
		{protocol.Rename, (*NameNode).rename},
		{protocol.SetReplication, (*NameNode).setReplication},
		{protocol.Heartbeat, (*NameNode).heartbeat},
		{protocol.Announce, (*NameNode).announce},
		{protocol.ListNodes, (*NameNode).listNodes},
		{protocol.DrainNode, (*NameNode).drainNode},
		{protocol.UndrainNode, (*NameNode).undrainNode},
		{protocol.Fsck, (*NameNode).fsck},
		{protocol.GetLeader, (*NameNode).getLeader},
		{protocol.JoinCluster, (*NameNode).joinCluster},
		{protocol.RemoveMember, (*NameNode).removeMember},
		{protocol.TransferLead, (*NameNode).transferLead},
		{protocol.TakeSnapshot, (*NameNode).takeSnapshot},
		{protocol.Health, (*NameNode).health},
		{protocol.Ready, (*NameNode).ready},
	}
}

func (n *NameNode) routes() http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string) // by pattern
	for _, e := range endpoints() {
		mux.HandleFunc(e.Method+" "+e.Pattern, n.around(e.Route, e.serve))
		methods[e.Pattern] = append(methods[e.Pattern], e.Method)
	}
	mux.Handle(protocol.Metrics.Method+" "+protocol.Metrics.Pattern, n.metrics.handler())
	methods[protocol.Metrics.Pattern] = []string{protocol.Metrics.Method}
	methods[protocol.Bundle.Pattern] = []string{protocol.Bundle.Method}
	for pattern, allowed := range methods {
		allow := strings.Join(allowed, ", ")
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			n.setIdentity(w)
			w.Header().Set("Allow", allow)
			protocol.WriteError(w, dfs.Errorf(dfs.MethodNotAllowed, "%s takes %s, not %.20q", pattern, allow, r.Method))
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n.setIdentity(w)
		protocol.WriteError(w, dfs.Errorf(dfs.NotFound, "a NameNode has nothing at %.200q; docs/http-api.md lists its routes", r.URL.Path))
	})
	return n.bundles(mux)
}

// bundles serves next, and bundles of requests for it.
func (n *NameNode) bundles(next http.Handler) http.Handler {
	handler := &bundle.Handler{Next: next, Timeout: bodyGrace}
	slots := make(chan struct{}, maxBundles)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != protocol.Bundle.Pattern || r.Method != protocol.Bundle.Method {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			n.fail(w, r, dfs.Errorf(dfs.OverLimit, "%d bundles of calls are being served; try again", maxBundles))
			return
		}
		shared := r.WithContext(context.WithValue(r.Context(), confirmationKey{}, new(confirmation)))
		if err := handler.Serve(w, shared); err != nil {
			n.fail(w, r, err)
		}
	})
}

// around is what happens to every call: limits, identity, the leader rule, and
// one place where an error becomes an answer.
func (n *NameNode) around(route protocol.Route, serve handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		recorder := &statusRecorder{ResponseWriter: w}
		n.serve(recorder, r, route, serve)
		n.metrics.observe(route, recorder.status, time.Since(started))
	}
}

func (n *NameNode) serve(w http.ResponseWriter, r *http.Request, route protocol.Route, serve handler) {
	defer n.recovered(w, r)
	slots := n.slots
	if route.Permission == protocol.Node {
		slots = n.nodeSlots // clients in crowds must not make DataNodes look dead
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		n.fail(w, r, dfs.Errorf(dfs.OverLimit, "%d calls are being served; try again", cap(slots)))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	c := &call{Request: r.WithContext(ctx), w: w, maxBody: route.MaxBody, strict: route.Permission == protocol.Admin}
	if r.URL.RawQuery != "" {
		c.query = r.URL.Query()
	}
	answer, err := n.answer(c, route, serve)
	if err != nil {
		n.fail(w, c.Request, err)
		return
	}
	n.setIdentity(w)
	protocol.WriteJSON(w, answer.status, answer.body)
}

func (n *NameNode) answer(c *call, route protocol.Route, serve handler) (reply, error) {
	if err := n.admit(c, route); err != nil {
		return reply{}, err
	}
	if err := n.checkLead(c, route); err != nil {
		return reply{}, err
	}
	if err := n.checkAge(c); err != nil {
		return reply{}, err
	}
	return serve(n, c)
}

// admit checks what every caller must get right, whoever answers.
func (n *NameNode) admit(c *call, route protocol.Route) error {
	if theirs := dfs.ClusterID(c.Header.Get(protocol.HeaderClusterID)); theirs != "" {
		if ours := n.clusterID(); ours != "" && theirs != ours {
			return dfs.Errorf(dfs.WrongCluster, "this NameNode belongs to cluster %s, you to %.64q; check the addresses of the NameNodes", ours, theirs)
		}
	}
	if route.MaxBody > 0 && c.ContentLength != 0 {
		if c.Header.Get("Content-Encoding") != "" {
			return dfs.Errorf(dfs.Invalid, "bodies are taken as plain JSON, without Content-Encoding")
		}
		length := c.ContentLength
		if length < 0 || length > route.MaxBody {
			length = route.MaxBody
		}
		pace := time.Duration(length/bodyPace) * time.Second
		if err := http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(bodyGrace + pace)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("set the deadline of a body: %w", err)
		}
	}
	if !route.Mutates() {
		return nil
	}
	given := c.Header.Get(protocol.HeaderRequestID)
	if given == "" {
		c.requestID = dfs.NewRequestID()
		return nil
	}
	id, err := dfs.ParseRequestID(given)
	c.requestID = id
	return err
}

// checkLead applies the route's leader rule.
func (n *NameNode) checkLead(c *call, route protocol.Route) error {
	switch route.Rule {
	case protocol.LeaderOnly:
		if n.lead.Load() == nil {
			return notLeader()
		}
	case protocol.Linearizable:
		switch consistency := c.query.Get(protocol.QueryConsistency); consistency {
		case protocol.Stale:
			return nil
		case "":
		default:
			return dfs.Errorf(dfs.Invalid, "consistency %.40q is not known; leave it out, or say %q", consistency, protocol.Stale)
		}
		if n.lead.Load() == nil {
			return notLeader()
		}
		if shared, ok := c.Context().Value(confirmationKey{}).(*confirmation); ok {
			return shared.get(func() error { return n.group.ReadIndex(c.Context()) })
		}
		return n.group.ReadIndex(c.Context())
	}
	return nil
}

// confirmation is that this NameNode leads, made sure of once for all reads in a
// bundle: they had all come before the first of them asks.
type confirmation struct {
	once sync.Once
	err  error
}

// confirmationKey is the key of a bundle's confirmation in its context.
type confirmationKey struct{}

func (c *confirmation) get(confirm func() error) error {
	c.once.Do(func() {
		c.err = notLeader() // should it panic
		c.err = confirm()
	})
	return c.err
}

func notLeader() error {
	return dfs.Errorf(dfs.NotLeader, "this NameNode does not lead")
}

// setIdentity says who answers, and how far it has come. It is the last thing
// before an answer, so that the applied index is none of earlier.
func (n *NameNode) setIdentity(w http.ResponseWriter) {
	h := w.Header()
	h.Set(protocol.HeaderNodeID, string(n.config.ID))
	if id := n.clusterID(); id != "" {
		h.Set(protocol.HeaderClusterID, string(id))
	}
	h.Set(protocol.HeaderAppliedIndex, strconv.FormatUint(n.appliedIndex(), 10))
}

// fail is the one place where an error becomes an answer.
func (n *NameNode) fail(w http.ResponseWriter, r *http.Request, err error) {
	n.setIdentity(w)
	var lasting final
	if errors.Is(err, context.Canceled) && dfs.CodeOf(err) == dfs.Internal {
		err = dfs.Errorf(dfs.Unavailable, "nobody waits for the answer any more: %w", err)
	}
	switch code := dfs.CodeOf(err); {
	case code == dfs.NotLeader:
		err = n.pointToLeader(w, r)
	case code == dfs.Timeout, code == dfs.OverLimit,
		(code == dfs.UnknownOutcome || code == dfs.Unavailable) && !errors.As(err, &lasting):
		w.Header().Set("Retry-After", "1")
	case code == dfs.Internal || code == dfs.Corrupt:
		n.logger.Error("call failed", "method", r.Method, "path", r.URL.Path, "request_id", r.Header.Get(protocol.HeaderRequestID), "error", err)
	}
	protocol.WriteError(w, err)
}

// pointToLeader sends the caller on, or tells it to come back.
func (n *NameNode) pointToLeader(w http.ResponseWriter, r *http.Request) error {
	leader, ok := n.leader()
	if !ok || leader.URL == "" || leader.ID == n.config.ID {
		w.Header().Set("Retry-After", "1")
		return dfs.Errorf(dfs.Unavailable, "no NameNode leads at the moment: an election is under way, or a majority of the NameNodes is down; try again")
	}
	w.Header().Set(protocol.HeaderLeader, leader.URL)
	w.Header().Set("Location", leader.URL+r.URL.RequestURI())
	return dfs.Errorf(dfs.NotLeader, "the leader is %s at %s", leader.ID, leader.URL)
}

func (n *NameNode) recovered(w http.ResponseWriter, r *http.Request) {
	if p := recover(); p != nil {
		n.setIdentity(w)
		n.logger.Error("a handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		protocol.WriteError(w, dfs.Errorf(dfs.Internal, "internal error; the log of NameNode %s has the details", n.config.ID))
	}
}

// decode reads the JSON body into v.
func (c *call) decode(v any) error {
	if err := protocol.DecodeJSON(http.MaxBytesReader(c.w, c.Body, c.maxBody+1), c.maxBody, c.strict, v); err != nil {
		return err
	}
	// The server goes on reading, to notice when the caller goes away, and would
	// take a deadline for that.
	if err := http.NewResponseController(c.w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("take back the deadline of a body: %w", err)
	}
	return nil
}

// path reads the path parameter of the query.
func (c *call) path() (dfs.Path, error) {
	return dfs.ParsePath(c.query.Get(protocol.QueryPath))
}

// flag reads a yes-or-no parameter of the query.
func (c *call) flag(name string) (bool, error) {
	text := c.query.Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, dfs.Errorf(dfs.Invalid, "%s is true or false, not %.40q", name, text)
	}
	return value, nil
}

// uploadID reads the upload ID of the URL.
func (c *call) uploadID() (dfs.UploadID, error) { return dfs.ParseUploadID(c.PathValue("id")) }

// statusRecorder keeps the status for the metrics.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status and passes it on.
func (s *statusRecorder) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (n *NameNode) appliedIndex() (index uint64) {
	n.machine.Read(func(s *fsm.State) { index = s.AppliedIndex() })
	return index
}

// clusterID returns the cluster's ID as far as this NameNode knows it.
func (n *NameNode) clusterID() dfs.ClusterID { return n.meta.current().ClusterID }
