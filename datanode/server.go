package datanode

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// transferBuffer is how much of a transfer goes through at a time, and must
// within Limits.BodyTimeout: a peer that sends one byte now and then does not
// hold a slot for ever.
const transferBuffer = 128 << 10

const bundlesAtATime = 256 // each has at most bundle.MaxBytes in memory

// server answers the requests. Each goes through answer.
type server struct {
	id       dfs.NodeID
	limits   Limits
	store    *chunkstore.Store
	gate     *gate
	standing *standing
	forward  *forwarder
	keeps    *keeps
	metrics  *metrics
	log      hclog.Logger

	suspicions    *suspicions
	writes        [dfs.MaxReplication]slots // by how many nodes come behind
	reads         slots
	confirmations slots
	buffers       sync.Pool // of *[transferBuffer]byte
	smallBuffers  sync.Pool // of *smallBuffer
}

// smallBuffer has room for any chunk that is kept in memory.
type smallBuffer [chunkstore.PackLimit]byte

// handler answers a request, or returns the error to answer it with.
type handler func(w http.ResponseWriter, r *http.Request) error

type endpoint struct {
	protocol.Route
	serve handler
}

func newServer(config Config, store *chunkstore.Store, gate *gate, standing *standing, forward *forwarder, keeps *keeps, suspicions *suspicions, metrics *metrics, log hclog.Logger) *server {
	s := &server{
		id: config.ID, limits: config.Limits, store: store, gate: gate, standing: standing,
		forward: forward, keeps: keeps, suspicions: suspicions, metrics: metrics, log: log.Named("http"),
		reads:         newSlots("downloads", config.Limits.Reads, config.Limits.ForwardTimeout/2),
		confirmations: newSlots("verifications", confirmationsAtATime, config.Limits.ForwardTimeout/2),
		buffers:       sync.Pool{New: func() any { return new([transferBuffer]byte) }},
		smallBuffers:  sync.Pool{New: func() any { return new(smallBuffer) }},
	}
	for behind := range s.writes {
		s.writes[behind] = newSlots("uploads", config.Limits.Writes, config.Limits.ForwardTimeout/2)
	}
	return s
}

func (s *server) endpoints() []endpoint {
	return []endpoint{
		{protocol.PutChunk, s.putChunk},
		{protocol.GetChunk, s.getChunk},
		{protocol.DeleteChunk, refuseDelete},
		{protocol.StatChunks, s.statChunks},
		{protocol.VerifyChunk, s.verifyChunk},
		{protocol.Health, s.health},
		{protocol.Ready, s.ready},
		{protocol.Metrics, s.metrics.serve},
	}
}

// handler puts the endpoints together. Methods are told apart here, not by the
// mux, so that a wrong one is answered like every other error.
func (s *server) handler() http.Handler {
	byPattern := make(map[string][]endpoint)
	for _, e := range s.endpoints() {
		byPattern[e.Pattern] = append(byPattern[e.Pattern], e)
	}
	mux := http.NewServeMux()
	for pattern, endpoints := range byPattern {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			e, err := choose(w, endpoints, r.Method)
			if err != nil {
				e = endpoint{protocol.Route{Pattern: pattern}, refuse(err)}
			}
			s.answer(w, r, e)
		})
	}
	for _, pattern := range nameNodePatterns() {
		mux.HandleFunc(pattern, s.refuseUnknown(func(path string) error {
			return dfs.Errorf(dfs.Invalid, "this is DataNode %s, which has no %.120q; --namenodes needs the address of a NameNode", s.id, path)
		}))
	}
	mux.HandleFunc("/", s.refuseUnknown(func(path string) error {
		return dfs.Errorf(dfs.NotFound, "a DataNode has no %.120q", path)
	}))
	return s.bundles(mux)
}

// bundles serves next, and bundles of requests for it.
func (s *server) bundles(next http.Handler) http.Handler {
	handler := &bundle.Handler{Next: next, Timeout: s.limits.BodyTimeout}
	slots := newSlots("bundles", bundlesAtATime, s.limits.ForwardTimeout/2)
	bundled := endpoint{protocol.Bundle, func(w http.ResponseWriter, r *http.Request) error {
		release, err := slots.take(r.Context(), w)
		if err != nil {
			return err
		}
		defer release()
		return handler.Serve(w, r)
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != protocol.Bundle.Pattern || r.Method != protocol.Bundle.Method {
			next.ServeHTTP(w, r)
			return
		}
		s.answer(w, withoutCork(r), bundled) // the requests in it share the connection
	})
}

func (s *server) refuseUnknown(why func(path string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, endpoint{protocol.Route{Pattern: "unknown"}, refuse(why(r.URL.Path))})
	}
}

// nameNodePatterns are the paths that only a NameNode has. Whoever asks for one
// has the wrong address, and must not take that for a file that is missing.
func nameNodePatterns() []string {
	var patterns []string
	for _, r := range []protocol.Route{
		protocol.CreateFile, protocol.GetFile, protocol.DeleteFile, protocol.AddChunks, protocol.CommitUpload, protocol.AbortUpload,
		protocol.Stat, protocol.List, protocol.Mkdir, protocol.Rename, protocol.SetReplication, protocol.Heartbeat, protocol.Announce,
		protocol.ListNodes, protocol.GetLeader, protocol.JoinCluster, protocol.RemoveMember, protocol.TransferLead, protocol.TakeSnapshot,
	} {
		patterns = append(patterns, r.Pattern)
	}
	slices.Sort(patterns)
	return slices.Compact(patterns)
}

// choose finds the endpoint for a method. GET answers HEAD as well.
func choose(w http.ResponseWriter, endpoints []endpoint, method string) (endpoint, error) {
	var allowed []string
	for _, e := range endpoints {
		if e.Method == method || e.Method == http.MethodGet && method == http.MethodHead {
			return e, nil
		}
		allowed = append(allowed, e.Method)
		if e.Method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return endpoint{}, dfs.Errorf(dfs.MethodNotAllowed, "%.20q is not possible here: use %s", method, strings.Join(allowed, " or "))
}

func refuse(err error) handler {
	return func(http.ResponseWriter, *http.Request) error { return err }
}

func refuseDelete(http.ResponseWriter, *http.Request) error {
	return dfs.Errorf(dfs.Forbidden, "chunks are deleted by order of the leading NameNode only; delete the file instead")
}

// answer is what every request goes through.
func (s *server) answer(w http.ResponseWriter, r *http.Request, e endpoint) {
	w.Header().Set(protocol.HeaderNodeID, string(s.id))
	if cluster := s.store.Identity().ClusterID; cluster != "" {
		w.Header().Set(protocol.HeaderClusterID, string(cluster))
	}
	recorder, r := record(w, r, s.limits.BodyTimeout)
	if !s.gate.enter() {
		w.Header().Set("Connection", "close")
		protocol.WriteError(recorder, dfs.Errorf(dfs.Unavailable, "DataNode %s is shutting down; use another", s.id))
		recorder.finish()
		return
	}
	defer s.gate.leave()
	started := time.Now()
	defer func() {
		// Connections may be closed as soon as the gate is empty, and an answer
		// must be on its way by then.
		recorder.finish()
		s.metrics.answered(e.Pattern, recorder.status, time.Since(started))
	}()
	if err := s.guarded(recorder, r, e); err != nil {
		s.logFailure(r, err)
		if recorder.status == 0 {
			protocol.WriteError(recorder, err)
		}
	}
}

func (s *server) logFailure(r *http.Request, err error) {
	level, message := hclog.Debug, "a request was refused"
	if code := dfs.CodeOf(err); code == dfs.Internal || code == dfs.Corrupt {
		level, message = hclog.Error, "a request failed"
	}
	s.log.Log(level, message, "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
}

// guarded serves a request that is meant for this node, and survives its panic.
func (s *server) guarded(w *recorder, r *http.Request, e endpoint) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("panic")
			if w.status != 0 {
				panic(http.ErrAbortHandler) // the answer has begun: only cutting it off tells of the failure
			}
		}
	}()
	if e.Permission != protocol.Public {
		if err := s.checkAddressee(r.Header); err != nil {
			return err
		}
	}
	return e.serve(w, r)
}

// checkAddressee refuses what was meant for somebody else: addresses move.
func (s *server) checkAddressee(header http.Header) error {
	mine := s.store.Identity().ClusterID
	if theirs := header.Get(protocol.HeaderClusterID); theirs != "" && mine != "" && theirs != string(mine) {
		return dfs.Errorf(dfs.WrongCluster, "DataNode %s belongs to cluster %s, the request to cluster %.40q; correct the addresses", s.id, mine, theirs)
	}
	if meant := header.Get(protocol.HeaderNodeID); meant != "" && meant != string(s.id) {
		return dfs.Errorf(dfs.Conflict, "this is DataNode %s, not %.80q; ask a NameNode for its address", s.id, meant)
	}
	return nil
}
