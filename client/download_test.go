package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// stored uploads data until each chunk has all its replicas.
func stored(t *testing.T, f *fakeCluster, data []byte) {
	t.Helper()
	c := f.client()
	defer c.Close()
	eventually(t, "all replicas are there", func() bool {
		result, err := c.Upload(t.Context(), mustPath(t, "/file"), bytes.NewReader(data), client.UploadOptions{Overwrite: true})
		if err != nil {
			t.Fatal(err)
		}
		return result.UnderReplicated == 0 || result.LeastReplicas >= len(f.nodes)
	})
}

var badReplicas = map[string]func(http.ResponseWriter, *http.Request) bool{
	"corrupt":   answerWith(make([]byte, chunkSize)),
	"short":     answerWith(make([]byte, chunkSize-1)),
	"long":      answerWith(make([]byte, chunkSize+1)),
	"endless":   func(w http.ResponseWriter, _ *http.Request) bool { return endless(w) },
	"missing":   refuse(dfs.NotFound),
	"damaged":   refuse(dfs.Corrupt),
	"busy":      refuse(dfs.OverLimit),
	"stalled":   stalled,
	"hangs up":  func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	"cut short": func(w http.ResponseWriter, _ *http.Request) bool { return cutShort(w) },
	"stalls in the middle": func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1024")
		_, _ = w.Write(make([]byte, 100))
		_ = http.NewResponseController(w).Flush()
		stallFor(r)
		return false
	},
}

func endless(w http.ResponseWriter) bool {
	for range 100 { // without a length
		_, _ = w.Write(make([]byte, chunkSize))
	}
	return false
}

func cutShort(w http.ResponseWriter) bool {
	w.Header().Set("Content-Length", "1024")
	_, _ = w.Write(make([]byte, 100))
	return false
}

func TestBadReplicas(t *testing.T) {
	data := randomBytes(6 * chunkSize)
	for name, bad := range badReplicas {
		t.Run(name, func(t *testing.T) {
			f := newFakeCluster(t, 3)
			stored(t, f, data)
			f.nodes[0].setBefore(bad)
			f.nodes[1].setBefore(bad)
			var got bytes.Buffer
			_, err := f.client(hurried).Download(t.Context(), mustPath(t, "/file"), &got, client.DownloadOptions{})
			if err != nil || !bytes.Equal(got.Bytes(), data) {
				t.Fatalf("got %d bytes, %v", got.Len(), err)
			}
		})
	}
}

// The node dies after half of the stream.
func TestNodeDiesInTheMiddle(t *testing.T) {
	data := randomBytes(20 * chunkSize)
	f := newFakeCluster(t, 3)
	stored(t, f, data)
	var gets atomic.Int64
	f.nodes[0].setBefore(func(http.ResponseWriter, *http.Request) bool {
		if gets.Add(1) > 10 {
			panic(http.ErrAbortHandler)
		}
		return true
	})
	var got bytes.Buffer
	if _, err := f.client().Download(t.Context(), mustPath(t, "/file"), &got, client.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("the bytes differ")
	}
}

// Nothing of a bad chunk reaches the writer, and the error names the nodes.
func TestAllReplicasBad(t *testing.T) {
	data := randomBytes(3 * chunkSize)
	for name, want := range map[string]dfs.Code{"corrupt": dfs.Corrupt, "hangs up": dfs.Unavailable, "missing": dfs.Unavailable} {
		f := newFakeCluster(t, 3)
		stored(t, f, data)
		file, _ := f.file("/file")
		second := file.Chunks[1].ID.String()
		for _, n := range f.nodes {
			n.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
				return !strings.HasSuffix(r.URL.Path, second) || badReplicas[name](w, r)
			})
		}
		c := f.client(func(config *client.Config) { config.Patience = 1 })
		var out lockedBuffer
		_, err := c.Download(t.Context(), mustPath(t, "/file"), &out, client.DownloadOptions{})
		got := out.bytes()
		if dfs.CodeOf(err) != want {
			t.Errorf("%s: got code %q (%v), want %q", name, dfs.CodeOf(err), err, want)
		}
		for _, word := range []string{second, "dn1", "dn2", "dn3"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %s", name, err, word)
			}
		}
		if len(got) > chunkSize || !bytes.Equal(got, data[:len(got)]) {
			t.Errorf("%s: %d bytes were written, some of them wrong or beyond the bad chunk", name, len(got))
		}
	}
}

// lockedBuffer is for downloads that fail: a Write of theirs may still be under
// way when they return.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// Who waits for a replica is told so, once, and what for.
func TestWaitingIsNoticed(t *testing.T) {
	f := newFakeCluster(t, 2)
	stored(t, f, randomBytes(3*chunkSize))
	file, _ := f.file("/file")
	second := file.Chunks[1].ID.String()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var notices, since atomic.Int64 // tries of the second chunk since the first notice
	for _, n := range f.nodes {
		n.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, second) {
				return true
			}
			if notices.Load() > 0 && since.Add(1) > 4 {
				cancel()
			}
			return refuse(dfs.NotFound)(w, r)
		})
	}
	c := f.client(func(config *client.Config) {
		config.Patience = time.Minute
		config.Notice = func(message string) {
			if strings.Contains(message, second) { // not of a NameNode that is slow
				notices.Add(1)
			}
		}
	})
	if _, err := c.Download(ctx, mustPath(t, "/file"), io.Discard, client.DownloadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := notices.Load(); n != 1 {
		t.Errorf("%d notices that it waits", n)
	}
}

// Replicas that are bad now and good later are waited for, and new locations
// are learnt.
func TestWaitsForAReplica(t *testing.T) {
	data := randomBytes(4 * chunkSize)
	f := newFakeCluster(t, 4)
	stored(t, f, data)
	moved := f.nodes[3] // holds nothing so far
	for _, n := range f.nodes[:3] {
		for id, chunk := range n.chunks {
			moved.chunks[id] = chunk
		}
		n.Close()
	}
	reads := 0
	f.setBefore(func(_ http.ResponseWriter, r *http.Request) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if reads++; reads == 3 {
			file := f.files["/file"]
			for i := range file.Chunks {
				file.Chunks[i].Locations = []protocol.Target{{ID: moved.id, URL: moved.URL}}
			}
		}
		return true
	})
	var got bytes.Buffer
	if _, err := f.client().Download(t.Context(), mustPath(t, "/file"), &got, client.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("the bytes differ")
	}
}

func TestReplacedDuringTheDownload(t *testing.T) {
	f := newFakeCluster(t, 3)
	stored(t, f, randomBytes(2*chunkSize))
	first := true
	f.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r.Method == http.MethodGet && !first {
			delete(f.files, "/file")
			for _, n := range f.nodes {
				n.setBefore(refuse(dfs.NotFound))
			}
		}
		first = false
		return true
	})
	f.nodes[0].setBefore(refuse(dfs.NotFound))
	f.nodes[1].setBefore(refuse(dfs.NotFound))
	f.nodes[2].setBefore(refuse(dfs.NotFound))
	_, err := f.client().Download(t.Context(), mustPath(t, "/file"), new(bytes.Buffer), client.DownloadOptions{})
	if dfs.CodeOf(err) != dfs.NotFound || !strings.Contains(err.Error(), "replaced or removed") {
		t.Errorf("got %v", err)
	}
}

// A description that does not add up must not make the client allocate.
func TestImpossibleFiles(t *testing.T) {
	for name, file := range map[string]protocol.File{
		"directory":      {Type: protocol.TypeDirectory},
		"huge chunk":     {Size: 1 << 40, Chunks: []protocol.LocatedChunk{{ID: 1, Size: 1 << 40}}},
		"negative chunk": {Size: -5, Chunks: []protocol.LocatedChunk{{ID: 1, Size: -5}}},
		"empty chunk":    {Chunks: []protocol.LocatedChunk{{ID: 1}}},
		"wrong sum":      {Size: 7, Chunks: []protocol.LocatedChunk{{ID: 1, Size: 5}}},
		"no chunks":      {Size: 7},
	} {
		f := newFakeCluster(t, 1)
		f.files["/file"] = file
		_, err := f.client().Download(t.Context(), mustPath(t, "/file"), new(bytes.Buffer), client.DownloadOptions{})
		if code := dfs.CodeOf(err); code != dfs.Internal && code != dfs.IsDirectory {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// gate is a writer that waits.
type gate struct {
	bytes.Buffer
	open chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.Buffer.Write(p)
}

// A slow output bounds what is fetched ahead, and many at once bound it more.
func TestDownloadMemoryIsBounded(t *testing.T) {
	data := randomBytes(30 * chunkSize)
	f := newFakeCluster(t, 1)
	stored(t, f, data)
	const parallelism = 3
	c := f.client(func(config *client.Config) { config.Parallelism = parallelism })
	outs := make([]*gate, 7)
	var wg sync.WaitGroup
	gets := func() int { _, n := f.nodes[0].counts(); return n }
	want := 0
	for i := range outs {
		out := &gate{open: make(chan struct{})}
		outs[i] = out
		wg.Go(func() {
			if _, err := c.Download(t.Context(), mustPath(t, "/file"), out, client.DownloadOptions{}); err != nil {
				t.Error(err)
			}
		})
		if i < 4 {
			want += parallelism
		} else {
			want += 2
		}
		eventually(t, "the buffers are in use", func() bool { return gets() >= want })
		if n := gets(); n > want {
			t.Errorf("%d chunks were fetched ahead by %d downloads, want at most %d", n, i+1, want)
		}
	}
	for _, out := range outs {
		close(out.open)
	}
	wg.Wait()
	for _, out := range outs {
		if !bytes.Equal(out.Bytes(), data) {
			t.Error("the bytes differ")
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputThatFails(t *testing.T) {
	f := newFakeCluster(t, 3)
	stored(t, f, randomBytes(20*chunkSize))
	_, err := f.client().Download(t.Context(), mustPath(t, "/file"), fullDisk{}, client.DownloadOptions{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

func TestDownloadFile(t *testing.T) {
	data := randomBytes(5*chunkSize + 7)
	f := newFakeCluster(t, 3)
	stored(t, f, data)
	c := f.client()
	path := mustPath(t, "/file")
	dir := t.TempDir()
	local := filepath.Join(dir, "new")
	var size, progress int64
	options := client.DownloadOptions{Start: func(n int64) { size = n }, Progress: func(n int64) { progress += n }}
	if _, err := c.DownloadFile(t.Context(), path, local, options); err != nil {
		t.Fatal(err)
	}
	if size != int64(len(data)) || progress != size {
		t.Errorf("size %d, progress %d, want %d", size, progress, len(data))
	}
	link := filepath.Join(dir, "link")
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(old, link); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DownloadFile(t.Context(), path, link, client.DownloadOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{local, old} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the symbolic link was replaced")
	}
	if info, err := os.Stat(old); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode changed: %v", info.Mode())
	}
	assertNoTemporaries(t, dir)
	if _, err := c.DownloadFile(t.Context(), path, os.DevNull, client.DownloadOptions{}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatal("the null device was replaced")
	}
}

func assertNoTemporaries(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestDownloadFileThatFails(t *testing.T) {
	f := newFakeCluster(t, 1)
	stored(t, f, randomBytes(5*chunkSize))
	c := f.client(func(config *client.Config) { config.Patience = 1e6 })
	path := mustPath(t, "/file")
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for local, want := range map[string]dfs.Code{
		dir:                               dfs.IsDirectory,
		filepath.Join(dir, "no", "where"): dfs.NotFound,
		filepath.Join(precious, "below"):  "",
	} {
		_, err := c.DownloadFile(t.Context(), path, local, client.DownloadOptions{})
		if err == nil || want != "" && dfs.CodeOf(err) != want {
			t.Errorf("%s: got %v, want %s", local, err, want)
		}
	}
	f.nodes[0].setBefore(answerWith(make([]byte, chunkSize)))
	if _, err := c.DownloadFile(t.Context(), path, precious, client.DownloadOptions{}); dfs.CodeOf(err) != dfs.Corrupt {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.nodes[0].setBefore(func(w http.ResponseWriter, r *http.Request) bool { cancel(); return stalled(w, r) })
	if _, err := c.DownloadFile(ctx, path, precious, client.DownloadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(precious); err != nil || string(got) != "precious" {
		t.Errorf("what was there before is now %q, %v", got, err)
	}
	assertNoTemporaries(t, dir)
}

// The temporary file has a name that fits beside the longest there can be, and
// is never open to more eyes than what it replaces.
func TestTemporaryFile(t *testing.T) {
	f := newFakeCluster(t, 3)
	data := randomBytes(3 * chunkSize)
	stored(t, f, data)
	c := f.client()
	dir := t.TempDir()
	for _, length := range []int{1, 241, 242, 255} {
		local := filepath.Join(dir, strings.Repeat("n", length))
		for _, permissions := range []fs.FileMode{0, 0o600, 0o400, 0o666} {
			if permissions != 0 {
				if err := os.Chmod(local, permissions); err != nil {
					t.Fatal(err)
				}
			}
			meanwhile := fs.FileMode(0o777)
			options := client.DownloadOptions{Progress: func(int64) {
				if names, err := filepath.Glob(filepath.Join(dir, ".dfs-*")); err == nil && len(names) == 1 {
					if info, err := os.Stat(names[0]); err == nil {
						meanwhile = info.Mode().Perm()
					}
				}
			}}
			if _, err := c.DownloadFile(t.Context(), mustPath(t, "/file"), local, options); err != nil {
				t.Fatal(length, err)
			}
			info, err := os.Stat(local)
			if err != nil {
				t.Fatal(err)
			}
			if permissions != 0 && (meanwhile&^permissions != 0 || info.Mode().Perm() != permissions) {
				t.Errorf("of %v: %v meanwhile, %v after", permissions, meanwhile, info.Mode().Perm())
			}
		}
	}
	assertNoTemporaries(t, dir)
}

func TestDanglingLinks(t *testing.T) {
	f := newFakeCluster(t, 3)
	data := randomBytes(10)
	stored(t, f, data)
	c := f.client()
	dir := t.TempDir()
	for name, target := range map[string]string{"relative": "new", "absolute": filepath.Join(dir, "other"), "chain": "loop", "loop": "chain", "to-loop": "relative-2", "relative-2": "nothing"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	path := mustPath(t, "/file")
	for link, place := range map[string]string{"relative": "new", "absolute": "other"} {
		if _, err := c.DownloadFile(t.Context(), path, filepath.Join(dir, link), client.DownloadOptions{}); err != nil {
			t.Fatal(link, err)
		}
		if info, err := os.Lstat(filepath.Join(dir, place)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v", link, err)
		}
		if info, err := os.Lstat(filepath.Join(dir, link)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("the link %s was replaced: %v", link, err)
		}
	}
	for _, link := range []string{"chain", "to-loop"} {
		if _, err := c.DownloadFile(t.Context(), path, filepath.Join(dir, link), client.DownloadOptions{}); err == nil {
			t.Errorf("%s led somewhere", link)
		}
	}
	assertNoTemporaries(t, dir)
}

// A directory that files may be made in but that may not be listed is no reason
// to say that a download failed.
func TestDirectoryThatCannotBeListed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may list every directory")
	}
	f := newFakeCluster(t, 3)
	stored(t, f, randomBytes(10))
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client().DownloadFile(t.Context(), mustPath(t, "/file"), filepath.Join(dir, "new"), client.DownloadOptions{}); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// A Write that blocks, or the opening of a pipe that nobody reads, must not keep
// a download that was given up.
func TestCancelWhileTheOutputBlocks(t *testing.T) {
	f := newFakeCluster(t, 3)
	stored(t, f, randomBytes(3*chunkSize))
	c := f.client()
	path := mustPath(t, "/file")
	reader, writer := io.Pipe()
	defer reader.Close() // ends the Write that was left alone
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = reader.Read(make([]byte, 1)) // the rest of the chunk stays in the Write
		cancel()
	}()
	if _, err := c.Download(ctx, path, writer, client.DownloadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}

	for _, open := range []func(context.Context, string) error{
		func(ctx context.Context, fifo string) error {
			_, err := c.DownloadFile(ctx, path, fifo, client.DownloadOptions{})
			return err
		},
		func(ctx context.Context, fifo string) error {
			_, err := client.OpenLocal(ctx, fifo, os.O_RDONLY)
			return err
		},
	} {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		for limit := 50 * time.Millisecond; ; limit *= 4 {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			err := open(ctx, fifo)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if dfs.CodeOf(err) != dfs.Unavailable || limit > time.Minute { // else the NameNode did not answer in time
				t.Fatalf("got %v", err)
			}
		}
		both, err := os.OpenFile(fifo, os.O_RDWR, 0) // ends the opening that was left alone
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestListGoesThroughThePages(t *testing.T) {
	f := newFakeCluster(t, 1)
	var names []string
	for entry, err := range f.client().List(t.Context(), dfs.Root) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, entry.Name)
	}
	if got := strings.Join(names, " "); got != "0 1 2" {
		t.Errorf("got %q", got)
	}
}

func TestListThatDoesNotMove(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.setBefore(func(w http.ResponseWriter, _ *http.Request) bool {
		protocol.WriteJSON(w, http.StatusOK, protocol.Listing{Cursor: "same"})
		return false
	})
	for _, err := range f.client().List(t.Context(), dfs.Root) {
		if dfs.CodeOf(err) != dfs.Internal {
			t.Errorf("got %v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := []string{"http://localhost:8000"}
	for _, config := range []client.Config{
		{}, {NameNodes: []string{"x"}}, {NameNodes: good, Parallelism: -1}, {NameNodes: good, Parallelism: 65},
		{NameNodes: good, Timeout: -1}, {NameNodes: good, StallTimeout: -1}, {NameNodes: good, Patience: -1},
	} {
		if _, err := client.New(config); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%+v: got %v", config, err)
		}
	}
	if !errors.Is(func() error { _, err := client.New(client.Config{NameNodes: good}); return err }(), nil) {
		t.Error("a good configuration is refused")
	}
}
