package datanode

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	clusterA = dfs.ClusterID("0123456789abcdef0123456789abcdef")
	clusterB = dfs.ClusterID("fedcba9876543210fedcba9876543210")
)

// script answers calls one after the other and remembers them.
type script struct {
	heartbeats []protocol.HeartbeatRequest
	questions  int // for the nodes
	answer     func(n int, h protocol.HeartbeatRequest) (protocol.HeartbeatReply, error)
	nodes      []protocol.NodeInfo
	nodesErr   error
}

func (s *script) Do(_ context.Context, route protocol.Route, call leader.Call) error {
	if route == protocol.ListNodes {
		s.questions++
		call.Out.(*protocol.NodesReply).Nodes = s.nodes
		return s.nodesErr
	}
	h := call.Body.(protocol.HeartbeatRequest)
	s.heartbeats = append(s.heartbeats, h)
	reply, err := s.answer(len(s.heartbeats), h)
	*call.Out.(*protocol.HeartbeatReply) = reply
	return err
}

func (s *script) last() protocol.HeartbeatRequest { return s.heartbeats[len(s.heartbeats)-1] }

func yes(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
	return protocol.HeartbeatReply{ClusterID: clusterA, Term: 3}, nil
}

func lost(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
	return protocol.HeartbeatReply{}, dfs.Errorf(dfs.UnknownOutcome, "no answer came")
}

func inventoryWanted(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
	return protocol.HeartbeatReply{ClusterID: clusterA, Term: 3, WantInventory: true}, nil
}

func newTestHeartbeater(t testing.TB) (*heartbeater, *script, *chunkstore.Store) {
	t.Helper()
	store, err := chunkstore.Open(chunkstore.Config{Dirs: []string{t.TempDir()}, NodeID: "dn1", Reserve: 1, Unpacked: true})
	if err != nil {
		t.Fatal(err)
	}
	awaitLoaded(t, store)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	h, s := heartbeaterOn(t, store)
	return h, s, store
}

// awaitLoaded waits until a store can be used.
func awaitLoaded(t testing.TB, store *chunkstore.Store) {
	t.Helper()
	if err := store.WaitLoaded(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-store.Urgent() // that it is loaded is news
}

func heartbeaterOn(t testing.TB, store *chunkstore.Store) (*heartbeater, *script) {
	t.Helper()
	s := &script{answer: yes}
	config, err := Config{ID: "dn1", DataDirs: []string{"x"}, NameNodes: []string{"http://nn:8000"}, Limits: Limits{ReportSize: 3}}.complete()
	if err != nil {
		t.Fatal(err)
	}
	log := hclog.NewNullLogger()
	metrics := newMetrics(store)
	fetcher := newFetcher(config, store, nil, metrics, log)
	trimmer := newTrimmer(config, store, newKeeps(), nil, metrics, log)
	orders := newOrders(config, store, fetcher, trimmer, newSuspicions(store, metrics, log), metrics, log)
	h := newHeartbeater(config, "http://dn1:9000", store, s, newDirectory(s), &standing{}, orders, metrics, log)
	return h, s
}

// checkMetric looks for one line of /metrics.
func checkMetric(t *testing.T, m *metrics, line string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	m.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(recorder.Body.String(), line+"\n") {
		t.Errorf("/metrics has no %s", line)
	}
}

func store(t testing.TB, s *chunkstore.Store, ids ...dfs.ChunkID) {
	t.Helper()
	for _, id := range ids {
		w, err := s.Create(id, 4)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(dfs.ChecksumOf([]byte("data"))); err != nil {
			t.Fatal(err)
		}
	}
}

func digest(ids ...dfs.ChunkID) (d dfs.Digest) {
	for _, id := range ids {
		d = d.Add(id)
	}
	return d
}

func checkHeartbeat(t *testing.T, h protocol.HeartbeatRequest, seq uint64, added, removed []dfs.ChunkID, held ...dfs.ChunkID) {
	t.Helper()
	if h.Seq != seq || !reflect.DeepEqual(h.Added, added) || !reflect.DeepEqual(h.Removed, removed) || h.ChunkCount != int64(len(held)) || h.Digest != digest(held...) {
		t.Errorf("heartbeat %d: seq %d added %v removed %v count %d", seq, h.Seq, h.Added, h.Removed, h.ChunkCount)
	}
}

func chunks(ids ...dfs.ChunkID) []dfs.ChunkID { return ids }

func TestHeartbeatsCarryChanges(t *testing.T) {
	h, s, st := newTestHeartbeater(t)
	h.beat(t.Context())
	checkHeartbeat(t, s.last(), 1, nil, nil)
	if first := s.last(); first.ID != "dn1" || first.URL != "http://dn1:9000" || first.Incarnation != 1 || len(first.Instance) != 32 {
		t.Errorf("%+v", first)
	}
	store(t, st, 1, 2)
	h.beat(t.Context())
	checkHeartbeat(t, s.last(), 2, chunks(1, 2), nil, 1, 2)
	h.beat(t.Context())
	checkHeartbeat(t, s.last(), 3, nil, nil, 1, 2)

	store(t, st, 3)
	s.answer = lost
	h.beat(t.Context())
	checkHeartbeat(t, s.last(), 4, chunks(3), nil, 1, 2, 3)
	if err := st.Remove(1); err != nil {
		t.Fatal(err)
	}
	s.answer = yes
	h.beat(t.Context())
	checkHeartbeat(t, s.last(), 5, chunks(3), chunks(1), 2, 3)
}

func TestHeartbeatBacklog(t *testing.T) {
	h, s, st := newTestHeartbeater(t) // 3 chunks in a report
	store(t, st, 1, 2, 3, 4, 5, 6, 7)
	for i, want := range []struct {
		added []dfs.ChunkID
		held  []dfs.ChunkID
		pause time.Duration
	}{
		{chunks(1, 2, 3), chunks(1, 2, 3), 0},
		{chunks(4, 5, 6), chunks(1, 2, 3, 4, 5, 6), 0},
		{chunks(7), chunks(1, 2, 3, 4, 5, 6, 7), h.interval},
	} {
		pause := h.beat(t.Context())
		checkHeartbeat(t, s.last(), uint64(i+1), want.added, nil, want.held...)
		if pause != want.pause {
			t.Errorf("heartbeat %d: pause %s", i+1, pause)
		}
	}
}

func TestInventoryPages(t *testing.T) {
	h, s, st := newTestHeartbeater(t)
	store(t, st, 1, 2, 3, 4, 5, 6, 7)
	for h.beat(t.Context()) == 0 {
	}
	var pages []string
	next := func(answer func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error)) time.Duration {
		s.answer = answer
		pause := h.beat(t.Context())
		if p := s.last().Inventory; p != nil {
			pages = append(pages, fmt.Sprintf("%d-%x %v %v", p.After, p.Through, len(p.Chunks), p.Last))
		} else {
			pages = append(pages, "-")
		}
		return pause
	}
	if next(inventoryWanted) != 0 { // a plain heartbeat; then without waiting
		t.Error("a wanted inventory waits")
	}
	if next(inventoryWanted) != 0 { // page 1, and being asked again does not begin again
		t.Error("the second page waits")
	}
	if next(lost) != h.interval {
		t.Error("a lost answer is hurried after")
	}
	store(t, st, 9) // comes into the page that is sent again or a later one
	next(yes)
	if next(inventoryWanted) != h.interval { // the last page: in vain, it seems
		t.Error("an inventory that was in vain is repeated at once")
	}
	next(yes)
	next(yes)
	next(yes)
	if next(yes) != h.interval {
		t.Error("the end of the inventory is hurried after")
	}
	want := []string{
		"-", "0-3 3 false", "3-6 3 false", "3-6 3 false", "6-ffffffffffffffff 2 true",
		"0-3 3 false", "3-6 3 false", "6-ffffffffffffffff 2 true", "-",
	}
	if !reflect.DeepEqual(pages, want) {
		t.Errorf("got %q", pages)
	}
	checkHeartbeat(t, s.last(), h.seq, nil, nil, 1, 2, 3, 4, 5, 6, 7, 9)
}

func TestHeartbeatRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error)
		refused dfs.Code // "" when it is only a failure
	}{
		"cloned": {func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			return protocol.HeartbeatReply{}, dfs.Errorf(dfs.Conflict, "dn1 is alive elsewhere")
		}, dfs.Conflict},
		"another cluster's endpoint": {func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			return protocol.HeartbeatReply{}, dfs.Errorf(dfs.WrongCluster, "two clusters")
		}, dfs.WrongCluster},
		"another cluster's answer": {func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			return protocol.HeartbeatReply{ClusterID: clusterB, Term: 9}, nil
		}, dfs.WrongCluster},
		"older term": {func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			return protocol.HeartbeatReply{ClusterID: clusterA, Term: 2}, nil
		}, ""},
		"no leader": {lost, ""},
		"no cluster ID": {func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			return protocol.HeartbeatReply{}, nil
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, s, st := newTestHeartbeater(t)
			if dfs.CodeOf(h.standing.check()) != dfs.Unavailable {
				t.Error("taking chunks before being accepted")
			}
			if name != "no cluster ID" {
				h.beat(t.Context())
			}
			store(t, st, 1)
			s.answer = c.answer
			pause := h.beat(t.Context())
			if got := dfs.CodeOf(h.standing.refused()); got != c.refused {
				t.Errorf("refused: %q", got)
			}
			if slow := pause > h.interval; slow != (c.refused != "") {
				t.Errorf("pause %s", pause)
			}
			s.answer = yes
			if pause := h.beat(t.Context()); pause != h.interval || h.standing.check() != nil {
				t.Errorf("after being accepted: pause %s, %v", pause, h.standing.check())
			}
			checkHeartbeat(t, s.last(), h.seq, chunks(1), nil, 1) // nothing was taken for told
			if st.Identity().ClusterID != clusterA {
				t.Errorf("cluster %s", st.Identity().ClusterID)
			}
		})
	}
}

func TestHeartbeatInterval(t *testing.T) {
	h, s, _ := newTestHeartbeater(t)
	for _, c := range []struct {
		asked int64
		want  time.Duration
	}{{0, defaultInterval}, {-5, defaultInterval}, {500, 500 * time.Millisecond}, {0, 500 * time.Millisecond}, {1, shortestInterval}, {1 << 40, longestInterval}} {
		s.answer = func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			return protocol.HeartbeatReply{ClusterID: clusterA, Interval: c.asked}, nil
		}
		if got := h.beat(t.Context()); got != c.want {
			t.Errorf("asked for %d ms, got %s", c.asked, got)
		}
	}
}

func TestHeartbeatLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, _ := newTestHeartbeater(t)
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		s.answer = func(n int, r protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) {
			if n == 4 {
				cancel()
			}
			return yes(n, r)
		}
		h.run(ctx)
		if got := time.Since(began); got != 3*defaultInterval || len(s.heartbeats) != 4 {
			t.Errorf("%d heartbeats in %s", len(s.heartbeats), got)
		}
	})
}

func TestDirectory(t *testing.T) {
	s := &script{nodes: []protocol.NodeInfo{{ID: "dn2", URL: "http://b:9000"}, {ID: "dn3", URL: "file:///etc/passwd"}}}
	d := newDirectory(s)
	synctest.Test(t, func(t *testing.T) {
		lookup := func(id dfs.NodeID, url string, code dfs.Code, questions int) {
			t.Helper()
			got, err := d.lookup(t.Context(), id)
			if got != url || dfs.CodeOf(err) != code || s.questions != questions {
				t.Errorf("%s: %q, %v after %d questions", id, got, err, s.questions)
			}
		}
		d.learn([]protocol.Target{{ID: "dn1", URL: "http://a:9000"}})
		lookup("dn1", "http://a:9000", "", 0)
		lookup("dn2", "http://b:9000", "", 1)
		lookup("dn3", "", dfs.NotFound, 1) // not an address; and asking again so soon is useless
		lookup("dn9", "", dfs.NotFound, 1)
		time.Sleep(askInterval)
		s.nodesErr = dfs.Errorf(dfs.Unavailable, "nobody answers")
		lookup("dn9", "", dfs.Unavailable, 2)
		lookup("dn2", "http://b:9000", "", 2) // what was known stays known
	})
}
