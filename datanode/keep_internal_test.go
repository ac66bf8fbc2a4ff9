package datanode

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func TestPromisesAndMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeps()
		mark := func(when string, id dfs.ChunkID, want dfs.Code) {
			t.Helper()
			if err := k.mark(id); dfs.CodeOf(err) != want {
				t.Errorf("%s: %v", when, err)
			}
		}
		promise := func(when string, id dfs.ChunkID, want bool) func(bool) {
			t.Helper()
			settle, ok := k.promise(id)
			if ok != want {
				t.Errorf("%s: promised %t", when, ok)
			}
			return settle
		}
		mark("first", 1, "")
		mark("twice", 1, dfs.Conflict)
		promise("going", 1, false)
		promise("another", 2, true)(false)
		k.unmark(1)
		mark("again", 1, "")
		k.unmark(1)

		settle := promise("not going", 1, true)
		mark("being read", 1, dfs.Conflict)
		time.Sleep(10 * promiseLifetime) // however long it takes
		mark("still being read", 1, dfs.Conflict)
		second := promise("for another asker", 1, true)
		settle(true)
		second(false) // takes nothing back from the first
		time.Sleep(promiseLifetime - time.Nanosecond)
		mark("promised", 1, dfs.Conflict)
		time.Sleep(time.Nanosecond)
		mark("no longer", 1, "")
		k.unmark(1)

		promise("bad", 3, true)(false)
		mark("found bad", 3, "")
		if trimBound >= promiseLifetime/2 {
			t.Error("a promise holds hardly longer than the asker may act")
		}
	})
}

func TestPromisesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeps()
		for id := dfs.ChunkID(1); id <= maxPromises; id++ {
			settle, ok := k.promise(id)
			if !ok {
				t.Fatalf("no room for promise %d", id)
			}
			settle(true)
		}
		if _, ok := k.promise(maxPromises + 1); ok {
			t.Error("there is no bound")
		}
		if settle, ok := k.promise(1); !ok {
			t.Error("a promise is not made again")
		} else {
			settle(true)
		}
		time.Sleep(promiseLifetime)
		if _, ok := k.promise(maxPromises + 1); !ok || len(k.promised) != 1 {
			t.Errorf("what is over stays: %d promises", len(k.promised))
		}
	})
}

// asks is the network to keepers that answer as the test wants.
type asks func(*http.Request) (*http.Response, error)

func (a asks) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

// confirms is the answer of a keeper that has the chunks of store.
func confirms(ids ...dfs.ChunkID) *http.Response {
	var body bytes.Buffer
	body.WriteString(`{"chunks":[`)
	for i, id := range ids {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`{"id":"` + id.String() + `","size":4,"crc32c":"` + dfs.ChecksumOf([]byte("data")).String() + `"}`)
	}
	body.WriteString(`]}`)
	return &http.Response{
		StatusCode: http.StatusOK, Body: io.NopCloser(&body),
		Header: http.Header{http.CanonicalHeaderKey(protocol.HeaderNodeID): {"dn2"}},
	}
}

func testOrders(st *chunkstore.Store, network asks) *orders {
	config := Config{ID: "dn1", Limits: Limits{Copies: 1}}
	metrics, log := newMetrics(st), hclog.NewNullLogger()
	trimmer := newTrimmer(config, st, newKeeps(), network, metrics, log)
	return newOrders(config, st, newFetcher(config, st, nil, metrics, log), trimmer, newSuspicions(st, metrics, log), metrics, log)
}

func trimOf(id dfs.ChunkID) protocol.Order {
	return protocol.Order{
		Kind: protocol.OrderTrim, Chunk: id, Size: 4, CRC32C: dfs.ChecksumOf([]byte("data")),
		Keep: 1, Keepers: []protocol.Target{{ID: "dn2", URL: "http://dn2:9000"}},
	}
}

// An order that waited too long is void, and so is what is left of a long one.
func TestOrdersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openAt(t, t.TempDir(), nil)
		store(t, st, 1, 2, 3, 4)
		o := testOrders(st, func(*http.Request) (*http.Response, error) { return confirms(3), nil })
		received := time.Now()
		given := func(p protocol.Order) order { return order{Order: p, received: received} }
		time.Sleep(protocol.OrderLifetime - time.Nanosecond)
		o.carryOut(t.Context(), given(protocol.Order{Kind: protocol.OrderDelete, Chunks: chunks(1)}))
		time.Sleep(time.Nanosecond)
		o.carryOut(t.Context(), given(protocol.Order{Kind: protocol.OrderDelete, Chunks: chunks(2)}))
		o.carryOut(t.Context(), given(trimOf(3)))
		o.carryOut(t.Context(), given(protocol.Order{Kind: protocol.OrderVerify, Chunk: 4})) // takes nothing away
		for _, line := range []string{
			`dfs_datanode_orders_total{kind="delete",result="done"} 1`, `dfs_datanode_orders_total{kind="delete",result="expired"} 1`,
			`dfs_datanode_orders_total{kind="trim",result="expired"} 1`, `dfs_datanode_orders_total{kind="verify",result="done"} 1`,
		} {
			checkMetric(t, o.metrics, line)
		}
		if _, held := st.Stat(1); held || st.Totals().Count != 3 {
			t.Errorf("%d chunks are left", st.Totals().Count)
		}
	})
}

func TestLongDeleteExpiresInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openAt(t, t.TempDir(), nil)
		store(t, st, 1, 2, 3, 4)
		o := testOrders(st, nil)
		asked := 0
		fence := func() error {
			if asked++; asked > 3 { // once before what is removed together, which is nothing here
				return &voidError{orderExpired, "over"}
			}
			return nil
		}
		err := o.delete(t.Context(), chunks(1, 2, 3, 4), fence)
		var void *voidError
		if !errors.As(err, &void) || st.Totals().Count != 2 {
			t.Errorf("%v, %d chunks are left", err, st.Totals().Count)
		}
		checkMetric(t, o.metrics, "dfs_datanode_deleted_chunks_total 2")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := o.delete(ctx, chunks(3, 4), func() error { return nil }); err == nil || st.Totals().Count != 2 {
			t.Errorf("the node is being closed: %v, %d chunks are left", err, st.Totals().Count)
		}
	})
}

// What keepers say counts for a while only, and the order must hold still when
// they have spoken.
func TestAnswersOfKeepersGetOld(t *testing.T) {
	for name, c := range map[string]struct {
		age     time.Duration // of the order, when its turn comes
		answer  time.Duration // the keeper takes
		fence   time.Duration // until the term has been looked up
		metric  string
		removed bool
	}{
		"in time":           {0, trimBound - 1, 0, `result="done"`, true},
		"too late":          {0, trimBound, 0, `result="failed"`, false},
		"never":             {0, time.Hour, 0, `result="failed"`, false},
		"stopped after it":  {0, 0, trimBound, `result="failed"`, false},
		"expired meanwhile": {protocol.OrderLifetime - time.Second, time.Second, 0, `result="expired"`, false},
		"just in time":      {protocol.OrderLifetime - time.Second, time.Second - 1, 0, `result="done"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := openAt(t, t.TempDir(), nil)
				store(t, st, 1)
				o := testOrders(st, func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(c.answer):
						return confirms(1), nil
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
				})
				given := order{Order: trimOf(1), received: time.Now()}
				time.Sleep(c.age)
				if c.fence > 0 {
					err := o.trimmer.trim(t.Context(), given.Order, func() error {
						time.Sleep(c.fence)
						return nil
					})
					if dfs.CodeOf(err) != dfs.Timeout {
						t.Error(err)
					}
				} else {
					o.carryOut(t.Context(), given)
					checkMetric(t, o.metrics, `dfs_datanode_orders_total{kind="trim",`+c.metric+`} 1`)
				}
				if _, held := st.Stat(1); held == c.removed {
					t.Errorf("held: %t", held)
				}
				if len(o.trimmer.keeps.going) > 0 {
					t.Error("the mark is left")
				}
			})
		})
	}
}

// The replica counts as going until it is gone: in between nobody hears that it
// will stay.
func TestMarkOutlivesTheReplica(t *testing.T) {
	k := newKeeps()
	var mu sync.Mutex
	looked := false
	st := openAt(t, t.TempDir(), func(op chunkstore.Op, path string) error {
		if op == chunkstore.OpRemove || op == chunkstore.OpRename {
			mu.Lock()
			defer mu.Unlock()
			if err := k.mark(7); dfs.CodeOf(err) == dfs.Conflict {
				looked = true
			} else {
				k.unmark(7)
			}
		}
		return nil
	})
	store(t, st, 7)
	o := testOrders(st, func(*http.Request) (*http.Response, error) { return confirms(7), nil })
	o.trimmer.keeps = k
	if err := o.trimmer.trim(t.Context(), trimOf(7), func() error { return nil }); err != nil || !looked {
		t.Errorf("%v; going while it was removed: %t", err, looked)
	}
	if _, held := st.Stat(7); held || len(k.going) > 0 {
		t.Error("it is held, or still going")
	}
}

func TestHostileOrders(t *testing.T) {
	for name, o := range map[string]protocol.Order{
		"delete without an ID": {Kind: protocol.OrderDelete, Chunks: chunks(1, 0)},
		"delete nothing":       {Kind: protocol.OrderDelete},
		"verify nothing":       {Kind: protocol.OrderVerify},
		"unknown":              {Kind: "shred", Chunk: 1},
	} {
		if err := checkOrder(o, "dn1"); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkOrder(trimOf(1), "dn1"); err != nil {
		t.Error(err)
	}
	if err := checkOrder(trimOf(1), "dn2"); dfs.CodeOf(err) != dfs.Invalid {
		t.Errorf("its own keeper: %v", err)
	}
}

// Deletes are never the same; trims of a chunk are. Each kind has its own room.
func TestLanesAreBounded(t *testing.T) {
	o := testOrders(openAt(t, t.TempDir(), nil), nil)
	for range orderQueue + 5 {
		o.take(3, []protocol.Order{{Kind: protocol.OrderDelete, Chunks: chunks(1)}, trimOf(1)})
	}
	o.take(3, verifyOrders(1))
	if d, tr, c := len(o.deletes.queue), len(o.trims.queue), len(o.copies.queue); d != orderQueue || tr != 1 || c != 1 {
		t.Errorf("%d deletes, %d trims, %d others wait", d, tr, c)
	}
	checkMetric(t, o.metrics, `dfs_datanode_orders_total{kind="delete",result="dropped"} 5`)
}

func TestSuspicionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := openAt(t, t.TempDir(), nil)
		var ids []dfs.ChunkID
		for id := dfs.ChunkID(1); id <= suspicionQueue+10; id++ {
			ids = append(ids, id)
		}
		store(t, st, ids...)
		s := newSuspicions(st, newMetrics(st), hclog.NewNullLogger())
		for _, id := range ids {
			s.raise(id)
			s.raise(id) // waits already
		}
		checkMetric(t, s.metrics, `dfs_datanode_suspicions_total{result="dropped"} 20`)
		run := func() {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); s.run(ctx) }()
			synctest.Wait()
			cancel()
			<-ended
		}
		run()
		checkMetric(t, s.metrics, `dfs_datanode_suspicions_total{result="unfounded"} 64`)
		s.raise(suspicionQueue + 1) // never verified, but enough were
		checkMetric(t, s.metrics, `dfs_datanode_suspicions_total{result="dropped"} 21`)
		time.Sleep(suspicionRest)
		s.raise(suspicionQueue + 1)
		s.raise(1)
		run()
		checkMetric(t, s.metrics, `dfs_datanode_suspicions_total{result="unfounded"} 66`)
		if len(s.verified) != 2 || s.lane.waiting() != 0 {
			t.Errorf("%d are remembered, %d wait", len(s.verified), s.lane.waiting())
		}
	})
}

// A replica on a disk that has failed is confirmed to nobody, though others of the
// node are well.
func TestNoConfirmationFromAFailedDisk(t *testing.T) {
	top := t.TempDir()
	bad := filepath.Join(top, "b")
	var broken atomic.Bool
	st, err := chunkstore.Open(chunkstore.Config{
		Unpacked: true,
		Dirs:     []string{filepath.Join(top, "a"), bad}, NodeID: "dn1", Reserve: 1,
		Hook: func(op chunkstore.Op, path string) error {
			if broken.Load() && op == chunkstore.OpCreate && strings.HasPrefix(path, bad) {
				return syscall.EROFS
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	awaitLoaded(t, st)
	where := [2]dfs.ChunkID{}
	for id := dfs.ChunkID(1); where[0] == 0 || where[1] == 0; id++ {
		before := st.Volumes()[1].Chunks
		store(t, st, id)
		where[st.Volumes()[1].Chunks-before] = id
	}
	s := &server{store: st, keeps: newKeeps(), standing: &standing{accepted: true}, log: hclog.NewNullLogger()}
	check := func(id dfs.ChunkID, want bool) {
		t.Helper()
		if err := s.mayConfirm(); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.confirm(t.Context(), id); ok != want || err != nil {
			t.Errorf("confirmed: %t, %v", ok, err)
		}
	}
	check(where[0], true)
	check(where[1], true)
	broken.Store(true)
	st.Probe()
	check(where[0], true)
	check(where[1], false)
	if _, held := st.Stat(where[1]); !held {
		t.Error("it is not held any more")
	}
}
