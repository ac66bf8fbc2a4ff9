package bench

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode"
)

// filesVariable says how many files BenchmarkNamespace makes, comma separated.
const (
	filesVariable = "DFS_BENCH_FILES"
	defaultFiles  = "10000"
)

// BenchmarkNamespace is a NameNode with many files of one chunk: the live heap
// for each, how long Apply waits at most while a snapshot of them is written,
// and how long a NameNode that starts from it takes to answer. Each figure is
// of one attempt: use -benchtime 1x.
func BenchmarkNamespace(b *testing.B) {
	for text := range strings.SplitSeq(cmp.Or(os.Getenv(filesVariable), defaultFiles), ",") {
		files, err := strconv.Atoi(text)
		if err != nil || files < 1 {
			b.Fatalf("%s=%s is not a list of numbers", filesVariable, text)
		}
		b.Run("files="+text, func(b *testing.B) {
			for b.Loop() {
				measureNamespace(b, files)
			}
		})
	}
}

func measureNamespace(b *testing.B, files int) {
	ctx, cancel := context.WithTimeout(b.Context(), 40*time.Minute)
	defer cancel()
	dir := b.TempDir()
	meta := beginNameNode(ctx, b, dir)

	heap := liveHeap()
	began := time.Now()
	n := newNamespace(b, clusterOf(b, dir), meta.Index)
	for i := range files {
		n.write(fmt.Sprintf("/dir-%d/file-%d", i/1000, i))
	}
	n.report()
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/float64(files), "ns/file")
	b.ReportMetric(float64(liveHeap()-heap)/float64(files), "heap-B/file")

	longest, took, snapshot := n.snapshotWhileApplying(filepath.Join(dir, "documents"))
	b.ReportMetric(longest.Seconds(), "s-longest-apply")
	b.ReportMetric(took.Seconds(), "s-snapshot")
	info, err := os.Stat(snapshot)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/float64(files), "snapshot-B/file")

	putSnapshot(b, dir, meta, n.frozen, snapshot)
	runtime.KeepAlive(n.machine)
	b.ReportMetric(restart(ctx, b, dir, files).Seconds(), "s-restart")
}

// liveHeap is what is in use after a collection.
func liveHeap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// namespace is a machine that is fed from one log.
type namespace struct {
	b       *testing.B
	machine *fsm.Machine
	index   uint64
	frozen  *fsm.State

	unreported []dfs.ChunkID
	held       int64
	digest     dfs.Digest
	beats      uint64
}

// reportEvery is how many chunks the DataNodes report together.
const reportEvery = 1000

// newNamespace continues the log of a NameNode that has done nothing yet.
func newNamespace(b *testing.B, cluster dfs.ClusterID, index uint64) *namespace {
	n := &namespace{b: b, machine: fsm.New(nil), index: index}
	n.apply(&fsm.InitCluster{ClusterID: cluster}, "")
	for i := range 3 {
		id := dfs.NodeID(fmt.Sprintf("dn%d", i+1))
		n.apply(&fsm.RegisterNode{ID: id, URL: fmt.Sprintf("http://localhost:%d", 9000+i), Instance: fmt.Sprintf("%032x", i+1), Incarnation: 1}, "")
	}
	return n
}

func (n *namespace) apply(command fsm.Command, request dfs.RequestID) fsm.Result {
	n.index++
	result, err := n.machine.Apply(n.index, fsm.Encode(command, request, time.UnixMilli(1_800_000_000_000)))
	if err != nil {
		n.b.Fatal(err)
	}
	return result
}

// write is what a client's upload of a file of one chunk puts into the log,
// request IDs included.
func (n *namespace) write(name string) {
	path, err := dfs.ParsePath(name)
	if err != nil {
		n.b.Fatal(err)
	}
	begin := &fsm.BeginUpload{Path: path, Replication: 3, ChunkSize: dfs.DefaultChunkSize, Targets: [][]fsm.NodeNum{{1, 2, 3}}}
	opened := n.apply(begin, dfs.RequestID(dfs.RandomHex()))
	stored := fsm.StoredChunk{ID: opened.First, Size: 4096, Checksum: dfs.Checksum(opened.First), Nodes: []fsm.NodeNum{1, 2, 3}}
	n.apply(&fsm.Commit{Upload: opened.Upload, Chunks: []fsm.StoredChunk{stored}, Final: true}, dfs.RequestID(dfs.RandomHex()))
	n.digest = n.digest.Add(opened.First)
	if n.unreported = append(n.unreported, opened.First); len(n.unreported) == reportEvery {
		n.report()
	}
}

// report lets the DataNodes confirm what the commits said of them.
func (n *namespace) report() {
	n.held += int64(len(n.unreported))
	n.beats++
	var beat fsm.Heartbeats
	for num := range fsm.NodeNum(3) {
		beat.Reports = append(beat.Reports, fsm.NodeReport{
			Node: num + 1, Incarnation: 1, Seq: n.beats, Capacity: 1 << 40, Free: 1 << 39, Writable: true,
			Count: n.held, Digest: n.digest, Added: n.unreported,
		})
	}
	if result := n.apply(&beat, ""); len(result.NeedInventory) > 0 && n.beats > 1 {
		n.b.Fatalf("reports of %v do not add up", result.NeedInventory)
	}
	n.unreported = nil
}

// snapshotWhileApplying writes a snapshot into dir while changes go on, and
// returns the longest of these, how long writing took, and the snapshot's file.
func (n *namespace) snapshotWhileApplying(dir string) (longest, took time.Duration, snapshot string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.b.Fatal(err)
	}
	snapshot = filepath.Join(dir, "snapshot")
	done := make(chan error, 1)
	frozen := make(chan *fsm.State)
	go func() {
		began := time.Now()
		state := n.machine.Freeze()
		frozen <- state
		err := writeSnapshot(state, snapshot)
		took = time.Since(began)
		done <- err
	}()
	n.frozen = <-frozen // Apply goes on after that, so that no index is in doubt
	pace := time.NewTicker(200 * time.Microsecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		<-pace.C // a few thousand changes a second, not all there can be
		select {
		case err := <-done:
			if err != nil {
				n.b.Fatal(err)
			}
			return longest, took, snapshot
		default:
		}
		began := time.Now()
		n.write(fmt.Sprintf("/during/%d/%d", i/1000, i))
		longest = max(longest, time.Since(began))
	}
}

// writeSnapshot spools the two documents to the disk and packs them into one
// file, as a NameNode does: in memory, copying alone would stop all else.
func writeSnapshot(state *fsm.State, name string) (err error) {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	archive := tar.NewWriter(out)
	for _, document := range []struct {
		name  string
		write func(io.Writer) error
	}{{fsm.FilesDocument, state.WriteFiles}, {fsm.NodesDocument, state.WriteNodes}} {
		if err := addDocument(archive, document.name, name+"-"+document.name, document.write); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), out.Sync())
}

func addDocument(archive *tar.Writer, name, spool string, write func(io.Writer) error) (err error) {
	f, err := os.Create(spool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(spool)) }()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return err
}

// beginNameNode starts a NameNode, so that there is a meta-dir with a log, has
// it make a snapshot, and ends it. It returns what Raft says of that snapshot.
func beginNameNode(ctx context.Context, b *testing.B, dir string) *raft.SnapshotMeta {
	n, c := startNameNode(ctx, b, dir)
	if err := c.Mkdir(ctx, pathOf(b, "/first")); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Snapshot(ctx, n.URL(), 1); err != nil {
		b.Fatal(err)
	}
	stopNameNode(ctx, b, n, c)
	metas, err := snapshotStore(b, dir).List()
	if err != nil || len(metas) == 0 {
		b.Fatalf("no snapshot: %v", err)
	}
	return metas[0]
}

func snapshotStore(b *testing.B, dir string) *raft.FileSnapshotStore {
	store, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, "raft"), 2, hclog.NewNullLogger())
	if err != nil {
		b.Fatal(err)
	}
	return store
}

// putSnapshot lays a snapshot of state into the meta-dir, as if the NameNode had
// made it itself.
func putSnapshot(b *testing.B, dir string, first *raft.SnapshotMeta, state *fsm.State, snapshot string) {
	_, addresses := raft.NewInmemTransport("") // only tells how addresses are written
	sink, err := snapshotStore(b, dir).Create(first.Version, state.AppliedIndex(), first.Term, first.Configuration, first.ConfigurationIndex, addresses)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(snapshot)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(sink, f)
	if err := errors.Join(err, f.Close(), sink.Close()); err != nil {
		b.Fatal(err)
	}
}

// restart returns how long a NameNode takes until a linearizable read is
// answered.
func restart(ctx context.Context, b *testing.B, dir string, files int) time.Duration {
	runtime.GC()
	began := time.Now()
	n, c := startNameNode(ctx, b, dir)
	last := files - 1
	if _, err := c.Stat(ctx, pathOf(b, fmt.Sprintf("/dir-%d/file-%d", last/1000, last))); err != nil {
		b.Fatalf("the last file after a restart: %v", err)
	}
	took := time.Since(began)
	stopNameNode(ctx, b, n, c)
	return took
}

func startNameNode(ctx context.Context, b *testing.B, dir string) (*namenode.NameNode, *client.Client) {
	n, err := namenode.New(namenode.Config{ID: "nn1", MetaDir: dir, Addr: "127.0.0.1:0", RaftAddr: "127.0.0.1:0"})
	if err == nil {
		err = n.Open(ctx)
	}
	if err != nil {
		b.Fatal(err)
	}
	c, err := client.New(client.Config{NameNodes: []string{n.URL()}})
	if err != nil {
		b.Fatal(err)
	}
	return n, c
}

func stopNameNode(ctx context.Context, b *testing.B, n *namenode.NameNode, c *client.Client) {
	c.Close()
	if err := n.Close(ctx); err != nil {
		b.Fatal(err)
	}
}

func clusterOf(b *testing.B, dir string) dfs.ClusterID {
	var identity struct {
		ClusterID dfs.ClusterID `json:"cluster_id"`
	}
	content, err := os.ReadFile(filepath.Join(dir, "identity.json"))
	if err == nil {
		err = json.Unmarshal(content, &identity)
	}
	if err != nil || identity.ClusterID == "" {
		b.Fatalf("the meta-dir knows no cluster: %v", err)
	}
	return identity.ClusterID
}

func pathOf(b *testing.B, text string) dfs.Path {
	path, err := dfs.ParsePath(text)
	if err != nil {
		b.Fatal(err)
	}
	return path
}
