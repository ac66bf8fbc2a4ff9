package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func newStockCluster(t *testing.T, nodes int) *fakeCluster {
	f := newFakeCluster(t, nodes)
	f.stock = true
	return f
}

func (f *fakeCluster) seenPuts() []seenPut {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.puts)
}

// atPuts does something before each put is judged, which goes on when that
// returns true.
func (f *fakeCluster) atPuts(do func(w http.ResponseWriter, r *http.Request) bool) {
	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method != http.MethodPut || do(w, r)
	})
}

// Which files are put at once, and that nothing more is asked for.
func TestSmallFilesArePutAtOnce(t *testing.T) {
	const block = dfs.BlockSize
	for _, test := range []struct {
		size, announced, chunkSize int64
		calls                      string // of the NameNode
	}{
		{0, 0, 0, "PUT"},
		{0, -1, 0, "PUT"},
		{0, block, 0, "PUT"},
		{0, block + 1, 0, "POST POST"},
		{1, 1, 0, "POST PUT"},
		{1, 0, 0, "POST PUT"},
		{block, block, block, "POST PUT"},
		{block, -1, 4 * block, "POST PUT"},
		{block + 1, -1, 4 * block, "POST POST"},
		{block + 1, 1, 4 * block, "POST POST"},
		{block + 1, block + 1, 4 * block, "POST POST"},
		{1024, 1024, 1024, "POST PUT"},
		{1025, 1025, 1024, "POST POST"},
		{3 * chunkSize, -1, 0, "POST POST POST POST"}, // larger than a chunk of this cluster, as turns out
	} {
		f := newStockCluster(t, 3)
		var mu sync.Mutex
		var calls []string
		f.setBefore(func(_ http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, r.Method)
			return true
		})
		var progress atomic.Int64
		data := randomBytes(int(test.size))
		path := mustPath(t, "/file")
		result, err := f.client().Upload(t.Context(), path, iotest.HalfReader(bytes.NewReader(data)), client.UploadOptions{
			Size: test.announced, ChunkSize: test.chunkSize, Progress: func(n int64) { progress.Add(n) },
		})
		mu.Lock()
		if got := strings.Join(calls, " "); err != nil || got != test.calls {
			t.Errorf("%+v: %s, %v", test, got, err)
		}
		mu.Unlock()
		if result.Size != test.size || result.Path != "/file" || result.Replication != 3 || result.UnderReplicated != 0 || progress.Load() != test.size {
			t.Errorf("%+v: %+v, progress says %d", test, result, progress.Load())
		}
		var got bytes.Buffer
		if _, err := f.client().Download(t.Context(), path, &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%+v: %d bytes read back, %v", test, got.Len(), err)
		}
	}
}

// What is asked for is what the caller said, in both calls.
func TestSmallFileSaysWhatIsWanted(t *testing.T) {
	f := newStockCluster(t, 3)
	c := f.client()
	two, options := 2, client.UploadOptions{Size: 5, ChunkSize: 2048, Overwrite: true}
	for range 2 { // the second replaces the first
		upload(t, f, c, []byte("small"), options)
		options.Replication = &two
	}
	upload(t, f, c, nil, options)
	puts := f.seenPuts()
	if len(puts) != 3 || puts[0].Base != 0 || puts[1].Base == 0 || puts[2].Chunk != nil || puts[2].Pool != 0 || puts[2].Base != 0 {
		t.Fatalf("%+v", puts)
	}
	for i, put := range puts {
		if put.Path != "/file" || !put.Overwrite || put.ChunkSize == nil || *put.ChunkSize != 2048 || (put.Replication != nil) != (i > 0) {
			t.Errorf("%+v", put)
		}
	}
	if puts[1].requestID == puts[0].requestID || puts[0].requestID == "" {
		t.Error("two files have the same request ID")
	}
}

// A put that cannot be, and that has not been, is made good by an upload from
// the beginning; nobody notices.
func TestSmallFileIsUploadedAgain(t *testing.T) {
	refused := func(code dfs.Code) func(*fakeCluster) {
		return func(f *fakeCluster) { f.atPuts(refuse(code)) }
	}
	for name, spoil := range map[string]func(*fakeCluster){
		"the stock has expired":     refused(dfs.Conflict),
		"a DataNode lost the chunk": refused(dfs.Invalid),
		"an earlier version leads":  refused(dfs.MethodNotAllowed),
		"something else stands there": func(f *fakeCluster) {
			f.atPuts(func(http.ResponseWriter, *http.Request) bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.files["/file"] = protocol.File{Inode: 99}
				return true
			})
		},
		"the holders die": func(f *fakeCluster) {
			var once sync.Once
			f.atPuts(func(http.ResponseWriter, *http.Request) bool {
				once.Do(func() { f.nodes[0].die(); f.nodes[1].die() })
				return true
			})
		},
		"two DataNodes are full": func(f *fakeCluster) {
			f.nodes[0].setBefore(refuse(dfs.NoSpace))
			f.nodes[1].setBefore(refuse(dfs.NoSpace))
		},
		"it goes on being refused": func(f *fakeCluster) {
			f.atPuts(func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Retry-After", "1")
				return refuse(dfs.Unavailable)(w, r)
			})
		},
	} {
		for _, size := range []int{0, chunkSize} {
			t.Run(name, func(t *testing.T) {
				f := newStockCluster(t, 5)
				spoil(f)
				c := f.client()
				c.SetRescueAfter(10 * time.Millisecond)
				var progress atomic.Int64
				result := upload(t, f, c, randomBytes(size), client.UploadOptions{
					Size: int64(size), Overwrite: true, Progress: func(n int64) { progress.Add(n) },
				})
				if result.Replication != 3 || progress.Load() != int64(size) {
					t.Errorf("%+v, progress says %d", result, progress.Load())
				}
			})
		}
	}
}

// DataNodes that did not take the chunk are left out when it is sent again.
func TestSecondUploadLeavesFailedNodesOut(t *testing.T) {
	f := newStockCluster(t, 5)
	f.nodes[0].setBefore(refuse(dfs.NoSpace))
	f.nodes[1].setBefore(refuse(dfs.NoSpace))
	result := upload(t, f, f.client(), randomBytes(10), client.UploadOptions{})
	file, _ := f.file("/file")
	if result.UnderReplicated != 0 || len(file.Chunks[0].Locations) != 3 {
		t.Errorf("%+v: %+v", result, file)
	}
	if puts, _ := f.nodes[0].counts(); puts != 1 {
		t.Errorf("a full DataNode was tried %d times", puts)
	}
}

// One bad DataNode of three is no reason to begin again.
func TestSmallFileWithTwoReplicas(t *testing.T) {
	for bad := range 3 {
		f := newStockCluster(t, 3)
		f.nodes[bad].Close()
		result := upload(t, f, f.client(), randomBytes(10), client.UploadOptions{})
		if result.UnderReplicated != 1 || result.LeastReplicas != 2 || len(f.seenPuts()) != 1 || len(f.seenCommits()) != 0 {
			t.Errorf("%+v, %d puts, %d commits", result, len(f.seenPuts()), len(f.seenCommits()))
		}
	}
}

// What is final is said at once, as of any upload.
func TestSmallFileRefusals(t *testing.T) {
	for _, data := range []string{"", "new"} {
		f := newStockCluster(t, 3)
		c := f.client()
		upload(t, f, c, []byte("old"), client.UploadOptions{})
		_, err := c.Upload(t.Context(), mustPath(t, "/file"), strings.NewReader(data), client.UploadOptions{})
		if dfs.CodeOf(err) != dfs.Exists {
			t.Errorf("without overwrite: %v", err)
		}
		for _, code := range []dfs.Code{dfs.Exists, dfs.IsDirectory, dfs.NotDirectory, dfs.NoSpace, dfs.Forbidden, dfs.Internal} {
			f.atPuts(refuse(code))
			before := len(f.seenCommits())
			_, err := c.Upload(t.Context(), mustPath(t, "/other"), strings.NewReader(data), client.UploadOptions{})
			if dfs.CodeOf(err) != code || len(f.seenCommits()) != before {
				t.Errorf("%q was refused as %s: %v, %d commits", data, code, err, len(f.seenCommits())-before)
			}
		}
		if f.setBefore(nil); f.liveUploads() != 0 {
			t.Errorf("%d uploads are left", f.liveUploads())
		}
	}
}

// What the second way is refused is the answer.
func TestRefusalOfTheSecondUpload(t *testing.T) {
	f := newStockCluster(t, 3)
	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut || strings.HasSuffix(r.URL.Path, "/commit") {
			return refuse(dfs.Conflict)(w, r)
		}
		return true
	})
	_, err := f.client().Upload(t.Context(), mustPath(t, "/file"), strings.NewReader("x"), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.Conflict {
		t.Errorf("got %v", err)
	}
	assertNothingStored(t, f)
}

// An answer that is lost once is asked for again under the same request ID; when
// it stays lost, that is said. The file is not uploaded in another way as long as
// it may have been put, whatever later tries are told.
func TestLostPutAnswer(t *testing.T) {
	for _, data := range []string{"", "data"} {
		f := newStockCluster(t, 3)
		c := f.client()
		ctx, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		c.SetRescueAfter(10 * time.Millisecond)
		var mu sync.Mutex
		var ids []string
		lose, then := 1, dfs.Code("")
		f.atPuts(func(w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, r.Header.Get(protocol.HeaderRequestID))
			if lose--; lose >= 0 {
				return refuse(dfs.UnknownOutcome)(w, r)
			}
			if then != "" {
				if len(ids) == 5 {
					giveUp()
				}
				w.Header().Set("Retry-After", "1")
				return refuse(then)(w, r)
			}
			return true
		})
		upload(t, f, c, []byte(data), client.UploadOptions{})
		mu.Lock()
		if len(ids) != 2 || ids[0] == "" || ids[0] != ids[1] {
			t.Errorf("request IDs %q", ids)
		}
		ids, lose, then = nil, 1, dfs.Unavailable
		mu.Unlock()
		_, err := c.Upload(ctx, mustPath(t, "/other"), strings.NewReader(data), client.UploadOptions{})
		mu.Lock()
		if dfs.CodeOf(err) != dfs.UnknownOutcome || len(ids) < 3 || len(slices.Compact(ids)) != 1 || len(f.seenCommits()) != 0 {
			t.Errorf("%v, request IDs %q, %d commits", err, slices.Compact(ids), len(f.seenCommits()))
		}
		mu.Unlock()
	}
}

// A NameNode that never answers costs one timeout, not one for each way.
func TestSilentNameNodeAtPut(t *testing.T) {
	for timeout := 300 * time.Millisecond; timeout < time.Minute; timeout *= 5 {
		// The outcome is not known when even a refusal does not come in time.
		if err := putInVain(t, timeout); dfs.CodeOf(err) == dfs.Unavailable {
			return
		} else if dfs.CodeOf(err) != dfs.UnknownOutcome {
			t.Fatalf("got %v", err)
		}
	}
	t.Error("the outcome is never known")
}

func putInVain(t *testing.T, timeout time.Duration) error {
	f := newStockCluster(t, 3)
	var posts atomic.Int64
	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && posts.Add(1) > 1 {
			t.Errorf("%s was asked for after the time was over", r.URL.Path)
		}
		if r.Method == http.MethodPut {
			w.Header().Set("Retry-After", "1")
			return refuse(dfs.OverLimit)(w, r)
		}
		return true
	})
	c := f.client(func(config *client.Config) { config.Timeout = timeout })
	_, err := c.Upload(t.Context(), mustPath(t, "/file"), strings.NewReader("x"), client.UploadOptions{})
	return err
}

// Cancelling ends a small upload wherever it is, and nothing is begun after that.
func TestCancelledSmallFile(t *testing.T) {
	for _, where := range []string{"read", "chunk", "put"} {
		f := newStockCluster(t, 3)
		ctx, cancel := context.WithCancel(t.Context())
		source := io.Reader(strings.NewReader("data"))
		switch where {
		case "read":
			reader, feed := io.Pipe()
			defer feed.Close()
			source = reader
			go func() {
				_, _ = feed.Write([]byte("da"))
				cancel()
			}()
		case "chunk":
			for _, n := range f.nodes {
				n.setBefore(func(_ http.ResponseWriter, r *http.Request) bool { cancel(); stallFor(r); return false })
			}
		case "put":
			f.atPuts(func(_ http.ResponseWriter, r *http.Request) bool { cancel(); stallFor(r); return false })
		}
		_, err := f.client().Upload(ctx, mustPath(t, "/file"), source, client.UploadOptions{Size: -1})
		if code := dfs.CodeOf(err); where == "put" && code != dfs.UnknownOutcome || where != "put" && !errors.Is(err, context.Canceled) {
			t.Errorf("in the %s: %v", where, err)
		}
		f.setBefore(nil)
		assertNothingStored(t, f)
		if f.mu.Lock(); f.aborted != 0 || len(f.commits) != 0 {
			t.Errorf("in the %s: %d uploads were aborted, %d committed", where, f.aborted, len(f.commits))
		}
		f.mu.Unlock()
		cancel()
	}
}

// Many small files at once do not get into each other's buffers.
func TestManySmallFiles(t *testing.T) {
	f := newStockCluster(t, 3)
	c := f.client()
	all := randomBytes(64 << 10)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			path, data := mustPath(t, "/"+strings.Repeat("x", i+1)), all[i*100:][:1+i*3000]
			for range 5 {
				_, err := c.Upload(t.Context(), path, bytes.NewReader(data), client.UploadOptions{Size: -1, ChunkSize: dfs.BlockSize, Overwrite: true})
				if err != nil {
					t.Error(err)
				}
			}
			var got bytes.Buffer
			if _, err := c.Download(t.Context(), path, &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
				t.Errorf("%s: %d bytes of %d, %v", path, got.Len(), len(data), err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d files were uploaded in the other way, as DataNodes did not answer in time", len(f.seenCommits()))
}

// Answers to the hand-out that make no sense are told from those that do.
func TestOddHandOuts(t *testing.T) {
	target := []protocol.Target{{ID: "dn1", URL: "http://127.0.0.1:1"}}
	chunk := protocol.AllocatedChunk{ID: 1, Targets: target}
	for name, answer := range map[string]protocol.Allocation{
		"nothing":               {ChunkSize: chunkSize},
		"a pool, and an upload": {ChunkSize: chunkSize, UploadID: 1, Pool: 2, Chunks: []protocol.AllocatedChunk{chunk}},
		"a pool, and no chunk":  {ChunkSize: chunkSize, Pool: 2},
		"two chunks":            {ChunkSize: chunkSize, Pool: 2, Chunks: []protocol.AllocatedChunk{chunk, chunk}},
		"no chunk size":         {Pool: 2, Chunks: []protocol.AllocatedChunk{chunk}},
	} {
		f := newStockCluster(t, 3)
		f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
			protocol.WriteJSON(w, http.StatusCreated, answer)
			return false
		})
		_, err := f.client().Upload(t.Context(), mustPath(t, "/file"), strings.NewReader("x"), client.UploadOptions{})
		if dfs.CodeOf(err) != dfs.Internal || !strings.Contains(err.Error(), "makes no sense") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
