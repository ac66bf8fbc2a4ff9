package testcluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/testcluster"
	"github.com/dfs-go/dfs-go/namenode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 2 * time.Minute

// start runs a cluster for the length of a test, whose end checks it.
func start(t *testing.T, nameNodes, dataNodes int) (*testcluster.Cluster, *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c, err := testcluster.Start(ctx, testcluster.Config{
		NameNodes: nameNodes, DataNodes: dataNodes, Dir: t.TempDir(),
		Change: func(config *namenode.Config) {
			config.Timing = cluster.DefaultTiming()
			config.Timing.HeartbeatTimeout = 1500 * time.Millisecond
			config.Timing.ElectionTimeout = 1500 * time.Millisecond
			config.Timing.LeaderLease = 750 * time.Millisecond
			config.HeartbeatInterval = 500 * time.Millisecond
			config.SuspectAfter, config.DownAfter = 5*time.Second, 15*time.Second
		},
		ChangeDataNode: func(config *datanode.Config) { config.HeartbeatInterval = 500 * time.Millisecond },
		Logger:         hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: io.Discard}),
	})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkAllReadable(t, caller)
		caller.Close()
		if err := c.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	return c, caller
}

// checkAllReadable is the invariant that every test must leave behind: each
// file that a listing shows can be read to its end, verified.
func checkAllReadable(t *testing.T, c *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var walk func(dfs.Path)
	walk = func(dir dfs.Path) {
		for entry, err := range c.List(ctx, dir) {
			if err != nil {
				t.Errorf("list %s: %v", dir, err)
				return
			}
			path := mustPath(t, entry.Path)
			if entry.Type == "directory" {
				walk(path)
				continue
			}
			if _, err := c.Download(ctx, path, io.Discard, client.DownloadOptions{}); err != nil {
				t.Errorf("read %s: %v", path, err)
			}
		}
	}
	walk(dfs.Root)
}

func mustPath(t *testing.T, text string) dfs.Path {
	t.Helper()
	path, err := dfs.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func content(size int, seed uint64) []byte {
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	data := make([]byte, size)
	_, _ = source.Read(data) // never fails
	return data
}

func put(t *testing.T, c *client.Client, path string, data []byte) {
	t.Helper()
	_, err := c.Upload(t.Context(), mustPath(t, path), bytes.NewReader(data), client.UploadOptions{Size: int64(len(data)), ChunkSize: 64 << 10})
	if err != nil {
		t.Fatalf("upload %s: %v", path, err)
	}
}

func expect(t *testing.T, c *client.Client, path string, data []byte) {
	t.Helper()
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), mustPath(t, path), &got, client.DownloadOptions{}); err != nil {
		t.Fatalf("download %s: %v", path, err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Fatalf("%s came back different: %d bytes for %d", path, got.Len(), len(data))
	}
}

func leaderID(t *testing.T, c *client.Client) dfs.NodeID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		reply, err := c.Leader(ctx)
		if err == nil && reply.Leader != nil {
			return reply.Leader.ID
		}
		if ctx.Err() != nil {
			t.Fatalf("nobody leads: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestFilesOfManySizes(t *testing.T) {
	_, c := start(t, 1, 3)
	for i, size := range []int{0, 1, 1023, 64 << 10, 64<<10 + 1, 1 << 20, 3<<20 + 17} {
		path := fmt.Sprintf("/sizes/%d", size)
		data := content(size, uint64(i))
		put(t, c, path, data)
		expect(t, c, path, data)
	}
}

// slowly gives the bytes of a reader in pieces and calls half in the middle.
type slowly struct {
	data []byte
	at   int
	half func()
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.at == len(s.data) {
		return 0, io.EOF
	}
	if s.half != nil && s.at >= len(s.data)/2 {
		half := s.half
		s.half = nil
		half()
	}
	n := copy(p, s.data[s.at:min(len(s.data), s.at+64<<10)])
	s.at += n
	return n, nil
}

func TestLeaderEndsDuringUpload(t *testing.T) {
	cluster, c := start(t, 3, 3)
	data := content(4<<20, 1)
	leader := leaderID(t, c)
	source := &slowly{data: data, half: func() {
		if err := cluster.Stop(leader); err != nil {
			t.Errorf("stop %s: %v", leader, err)
		}
	}}
	_, err := c.Upload(t.Context(), mustPath(t, "/f"), source, client.UploadOptions{Size: -1, ChunkSize: 64 << 10})
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	if next := leaderID(t, c); next == leader {
		t.Fatalf("%s was stopped and leads", leader)
	}
	expect(t, c, "/f", data)
}

func TestDataNodeEndsDuringUploadAndDownload(t *testing.T) {
	cluster, c := start(t, 1, 4)
	data := content(4<<20, 2)
	stop := func(id dfs.NodeID) func() {
		return func() {
			if err := cluster.Stop(id); err != nil {
				t.Errorf("stop %s: %v", id, err)
			}
		}
	}
	_, err := c.Upload(t.Context(), mustPath(t, "/f"), &slowly{data: data, half: stop("dn1")}, client.UploadOptions{Size: -1, ChunkSize: 64 << 10})
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	if err := cluster.StartDataNode(t.Context(), "dn1"); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	w := &halfway{w: &got, at: len(data) / 2, half: stop("dn2")}
	if _, err := c.Download(t.Context(), mustPath(t, "/f"), w, client.DownloadOptions{}); err != nil {
		t.Fatalf("download: %v", err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Fatal("the file came back different")
	}
}

// lastly does something when all has been read.
type lastly struct {
	io.Reader
	end func()
}

func (l *lastly) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err == io.EOF {
		l.end()
	}
	return n, err
}

// TestHoldersEndBeforeTheCommit stops two of four DataNodes when nearly all
// chunks have been sent. Those that lay on both and one other are left with one
// replica, too few for a commit, and the source cannot be read again.
func TestHoldersEndBeforeTheCommit(t *testing.T) {
	cluster, c := start(t, 1, 4)
	data := content(2<<20, 5)
	source := &lastly{Reader: bytes.NewReader(data), end: sync.OnceFunc(func() {
		for _, id := range []dfs.NodeID{"dn1", "dn2"} {
			if err := cluster.Stop(id); err != nil {
				t.Errorf("stop %s: %v", id, err)
			}
		}
	})}
	result, err := c.Upload(t.Context(), mustPath(t, "/f"), source, client.UploadOptions{Size: -1, ChunkSize: 64 << 10})
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	if result.Chunks != 32 || result.UnderReplicated != 32 || result.LeastReplicas != 2 {
		t.Errorf("all chunks lie on dn3 and dn4: %+v", result)
	}
	expect(t, c, "/f", data)
}

type halfway struct {
	w    io.Writer
	at   int
	half func()
	seen int
}

func (h *halfway) Write(p []byte) (int, error) {
	h.seen += len(p)
	if h.half != nil && h.seen >= h.at {
		half := h.half
		h.half = nil
		half()
	}
	return h.w.Write(p)
}

func TestFailedUploadLeavesNothing(t *testing.T) {
	_, c := start(t, 1, 3)
	broken := errors.New("the disk of the sender broke")
	source := io.MultiReader(bytes.NewReader(content(1<<20, 3)), failing{broken})
	_, err := c.Upload(t.Context(), mustPath(t, "/f"), source, client.UploadOptions{Size: -1, ChunkSize: 64 << 10})
	if !errors.Is(err, broken) {
		t.Fatalf("upload: %v", err)
	}
	if _, err := c.Stat(t.Context(), mustPath(t, "/f")); dfs.CodeOf(err) != dfs.NotFound {
		t.Fatalf("stat: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestFirstCommitWins is the race of two writers of one path: the content that
// was acknowledged is not replaced by an upload that began before it.
func TestFirstCommitWins(t *testing.T) {
	_, c := start(t, 1, 3)
	put(t, c, "/f", content(100, 1))
	overwrite := client.UploadOptions{Size: -1, ChunkSize: 64 << 10, Overwrite: true}
	second := content(1000, 2)
	source := &slowly{data: content(1<<20, 3), half: func() {
		if _, err := c.Upload(t.Context(), mustPath(t, "/f"), bytes.NewReader(second), overwrite); err != nil {
			t.Errorf("the quick overwrite: %v", err)
		}
	}}
	if _, err := c.Upload(t.Context(), mustPath(t, "/f"), source, overwrite); dfs.CodeOf(err) != dfs.Conflict {
		t.Fatalf("the slow overwrite: %v, want conflict", err)
	}
	expect(t, c, "/f", second)
}

// TestOldContentStaysReadable is the other half of all or nothing: an
// overwrite under way does not disturb readers.
func TestOldContentStaysReadable(t *testing.T) {
	_, c := start(t, 1, 3)
	old := content(200_000, 1)
	put(t, c, "/f", old)
	source := &slowly{data: content(1<<20, 2), half: func() { expect(t, c, "/f", old) }}
	if _, err := c.Upload(t.Context(), mustPath(t, "/f"), source, client.UploadOptions{Size: -1, ChunkSize: 64 << 10, Overwrite: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "/f", content(1<<20, 2))
}

func TestRestartOfEverything(t *testing.T) {
	cluster, c := start(t, 3, 3)
	data := content(1<<20, 4)
	put(t, c, "/f", data)
	ids := []dfs.NodeID{"dn1", "dn2", "dn3", "nn1", "nn2", "nn3"}
	for _, id := range ids {
		if err := cluster.Stop(id); err != nil {
			t.Fatalf("stop %s: %v", id, err)
		}
	}
	for _, id := range ids[3:] {
		if err := cluster.StartNameNode(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids[:3] {
		if err := cluster.StartDataNode(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "/f", data)
}

// TestGrowAndShrinkUnderLoad lets a fourth NameNode in and removes the leader
// while a client that knows only the first three goes on.
func TestGrowAndShrinkUnderLoad(t *testing.T) {
	cluster, c := start(t, 3, 3)
	var stop atomic.Bool
	made := make(chan int, 1)
	go func() {
		count := 0
		for !stop.Load() {
			if err := c.MkdirAll(t.Context(), mustPath(t, fmt.Sprintf("/load/%d", count))); err != nil {
				t.Errorf("mkdir %d: %v", count, err)
				break
			}
			count++
		}
		made <- count
	}()
	joiner, err := cluster.StartJoiner(t.Context(), "nn4")
	if err != nil {
		t.Fatal(err)
	}
	join := protocolJoin(joiner)
	if err := c.Join(t.Context(), join); err != nil {
		t.Fatalf("join: %v", err)
	}
	waitMembers(t, c, func(roles map[dfs.NodeID]string) bool { return roles["nn4"] == "voter" })
	removed := leaderID(t, c)
	if err := c.RemoveMember(t.Context(), removed); err != nil {
		t.Fatalf("remove %s: %v", removed, err)
	}
	waitMembers(t, c, func(roles map[dfs.NodeID]string) bool { return roles[removed] == "" && len(roles) == 3 })
	stop.Store(true)
	count := <-made
	listed := 0
	for entry, err := range c.List(t.Context(), mustPath(t, "/load")) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if entry.Type == "directory" {
			listed++
		}
	}
	if listed != count || count == 0 {
		t.Fatalf("%d directories were acknowledged, %d are there", count, listed)
	}
}
