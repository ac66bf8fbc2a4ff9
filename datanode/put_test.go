package datanode_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func nodeIDs(ids ...dfs.NodeID) []dfs.NodeID { return ids }

func failures(reply protocol.ChunkReply) map[dfs.NodeID]dfs.Code {
	failed := map[dfs.NodeID]dfs.Code{}
	for _, hop := range reply.Failed {
		failed[hop.ID] = hop.Error.Code
	}
	return failed
}

func TestPipeline(t *testing.T) {
	_, nodes := three(t, nil)
	for i, size := range []int{1, 1000, dfs.BlockSize, 300_001, dfs.DefaultChunkSize} {
		id, data := dfs.ChunkID(i+1), content(byte(i), size)
		reply := put(t, nodes[0], id, data, "dn2,dn3")
		if !reflect.DeepEqual(reply.Nodes, nodeIDs("dn1", "dn2", "dn3")) || len(reply.Failed) > 0 {
			t.Errorf("%d bytes: %+v", size, reply)
		}
		for _, d := range nodes {
			checkHolds(t, d, id, data)
		}
	}
}

func TestPipelineGoesRoundTheDead(t *testing.T) {
	refused := listenerThatIsClosed(t)
	n, nodes := three(t, nil)
	cases := []struct {
		name, pipeline string
		before         func()
		durable        []dfs.NodeID
		failed         map[dfs.NodeID]dfs.Code
	}{
		{"nobody else", "", func() {}, nodeIDs("dn1"), map[dfs.NodeID]dfs.Code{}},
		{"unknown", "dn9, dn3", func() {}, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn9": dfs.NotFound}},
		{"moved", "dn2,dn3", func() { n.told(t, "dn2", nodes[2].URL()) }, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Conflict}},
		{"middle dead", "dn2,dn3", func() { n.told(t, "dn2", refused) }, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Unavailable}},
		{"last dead", "dn3,dn2", func() {}, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Unavailable}},
		{"all dead", "dn2,dn3", func() { n.told(t, "dn3", refused) }, nodeIDs("dn1"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Unavailable, "dn3": dfs.Unavailable}},
	}
	for i, c := range cases {
		c.before()
		data := content(byte(i), 200_000)
		reply := put(t, nodes[0], dfs.ChunkID(i+1), data, c.pipeline)
		if !reflect.DeepEqual(reply.Nodes, c.durable) || !reflect.DeepEqual(failures(reply), c.failed) {
			t.Errorf("%s: %+v", c.name, reply)
		}
		checkHolds(t, nodes[0], dfs.ChunkID(i+1), data)
	}
}

func listenerThatIsClosed(t *testing.T) (url string) {
	t.Helper()
	l := listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return "http://" + l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// blackHole accepts connections and never says or reads anything.
func blackHole(t *testing.T) (url string) {
	t.Helper()
	l := listen(t)
	var mu sync.Mutex
	var conns []net.Conn
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // that ends the loop
		serving.Wait()
		for _, conn := range conns {
			_ = conn.Close() // nothing was sent
		}
	})
	return "http://" + l.Addr().String()
}

func TestStalledDownstream(t *testing.T) {
	n, nodes := three(t, func(c *datanode.Config) { c.Limits.ForwardTimeout = 1500 * time.Millisecond })
	n.told(t, "dn2", blackHole(t))
	cases := []struct {
		size     int
		pipeline string
	}{
		{1000, "dn2,dn3"},    // it fits into the buffers of the kernel: the answer never comes
		{8 << 20, "dn2,dn3"}, // it does not: the body never goes
		{1000, "dn3,dn2"},    // the last one hangs: the one before it says so, and is not blamed
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for i, c := range cases {
		data := content(byte(i), c.size)
		wg.Go(func() {
			inTime(t, fmt.Sprintf("%d bytes to %s", c.size, c.pipeline), func() error {
				id := dfs.ChunkID(next.Add(1))
				reply := put(t, nodes[0], id, data, c.pipeline)
				if !reflect.DeepEqual(reply.Nodes, nodeIDs("dn1", "dn3")) || failures(reply)["dn2"] != dfs.Timeout {
					return fmt.Errorf("%+v", reply)
				}
				checkHolds(t, nodes[0], id, data)
				checkHolds(t, nodes[2], id, data)
				return nil
			})
		})
	}
	wg.Wait()
}

// A downstream node's answer is believed about the nodes behind it only.
func TestLyingDownstream(t *testing.T) {
	n, nodes := three(t, nil)
	data := content(1, 1000)
	var next dfs.ChunkID
	for name, c := range map[string]struct {
		answer  func(id string) string
		durable []dfs.NodeID
		failed  map[dfs.NodeID]dfs.Code
	}{
		"names strangers": {func(id string) string {
			return fmt.Sprintf(`{"id":%q,"size":1000,"crc32c":%q,"nodes":["dn2","dn1","dn7"]}`, id, dfs.ChecksumOf(data))
		}, nodeIDs("dn1", "dn2"), map[dfs.NodeID]dfs.Code{"dn3": dfs.Unavailable}},
		"another chunk": {func(string) string {
			return `{"id":"00000000000000ff","size":1000,"crc32c":"00000000","nodes":["dn2"]}`
		}, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Internal}},
		"not itself": {func(id string) string {
			return fmt.Sprintf(`{"id":%q,"size":1000,"crc32c":%q,"nodes":["dn3"]}`, id, dfs.ChecksumOf(data))
		}, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Internal}},
		"no JSON":  {func(string) string { return "hello" }, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Unavailable}},
		"too long": {func(string) string { return strings.Repeat(" ", 1<<20) }, nodeIDs("dn1", "dn3"), map[dfs.NodeID]dfs.Code{"dn2": dfs.Unavailable}},
	} {
		liar := serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // whatever came
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, c.answer(filepath.Base(r.URL.Path)))
		})
		n.told(t, "dn2", liar)
		next++
		id := next
		reply := put(t, nodes[0], id, data, "dn2,dn3")
		if !reflect.DeepEqual(reply.Nodes, c.durable) || !reflect.DeepEqual(failures(reply), c.failed) {
			t.Errorf("%s: %+v", name, reply)
		}
	}
}

// Redirects of a DataNode lead nowhere.
func TestRedirectIsNotFollowed(t *testing.T) {
	n, nodes := three(t, nil)
	var called atomic.Bool
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) { called.Store(true) })
	n.told(t, "dn2", serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	reply := put(t, nodes[0], 1, content(1, 1000), "dn2")
	if len(reply.Nodes) != 1 || len(reply.Failed) != 1 || called.Load() {
		t.Errorf("%+v, followed: %v", reply, called.Load())
	}
}

func serve(t *testing.T, handler http.HandlerFunc) (url string) {
	t.Helper()
	l := listen(t)
	server := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // ends by Close
	t.Cleanup(func() {
		_ = server.Close() // nothing is kept
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}

func TestBadUploads(t *testing.T) {
	_, nodes := three(t, nil)
	data := content(1, 1000)
	sum := dfs.ChecksumOf(data).String()
	good := "Content-Length: 1000\r\nX-DFS-CRC32C: " + sum + "\r\nX-DFS-Pipeline: dn2,dn3\r\n"
	long := make([]string, dfs.MaxReplication)
	for i := range long {
		long[i] = fmt.Sprintf("x%d", i)
	}
	with := func(pipeline string) string {
		return "Content-Length: 1000\r\nX-DFS-CRC32C: " + sum + "\r\nX-DFS-Pipeline: " + pipeline + "\r\n"
	}
	for name, c := range map[string]struct {
		path, header string
		body         []byte
		code         dfs.Code
	}{
		"no length":          {"/chunks/0000000000000001", "Transfer-Encoding: chunked\r\nX-DFS-CRC32C: " + sum + "\r\n", []byte("1\r\nx\r\n0\r\n\r\n"), dfs.Invalid},
		"empty":              {"/chunks/0000000000000001", "Content-Length: 0\r\nX-DFS-CRC32C: 00000000\r\n", nil, dfs.Invalid},
		"too large":          {"/chunks/0000000000000001", "Content-Length: 67108865\r\nX-DFS-CRC32C: " + sum + "\r\n", nil, dfs.TooLarge},
		"no checksum":        {"/chunks/0000000000000001", "Content-Length: 1000\r\n", data, dfs.Invalid},
		"checksum malformed": {"/chunks/0000000000000001", "Content-Length: 1000\r\nX-DFS-CRC32C: 0x12\r\n", data, dfs.Invalid},
		"checksum wrong":     {"/chunks/0000000000000001", strings.Replace(good, sum, "12345678", 1), data, dfs.Invalid},
		"shorter":            {"/chunks/0000000000000001", good, data[:999], dfs.Invalid},
		"only a header":      {"/chunks/0000000000000001", good, nil, dfs.Invalid},
		"longer":             {"/chunks/0000000000000001", strings.Replace(good, "1000", "999", 1), data, dfs.Invalid},
		"ID zero":            {"/chunks/0000000000000000", good, data, dfs.Invalid},
		"ID short":           {"/chunks/1", good, data, dfs.Invalid},
		"ID upper case":      {"/chunks/00000000000000AB", good, data, dfs.Invalid},
		"ID escaped":         {"/chunks/..%2f..%2fetc%2fpasswd", good, data, dfs.Invalid},
		"self in pipeline":   {"/chunks/0000000000000001", with("dn2,dn1"), data, dfs.Invalid},
		"twice in pipeline":  {"/chunks/0000000000000001", with("dn2,dn3,dn2"), data, dfs.Invalid},
		"URL in pipeline":    {"/chunks/0000000000000001", with("http://169.254.169.254/"), data, dfs.Invalid},
		"gap in pipeline":    {"/chunks/0000000000000001", with("dn2,,dn3"), data, dfs.Invalid},
		"pipeline too long":  {"/chunks/0000000000000001", with(strings.Join(long, ",")), data, dfs.Invalid},
	} {
		a := raw(t, nodes[0], "PUT "+c.path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+c.header+"\r\n", c.body)
		if got := a.code(t); got != c.code {
			t.Errorf("%s: status %d, code %q: %s", name, a.status, got, a.body)
		}
		for _, d := range nodes {
			checkHoldsNot(t, d, 1)
		}
	}
}

// raw sends bytes as they are, ends the sending side, and reads the answer.
func raw(t *testing.T, d *datanode.DataNode, head string, body []byte) answer {
	t.Helper()
	conn := dial(t, d)
	defer conn.Close()
	if _, err := conn.Write(append([]byte(head), body...)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, conn)
}

func dial(t *testing.T, d *datanode.DataNode) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func readAnswer(t *testing.T, conn net.Conn) answer {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, body}
}

// A sender that goes away in the middle leaves nothing anywhere.
func TestSenderGoesAway(t *testing.T) {
	dir := t.TempDir()
	_, nodes := three(t, func(c *datanode.Config) { c.DataDirs = []string{filepath.Join(dir, string(c.ID))} })
	conn := dial(t, nodes[0])
	if _, err := fmt.Fprintf(conn, "PUT /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\nX-DFS-CRC32C: 12345678\r\nX-DFS-Pipeline: dn2,dn3\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(content(1, 2_000_000)); err != nil {
		t.Fatal(err)
	}
	temps := func() (n int) {
		for _, d := range nodes {
			n += tempFiles(t, filepath.Join(dir, string(d.ID())))
		}
		return n
	}
	waitUntil(t, "the chunk to be on its way to all", func() bool { return temps() == 3 })
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the temporary files to go", func() bool { return temps() == 0 })
	for _, d := range nodes {
		checkHoldsNot(t, d, 1)
	}
}

func TestSlowBodyIsCut(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.BodyTimeout = 500 * time.Millisecond // the answers have no more
	d := start(t, c)
	ready(t, n, d)
	conn := dial(t, d)
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PUT /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX-DFS-CRC32C: 12345678\r\n\r\nsome"); err != nil {
		t.Fatal(err)
	}
	if a := readAnswer(t, conn); a.code(t) != dfs.Timeout {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	checkHoldsNot(t, d, 1)
}

// An fsync, here or further down, may take longer than a piece of the body may.
func TestSlowDiskIsNotCut(t *testing.T) {
	var slept atomic.Int64
	_, nodes := three(t, func(c *datanode.Config) {
		c.Limits.BodyTimeout = 500 * time.Millisecond
		c.Unpacked = true // a file for each chunk, and an fsync
		c.DiskHook = func(op chunkstore.Op, path string) error {
			if op == chunkstore.OpSyncFile && c.ID == "dn2" && strings.Contains(path, "000000000000000") {
				time.Sleep(time.Second) // the subject of the test
				slept.Add(1)
			}
			return nil
		}
	})
	next := dfs.ChunkID(0)
	inTime(t, "a put", func() error {
		next++
		before := slept.Load()
		a, err := try(putRequest(t, nodes[0], next, content(1, 100), "dn2"))
		var reply protocol.ChunkReply
		if err == nil {
			err = json.Unmarshal(a.body, &reply)
		}
		if err != nil || len(reply.Nodes) != 2 {
			return fmt.Errorf("status %d, %s, %v", a.status, a.body, err)
		}
		if slept.Load() == before {
			t.Error("the disk was not slow: this test shows nothing")
		}
		return nil
	})
}

func TestSameChunkAgain(t *testing.T) {
	_, nodes := three(t, nil)
	data := content(1, 100_000)
	for range 2 {
		if reply := put(t, nodes[0], 1, data, "dn2,dn3"); len(reply.Nodes) != 3 {
			t.Errorf("%+v", reply)
		}
	}
	if a := do(t, putRequest(t, nodes[0], 1, data[:500], "")); a.code(t) != dfs.Conflict {
		t.Errorf("status %d", a.status)
	}
	checkHolds(t, nodes[0], 1, data)
}

// Clients that retry meet their own earlier attempts, also in each other's
// pipelines.
func TestSameChunkAtTheSameTime(t *testing.T) {
	_, nodes := three(t, nil)
	data := content(1, 1_000_000)
	pipelines := []string{"dn2,dn3", "dn3,dn1", "dn1,dn2"}
	replies := make([]protocol.ChunkReply, 9)
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() { replies[i] = put(t, nodes[i%3], 1, data, pipelines[i%3]) })
	}
	wg.Wait()
	for _, reply := range replies {
		if len(reply.Nodes) != 3 {
			t.Errorf("%+v", reply)
		}
	}
	for _, d := range nodes {
		checkHolds(t, d, 1, data)
	}
}

func TestTooManyUploads(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Limits.Writes = 1
	c.Limits.ForwardTimeout = 100 * time.Millisecond // twice what is waited for a slot
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	conn := dial(t, d)
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PUT /chunks/0000000000000001 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\nX-DFS-CRC32C: %s\r\n\r\n", dfs.ChecksumOf(data)); err != nil {
		t.Fatal(err)
	}
	// The node asks for the body when the request has the only slot.
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	asked := make([]byte, len(goOn))
	if _, err := io.ReadFull(conn, asked); err != nil || string(asked) != goOn {
		t.Fatalf("%q %v", asked, err)
	}
	if a := do(t, putRequest(t, d, 2, data, "")); a.code(t) != dfs.OverLimit || a.header.Get("Retry-After") == "" {
		t.Errorf("with the only slot taken: %d %s", a.status, a.body)
	}
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	if a := readAnswer(t, conn); a.status != http.StatusCreated {
		t.Errorf("%d %s", a.status, a.body)
	}
	waitUntil(t, "the slot to be free again", func() bool {
		return do(t, putRequest(t, d, 2, data, "")).status == http.StatusCreated
	})
}

// More uploads than a node takes at a time wait for their turn, on every node
// of their pipelines, although the pipelines cross.
func TestUploadsWaitForTheirTurn(t *testing.T) {
	const uploads = 48
	_, nodes := three(t, func(c *datanode.Config) {
		c.Limits.Writes = 2
		c.Limits.ForwardTimeout = time.Minute // a slow machine may take its time
	})
	pipelines := []string{"dn2,dn3", "dn3,dn1", "dn1,dn2"}
	var wg sync.WaitGroup
	for i := range uploads {
		wg.Go(func() {
			reply := put(t, nodes[i%3], dfs.ChunkID(i+1), content(byte(i), 300_000), pipelines[i%3])
			if len(reply.Nodes) != 3 || len(reply.Failed) > 0 {
				t.Errorf("upload %d: %+v", i, reply)
			}
		})
	}
	wg.Wait()
}

func TestFailingDisk(t *testing.T) {
	var failing atomic.Bool
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.DiskHook = func(op chunkstore.Op, _ string) error {
		if op == chunkstore.OpSyncFile && failing.Load() {
			return syscall.EIO
		}
		return nil
	}
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 1000)
	put(t, d, 1, data, "")
	failing.Store(true)
	for range 2 {
		if a := do(t, putRequest(t, d, 2, data, "")); a.code(t) != dfs.Internal {
			t.Errorf("%d %s", a.status, a.body)
		}
		failing.Store(false) // a disk that has failed once is not trusted again
	}
	n.heard(t, "dn1", "word of the failed disk", func(h heartbeat) bool { return h.Unwritable && h.ChunkCount == 1 })
	if a := get(t, d.URL()+"/health", nil); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "disk") {
		t.Errorf("%d %s", a.status, a.body)
	}
	checkHolds(t, d, 1, data)
}
