//go:build linux

package faults

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// step is a moment of an upload: a request of the client to the leader, before
// it is passed on or before its answer is.
type step struct {
	name   string
	method string
	suffix string // of the path
	number int    // which of these requests, from 1
	after  bool
}

var steps = []step{
	{"before the upload is begun", http.MethodPost, "/files", 1, false},
	{"before the answer that it is begun", http.MethodPost, "/files", 1, true},
	{"before more chunks are allocated", http.MethodPost, "/chunks", 2, false},
	{"before the answer with more chunks", http.MethodPost, "/chunks", 2, true},
	{"before the commit", http.MethodPost, "/commit", 1, false},
	{"before the answer to the commit", http.MethodPost, "/commit", 1, true},
}

// TestFailoverDuringUpload kills the leader at each step of an upload by the
// command line, which goes on by itself: it ends well, and there is one file,
// which can be read.
func TestFailoverDuringUpload(t *testing.T) {
	h := newHealing(t, 3, nil)
	h.fill(3)
	for round := range faultbed.Count(t, "DFS_FAULT_FAILOVERS", 1) {
		for i, at := range steps {
			h.failover(at, fmt.Sprintf("/failover/%d/%d", round, i))
		}
	}
	entries := 0
	for entry, err := range h.c.List(t.Context(), mustPath(t, "/failover/0")) {
		if err != nil || h.want[entry.Path] == "" {
			t.Errorf("%v is there, and nobody uploaded it: %v", entry, err)
		}
		entries++
	}
	if entries != len(steps) {
		t.Errorf("%d files are there of %d uploads", entries, len(steps))
	}
	h.waitFsck("nothing is left over", clean)
	h.readAll()
}

// failover uploads one file, whose first requests go through a front before the
// leader, and kills that at the given step.
func (h *healing) failover(at step, path string) {
	h.t.Helper()
	leader := h.b.LeaderAmong(h.b.NameNodes()...)
	others := ""
	for _, id := range h.b.Others(leader) {
		others += h.b.URL(id) + ","
	}
	f := newFront(h.t)
	f.stand(h.t, h.b.URL(leader))
	reached, dead := make(chan struct{}), make(chan struct{})
	var seen atomic.Int64
	var once sync.Once
	f.do(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != at.method || !strings.HasSuffix(r.URL.Path, at.suffix) || seen.Add(1) != int64(at.number) {
			return false
		}
		if at.after {
			f.proxy.ServeHTTP(discarded{}, r) // the answer is lost
		}
		once.Do(func() { close(reached) })
		<-dead
		panic(http.ErrAbortHandler)
	})
	data := randomData(h.random, 12*chunkSize+1)
	r := startUpload(h.t, h.b.CommandAt(f.URL+","+others, "upload", "--no-progress", "--chunk-size", fmt.Sprint(chunkSize), "-", path))
	ended := make(chan error, 1)
	go func() { r.feed(data); ended <- r.end() }()
	select {
	case <-reached:
		h.b.Kill(leader)
		close(dead)
	case err := <-ended:
		close(dead)
		h.t.Fatalf("%s: the upload has ended without this step: %v", at.name, err)
	}
	if err := <-ended; err != nil {
		h.t.Errorf("%s: %v", at.name, err)
	}
	h.want[path] = contentOf(data)
	h.paths = append(h.paths, path)
	if err := h.read(h.c, path); err != nil {
		h.t.Errorf("%s: %v", at.name, err)
	}
	h.b.Start(leader)
	h.b.WaitReady()
}

// discarded takes an answer that nobody gets.
type discarded struct{}

func (discarded) Header() http.Header         { return make(http.Header) }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}
