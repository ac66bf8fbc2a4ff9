package datanode_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// inSegment finds the bytes of a small chunk.
func inSegment(t *testing.T, dir string, data []byte) (path string, at int64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		segment, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(segment, data); at >= 0 {
			return path, int64(at)
		}
	}
	t.Fatalf("the chunk is in none of %q", paths)
	return "", 0
}

// A small chunk is served, found damaged, replaced and deleted like any other.
func TestSmallChunk(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Unpacked, c.TrashKeep = false, time.Hour
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	put(t, d, 1, data, "")
	put(t, d, 2, content(2, 1000), "")
	checkHolds(t, d, 1, data)
	for text, want := range map[string][]byte{"bytes=0-0": data[:1], "bytes=10-99": data[10:100], "bytes=-5": data[995:], "bytes=990-5000": data[990:]} {
		a := get(t, chunkURL(d, 1), http.Header{"Range": {text}})
		if a.status != http.StatusPartialContent || !bytes.Equal(a.body, want) || a.header.Get(protocol.HeaderChecksum) != dfs.ChecksumOf(data).String() {
			t.Errorf("%s: status %d, %d bytes", text, a.status, len(a.body))
		}
	}
	if a := get(t, chunkURL(d, 1), http.Header{"Range": {"bytes=1000-"}}); a.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("status %d", a.status)
	}
	path, at := inSegment(t, c.DataDirs[0], data)
	damage(t, path, at+500)
	if a := get(t, chunkURL(d, 1), nil); a.code(t) != dfs.Corrupt {
		t.Errorf("%d %s", a.status, a.body)
	}
	checkHoldsNot(t, d, 1)
	n.heard(t, "dn1", "word of the damage", func(h heartbeat) bool { return len(h.Corrupt) == 1 || h.ChunkCount == 1 })
	if kept, err := os.ReadDir(filepath.Join(c.DataDirs[0], "quarantine")); err != nil || len(kept) != 1 {
		t.Errorf("in quarantine: %v, %v", kept, err)
	}
	put(t, d, 1, data, "")
	checkHolds(t, d, 1, data)
	n.order(t, "dn1", deleteOrder(1))
	came(t, d, "delete", "done", 1)
	checkHoldsNot(t, d, 1)
	waitUntil(t, "the trash to be counted", func() bool {
		return metric(t, d, fmt.Sprintf("dfs_datanode_trash_files{dir=%q} 1", c.DataDirs[0]))
	})
	stop(t, d)
	d = start(t, c)
	ready(t, n, d)
	checkHoldsNot(t, d, 1)
	checkHolds(t, d, 2, content(2, 1000))
}

// Many write small chunks through pipelines at the same time, one node dies
// meanwhile, and nobody gets the bytes of another.
func TestManySmallUploads(t *testing.T) {
	n, nodes := three(t, nil)
	const writers, each = 12, 15
	var wg sync.WaitGroup
	for writer := range writers {
		wg.Go(func() {
			for i := range each {
				id := dfs.ChunkID(1 + writer*each + i)
				if writer == 0 && i == each/2 {
					n.told(t, "dn3", listenerThatIsClosed(t))
				}
				reply := put(t, nodes[0], id, content(byte(id), 100+int(id)*37%4000), "dn2,dn3")
				if len(reply.Nodes)+len(reply.Failed) != 3 || len(reply.Nodes) < 2 {
					t.Errorf("chunk %s: %+v", id, reply)
				}
			}
		})
	}
	wg.Wait()
	for id := dfs.ChunkID(1); id <= writers*each; id++ {
		for _, d := range []*datanode.DataNode{nodes[0], nodes[1]} {
			checkHolds(t, d, id, content(byte(id), 100+int(id)*37%4000))
		}
	}
}
