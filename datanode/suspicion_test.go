package datanode_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func suspect(t *testing.T, d *datanode.DataNode, id dfs.ChunkID) answer {
	t.Helper()
	return do(t, request(t, http.MethodPost, chunkURL(d, id)+"/verify", http.Header{protocol.HeaderNodeID: {string(d.ID())}}, nil))
}

// What a reader suspects is read again; only what is found here counts.
func TestSuspicions(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 300_000)
	put(t, d, 1, data, "")
	put(t, d, 2, data, "")
	n.reported(t, "dn1", 2, true)
	damage(t, filepath.Join(c.DataDirs[0], "chunks", "01", dfs.ChunkID(1).String()), 200_000)
	for _, id := range []dfs.ChunkID{1, 2} {
		if a := suspect(t, d, id); a.status != http.StatusAccepted {
			t.Errorf("chunk %s: status %d %s", id, a.status, a.body)
		}
	}
	n.reported(t, "dn1", 1, false)
	checkHoldsNot(t, d, 1)
	waitUntil(t, "both verdicts", func() bool {
		return metric(t, d, `dfs_datanode_suspicions_total{result="damaged"} 1`) && metric(t, d, `dfs_datanode_suspicions_total{result="unfounded"} 1`)
	})
	waitUntil(t, "some to be dropped", func() bool { // it was read a moment ago
		suspect(t, d, 2)
		return metric(t, d, `dfs_datanode_suspicions_total{result="dropped"} 5`)
	})
	if !metric(t, d, `dfs_datanode_suspicions_total{result="unfounded"} 1`) {
		t.Error("it was read again")
	}
	checkHolds(t, d, 2, data)
	n.reported(t, "dn1", 2, true)
	n.set(func(n *nameNode) {
		if !slices.Equal(n.corrupt["dn1"], []dfs.ChunkID{1}) {
			t.Errorf("reported as damaged: %v", n.corrupt["dn1"])
		}
	})
	if kept, err := os.ReadDir(filepath.Join(c.DataDirs[0], "quarantine")); err != nil || len(kept) != 1 {
		t.Errorf("quarantine: %v, %v", kept, err)
	}
}

func TestSuspicionsThatAreRefused(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	put(t, d, 1, content(1, 10), "")
	if code := suspect(t, d, 2).code(t); code != dfs.NotFound {
		t.Errorf("of a chunk that is not held: %q", code)
	}
	for path, code := range map[string]dfs.Code{
		"/chunks/0000000000000000/verify":   dfs.Invalid,
		"/chunks/1/verify":                  dfs.Invalid,
		"/chunks/0000000000000001/verify/x": dfs.NotFound,
	} {
		if got := do(t, request(t, http.MethodPost, d.URL()+path, nil, nil)).code(t); got != code {
			t.Errorf("%s: %q", path, got)
		}
	}
	if code := get(t, chunkURL(d, 1)+"/verify", nil).code(t); code != dfs.MethodNotAllowed {
		t.Errorf("GET: %q", code)
	}
	if code := do(t, request(t, http.MethodPost, chunkURL(d, 1)+"/verify", http.Header{protocol.HeaderNodeID: {"dn2"}}, nil)).code(t); code != dfs.Conflict {
		t.Errorf("for another node: %q", code)
	}
}

// A replica can be whole and yet not what the namespace knows: the leader says
// what it should be.
func TestVerifyOrderAgainstTheNamespace(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	data, other := content(1, 1000), content(2, 1000)
	for id := range dfs.ChunkID(4) {
		put(t, d, id+1, data, "")
	}
	n.reported(t, "dn1", 4, true)
	verify := func(id dfs.ChunkID, data []byte) protocol.Order {
		return protocol.Order{Kind: protocol.OrderVerify, Chunk: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data)}
	}
	n.order(t, "dn1", verify(1, data), verify(2, other), verify(3, data[:999]), protocol.Order{Kind: protocol.OrderVerify, Chunk: 4},
		protocol.Order{Kind: protocol.OrderVerify, Chunk: 4, Size: -1}, protocol.Order{Kind: protocol.OrderVerify, Chunk: 4, Size: dfs.MaxChunkSize + 1})
	n.reported(t, "dn1", 2, false)
	n.reported(t, "dn1", 3, false)
	came(t, d, "verify", "done", 4)
	came(t, d, "verify", "refused", 2)
	checkHolds(t, d, 1, data)
	checkHolds(t, d, 4, data)
	n.set(func(n *nameNode) {
		slices.Sort(n.corrupt["dn1"])
		if !slices.Equal(n.corrupt["dn1"], []dfs.ChunkID{2, 3}) {
			t.Errorf("reported as damaged: %v", n.corrupt["dn1"])
		}
	})
}
