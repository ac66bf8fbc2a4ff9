package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// upload stores data and checks that it can be read back.
func upload(t *testing.T, f *fakeCluster, c *client.Client, data []byte, options client.UploadOptions) client.UploadResult {
	t.Helper()
	path := mustPath(t, "/file")
	reply, err := c.Upload(t.Context(), path, iotest.HalfReader(bytes.NewReader(data)), options)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Size != int64(len(data)) {
		t.Errorf("stored %d bytes, want %d", reply.Size, len(data))
	}
	for _, n := range f.nodes {
		n.setBefore(nil)
	}
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), path, &got, client.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Errorf("read back %d bytes that are not the %d stored", got.Len(), len(data))
	}
	if n := f.liveUploads(); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	return reply
}

func TestSizes(t *testing.T) {
	for i, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 100*chunkSize + 17} {
		for j, announced := range []int64{int64(size), -1, 0, int64(size) / 2, 2*int64(size) + 5} {
			f := newFakeCluster(t, 3)
			f.stock = (i+j)%2 == 0
			var done atomic.Int64
			upload(t, f, f.client(), randomBytes(size), client.UploadOptions{
				Size: announced, ChunkSize: chunkSize, Progress: func(n int64) { done.Add(n) },
			})
			if done.Load() != int64(size) {
				t.Errorf("progress says %d of %d bytes", done.Load(), size)
			}
			f.names.CloseClientConnections()
		}
	}
}

func TestAllReplicasAreWritten(t *testing.T) {
	for _, fanOut := range []int{0, chunkSize} {
		f := newFakeCluster(t, 3)
		var passedOn atomic.Int32
		for _, node := range f.nodes {
			node.setBefore(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get(protocol.HeaderPipeline) != "" {
					passedOn.Add(1)
				}
				return true
			})
		}
		c := f.client()
		c.SetFanOut(fanOut)
		upload(t, f, c, randomBytes(5*chunkSize), client.UploadOptions{Size: 5 * chunkSize})
		file, _ := f.file("/file")
		for _, chunk := range file.Chunks {
			if len(chunk.Locations) != 3 {
				t.Errorf("chunk %s lies on %d DataNodes, want 3", chunk.ID, len(chunk.Locations))
			}
		}
		if n := passedOn.Load(); (n > 0) != (fanOut == 0) {
			t.Errorf("with chunks of up to %d bytes sent to all DataNodes, %d were to be passed on", fanOut, n)
		}
	}
}

// A client that reaches only one of the DataNodes lets that one reach the others.
func TestFanOutFallsBackToThePipeline(t *testing.T) {
	f := newFakeCluster(t, 3)
	for _, node := range f.nodes[1:] {
		node.setBefore(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut && r.UserAgent() == "" { // the client says no name, the fakes' does
				panic(http.ErrAbortHandler)
			}
			return true
		})
	}
	c := f.client()
	c.SetFanOut(chunkSize)
	upload(t, f, c, randomBytes(chunkSize), client.UploadOptions{Size: chunkSize})
	file, _ := f.file("/file")
	if n := len(file.Chunks[0].Locations); n < 2 {
		t.Errorf("the chunk lies on %d DataNodes", n)
	}
}

func TestOneBadDataNode(t *testing.T) {
	failures := map[string]func(*fakeNode){
		"dead":          func(n *fakeNode) { n.Close() },
		"dies mid-body": func(n *fakeNode) { n.setBefore(dieMidBody) },
		"stalls":        func(n *fakeNode) { n.setBefore(stalled) },
		"is full":       func(n *fakeNode) { n.setBefore(refuse(dfs.NoSpace)) },
		"drips":         func(n *fakeNode) { n.setBefore(dripping) },
		"lies": func(n *fakeNode) {
			n.setBefore(func(w http.ResponseWriter, _ *http.Request) bool {
				protocol.WriteJSON(w, http.StatusCreated, protocol.ChunkReply{ID: 7, Nodes: []dfs.NodeID{"dn1", "dn2", "dn3"}})
				return false
			})
		},
	}
	for name, fail := range failures {
		for i := range 6 {
			bad, fanOut := i%3, i/3*chunkSize
			t.Run(name, func(t *testing.T) {
				f := newFakeCluster(t, 3)
				if name == "lies" && bad > 0 && fanOut == 0 {
					t.Skip("a lie in the middle is the DataNodes' to detect")
				}
				fail(f.nodes[bad])
				c := f.client()
				if name == "stalls" || name == "drips" {
					f.hopLimit = 100 * time.Millisecond
					c = f.client(hurried)
				}
				c.SetFanOut(fanOut)
				upload(t, f, c, randomBytes(10*chunkSize), client.UploadOptions{Size: -1, ChunkSize: chunkSize})
			})
		}
	}
}

func TestMovedDataNode(t *testing.T) {
	f := newFakeCluster(t, 3)
	moved := f.nodes[0]
	stranger := &fakeNode{id: "dn9", cluster: f, chunks: make(map[string][]byte)}
	stranger.Server = serve(t, stranger.serve)
	moved.Server = stranger.Server // the address of dn1 is now that of dn9
	upload(t, f, f.client(), randomBytes(3*chunkSize), client.UploadOptions{})
	if len(stranger.chunks) != 0 {
		t.Error("a chunk was written to a node that was not meant")
	}
}

// With four nodes and one dead, later chunks get their three replicas on the
// others, and the dead one is tried no more than once for each chunk in flight.
func TestFailedNodeIsAvoided(t *testing.T) {
	f := newFakeCluster(t, 4)
	f.nodes[0].setBefore(refuse(dfs.NoSpace))
	c := f.client(func(config *client.Config) { config.Parallelism = 2 })
	upload(t, f, c, randomBytes(40*chunkSize), client.UploadOptions{Size: 40 * chunkSize})
	if puts, _ := f.nodes[0].counts(); puts > 8 {
		t.Errorf("the full DataNode was tried %d times", puts)
	}
	file, _ := f.file("/file")
	last := file.Chunks[len(file.Chunks)-1]
	if len(last.Locations) != 3 {
		t.Errorf("the last chunk lies on %d DataNodes, want 3", len(last.Locations))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.excluded, func(ids []dfs.NodeID) bool { return slices.Equal(ids, []dfs.NodeID{"dn1"}) }) {
		t.Errorf("excluded: %v", f.excluded)
	}
}

// One hiccup of one DataNode costs a few chunks a replica, not all the rest; it
// is said which, and the node gets its second chance as the last of a pipeline.
func TestHiccupIsForgiven(t *testing.T) {
	for bad := range 3 {
		f := newFakeCluster(t, 3)
		var puts atomic.Int64
		f.nodes[bad].setBefore(func(w http.ResponseWriter, r *http.Request) bool {
			switch puts.Add(1) {
			case 1:
				return refuse(dfs.Unavailable)(w, r)
			case 2:
				if rest := r.Header.Get(protocol.HeaderPipeline); rest != "" {
					t.Errorf("%s is tried again before %s", f.nodes[bad].id, rest)
				}
			}
			return true
		})
		var log bytes.Buffer
		c := f.client(func(config *client.Config) {
			config.Parallelism = 1
			config.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn})
		})
		c.SetPenalty(time.Nanosecond)
		result := upload(t, f, c, randomBytes(40*chunkSize), client.UploadOptions{Size: -1, ChunkSize: chunkSize})
		if result.Chunks != 40 || result.Replication != 3 || result.UnderReplicated < 1 || result.UnderReplicated > 8 || result.LeastReplicas != 2 {
			t.Errorf("dn%d: %+v", bad+1, result)
		}
		file, _ := f.file("/file")
		short := 0
		for _, chunk := range file.Chunks {
			if len(chunk.Locations) < 3 {
				short++
			}
		}
		if short != result.UnderReplicated {
			t.Errorf("%d chunks lack a replica; the result says %d", short, result.UnderReplicated)
		}
		if !strings.Contains(log.String(), "[WARN]") || !strings.Contains(log.String(), "node="+string(f.nodes[bad].id)) {
			t.Errorf("the log does not blame %s: %s", f.nodes[bad].id, log.String())
		}
	}
}

// A node that stays bad is tried with one chunk at a time, not with all.
func TestTrialsAreFew(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.nodes[0].setBefore(refuse(dfs.NoSpace))
	result := upload(t, f, f.client(), randomBytes(40*chunkSize), client.UploadOptions{Size: -1, ChunkSize: chunkSize})
	if puts, _ := f.nodes[0].counts(); puts > 8 || result.UnderReplicated != 40 {
		t.Errorf("%d tries, %+v", puts, result)
	}
}

// A DataNode whose slots are taken is waited for: it keeps its replica of the
// same chunk, wherever it stands in the pipeline.
func TestBusyDataNodeIsWaitedFor(t *testing.T) {
	for name, busy := range map[string][]int{"first": {0}, "middle": {1}, "last": {2}, "all": {0, 1, 2}} {
		f := newFakeCluster(t, 4)
		for _, i := range busy {
			var puts atomic.Int64
			f.nodes[i].setBefore(func(w http.ResponseWriter, r *http.Request) bool {
				return puts.Add(1) > 1 || refuse(dfs.OverLimit)(w, r)
			})
		}
		result := upload(t, f, f.client(), randomBytes(chunkSize), client.UploadOptions{Size: chunkSize})
		file, _ := f.file("/file")
		if result.UnderReplicated != 0 || len(file.Chunks[0].Locations) != 3 {
			t.Errorf("%s: %+v", name, result)
		}
		f.mu.Lock()
		if len(f.excluded) != 1 {
			t.Errorf("%s: %d allocations, want the first only", name, len(f.excluded))
		}
		f.mu.Unlock()
	}
}

func TestBusyForTooLong(t *testing.T) {
	f := newFakeCluster(t, 4)
	f.nodes[0].setBefore(refuse(dfs.OverLimit))
	c := f.client(func(config *client.Config) { config.Patience = time.Millisecond })
	if result := upload(t, f, c, randomBytes(10*chunkSize), client.UploadOptions{Size: -1, ChunkSize: chunkSize}); result.UnderReplicated == 10 {
		t.Errorf("no chunk went elsewhere: %+v", result)
	}
}

func TestReplacementChunk(t *testing.T) {
	f := newFakeCluster(t, 5)
	f.nodes[0].Close()
	f.nodes[1].Close()
	data := randomBytes(chunkSize)
	upload(t, f, f.client(), data, client.UploadOptions{Size: chunkSize})
	file, _ := f.file("/file")
	var where []dfs.NodeID
	for _, target := range file.Chunks[0].Locations {
		where = append(where, target.ID)
	}
	if !slices.Equal(where, []dfs.NodeID{"dn3", "dn4", "dn5"}) {
		t.Errorf("stored on %v", where)
	}
}

// All DataNodes fail for a while, one of them for good: the upload goes on when
// they are back, although every node has failed it.
func TestAllNodesFailForAWhile(t *testing.T) {
	f := newFakeCluster(t, 3)
	var puts atomic.Int64
	for _, n := range f.nodes {
		n.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
			if puts.Add(1) > 6 {
				return true
			}
			return refuse(dfs.Unavailable)(w, r)
		})
	}
	upload(t, f, f.client(), randomBytes(chunkSize), client.UploadOptions{})
}

func TestTooFewDataNodes(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.nodes[1].setBefore(refuse(dfs.NoSpace))
	f.nodes[2].setBefore(refuse(dfs.NoSpace))
	_, err := f.client().Upload(t.Context(), mustPath(t, "/file"), bytes.NewReader(randomBytes(10)), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.Unavailable || !strings.Contains(err.Error(), "dn2") {
		t.Fatalf("got %v", err)
	}
	assertNothingStored(t, f)
}

func assertNothingStored(t *testing.T, f *fakeCluster) {
	t.Helper()
	if _, there := f.file("/file"); there {
		t.Error("the file appeared")
	}
	if n := f.liveUploads(); n != 0 {
		t.Errorf("%d uploads were not aborted", n)
	}
}

func TestSourceThatFails(t *testing.T) {
	f := newFakeCluster(t, 3)
	broken := errors.New("the disk is on fire")
	source := io.MultiReader(bytes.NewReader(randomBytes(5*chunkSize+3)), iotest.ErrReader(broken))
	_, err := f.client().Upload(t.Context(), mustPath(t, "/file"), source, client.UploadOptions{Size: -1, ChunkSize: chunkSize})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	assertNothingStored(t, f)
}

// A Read that blocks must not keep a cancelled upload.
func TestCancelWhileTheSourceBlocks(t *testing.T) {
	f := newFakeCluster(t, 3)
	source, feed := io.Pipe()
	defer feed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = feed.Write(randomBytes(3 * chunkSize / 2))
		cancel()
	}()
	_, err := f.client().Upload(ctx, mustPath(t, "/file"), source, client.UploadOptions{Size: -1, ChunkSize: chunkSize})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	assertNothingStored(t, f)
}

func TestRefusals(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client()
	upload(t, f, c, []byte("old"), client.UploadOptions{})
	_, err := c.Upload(t.Context(), mustPath(t, "/file"), strings.NewReader("new"), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.Exists {
		t.Errorf("without overwrite: %v", err)
	}
	upload(t, f, c, []byte("new"), client.UploadOptions{Overwrite: true})

	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/commit") {
			return refuse(dfs.Conflict)(w, r)
		}
		return true
	})
	_, err = c.Upload(t.Context(), mustPath(t, "/other"), strings.NewReader("x"), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.Conflict || f.liveUploads() != 0 {
		t.Errorf("conflict at commit: %v, %d uploads left", err, f.liveUploads())
	}
}

// The answer to a commit that is lost once is asked for again under the same
// request ID; when it stays lost, that is said, and the upload is not aborted.
func TestLostCommitAnswer(t *testing.T) {
	f := newFakeCluster(t, 3)
	var mu sync.Mutex
	var ids []string
	lose := 1
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/commit") {
			return true
		}
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, r.Header.Get(protocol.HeaderRequestID))
		if len(ids) == 5 {
			giveUp()
		}
		lose--
		if lose >= 0 {
			return refuse(dfs.UnknownOutcome)(w, r)
		}
		return true
	})
	upload(t, f, f.client(), randomBytes(10), client.UploadOptions{})
	if len(ids) != 2 || ids[0] == "" || ids[0] != ids[1] {
		t.Errorf("request IDs %q", ids)
	}

	mu.Lock()
	lose = 1 << 30
	mu.Unlock()
	_, err := f.client().Upload(ctx, mustPath(t, "/other"), strings.NewReader("x"), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.UnknownOutcome || f.liveUploads() != 1 {
		t.Errorf("got %v, %d uploads", err, f.liveUploads())
	}
}

func TestIdleUploadIsKeptAlive(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.expiresIn = 1
	source, feed := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = feed.Write(randomBytes(dfs.BlockSize + 1)) // no small file
		eventually(t, "two renewals", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.renewals >= 2
		})
		_, _ = feed.Write([]byte(" second"))
		_ = feed.Close()
	})
	_, err := f.client().Upload(t.Context(), mustPath(t, "/file"), source, client.UploadOptions{Size: -1, ChunkSize: chunkSize})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
}

func TestExpiredUploadEnds(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.expiresIn = 1
	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/chunks") {
			return refuse(dfs.NotFound)(w, r)
		}
		return true
	})
	source, feed := io.Pipe()
	defer feed.Close()
	_, err := f.client().Upload(t.Context(), mustPath(t, "/file"), io.MultiReader(bytes.NewReader(randomBytes(dfs.BlockSize+1)), source), client.UploadOptions{
		Size: -1, ChunkSize: dfs.MaxChunkSize,
	})
	if dfs.CodeOf(err) != dfs.NotFound {
		t.Errorf("got %v", err)
	}
}

// countingReader notes how much was taken from an endless source.
type countingReader struct{ n atomic.Int64 }

func (r *countingReader) Read(p []byte) (int, error) {
	r.n.Add(int64(len(p)))
	return len(p), nil
}

// While the DataNodes are slow, no more is read than the buffers hold.
func TestUploadMemoryIsBounded(t *testing.T) {
	f := newFakeCluster(t, 3)
	for _, n := range f.nodes {
		n.setBefore(stalled)
	}
	const parallelism = 3
	c := f.client(func(config *client.Config) { config.Parallelism = parallelism })
	ctx, cancel := context.WithCancel(t.Context())
	var source countingReader
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Upload(ctx, mustPath(t, "/file"), &source, client.UploadOptions{Size: -1, ChunkSize: chunkSize}); err == nil {
			t.Error("an endless upload ended")
		}
	})
	const bound = (parallelism + 1) * chunkSize
	eventually(t, "all buffers are full", func() bool { return source.n.Load() >= bound })
	eventually(t, "all chunks are on their way", func() bool {
		puts, _ := f.nodes[0].counts()
		return puts >= parallelism
	})
	if n := source.n.Load(); n > bound {
		t.Errorf("%d bytes were read, want at most %d", n, bound)
	}
	cancel()
	wg.Wait()
}

// What cannot be stored is refused before a byte is sent, with what would do;
// where nobody chose a chunk size, one that does is chosen.
func TestTooManyChunks(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client()
	const gib = 1 << 30
	for _, test := range []struct {
		size, chunkSize int64
		asked           int64 // chunk size in the request; 0: none
		says            string
	}{
		{512 * gib, 0, 0, ""},
		{512*gib + 1, 0, 4<<20 + 64<<10, ""},
		{1024 * gib, 0, 8 << 20, ""},
		{128 << 20, 1 << 10, 1 << 10, ""},
		{128<<20 + 1, 1 << 10, -1, "at least 64 KiB"},
		{1024 * gib, 4 << 20, -1, "at least 8192 KiB"},
		{8192 * gib, 0, 64 << 20, ""},
		{8192*gib + 1, 0, -1, "8192 GiB at most"},
		{1<<63 - 1, 0, -1, "8192 GiB at most"},
	} {
		asked := int64(-1)
		f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
			var request protocol.CreateRequest
			if f.decode(w, r, &request) {
				asked = 0
				if request.ChunkSize != nil {
					asked = *request.ChunkSize
				}
				protocol.WriteError(w, dfs.Errorf(dfs.Exists, "enough seen"))
			}
			return false
		})
		_, err := c.Upload(t.Context(), mustPath(t, "/file"), iotest.ErrReader(io.EOF), client.UploadOptions{Size: test.size, ChunkSize: test.chunkSize})
		if asked != test.asked {
			t.Errorf("%d bytes in chunks of %d: asked for %d, want %d", test.size, test.chunkSize, asked, test.asked)
		}
		if test.says != "" && (dfs.CodeOf(err) != dfs.TooLarge || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%d bytes in chunks of %d: %v", test.size, test.chunkSize, err)
		}
	}
}

// That nothing is stored is no reason to keep the cause back.
func TestLostAnswerBeforeTheCommit(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.setBefore(refuse(dfs.UnknownOutcome))
	var err error
	for timeout := 200 * time.Millisecond; timeout < time.Minute; timeout *= 5 { // until there was time for an answer
		c := f.client(func(config *client.Config) { config.Timeout = timeout })
		_, err = c.Upload(t.Context(), mustPath(t, "/file"), strings.NewReader("x"), client.UploadOptions{})
		if err == nil || strings.Contains(err.Error(), "refused") {
			break
		}
	}
	if dfs.CodeOf(err) != dfs.Unavailable || !strings.Contains(err.Error(), "nothing is stored as /file: ") || !strings.Contains(err.Error(), f.names.URL+": refused") {
		t.Errorf("got %v", err)
	}
}

// TestSmallFilesTakeLittleMemory: not a buffer of the chunk size, when no earlier
// one is left to be used again.
func TestSmallFilesTakeLittleMemory(t *testing.T) {
	const count = 20
	f := newFakeCluster(t, 3)
	c := f.client()
	small := func() {
		options := client.UploadOptions{Size: 4096, ChunkSize: dfs.MaxChunkSize, Overwrite: true}
		if _, err := c.Upload(t.Context(), mustPath(t, "/small"), bytes.NewReader(randomBytes(4096)), options); err != nil {
			t.Fatal(err)
		}
	}
	small()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range count {
		runtime.GC() // the second in a row empties the pools
		runtime.GC()
		small()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / count; each > dfs.MaxChunkSize/8 {
		t.Errorf("a file of 4 KiB took %d bytes of memory", each)
	}
}
