package datanode_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func damage(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, offset); err != nil {
		t.Fatal(err)
	}
}

func TestNewTellsEverythingThatIsWrong(t *testing.T) {
	n := newNameNode(t)
	for name, c := range map[string]struct {
		change func(*datanode.Config)
		says   []string
	}{
		"all at once":   {func(c *datanode.Config) { *c = datanode.Config{Addr: "9000", Rack: "a b"} }, []string{"node ID", "rack", "listen on", "NameNode", "data directory"}},
		"ID":            {func(c *datanode.Config) { c.ID = "-x" }, []string{"node ID"}},
		"self":          {func(c *datanode.Config) { c.Self = "ftp://x" }, []string{"ftp://x"}},
		"name node":     {func(c *datanode.Config) { c.NameNodes = []string{"localhost:8000"} }, []string{"localhost:8000"}},
		"reserve":       {func(c *datanode.Config) { c.Reserve = -1 }, []string{"reserve"}},
		"heartbeat":     {func(c *datanode.Config) { c.HeartbeatInterval = time.Hour }, []string{"heartbeat"}},
		"limits":        {func(c *datanode.Config) { c.Limits.Writes = -1 }, []string{"negative"}},
		"report size":   {func(c *datanode.Config) { c.Limits.ReportSize = 1 << 20 }, []string{"report"}},
		"rack too long": {func(c *datanode.Config) { c.Rack = strings.Repeat("x", 65) }, []string{"rack"}},
	} {
		config := config(t, n, "dn1")
		c.change(&config)
		_, err := datanode.New(config)
		if dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q says nothing of %q", name, err, word)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	n := newNameNode(t)
	first := config(t, n, "dn1")
	d := start(t, first)
	for name, c := range map[string]struct {
		change func(*datanode.Config)
		code   dfs.Code
		says   string
	}{
		"port in use":        {func(c *datanode.Config) { c.Addr = strings.TrimPrefix(d.URL(), "http://") }, dfs.Conflict, "in use"},
		"directory in use":   {func(c *datanode.Config) { c.DataDirs = first.DataDirs }, dfs.Conflict, "in use"},
		"address of another": {func(c *datanode.Config) { c.Addr = "192.0.2.1:9000" }, dfs.Invalid, "192.0.2.1:9000"},
	} {
		config := config(t, n, "dn2")
		c.change(&config)
		other, err := datanode.New(config)
		if err != nil {
			t.Fatal(err)
		}
		err = other.Open(t.Context())
		if dfs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		stop(t, other)
	}
}

func TestDefaultAddress(t *testing.T) {
	n := newNameNode(t)
	for addr, prefix := range map[string]string{
		"127.0.0.1:0": "http://127.0.0.1:", ":0": "http://localhost:", "0.0.0.0:0": "http://localhost:", "[::]:0": "http://localhost:",
	} {
		c := config(t, n, "dn1")
		c.Addr = addr
		d := start(t, c)
		if port := strings.TrimPrefix(d.URL(), prefix); port == d.URL() || port == "0" {
			t.Errorf("%s became %s", addr, d.URL())
		}
		stop(t, d)
	}
	c := config(t, n, "dn1")
	c.Self = "http://storage.example:1234/"
	if d := start(t, c); d.URL() != "http://storage.example:1234" {
		t.Errorf("got %s", d.URL())
	}
}

func TestRoutes(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	put(t, d, 1, content(1, 10), "")
	header := func(name, value string) http.Header { return http.Header{http.CanonicalHeaderKey(name): {value}} }
	chunk := "/chunks/0000000000000001"
	for _, c := range []struct {
		method, path string
		header       http.Header
		status       int
		code         dfs.Code
		allow        string
	}{
		{"GET", "/", nil, 404, dfs.NotFound, ""},
		{"GET", "/nowhere", nil, 404, dfs.NotFound, ""},
		{"GET", "/files", nil, 400, dfs.Invalid, ""},
		{"GET", "/files/x", nil, 404, dfs.NotFound, ""},
		{"DELETE", "/files?path=/x", nil, 400, dfs.Invalid, ""},
		{"PUT", "/chunks", nil, 404, dfs.NotFound, ""},
		{"GET", "/chunks/0000000000000001/x", nil, 404, dfs.NotFound, ""},
		{"POST", chunk, nil, 405, dfs.MethodNotAllowed, "DELETE, GET, HEAD, PUT"},
		{"PATCH", chunk, nil, 405, dfs.MethodNotAllowed, "DELETE, GET, HEAD, PUT"},
		{"GET", "/chunks/stat", nil, 405, dfs.MethodNotAllowed, "POST"},
		{"POST", "/health", nil, 405, dfs.MethodNotAllowed, "GET, HEAD"},
		{"DELETE", chunk, nil, 403, dfs.Forbidden, ""},
		{"GET", chunk, header(protocol.HeaderClusterID, string(clusterA)), 200, "", ""},
		{"GET", chunk, header(protocol.HeaderClusterID, string(clusterB)), 421, dfs.WrongCluster, ""},
		{"GET", chunk, header(protocol.HeaderClusterID, "nonsense"), 421, dfs.WrongCluster, ""},
		{"GET", chunk, header(protocol.HeaderNodeID, "dn1"), 200, "", ""},
		{"GET", chunk, header(protocol.HeaderNodeID, "dn2"), 412, dfs.Conflict, ""},
		{"PUT", chunk, header(protocol.HeaderNodeID, "dn2"), 412, dfs.Conflict, ""},
		{"GET", "/health", header(protocol.HeaderNodeID, "dn2"), 200, "", ""}, // probes know no IDs
		{"HEAD", "/health", nil, 200, "", ""},
		{"GET", "/ready", nil, 200, "", ""},
		{"GET", "/metrics", nil, 200, "", ""},
	} {
		a := do(t, request(t, c.method, d.URL()+c.path, c.header, nil))
		if a.status != c.status || a.code(t) != c.code || a.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d %s, Allow %q", c.method, c.path, a.status, a.body, a.header.Get("Allow"))
		}
		if a.header.Get(protocol.HeaderNodeID) != "dn1" || a.header.Get(protocol.HeaderClusterID) != string(clusterA) {
			t.Errorf("%s %s: header %v", c.method, c.path, a.header)
		}
	}
	checkHolds(t, d, 1, content(1, 10))
	metrics := string(get(t, d.URL()+"/metrics", nil).body)
	for _, name := range []string{"dfs_datanode_chunks 1", "dfs_datanode_writable 1", `dfs_datanode_requests_total{route="/chunks/{id}",status="421"} 2`, "dfs_datanode_received_bytes_total 10", "dfs_datanode_heartbeats_total"} {
		if !strings.Contains(metrics, name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
}

// A client that was given a DataNode's address must not take the answer for a
// file that is missing.
func TestRoutesOfANameNode(t *testing.T) {
	d := start(t, config(t, newNameNode(t), "dn1"))
	for _, r := range []protocol.Route{
		protocol.GetFile, protocol.CreateFile, protocol.DeleteFile, protocol.Stat, protocol.List, protocol.Mkdir, protocol.Rename,
		protocol.SetReplication, protocol.ListNodes, protocol.GetLeader, protocol.Heartbeat, protocol.Announce, protocol.JoinCluster,
		protocol.RemoveMember, protocol.TransferLead, protocol.TakeSnapshot, protocol.AddChunks, protocol.CommitUpload, protocol.AbortUpload,
	} {
		a := do(t, request(t, r.Method, d.URL()+strings.Replace(r.Pattern, "{id}", "x", 1), nil, nil))
		if a.code(t) != dfs.Invalid || !strings.Contains(string(a.body), "this is DataNode dn1") || !strings.Contains(string(a.body), "--namenodes") {
			t.Errorf("%s %s: %d %s", r.Method, r.Pattern, a.status, a.body)
		}
	}
}

func TestStatChunks(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	for id := dfs.ChunkID(1); id <= 3; id++ {
		put(t, d, id, content(byte(id), int(id)*10), "")
	}
	ask := func(body string) answer {
		return do(t, request(t, "POST", d.URL()+"/chunks/stat", nil, []byte(body)))
	}
	a := ask(`{"ids":["0000000000000003","0000000000000009","0000000000000001"]}`)
	want := fmt.Sprintf(`{"chunks":[{"id":"0000000000000003","size":30,"crc32c":%q},{"id":"0000000000000001","size":10,"crc32c":%q}]}`,
		dfs.ChecksumOf(content(3, 30)), dfs.ChecksumOf(content(1, 10)))
	if strings.TrimSpace(string(a.body)) != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
	if a := ask(`{"ids":[]}`); strings.TrimSpace(string(a.body)) != `{"chunks":[]}` {
		t.Errorf("got %s", a.body)
	}
	for body, code := range map[string]dfs.Code{
		"": dfs.Invalid, "{": dfs.Invalid, `{"ids":["1"]}`: dfs.Invalid, `{"id":[]}`: dfs.Invalid, `{"ids":[]}{}`: dfs.Invalid,
		`{"ids":[` + strings.Repeat(`"0000000000000001",`, dfs.MaxChunksPerReport) + `"0000000000000001"]}`: dfs.TooLarge,
	} {
		if got := ask(body).code(t); got != code {
			t.Errorf("%.30q: code %q", body, got)
		}
	}
}

func TestRestart(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Rack = "r1"
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 200_000)
	put(t, d, 1, data, "")
	before := n.heard(t, "dn1", "the chunk", func(h heartbeat) bool { return h.ChunkCount == 1 })
	if before.Incarnation != 1 || before.URL != d.URL() || before.Rack != "r1" || before.Used != 200_000 || before.Capacity <= 0 || before.Free <= 0 || before.Unwritable {
		t.Errorf("%+v", before)
	}
	stop(t, d)
	d = start(t, c)
	after := n.heard(t, "dn1", "the next incarnation", func(h heartbeat) bool { return h.Incarnation == 2 })
	if after.Instance != before.Instance || after.ChunkCount != 1 || after.Digest != before.Digest || len(after.Added) > 0 {
		t.Errorf("%+v", after)
	}
	checkHolds(t, d, 1, data)
}

func TestInventoryOnDemand(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.ReportSize = 4
	d := start(t, c)
	ready(t, n, d)
	for id := dfs.ChunkID(1); id <= 10; id++ {
		put(t, d, id, content(byte(id), 10), "")
	}
	n.heard(t, "dn1", "all chunks", func(h heartbeat) bool { return h.ChunkCount == 10 })
	n.set(func(n *nameNode) { n.held["dn1"] = map[uint64]bool{3: true, 99: true}; n.want["dn1"] = true })
	n.heard(t, "dn1", "the last page", func(h heartbeat) bool { return h.Inventory != nil && h.Inventory.Last })
	n.set(func(n *nameNode) {
		held, pages := n.held["dn1"], n.pages["dn1"]
		if len(held) != 10 || held[99] || fmt.Sprint(pages) != "[{4 0} {4 4} {2 8}]" {
			t.Errorf("held %v, pages %v", held, pages)
		}
	})
}

func TestUploadBeforeAcceptance(t *testing.T) {
	n := newNameNode(t)
	n.set(func(n *nameNode) { n.refuse["dn1"] = dfs.Errorf(dfs.Unavailable, "no leader just now") })
	d := start(t, config(t, n, "dn1"))
	a := do(t, putRequest(t, d, 1, content(1, 10), ""))
	if a.code(t) != dfs.Unavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := get(t, d.URL()+"/ready", nil); a.status != 503 {
		t.Errorf("/ready: %d", a.status)
	}
	if a := get(t, d.URL()+"/health", nil); a.status != 200 {
		t.Errorf("/health: %d", a.status)
	}
}

func TestRefusedIdentity(t *testing.T) {
	n := newNameNode(t)
	d := start(t, config(t, n, "dn1"))
	ready(t, n, d)
	data := content(1, 10)
	put(t, d, 1, data, "")
	n.set(func(n *nameNode) {
		n.refuse["dn1"] = dfs.Errorf(dfs.Conflict, "DataNode dn1 is alive at another address")
	})
	waitUntil(t, "the refusal", func() bool { return get(t, d.URL()+"/ready", nil).status == 503 })
	a := get(t, d.URL()+"/health", nil)
	var reply protocol.HealthReply
	if err := json.Unmarshal(a.body, &reply); err != nil || a.status != 503 || !strings.Contains(reply.Status, "another address") {
		t.Errorf("/health: %d %s", a.status, a.body)
	}
	if a := do(t, putRequest(t, d, 2, data, "")); a.code(t) != dfs.Conflict {
		t.Errorf("PUT: %d", a.status)
	}
	checkHolds(t, d, 1, data) // reading harms nobody
	n.set(func(n *nameNode) { delete(n.refuse, "dn1") })
	waitUntil(t, "the acceptance", func() bool { return get(t, d.URL()+"/ready", nil).status == 200 })
	put(t, d, 2, data, "")
}

func TestAnotherCluster(t *testing.T) {
	a, b := newNameNode(t), newNameNode(t)
	b.set(func(n *nameNode) { n.cluster = clusterB })
	c := config(t, a, "dn1")
	d := start(t, c)
	ready(t, a, d)
	put(t, d, 1, content(1, 10), "")
	stop(t, d)
	c.NameNodes = []string{b.URL}
	d = start(t, c)
	waitUntil(t, "the refusal", func() bool { return get(t, d.URL()+"/health", nil).status == 503 })
	if a := do(t, putRequest(t, d, 2, content(2, 10), "")); a.code(t) != dfs.WrongCluster {
		t.Errorf("PUT: %d %s", a.status, a.body)
	}
	checkHolds(t, d, 1, content(1, 10))
}

func TestCloseLetsTransfersFinish(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 100_000) // too large to be packed: it has a temporary file
	conn := dial(t, d)
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PUT /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX-DFS-CRC32C: %s\r\n\r\n%s", len(data), dfs.ChecksumOf(data), data[:10]); err != nil {
		t.Fatal(err)
	}
	idle := dial(t, d) // a connection that has asked for nothing holds nothing up
	defer idle.Close()
	waitUntil(t, "the upload to have begun", func() bool { return tempFiles(t, c.DataDirs[0]) == 1 })
	closed := make(chan struct{})
	go func() { defer close(closed); stop(t, d) }()
	waitUntil(t, "other requests to be refused", func() bool {
		a := do(t, request(t, "GET", d.URL()+"/health", nil, nil))
		return a.status == 503 && strings.Contains(string(a.body), "shutting down")
	})
	select {
	case <-closed:
		t.Fatal("closed while an upload was running")
	default:
	}
	if _, err := conn.Write(data[10:]); err != nil {
		t.Fatal(err)
	}
	if a := readAnswer(t, conn); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
	<-closed
}

func tempFiles(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCloseCutsOffWhatHangs(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	conn := dial(t, d)
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PUT /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nX-DFS-CRC32C: 12345678\r\n\r\nsome"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the upload to have begun", func() bool { return tempFiles(t, c.DataDirs[0]) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Close(ctx); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, conn) // it has an end
	if tempFiles(t, c.DataDirs[0]) != 0 {
		t.Error("something is left of the upload")
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}
