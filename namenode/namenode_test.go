package namenode_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

func TestNamespaceCalls(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	n.must(http.MethodPost, "/mkdir", `{"path":"/a/b","parents":true}`, nil)
	n.upload(nodes, "a/b/f", "first", "second")

	var file protocol.File
	n.must(http.MethodGet, "/files?path=/a/b/f", nil, &file)
	if file.Size != 11 || len(file.Chunks) != 2 || file.Replication != 3 || file.Chunks[1].CRC32C != dfs.ChecksumOf([]byte("second")) {
		t.Fatalf("the file is not what was stored: %+v", file)
	}
	if len(file.Chunks[0].Locations) != 3 {
		t.Fatalf("locations: %+v", file.Chunks[0].Locations)
	}
	n.must(http.MethodPost, "/rename", `{"from":"/a/b","to":"/c"}`, nil)
	n.must(http.MethodPost, "/replication", `{"path":"/c/f","replication":2}`, nil)
	var entry protocol.Entry
	n.must(http.MethodGet, "/stat?path=c/f", nil, &entry)
	if entry.Type != protocol.TypeFile || entry.Size != 11 || entry.Replication != 2 || entry.Path != "/c/f" {
		t.Fatalf("stat: %+v", entry)
	}
	var listing protocol.Listing
	n.must(http.MethodGet, "/list?path=/", nil, &listing)
	if len(listing.Entries) != 2 || listing.Entries[0].Name != "a" || listing.Entries[1].Path != "/c" {
		t.Fatalf("list: %+v", listing)
	}
	if status, failure := n.call(http.MethodDelete, "/files?path=/c", nil, nil); status != 409 || failure.Code != dfs.NotEmpty {
		t.Fatalf("delete of a directory that is not empty: %d %+v", status, failure)
	}
	n.must(http.MethodDelete, "/files?path=/c&recursive=true", nil, nil)
	if status, failure := n.call(http.MethodGet, "/files?path=/c/f", nil, nil); status != 404 || failure.Code != dfs.NotFound {
		t.Fatalf("read of a deleted file: %d %+v", status, failure)
	}
}

func TestListPages(t *testing.T) {
	n := single(t)
	for i := range 25 {
		n.must(http.MethodPost, "/mkdir", protocol.MkdirRequest{Path: fmt.Sprintf("/d/%02d", i), Parents: true}, nil)
	}
	var names []string
	cursor := ""
	for pages := 0; pages < 10; pages++ {
		var listing protocol.Listing
		n.must(http.MethodGet, "/list?path=/d&limit=10&cursor="+cursor, nil, &listing)
		for _, e := range listing.Entries {
			names = append(names, e.Name)
		}
		if cursor = listing.Cursor; cursor == "" {
			break
		}
	}
	if len(names) != 25 || names[0] != "00" || names[24] != "24" {
		t.Fatalf("the pages hold %v", names)
	}
}

// TestBadInput makes every kind of bad call and expects its code, a sentence,
// and a NameNode that still works.
func TestBadInput(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	n.must(http.MethodPost, "/mkdir", `{"path":"/dir"}`, nil)
	n.upload(nodes, "/file", "content")
	long := strings.Repeat("x", 256)
	tests := []struct {
		name, method, path, body string
		status                   int
		code                     dfs.Code
		says                     string
	}{
		{"dot dot", "POST", "/mkdir", `{"path":"/a/../b"}`, 400, dfs.Invalid, `".." is not a name`},
		{"NUL", "POST", "/mkdir", `{"path":"/a\u0000b"}`, 400, dfs.Invalid, "U+0000"},
		{"control character", "POST", "/mkdir", `{"path":"/a\nb"}`, 400, dfs.Invalid, "U+000A"},
		{"invalid UTF-8", "GET", "/files?path=/%ff%fe", "", 400, dfs.Invalid, "UTF-8"},
		{"escaped dot dot", "GET", "/files?path=%2e%2e%2fetc", "", 400, dfs.Invalid, `".."`},
		{"long name", "POST", "/mkdir", `{"path":"/` + long + `"}`, 400, dfs.Invalid, "256 bytes long"},
		{"long path", "POST", "/mkdir", `{"path":"` + strings.Repeat("/abc", 2000) + `"}`, 400, dfs.Invalid, "at most 4096"},
		{"empty path", "POST", "/mkdir", `{"path":""}`, 400, dfs.Invalid, "empty"},
		{"no path", "GET", "/files", "", 400, dfs.Invalid, "empty"},
		{"empty component", "POST", "/mkdir", `{"path":"/a//b"}`, 400, dfs.Invalid, "empty"},
		{"exists", "POST", "/mkdir", `{"path":"/dir"}`, 409, dfs.Exists, "/dir exists"},
		{"mkdir over a file", "POST", "/mkdir", `{"path":"/file"}`, 409, dfs.Exists, "is a file"},
		{"mkdir below a file", "POST", "/mkdir", `{"path":"/file/x","parents":true}`, 409, dfs.NotDirectory, "/file is a file"},
		{"mkdir without parent", "POST", "/mkdir", `{"path":"/no/where"}`, 404, dfs.NotFound, "parents"},
		{"read of a directory", "GET", "/files?path=/dir", "", 409, dfs.IsDirectory, "is a directory"},
		{"list of a file", "GET", "/list?path=/file", "", 409, dfs.NotDirectory, "is a file"},
		{"read below a file", "GET", "/files?path=/file/x", "", 409, dfs.NotDirectory, "is a file"},
		{"list without end", "GET", "/list?path=/&limit=100000000", "", 400, dfs.Invalid, "limit"},
		{"bad cursor", "GET", "/list?path=/&cursor=a%2fb", "", 400, dfs.Invalid, "cursor"},
		{"upload over a directory", "POST", "/files", `{"path":"/dir","num_chunks":1}`, 409, dfs.IsDirectory, "directory"},
		{"upload below a file", "POST", "/files", `{"path":"/file/x","num_chunks":1}`, 409, dfs.NotDirectory, "is a file"},
		{"upload over a file", "POST", "/files", `{"path":"/file","num_chunks":1}`, 409, dfs.Exists, "overwrite"},
		{"upload to the root", "POST", "/files", `{"path":"/","num_chunks":1}`, 409, dfs.IsDirectory, "directory"},
		{"replication 0", "POST", "/files", `{"path":"/x","num_chunks":1,"replication":0}`, 400, dfs.Invalid, "replication 0"},
		{"replication above the nodes", "POST", "/files", `{"path":"/x","num_chunks":1,"replication":4}`, 400, dfs.Invalid, "3 DataNodes are registered"},
		{"absurd replication", "POST", "/files", `{"path":"/x","num_chunks":1,"replication":1000}`, 400, dfs.Invalid, "1 to 16"},
		{"negative replication", "POST", "/replication", `{"path":"/file","replication":-1}`, 400, dfs.Invalid, "1 to 16"},
		{"replication above the nodes later", "POST", "/replication", `{"path":"/file","replication":9}`, 400, dfs.Invalid, "registered"},
		{"replication of a directory", "POST", "/replication", `{"path":"/dir","replication":2}`, 409, dfs.IsDirectory, "directory"},
		{"chunk size 0", "POST", "/files", `{"path":"/x","num_chunks":1,"chunk_size":0}`, 400, dfs.Invalid, "chunk size of 0"},
		{"absurd chunk size", "POST", "/files", `{"path":"/x","num_chunks":1,"chunk_size":1099511627776}`, 400, dfs.Invalid, "chunk size"},
		{"negative count", "POST", "/files", `{"path":"/x","num_chunks":-1}`, 400, dfs.Invalid, "negative"},
		{"huge count", "POST", "/files", `{"path":"/x","num_chunks":1000000000}`, 413, dfs.TooLarge, "at most 4096"},
		{"count beyond integers", "POST", "/files", `{"path":"/x","num_chunks":1e30}`, 400, dfs.Invalid, "num_chunks"},
		{"malformed JSON", "POST", "/files", `{"path":`, 400, dfs.Invalid, "ends in the middle"},
		{"not JSON", "POST", "/mkdir", `hello`, 400, dfs.Invalid, "not the JSON"},
		{"empty body", "POST", "/mkdir", ``, 400, dfs.Invalid, "empty"},
		{"two values", "POST", "/mkdir", `{"path":"/q"}{"path":"/r"}`, 400, dfs.Invalid, "after the JSON value"},
		{"wrong type", "POST", "/mkdir", `{"path":7}`, 400, dfs.Invalid, `"path"`},
		{"oversized JSON", "POST", "/mkdir", `{"path":"` + strings.Repeat("x", 70<<10) + `"}`, 413, dfs.TooLarge, "longer than"},
		{"unknown admin field", "POST", "/cluster/remove", `{"id":"nn9","force":true}`, 400, dfs.Invalid, "force"},
		{"bad member ID", "POST", "/cluster/remove", `{"id":"../nn"}`, 400, dfs.Invalid, "not a node ID"},
		{"remove of a stranger", "POST", "/cluster/remove", `{"id":"nn9"}`, 404, dfs.NotFound, "nn9"},
		{"join with a bad address", "POST", "/cluster/join", `{"id":"nn2","raft_addr":"nowhere","url":"http://localhost:1"}`, 400, dfs.Invalid, "not an address"},
		{"join of nobody", "POST", "/cluster/join", `{"id":"nn2","raft_addr":"127.0.0.1:1","url":"http://localhost:1"}`, 503, dfs.Unavailable, "start it with -join first"},
		{"join with a bad URL", "POST", "/cluster/join", `{"id":"nn2","raft_addr":"localhost:1","url":"ftp://x"}`, 400, dfs.Invalid, "not the address"},
		{"commit of nothing known", "POST", "/uploads/00000000000000aa/commit", `{"chunks":[]}`, 404, dfs.NotFound, "no upload"},
		{"bad upload ID", "POST", "/uploads/7/commit", `{"chunks":[]}`, 400, dfs.Invalid, "not an upload ID"},
		{"abort of nothing known", "DELETE", "/uploads/00000000000000aa", "", 404, dfs.NotFound, "no upload"},
		{"rename into itself", "POST", "/rename", `{"from":"/dir","to":"/dir/x"}`, 400, dfs.Invalid, "into itself"},
		{"rename onto something", "POST", "/rename", `{"from":"/dir","to":"/file"}`, 409, dfs.Exists, "/file exists"},
		{"rename of nothing", "POST", "/rename", `{"from":"/nothing","to":"/x"}`, 404, dfs.NotFound, "no /nothing"},
		{"rename below a file", "POST", "/rename", `{"from":"/dir","to":"/file/x"}`, 409, dfs.NotDirectory, "is a file"},
		{"delete of nothing", "DELETE", "/files?path=/nothing", "", 404, dfs.NotFound, "no /nothing"},
		{"delete of the root", "DELETE", "/files?path=/&recursive=true", "", 400, dfs.Invalid, "root"},
		{"bad flag", "DELETE", "/files?path=/dir&recursive=maybe", "", 400, dfs.Invalid, "true or false"},
		{"bad consistency", "GET", "/files?path=/file&consistency=weak", "", 400, dfs.Invalid, "consistency"},
		{"heartbeat of nobody", "POST", "/heartbeat", `{"id":"","chunks":[],"capacity":1}`, 400, dfs.Invalid, "not a node ID"},
		{"heartbeat with a bad chunk", "POST", "/heartbeat", `{"id":"dnx","chunks":["zz"],"capacity":1}`, 400, dfs.Invalid, "not a chunk ID"},
		{"heartbeat with a negative capacity", "POST", "/heartbeat", `{"id":"dnx","chunks":[],"capacity":-1}`, 400, dfs.Invalid, "negative"},
		{"heartbeat with a long instance", "POST", "/heartbeat", `{"id":"dnx","chunks":[],"capacity":1,"instance":"` + strings.Repeat("i", 65) + `"}`, 400, dfs.Invalid, "32 hexadecimal digits"},
		{"unknown route", "GET", "/etc/passwd", "", 404, dfs.NotFound, "docs/http-api.md"},
		{"wrong method", "PUT", "/mkdir", "", 405, dfs.MethodNotAllowed, "POST"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, failure := n.call(test.method, test.path, test.body, nil)
			if status != test.status || failure.Code != test.code || !strings.Contains(failure.Message, test.says) {
				t.Errorf("got %d %s %q\nwant %d %s with %q", status, failure.Code, failure.Message, test.status, test.code, test.says)
			}
		})
	}
	nobody := []byte(`{"id":"nn2","raft_addr":"127.0.0.1:1","url":"http://localhost:1"}`)
	if response, _ := n.raw(http.MethodPost, "/cluster/join", nobody); response.Header.Get("Retry-After") != "" {
		t.Error("who asks for what cannot be is told to ask again")
	}
	headers := []struct {
		name, header, value string
		status              int
		code                dfs.Code
	}{
		{"wrong cluster", protocol.HeaderClusterID, strings.Repeat("0", 32), 421, dfs.WrongCluster},
		{"bad request ID", protocol.HeaderRequestID, "a b", 400, dfs.Invalid},
		{"compressed body", "Content-Encoding", "gzip", 400, dfs.Invalid},
	}
	for _, test := range headers {
		t.Run(test.name, func(t *testing.T) {
			status, failure := n.call("POST", "/mkdir", `{"path":"/never"}`, nil, test.header, test.value)
			if status != test.status || failure.Code != test.code {
				t.Errorf("got %d %s %q", status, failure.Code, failure.Message)
			}
		})
	}
	var file protocol.File
	n.must(http.MethodGet, "/files?path=/file", nil, &file)
	if file.Size != int64(len("content")) {
		t.Fatalf("the file has changed: %+v", file)
	}
	var listing protocol.Listing
	n.must(http.MethodGet, "/list?path=/", nil, &listing)
	if len(listing.Entries) != 2 {
		t.Fatalf("something was made by a refused call: %+v", listing.Entries)
	}
}

func TestBadCommits(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	other, _ := n.store(nodes, "/other", "theirs")
	tests := []struct {
		name   string
		change func(*protocol.CommitRequest)
		status int
		code   dfs.Code
		says   string
	}{
		{"never stored", func(c *protocol.CommitRequest) {
			for _, d := range nodes {
				d.mu.Lock()
				delete(d.held, c.Chunks[0].ID)
				d.mu.Unlock()
			}
		}, 400, dfs.Invalid, "does not hold"},
		{"of another upload", func(c *protocol.CommitRequest) { c.Chunks[0].ID = other.Chunks[0].ID }, 400, dfs.Invalid, "not one of upload"},
		{"unknown chunk", func(c *protocol.CommitRequest) { c.Chunks[0].ID = 0xffff }, 400, dfs.Invalid, "not one of upload"},
		{"named twice", func(c *protocol.CommitRequest) { c.Chunks = append(c.Chunks, c.Chunks[0]) }, 400, dfs.Invalid, "named twice"},
		{"too few replicas", func(c *protocol.CommitRequest) { c.Chunks[0].Nodes = c.Chunks[0].Nodes[:1] }, 400, dfs.Invalid, "needs 2"},
		{"no replicas", func(c *protocol.CommitRequest) { c.Chunks[0].Nodes = nil }, 400, dfs.Invalid, "needs 2"},
		{"one node twice", func(c *protocol.CommitRequest) {
			c.Chunks[0].Nodes = []dfs.NodeID{"dn1", "dn1"}
		}, 400, dfs.Invalid, "twice"},
		{"unknown node", func(c *protocol.CommitRequest) { c.Chunks[0].Nodes[0] = "dn9" }, 400, dfs.Invalid, `no DataNode "dn9"`},
		{"wrong size", func(c *protocol.CommitRequest) { c.Chunks[0].Size++ }, 400, dfs.Invalid, "with 4 bytes"},
		{"wrong checksum", func(c *protocol.CommitRequest) { c.Chunks[0].CRC32C++ }, 400, dfs.Invalid, "CRC-32C"},
		{"empty chunk", func(c *protocol.CommitRequest) { c.Chunks[0].Size = 0 }, 400, dfs.Invalid, "has 0 bytes"},
		{"negative size", func(c *protocol.CommitRequest) { c.Chunks[0].Size = -1 }, 400, dfs.Invalid, "has -1 bytes"},
		{"larger than a chunk", func(c *protocol.CommitRequest) { c.Chunks[0].Size = 5 << 20 }, 400, dfs.Invalid, "the chunk size"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := fmt.Sprintf("/f%d", i)
			allocation, commit := n.store(nodes, path, "data")
			test.change(&commit)
			status, failure := n.call(http.MethodPost, "/uploads/"+allocation.UploadID.String()+"/commit", commit, nil)
			if status != test.status || failure.Code != test.code || !strings.Contains(failure.Message, test.says) {
				t.Errorf("got %d %s %q, want %d %s with %q", status, failure.Code, failure.Message, test.status, test.code, test.says)
			}
			if status, _ := n.call(http.MethodGet, "/files?path="+path, nil, nil); status != 404 {
				t.Errorf("the file appeared all the same: %d", status)
			}
		})
	}
}

func TestCommitTwice(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	allocation, commit := n.store(nodes, "/f", "data")
	route := "/uploads/" + allocation.UploadID.String() + "/commit"
	var first, again protocol.CommitReply
	n.must(http.MethodPost, route, commit, &first, protocol.HeaderRequestID, "r1")
	n.must(http.MethodPost, route, commit, &again, protocol.HeaderRequestID, "r1")
	if first != again || first.Path != "/f" || first.Size != 4 {
		t.Fatalf("the first answer was %+v, the second %+v", first, again)
	}
	if status, failure := n.call(http.MethodPost, route, commit, nil, protocol.HeaderRequestID, "r2"); status != 404 || failure.Code != dfs.NotFound {
		t.Fatalf("another commit of the same upload: %d %+v", status, failure)
	}
}

func TestUnreachableDataNodeAtCommit(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3")
	allocation, commit := n.store(nodes, "/f", "data")
	route := "/uploads/" + allocation.UploadID.String() + "/commit"
	nodes["dn1"].server.Close()
	n.must(http.MethodPost, route, commit, nil)
	var file protocol.File
	n.must(http.MethodGet, "/files?path=/f", nil, &file)
	if len(file.Chunks[0].Locations) != 2 {
		t.Fatalf("two replicas were confirmed, the file has %+v", file.Chunks[0].Locations)
	}
	allocation, commit = n.store(nodes, "/g", "data")
	nodes["dn2"].server.Close()
	response, _ := n.raw(http.MethodPost, "/uploads/"+allocation.UploadID.String()+"/commit", encode(t, commit))
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Fatalf("with one confirmed replica: %s %v", response.Status, response.Header)
	}
}

func TestTooFewDataNodes(t *testing.T) {
	n := single(t)
	register(t, n, "dn1")
	response, body := n.raw(http.MethodPost, "/files", []byte(`{"path":"/f","num_chunks":1}`))
	want := "1 DataNode is live, 2 are needed for replication 3: start another or pass --replication 1"
	if response.StatusCode != 503 || response.Header.Get("Retry-After") != "" || !strings.Contains(string(body), want) {
		t.Fatalf("%s %q", response.Status, body)
	}
	n.must(http.MethodPost, "/files", `{"path":"/f","num_chunks":1,"replication":1}`, nil)
	n.must(http.MethodPost, "/files", `{"path":"/empty","num_chunks":0}`, nil)
}

func TestExactlyOnce(t *testing.T) {
	n := single(t)
	register(t, n, "dn1", "dn2", "dn3")
	for range 3 {
		if status, failure := n.call(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil, protocol.HeaderRequestID, "mk"); status != 201 {
			t.Fatalf("%d %+v", status, failure)
		}
	}
	var allocations [2]protocol.Allocation
	for i := range allocations {
		n.must(http.MethodPost, "/files", `{"path":"/f","num_chunks":3}`, &allocations[i], protocol.HeaderRequestID, "cr")
	}
	if fmt.Sprint(allocations[0]) != fmt.Sprint(allocations[1]) {
		t.Fatalf("two answers to one request:\n%+v\n%+v", allocations[0], allocations[1])
	}
	n.must(http.MethodDelete, "/files?path=/a", nil, nil, protocol.HeaderRequestID, "rm")
	n.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil)
	n.must(http.MethodDelete, "/files?path=/a", nil, nil, protocol.HeaderRequestID, "rm")
	n.must(http.MethodGet, "/stat?path=/a", nil, nil) // the late retry did not delete the new one
	if status, failure := n.call(http.MethodPost, "/mkdir", `{"path":"/b"}`, nil, protocol.HeaderRequestID, "rm"); status != 400 {
		t.Fatalf("a request ID used for another call: %d %+v", status, failure)
	}
}

func TestUploadsExpire(t *testing.T) {
	t.Parallel() // it waits
	config := testConfig(t, "nn1")
	config.Timing, config.UploadExpiry = quickTiming(), 5*time.Second // longer than it may take to come back to it
	n := open(t, config)
	n.waitLeads()
	register(t, n, "dn1", "dn2")
	var kept, abandoned protocol.Allocation
	n.must(http.MethodPost, "/files", `{"path":"/kept","num_chunks":1}`, &kept)
	n.must(http.MethodPost, "/files", `{"path":"/abandoned","num_chunks":1}`, &abandoned)
	touch := func(a protocol.Allocation) int {
		status, _ := n.call(http.MethodPost, "/uploads/"+a.UploadID.String()+"/chunks", `{"num_chunks":0}`, nil)
		return status
	}
	waitUntil(t, "the abandoned upload is given up", func() bool {
		if touch(kept) != 201 {
			t.Fatal("an upload that shows signs of life was given up")
		}
		_, metrics := n.raw(http.MethodGet, "/metrics", nil)
		return strings.Contains(string(metrics), "\ndfs_namenode_uploads 1\n")
	})
	if status, _ := n.call(http.MethodPost, "/uploads/"+abandoned.UploadID.String()+"/commit", `{"chunks":[]}`, nil); status != 404 {
		t.Errorf("commit of an upload that has expired: %d", status)
	}
}

func TestMetaDirFaults(t *testing.T) {
	config := testConfig(t, "nn1")
	first := open(t, config)
	refused := func(name string, config namenode.Config, code dfs.Code, says string) {
		t.Helper()
		n, err := namenode.New(config)
		if err == nil {
			err = n.Open(t.Context())
		}
		if dfs.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %s %v, want %s with %q", name, dfs.CodeOf(err), err, code, says)
		}
	}
	refused("a meta-dir in use", config, dfs.Conflict, "another process uses the meta-dir")
	taken := testConfig(t, "nn1")
	taken.Addr = strings.TrimPrefix(first.URL(), "http://")
	refused("a port in use", taken, dfs.Conflict, "choose another -addr")
	taken = testConfig(t, "nn1")
	taken.RaftAddr = first.RaftAddr()
	refused("a Raft port in use", taken, dfs.Unavailable, "already in use")
	first.stop()

	other := config
	other.ID = "nn2"
	refused("a meta-dir of another", other, dfs.Conflict, "belongs to NameNode nn1")
	file := testConfig(t, "nn1")
	file.MetaDir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file.MetaDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a file as meta-dir", file, dfs.Invalid, "meta-dir")
	damaged := testConfig(t, "nn1")
	if err := os.WriteFile(filepath.Join(damaged.MetaDir, "identity.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a damaged identity", damaged, dfs.Corrupt, "damaged")
	absent := testConfig(t, "nn1")
	absent.MetaDir = "/proc/self/no/meta"
	refused("a meta-dir that cannot be made", absent, dfs.Invalid, "cannot be made")
	if os.Geteuid() != 0 { // root may read everything
		unreadable := testConfig(t, "nn1")
		if err := os.Chmod(unreadable.MetaDir, 0o000); err != nil {
			t.Fatal(err)
		}
		refused("an unreadable meta-dir", unreadable, dfs.Invalid, "readable and writable")
	}
	bad := testConfig(t, "not an id")
	refused("a bad ID", bad, dfs.Invalid, "not a node ID")
}

func TestRestartKeepsEverything(t *testing.T) {
	config := testConfig(t, "nn1")
	config.Timing = quickTiming()
	n := open(t, config)
	n.waitLeads()
	nodes := register(t, n, "dn1", "dn2", "dn3")
	n.upload(nodes, "/before", "one")
	n.must(http.MethodPost, "/cluster/snapshot", `{}`, nil)
	n.upload(nodes, "/after", "two")
	n.must(http.MethodPost, "/mkdir", `{"path":"/d"}`, nil, protocol.HeaderRequestID, "mk")
	n.stop()

	n = open(t, config)
	n.waitLeads()
	for _, path := range []string{"/before", "/after"} {
		var file protocol.File
		n.must(http.MethodGet, "/files?path="+path, nil, &file)
		if file.Size != 3 || len(file.Chunks[0].Locations) != 3 {
			t.Fatalf("%s after a restart: %+v", path, file)
		}
	}
	n.must(http.MethodPost, "/mkdir", `{"path":"/d"}`, nil, protocol.HeaderRequestID, "mk")
}
