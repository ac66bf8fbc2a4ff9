package datanode_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func health(t *testing.T, d *datanode.DataNode) (int, protocol.HealthReply) {
	t.Helper()
	a := get(t, d.URL()+"/health", nil)
	var reply protocol.HealthReply
	if err := json.Unmarshal(a.body, &reply); err != nil {
		t.Fatal(err)
	}
	return a.status, reply
}

func severalDirs(t *testing.T, n *nameNode) datanode.Config {
	t.Helper()
	c := config(t, n, "dn1")
	top := c.DataDirs[0]
	c.DataDirs = []string{filepath.Join(top, "a"), filepath.Join(top, "b"), filepath.Join(top, "c")}
	return c
}

// fillAll puts chunks until each directory has some, and tells how many each
// has.
func fillAll(t *testing.T, d *datanode.DataNode) (chunks int64) {
	t.Helper()
	for id := dfs.ChunkID(1); id < 1000; id++ {
		put(t, d, id, content(byte(id), 100), "")
		_, reply := health(t, d)
		empty := false
		for _, v := range reply.Volumes {
			empty = empty || v.Chunks == 0
		}
		if !empty {
			return int64(id)
		}
	}
	t.Fatal("a directory stays empty")
	return 0
}

// A disk that goes takes its chunks with it, and nothing else.
func TestLosingADirectory(t *testing.T) {
	n := newNameNode(t)
	c := severalDirs(t, n)
	d := start(t, c)
	ready(t, n, d)
	all := fillAll(t, d)
	n.heard(t, "dn1", "all chunks", func(h heartbeat) bool { return h.ChunkCount == all })
	status, before := health(t, d)
	if status != http.StatusOK || before.Status != "ok" || len(before.Volumes) != 3 {
		t.Fatalf("%d %+v", status, before)
	}
	for i, v := range before.Volumes {
		if v.Dir != c.DataDirs[i] || v.Status != "ok" || v.Gone || v.Capacity <= 0 || v.Free <= 0 || len(v.ID) != 32 || v.Used != 100*v.Chunks {
			t.Errorf("%+v", v)
		}
	}
	if err := os.RemoveAll(c.DataDirs[1]); err != nil {
		t.Fatal(err)
	}
	left := all - before.Volumes[1].Chunks
	h := n.heard(t, "dn1", "the loss", func(h heartbeat) bool { return h.ChunkCount == left })
	if h.Unwritable || len(h.Corrupt) > 0 {
		t.Errorf("%+v", h)
	}
	n.set(func(n *nameNode) {
		if len(n.held["dn1"]) != int(left) || len(n.corrupt["dn1"]) > 0 || len(n.pages["dn1"]) > 0 {
			t.Errorf("%d chunks are known, %v damaged, %d pages", len(n.held["dn1"]), n.corrupt["dn1"], len(n.pages["dn1"]))
		}
	})
	status, after := health(t, d)
	if status != http.StatusOK || !strings.Contains(after.Status, c.DataDirs[1]) || !after.Volumes[1].Gone || after.Volumes[1].Status == "ok" || after.Volumes[0].Status != "ok" {
		t.Errorf("%d %+v", status, after)
	}
	if !metric(t, d, `dfs_datanode_volume_gone{dir="`+c.DataDirs[1]+`"} 1`) || !metric(t, d, `dfs_datanode_volume_writable{dir="`+c.DataDirs[0]+`"} 1`) {
		t.Error("the metrics do not say so")
	}
	put(t, d, 5000, content(1, 100), "")
}

// A disk that takes no more is noticed although nobody writes.
func TestProbeOfAnIdleDisk(t *testing.T) {
	n := newNameNode(t)
	c := severalDirs(t, n)
	var broken atomic.Bool
	c.DiskHook = func(op chunkstore.Op, path string) error {
		if broken.Load() && op == chunkstore.OpCreate && strings.HasPrefix(path, c.DataDirs[0]) {
			return syscall.EROFS
		}
		return nil
	}
	d := start(t, c)
	ready(t, n, d)
	broken.Store(true)
	waitUntil(t, "the probe", func() bool {
		status, reply := health(t, d)
		return status == http.StatusOK && reply.Volumes[0].Status != "ok" && strings.Contains(reply.Status, c.DataDirs[0])
	})
	for id := range dfs.ChunkID(10) {
		put(t, d, id+1, content(1, 10), "")
	}
}

// The node is there before it knows what it has, and nothing is taken for lost.
func TestStartWithManyChunks(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	for id := range dfs.ChunkID(5) {
		put(t, d, id+1, content(byte(id), 100), "")
	}
	before := n.heard(t, "dn1", "all chunks", func(h heartbeat) bool { return h.ChunkCount == 5 })
	stop(t, d)

	goOn := make(chan struct{})
	c.DiskHook = func(op chunkstore.Op, _ string) error {
		if op == chunkstore.OpOpen {
			<-goOn
		}
		return nil
	}
	n.set(func(n *nameNode) { delete(n.last, "dn1"); n.want["dn1"] = true })
	d = start(t, c)
	h := n.heard(t, "dn1", "an early heartbeat", func(h heartbeat) bool { return h.Seq > 2 })
	if !h.Unwritable || h.ChunkCount != 0 || h.Digest != 0 || h.Inventory != nil || h.Capacity == 0 {
		t.Errorf("%+v", h)
	}
	if a := do(t, putRequest(t, d, 9, content(1, 10), "")); a.code(t) != dfs.Unavailable {
		t.Errorf("PUT: %d %s", a.status, a.body)
	}
	if a := get(t, chunkURL(d, 1), nil); a.code(t) != dfs.Unavailable {
		t.Errorf("GET: %d %s", a.status, a.body)
	}
	if a := do(t, request(t, http.MethodPost, d.URL()+"/chunks/stat", nil, []byte(`{"ids":["0000000000000001"]}`))); a.code(t) != dfs.Unavailable {
		t.Errorf("stat: %d %s", a.status, a.body)
	}
	if a := get(t, d.URL()+"/ready", nil); a.status != http.StatusServiceUnavailable {
		t.Errorf("/ready: %d %s", a.status, a.body)
	}
	if status, reply := health(t, d); status != http.StatusOK || !strings.Contains(reply.Status, "still reading") {
		t.Errorf("/health: %d %+v", status, reply)
	}
	close(goOn)
	h = n.heard(t, "dn1", "what it holds", func(h heartbeat) bool { return h.ChunkCount == 5 })
	if h.Digest != before.Digest || h.Unwritable {
		t.Errorf("%+v", h)
	}
	ready(t, n, d)
	n.set(func(n *nameNode) {
		if len(n.held["dn1"]) != 5 || len(n.pages["dn1"]) > 0 {
			t.Errorf("%d chunks are known after %d pages", len(n.held["dn1"]), len(n.pages["dn1"]))
		}
	})
	if status, reply := health(t, d); status != http.StatusOK || reply.Status != "ok" {
		t.Errorf("/health: %d %+v", status, reply)
	}
}

// What cannot be read at all ends the process, as it always did.
func TestDirectoryThatCannotBeRead(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	put(t, d, 1, content(1, 100), "")
	stop(t, d)
	c.DiskHook = func(op chunkstore.Op, path string) error {
		if op == chunkstore.OpOpen {
			return &os.PathError{Op: "open", Path: path, Err: syscall.EACCES}
		}
		return nil
	}
	d, err := datanode.New(c)
	if err == nil {
		err = d.Open(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); dfs.CodeOf(err) != dfs.Invalid || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestTrashIsEmptied(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.TrashKeep = 1 // ns
	left := filepath.Join(c.DataDirs[0], "trash", "0000000000000001-1-1")
	if err := os.MkdirAll(filepath.Dir(left), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, c)
	ready(t, n, d)
	waitUntil(t, "the trash to be emptied", func() bool {
		_, err := os.Stat(left)
		return os.IsNotExist(err)
	})
	waitUntil(t, "the metric", func() bool { return metric(t, d, `dfs_datanode_trash_files{dir="`+c.DataDirs[0]+`"} 0`) })
}
