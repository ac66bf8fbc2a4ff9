package datanode_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func trimOrder(id dfs.ChunkID, data []byte, keep int, keepers ...protocol.Target) protocol.Order {
	return protocol.Order{
		Kind: protocol.OrderTrim, Chunk: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data), Keepers: keepers, Keep: keep,
	}
}

// newKeeper is a DataNode dn9 that answers as the test wants.
func newKeeper(t *testing.T, serve http.HandlerFunc) protocol.Target {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked protocol.StatChunksRequest
		err := protocol.DecodeJSON(r.Body, 1<<20, true, &asked)
		if err != nil || r.URL.Path != "/chunks/stat" || !asked.Verify || len(asked.IDs) != 1 ||
			r.Header.Get(protocol.HeaderNodeID) != "dn9" || r.Header.Get(protocol.HeaderClusterID) != string(clusterA) {
			t.Errorf("asked %s for %+v with %v, %v", r.URL, asked, r.Header, err)
		}
		w.Header().Set(protocol.HeaderNodeID, "dn9")
		serve(w, r)
	}))
	t.Cleanup(s.Close)
	return protocol.Target{ID: "dn9", URL: s.URL}
}

func has(infos ...protocol.ChunkInfo) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		protocol.WriteJSON(w, http.StatusOK, protocol.StatChunksReply{Chunks: infos})
	}
}

func infoOf(id dfs.ChunkID, data []byte) protocol.ChunkInfo {
	return protocol.ChunkInfo{ID: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data)}
}

// A replica goes when as many others as are wanted were read again and are good.
func TestTrimOrder(t *testing.T) {
	n, nodes := three(t, nil)
	data := content(1, 300_000)
	put(t, nodes[0], 1, data, "dn2,dn3")
	put(t, nodes[0], 2, data, "dn2")
	n.reported(t, "dn1", 2, true)
	n.set(func(n *nameNode) {
		n.interval = time.Minute.Milliseconds() // longer than anything here waits
		n.orders["dn1"] = []protocol.Order{
			trimOrder(1, data, 2, target(nodes[1]), target(nodes[2])),
			trimOrder(2, data, 1, target(nodes[1]), target(nodes[2])), // one is enough
			trimOrder(99, data, 1, target(nodes[1])),                  // not held: done
		}
	})
	n.reported(t, "dn1", 1, false)
	n.reported(t, "dn1", 2, false)
	came(t, nodes[0], "trim", "done", 3)
	if !metric(t, nodes[0], "dfs_datanode_trimmed_chunks_total 2") || !metric(t, nodes[2], `dfs_datanode_confirmations_total{result="confirmed"} 1`) {
		t.Error("not counted right")
	}
	checkHoldsNot(t, nodes[0], 1)
	checkHolds(t, nodes[1], 1, data)
	checkHolds(t, nodes[2], 1, data)
	checkHolds(t, nodes[1], 2, data)
}

// Whatever is wrong with the only keeper that could confirm, the replica stays.
func TestTrimIsNotConfirmed(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	keeperConfig := config(t, n, "dn2")
	keeper := start(t, keeperConfig)
	ready(t, n, d, keeper)
	data, other := content(1, 200_000), content(2, 200_000)
	rotten := filepath.Join(keeperConfig.DataDirs[0], "chunks", "02", dfs.ChunkID(2).String())
	gone := httptest.NewServer(nil)
	gone.Close()
	const id = 7 // of what the liars are asked for
	for name, c := range map[string]struct {
		id     dfs.ChunkID
		keeper protocol.Target
	}{
		"damaged":                   {2, target(keeper)},
		"missing":                   {3, target(keeper)},
		"other content":             {4, target(keeper)},
		"unreachable":               {5, protocol.Target{ID: "dn2", URL: gone.URL}},
		"no URL":                    {5, protocol.Target{ID: "dn2", URL: "file:///etc/passwd"}},
		"under another name":        {6, protocol.Target{ID: "dn3", URL: keeper.URL()}},
		"itself under another name": {6, protocol.Target{ID: "dn3", URL: d.URL()}},
		"answers for another chunk": {id, newKeeper(t, has(infoOf(8, data)))},
		"another size":              {id, newKeeper(t, has(protocol.ChunkInfo{ID: id, Size: 1, CRC32C: dfs.ChecksumOf(data)}))},
		"another checksum":          {id, newKeeper(t, has(protocol.ChunkInfo{ID: id, Size: int64(len(data))}))},
		"nothing":                   {id, newKeeper(t, has())},
		"twice":                     {id, newKeeper(t, has(infoOf(id, data), infoOf(id, data)))},
		"a refusal": {id, newKeeper(t, func(w http.ResponseWriter, _ *http.Request) {
			protocol.WriteError(w, dfs.Errorf(dfs.OverLimit, "too busy"))
		})},
		"an error page":  {id, newKeeper(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>sorry</html>") })},
		"an empty body":  {id, newKeeper(t, func(http.ResponseWriter, *http.Request) {})},
		"a long answer":  {id, newKeeper(t, has(slices.Repeat([]protocol.ChunkInfo{infoOf(id, data)}, 10_000)...))},
		"a hang-up":      {id, newKeeper(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
		"another status": {id, newKeeper(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })},
		"nobody": {id, newKeeper(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Del(protocol.HeaderNodeID)
			has(infoOf(id, data))(w, r)
		})},
		"a redirect": {id, newKeeper(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, keeper.URL()+"/chunks/stat", http.StatusTemporaryRedirect)
		})},
	} {
		put(t, d, c.id, data, "")
		if c.id != 3 && c.id != 4 {
			put(t, keeper, c.id, data, "")
		}
		t.Run(name, func(t *testing.T) {
			switch name {
			case "damaged":
				damage(t, rotten, 150_000)
			case "other content":
				put(t, keeper, 4, other, "")
			}
			before := resultsOf(t, d, "trim", "failed")
			n.order(t, "dn1", trimOrder(c.id, data, 1, c.keeper))
			came(t, d, "trim", "failed", before+1)
			checkHolds(t, d, c.id, data)
			if before == 0 && !metric(t, d, "dfs_datanode_trimmed_chunks_total 0") {
				t.Error("it counts as trimmed")
			}
		})
	}
	n.reported(t, "dn2", 2, false) // the damaged one was found
	if kept, err := os.ReadDir(filepath.Join(keeperConfig.DataDirs[0], "quarantine")); err != nil || len(kept) != 1 {
		t.Errorf("quarantine: %v, %v", kept, err)
	}
	n.set(func(n *nameNode) {
		if !slices.Equal(n.corrupt["dn2"], []dfs.ChunkID{2}) {
			t.Errorf("reported as damaged: %v", n.corrupt["dn2"])
		}
	})
	// An honest keeper beside such ones is enough, and one that hangs is not waited for.
	hangs := newKeeper(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	n.order(t, "dn1", trimOrder(5, data, 1, hangs, protocol.Target{ID: "dn3", URL: gone.URL}, target(keeper)))
	n.reported(t, "dn1", 5, false)
	checkHolds(t, keeper, 5, data)
}

// resultsOf is how many orders of a kind have come to a result.
func resultsOf(t *testing.T, d *datanode.DataNode, kind, result string) int {
	t.Helper()
	_, after, found := strings.Cut(string(get(t, d.URL()+"/metrics", nil).body), fmt.Sprintf("dfs_datanode_orders_total{kind=%q,result=%q} ", kind, result))
	count := 0
	if _, err := fmt.Sscan(after, &count); found && err != nil {
		t.Fatal(err)
	}
	return count
}

func TestTrimOfOtherContent(t *testing.T) {
	n, nodes := three(t, nil)
	data, other := content(1, 1000), content(2, 1000)
	put(t, nodes[0], 1, other, "")
	put(t, nodes[1], 1, data, "dn3")
	n.order(t, "dn1", trimOrder(1, data, 1, target(nodes[1]), target(nodes[2])))
	came(t, nodes[0], "trim", "failed", 1)
	checkHolds(t, nodes[0], 1, other)
	if metric(t, nodes[1], `dfs_datanode_confirmations_total{result="confirmed"} 1`) {
		t.Error("the keepers were asked")
	}
}

// Two nodes that are told at once to trim the same chunks, each with the other
// as its only keeper, never both do it.
func TestTrimsOfEachOther(t *testing.T) {
	n, nodes := three(t, nil)
	const rounds, chunks = 12, 8
	data := content(1, 5000)
	trimmed := 0
	for round := range rounds {
		var orders [2][]protocol.Order
		for i := range chunks {
			id := dfs.ChunkID(round*chunks + i + 1)
			put(t, nodes[0], id, data, "dn2")
			orders[0] = append(orders[0], trimOrder(id, data, 1, target(nodes[1])))
			orders[1] = append(orders[1], trimOrder(id, data, 1, target(nodes[0])))
		}
		n.set(func(n *nameNode) { n.orders["dn1"], n.orders["dn2"] = orders[0], orders[1] })
		for _, d := range nodes[:2] {
			waitUntil(t, "all trims", func() bool { return trimsOver(t, d) == (round+1)*chunks })
		}
		for i := range chunks {
			id := dfs.ChunkID(round*chunks + i + 1)
			left := 0
			for _, d := range nodes[:2] {
				if get(t, chunkURL(d, id), nil).status == http.StatusOK {
					left++
				}
			}
			if left == 0 {
				t.Fatalf("round %d: both nodes gave up chunk %s", round, id)
			}
			trimmed += 2 - left
		}
	}
	t.Logf("%d of %d chunks were trimmed", trimmed, rounds*chunks)
}

// Of three that are told at once, with two replicas wanted, at most one does.
func TestTrimsOfThree(t *testing.T) {
	n, nodes := three(t, nil)
	const chunks = 40
	data := content(1, 5000)
	orders := map[dfs.NodeID][]protocol.Order{}
	for id := dfs.ChunkID(1); id <= chunks; id++ {
		put(t, nodes[0], id, data, "dn2,dn3")
		for i, d := range nodes {
			orders[d.ID()] = append(orders[d.ID()], trimOrder(id, data, 2, target(nodes[(i+1)%3]), target(nodes[(i+2)%3])))
		}
	}
	for round := range 3 {
		n.set(func(n *nameNode) {
			for id, list := range orders {
				n.orders[id] = slices.Clone(list)
				slices.Reverse(list)
			}
		})
		for _, d := range nodes {
			waitUntil(t, "all trims", func() bool { return trimsOver(t, d) == (round+1)*chunks })
		}
	}
	for id := dfs.ChunkID(1); id <= chunks; id++ {
		left := 0
		for _, d := range nodes {
			if get(t, chunkURL(d, id), nil).status == http.StatusOK {
				left++
			}
		}
		if left < 2 {
			t.Errorf("chunk %s: %d replicas are left", id, left)
		}
	}
}

// trimsOver is how many trims have come to any result.
func trimsOver(t *testing.T, d *datanode.DataNode) (sum int) {
	t.Helper()
	for line := range strings.SplitSeq(string(get(t, d.URL()+"/metrics", nil).body), "\n") {
		if result, found := strings.CutPrefix(line, `dfs_datanode_orders_total{kind="trim",result=`); found {
			var count int
			if _, err := fmt.Sscan(result[strings.Index(result, "}")+1:], &count); err != nil {
				t.Fatal(err)
			}
			sum += count
		}
	}
	return sum
}

func verifying(t *testing.T, d *datanode.DataNode, ids ...dfs.ChunkID) answer {
	t.Helper()
	body, err := json.Marshal(protocol.StatChunksRequest{IDs: ids, Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	return do(t, request(t, "POST", d.URL()+"/chunks/stat", nil, body))
}

func confirmed(t *testing.T, d *datanode.DataNode, ids ...dfs.ChunkID) []protocol.ChunkInfo {
	t.Helper()
	a := verifying(t, d, ids...)
	var reply protocol.StatChunksReply
	if err := json.Unmarshal(a.body, &reply); err != nil || a.status != http.StatusOK || reply.Chunks == nil {
		t.Fatalf("status %d, %s, %v", a.status, a.body, err)
	}
	return reply.Chunks
}

// A node does not confirm what it is about to give up, and does not give up what
// it has confirmed.
func TestConfirmations(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	if a := verifying(t, start(t, func() datanode.Config {
		other := config(t, n, "dn5")
		n.set(func(n *nameNode) { n.refuse["dn5"] = dfs.Errorf(dfs.Conflict, "dn5 lives elsewhere") })
		return other
	}())); a.status == http.StatusOK {
		t.Error("a node that is not accepted confirms")
	}
	ready(t, n, d)
	data := content(1, 200_000)
	for id := range dfs.ChunkID(4) {
		put(t, d, id+1, data, "")
	}
	n.reported(t, "dn1", 4, true)
	damage(t, filepath.Join(c.DataDirs[0], "chunks", "03", dfs.ChunkID(3).String()), 199_999)
	got := confirmed(t, d, 2, 99, 3, 1)
	if want := []protocol.ChunkInfo{infoOf(2, data), infoOf(1, data)}; !slices.Equal(got, want) {
		t.Errorf("confirmed %v, want %v", got, want)
	}
	n.reported(t, "dn1", 3, false)
	if code := verifying(t, d, fill(protocol.MaxVerifiedChunks+1)...).code(t); code != dfs.TooLarge {
		t.Errorf("too many chunks: code %q", code)
	}

	good := newKeeper(t, has(infoOf(1, data)))
	n.order(t, "dn1", trimOrder(1, data, 1, good)) // promised a moment ago
	came(t, d, "trim", "failed", 1)
	checkHolds(t, d, 1, data)

	answerNow, asked := make(chan struct{}), make(chan struct{})
	n.order(t, "dn1", trimOrder(4, data, 1, newKeeper(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answerNow
		protocol.WriteError(w, dfs.Errorf(dfs.Unavailable, "not now"))
	})))
	<-asked
	if got := confirmed(t, d, 4, 2); !slices.Equal(got, []protocol.ChunkInfo{infoOf(2, data)}) {
		t.Errorf("while chunk 4 is going: confirmed %v", got)
	}
	close(answerNow)
	came(t, d, "trim", "failed", 2)
	if got := confirmed(t, d, 4); !slices.Equal(got, []protocol.ChunkInfo{infoOf(4, data)}) {
		t.Errorf("after all chunk 4 stays: confirmed %v", got)
	}
	n.order(t, "dn1", deleteOrder(4, 1)) // garbage is garbage, promised or not
	n.reported(t, "dn1", 4, false)
	n.reported(t, "dn1", 1, false)
}

// A leader that is replaced while the keepers are asked has given its last order.
func TestTermEndsDuringATrim(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	data := content(1, 1000)
	put(t, d, 1, data, "")
	answerNow, asked := make(chan struct{}), make(chan struct{})
	n.order(t, "dn1", trimOrder(1, data, 1, newKeeper(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-answerNow
		has(infoOf(1, data))(w, r)
	})))
	<-asked
	n.set(func(n *nameNode) { n.term++ })
	n.order(t, "dn1")
	close(answerNow)
	came(t, d, "trim", "refused", 1)
	checkHolds(t, d, 1, data)
}

// Close does not wait for a keeper that hangs.
func TestCloseDuringTrim(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	put(t, d, 1, data, "")
	asked := make(chan struct{})
	n.order(t, "dn1", trimOrder(1, data, 1, newKeeper(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})))
	<-asked
	stop(t, d)
	if _, err := os.Stat(filepath.Join(c.DataDirs[0], "chunks", "01", dfs.ChunkID(1).String())); err != nil {
		t.Error(err)
	}
}
