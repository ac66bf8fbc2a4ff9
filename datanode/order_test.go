package datanode_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// source is a DataNode that serves what the test wants, and remembers for what
// it was asked.
type source struct {
	*httptest.Server
	mu    sync.Mutex
	asked []dfs.ChunkID
}

func newSource(t *testing.T, serve http.HandlerFunc) *source {
	t.Helper()
	s := &source{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /chunks/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := dfs.ParseChunkID(r.PathValue("id"))
		if err != nil || r.Header.Get(protocol.HeaderNodeID) != "dn9" || r.Header.Get(protocol.HeaderClusterID) != string(clusterA) {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
		s.mu.Lock()
		s.asked = append(s.asked, id)
		s.mu.Unlock()
		serve(w, r)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *source) target() protocol.Target { return protocol.Target{ID: "dn9", URL: s.URL} }

func (s *source) questions() []dfs.ChunkID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// sends answers with data under the headers of claimed.
func sends(claimed, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(protocol.HeaderChecksum, dfs.ChecksumOf(claimed).String())
		w.Header().Set("Content-Length", strconv.Itoa(len(claimed)))
		_, _ = w.Write(data) // the test sees what has come of it
	}
}

func copyOrder(id dfs.ChunkID, data []byte, sources ...protocol.Target) protocol.Order {
	return protocol.Order{Kind: protocol.OrderCopy, Chunk: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data), Sources: sources}
}

func target(d *datanode.DataNode) protocol.Target { return protocol.Target{ID: d.ID(), URL: d.URL()} }

func metric(t *testing.T, d *datanode.DataNode, line string) bool {
	t.Helper()
	return strings.Contains(string(get(t, d.URL()+"/metrics", nil).body), line+"\n")
}

func TestCopyOrder(t *testing.T) {
	n, nodes := three(t, nil)
	done := 0
	for id, size := range map[dfs.ChunkID]int{1: 1, 2: 65536, 3: 300_000, 4: dfs.DefaultChunkSize} {
		data := content(byte(id), size)
		put(t, nodes[0], id, data, "")
		order := copyOrder(id, data, target(nodes[0]))
		n.order(t, "dn2", order, order)
		n.reported(t, "dn2", id, true)
		checkHolds(t, nodes[1], id, data)
		done++
		came(t, nodes[1], "copy", "done", done) // as long as it is not, the next one is the same
		n.order(t, "dn2", order)                // held already
		done++
	}
	came(t, nodes[1], "copy", "done", done)
	if !metric(t, nodes[1], fmt.Sprintf("dfs_datanode_copied_bytes_total %v", float64(1+65536+300_000+dfs.DefaultChunkSize))) {
		t.Error("copied more than once, or not counted")
	}
	checkHoldsNot(t, nodes[2], 1)
}

// A copy that was made or a damage that was found is told long before the next
// heartbeat is due.
func TestNewsAreReportedAtOnce(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 100_000)
	put(t, d, 2, data, "")
	n.reported(t, "dn1", 2, true)
	origin := newSource(t, sends(data, data))
	n.set(func(n *nameNode) {
		n.interval = time.Minute.Milliseconds() // longer than anything here waits
		n.orders["dn1"] = []protocol.Order{copyOrder(1, data, origin.target())}
	})
	n.reported(t, "dn1", 1, true)
	checkHolds(t, d, 1, data)

	damage(t, filepath.Join(c.DataDirs[0], "chunks", "02", dfs.ChunkID(2).String()), 100_000+8+8) // the footer: a reader notices
	if a := get(t, chunkURL(d, 2), nil); a.code(t) != dfs.Corrupt {
		t.Errorf("status %d", a.status)
	}
	n.reported(t, "dn1", 2, false)
}

func TestCopyTriesTheNextSource(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.ForwardTimeout = 200 * time.Millisecond
	d := start(t, c)
	ready(t, n, d)
	data := content(7, 200_000)
	other := content(8, 200_000)
	release := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
	stopped := httptest.NewServer(nil)
	stopped.Close()
	bad := map[string]protocol.Target{
		"not listening":     {ID: "dn9", URL: stopped.URL},
		"no URL":            {ID: "dn9", URL: "file:///etc/passwd"},
		"with a path":       {ID: "dn9", URL: stopped.URL + "/x"},
		"itself":            {ID: "dn1", URL: d.URL()},
		"a lie in the data": newSource(t, sends(data, other)).target(),
		"another chunk":     newSource(t, sends(other, other)).target(),
		"shorter":           newSource(t, sends(data[:100], data[:100])).target(),
		"longer":            newSource(t, sends(append(data, 1), append(data, 1))).target(),
		"broken off":        newSource(t, sends(data, data[:100_000])).target(),
		"not found": newSource(t, func(w http.ResponseWriter, _ *http.Request) {
			protocol.WriteError(w, dfs.Errorf(dfs.NotFound, "it is not here"))
		}).target(),
		"a redirect": newSource(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		}).target(),
		"no length": newSource(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(protocol.HeaderChecksum, dfs.ChecksumOf(data).String())
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(data)
		}).target(),
		"silent": newSource(t, hang).target(),
		"silent in the middle": newSource(t, func(w http.ResponseWriter, r *http.Request) {
			sends(data, data[:150_000])(w, r)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}).target(),
	}
	defer close(release)
	good := newSource(t, sends(data, data))
	id := dfs.ChunkID(0)
	for name, first := range bad {
		t.Run(name, func(t *testing.T) {
			id++
			before := resultsOf(t, d, "copy", "failed")
			n.order(t, "dn1", copyOrder(id, data, first))
			waitUntil(t, "the failure", func() bool { return resultsOf(t, d, "copy", "failed") > before })
			checkHoldsNot(t, d, id)
			if tempFiles(t, c.DataDirs[0]) != 0 {
				t.Error("something is left of the copy")
			}
			waitUntil(t, "the copy", func() bool { // nothing stands in the way of another try, and a slow machine may take several
				n.order(t, "dn1", copyOrder(id, data, first, good.target()))
				return get(t, chunkURL(d, id), nil).status == http.StatusOK
			})
			n.reported(t, "dn1", id, true)
			checkHolds(t, d, id, data)
		})
	}
}

func TestCopyIsRefusedWhereItWouldHarm(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	data, other := content(1, 1000), content(2, 1000)
	put(t, d, 1, data, "")
	origin := newSource(t, sends(other, other))
	good := copyOrder(2, other, origin.target())
	with := func(change func(*protocol.Order)) protocol.Order {
		o := good
		change(&o)
		return o
	}
	n.order(t, "dn1",
		copyOrder(1, other, origin.target()), // other content than what is held
		with(func(o *protocol.Order) { o.Kind = "shred" }),
		with(func(o *protocol.Order) { o.Kind = "" }),
		with(func(o *protocol.Order) { o.Size = 0 }),
		with(func(o *protocol.Order) { o.Size = -1 }),
		with(func(o *protocol.Order) { o.Size = dfs.MaxChunkSize + 1 }),
		with(func(o *protocol.Order) { o.Sources = nil }),
		with(func(o *protocol.Order) { o.Sources = make([]protocol.Target, dfs.MaxReplication+1) }),
	)
	waitUntil(t, "the verdicts", func() bool {
		return metric(t, d, `dfs_datanode_orders_total{kind="copy",result="failed"} 1`) &&
			metric(t, d, `dfs_datanode_orders_total{kind="copy",result="refused"} 5`) &&
			metric(t, d, `dfs_datanode_orders_total{kind="unknown",result="refused"} 2`)
	})
	checkHolds(t, d, 1, data)
	checkHoldsNot(t, d, 2)
	if asked := origin.questions(); len(asked) > 0 {
		t.Errorf("the source was asked for %v", asked)
	}
}

// A chunk that was found damaged is kept apart, and a good copy takes its place.
func TestVerifyOrder(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 300_000)
	for id := range dfs.ChunkID(2) {
		put(t, d, id+1, data, "")
	}
	n.reported(t, "dn1", 2, true)
	damage(t, filepath.Join(c.DataDirs[0], "chunks", "01", dfs.ChunkID(1).String()), 200_000)
	verify := func(id dfs.ChunkID) protocol.Order { return protocol.Order{Kind: protocol.OrderVerify, Chunk: id} }
	n.order(t, "dn1", verify(1), verify(2), verify(99))
	n.reported(t, "dn1", 1, false)
	waitUntil(t, "all verdicts", func() bool {
		return metric(t, d, `dfs_datanode_orders_total{kind="verify",result="done"} 2`) &&
			metric(t, d, `dfs_datanode_orders_total{kind="verify",result="failed"} 1`) // there is no chunk 99
	})
	checkHoldsNot(t, d, 1)
	checkHolds(t, d, 2, data)
	n.set(func(n *nameNode) {
		if !slices.Equal(n.corrupt["dn1"], []dfs.ChunkID{1}) {
			t.Errorf("reported as damaged: %v", n.corrupt["dn1"])
		}
	})
	n.order(t, "dn1", copyOrder(1, data, newSource(t, sends(data, data)).target()))
	n.reported(t, "dn1", 1, true)
	checkHolds(t, d, 1, data)
	if kept, err := os.ReadDir(filepath.Join(c.DataDirs[0], "quarantine")); err != nil || len(kept) != 1 {
		t.Errorf("quarantine: %v, %v", kept, err)
	}
}

// An old leader that comes back gives no orders, not even to a node that has
// been restarted meanwhile.
func TestOrdersOfAnEarlierTerm(t *testing.T) {
	n := newNameNode(t)
	n.set(func(n *nameNode) { n.term = 5 })
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	origin := newSource(t, sends(data, data))
	next := dfs.ChunkID(0)
	replay := func(when string) {
		t.Helper()
		next += 2
		n.set(func(n *nameNode) { n.term = 4 })
		n.order(t, "dn1", copyOrder(next-1, data, origin.target()))
		n.set(func(n *nameNode) { n.term = 5 })
		n.order(t, "dn1", copyOrder(next, data, origin.target())) // would be carried out later
		n.reported(t, "dn1", next, true)
		checkHoldsNot(t, d, next-1)
		if asked := origin.questions(); slices.Contains(asked, next-1) || !slices.Contains(asked, next) {
			t.Errorf("%s: the source was asked for %v", when, asked)
		}
	}
	replay("in the same run")
	stop(t, d)
	n.set(func(n *nameNode) { n.term = 4 }) // the old leader is the first to answer
	d = start(t, c)
	n.heard(t, "dn1", "the restarted node", func(h heartbeat) bool { return h.Incarnation == 2 && h.Seq > 1 })
	replay("after a restart")
}

// Close does not wait for a copy that hangs.
func TestCloseDuringCopy(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.Copies = 1
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	hangs := newSource(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	n.order(t, "dn1", copyOrder(1, data, hangs.target()), copyOrder(2, data, hangs.target()), copyOrder(3, data, hangs.target()))
	waitUntil(t, "the copy to begin", func() bool { return len(hangs.questions()) > 0 })
	stop(t, d)
	if asked := hangs.questions(); !slices.Equal(asked, []dfs.ChunkID{1}) || tempFiles(t, c.DataDirs[0]) != 0 {
		t.Errorf("asked for %v, %d temporary files", asked, tempFiles(t, c.DataDirs[0]))
	}
}

func TestCopiesAtATime(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	data := content(1, 1000)
	var mu sync.Mutex
	running, most := 0, 0
	first := make(chan struct{}, 2)
	release := make(chan struct{})
	origin := newSource(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		select {
		case first <- struct{}{}:
			<-release
		default:
		}
		mu.Lock()
		running--
		mu.Unlock()
		sends(data, data)(w, r)
	})
	var orders []protocol.Order
	for id := range dfs.ChunkID(8) {
		orders = append(orders, copyOrder(id+1, data, origin.target()))
	}
	n.order(t, "dn1", orders...)
	waitUntil(t, "two copies at a time", func() bool { return len(origin.questions()) == 2 })
	n.order(t, "dn1", orders...) // all are in work or waiting
	close(release)
	waitUntil(t, "all copies", func() bool { return metric(t, d, `dfs_datanode_orders_total{kind="copy",result="done"} 8`) })
	mu.Lock()
	defer mu.Unlock()
	if asked := origin.questions(); most != 2 || len(asked) != 8 {
		t.Errorf("%d at a time, asked for %v", most, asked)
	}
}
