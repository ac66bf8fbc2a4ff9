package testcluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/testcluster"
	"github.com/dfs-go/dfs-go/namenode"
)

// startRepairing runs a cluster that soon takes silent DataNodes for dead and
// scrubs all the time.
func startRepairing(t *testing.T, nameNodes, dataNodes int) (c *testcluster.Cluster, caller *client.Client, dir string) {
	t.Helper()
	dir = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c, err := testcluster.Start(ctx, testcluster.Config{
		NameNodes: nameNodes, DataNodes: dataNodes, Dir: dir,
		Change: func(config *namenode.Config) {
			config.Timing = cluster.DefaultTiming()
			config.Timing.HeartbeatTimeout = 1500 * time.Millisecond
			config.Timing.ElectionTimeout = 1500 * time.Millisecond
			config.Timing.LeaderLease = 750 * time.Millisecond
			config.HeartbeatInterval = 300 * time.Millisecond
			config.SuspectAfter, config.DownAfter = 2*time.Second, 4*time.Second
		},
		ChangeDataNode: func(config *datanode.Config) {
			config.HeartbeatInterval = 300 * time.Millisecond
			config.ScrubRate, config.ScrubInterval = 1<<30, time.Second
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: io.Discard}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if caller, err = c.Client(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkAllReadable(t, caller)
		caller.Close()
		if err := c.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	return c, caller, dir
}

// waitFsck asks until fsck reports what is wanted.
func waitFsck(t *testing.T, c *client.Client, what string, wanted func(protocol.FsckReply) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		report, err := c.Fsck(ctx)
		if err == nil && wanted(report) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("gave up waiting until %s: %v, %+v", what, err, report)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func healthy(report protocol.FsckReply) bool { return report.Healthy }

func holds(t *testing.T, c *client.Client, path string) map[dfs.NodeID]int {
	t.Helper()
	file, err := c.File(t.Context(), mustPath(t, path))
	if err != nil {
		t.Fatal(err)
	}
	chunks := make(map[dfs.NodeID]int)
	for _, chunk := range file.Chunks {
		for _, l := range chunk.Locations {
			chunks[l.ID]++
		}
	}
	return chunks
}

// TestLostDataNode ends one of four DataNodes for good: all chunks get their
// replicas again, also when the leader is lost meanwhile, and then a second
// node may go.
func TestLostDataNode(t *testing.T) {
	cluster, c, _ := startRepairing(t, 3, 4)
	data := content(2<<20+17, 7)
	put(t, c, "/f", data)
	waitFsck(t, c, "all is well at first", healthy)
	if err := cluster.Stop("dn2"); err != nil {
		t.Fatal(err)
	}
	waitFsck(t, c, "the loss is seen", func(r protocol.FsckReply) bool { return r.UnderReplicated > 0 })
	if err := cluster.Stop(leaderID(t, c)); err != nil {
		t.Fatal(err)
	}
	waitFsck(t, c, "all is well again", healthy)
	if chunks := holds(t, c, "/f"); chunks["dn2"] != 0 || chunks["dn1"] != 33 || chunks["dn3"] != 33 || chunks["dn4"] != 33 {
		t.Errorf("33 chunks with three replicas on three nodes: %v", chunks)
	}
	if err := cluster.Stop("dn1"); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "/f", data)
}

// TestDamagedChunk flips one bit of one replica of each chunk, in the segment
// where it lies. Nobody reads the file: the scrubber finds the damage, and the
// chunks are copied anew.
func TestDamagedChunk(t *testing.T) {
	_, c, dir := startRepairing(t, 1, 4)
	data := content(512<<10, 9)
	put(t, c, "/f", data)
	waitFsck(t, c, "all is well at first", healthy)
	file, err := c.File(t.Context(), mustPath(t, "/f"))
	if err != nil {
		t.Fatal(err)
	}
	for i, chunk := range file.Chunks {
		victim := string(chunk.Locations[0].ID)
		path, at := inSegment(t, filepath.Join(dir, victim), data[i*64<<10:(i+1)*64<<10])
		flip(t, path, at+int64(i*1000))
	}
	waitFsck(t, c, "every damaged chunk lies in quarantine and all is well", func(r protocol.FsckReply) bool {
		return r.Healthy && quarantined(t, dir) == len(file.Chunks)
	})
	expect(t, c, "/f", data)
}

// inSegment finds the data of a small chunk in a data directory.
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

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	one := make([]byte, 1)
	if _, err := file.ReadAt(one, at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 4
	if _, err := file.WriteAt(one, at); err != nil {
		t.Fatal(err)
	}
}

func quarantined(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "dn*", "quarantine", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestHigherReplication asks for one replica more than there was.
func TestHigherReplication(t *testing.T) {
	_, c, _ := startRepairing(t, 1, 4)
	data := content(300_000, 11)
	put(t, c, "/f", data)
	if err := c.SetReplication(t.Context(), mustPath(t, "/f"), 4); err != nil {
		t.Fatal(err)
	}
	waitFsck(t, c, "every node has every chunk", healthy)
	if chunks := holds(t, c, "/f"); fmt.Sprint(chunks) != "map[dn1:5 dn2:5 dn3:5 dn4:5]" {
		t.Errorf("%v", chunks)
	}
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), mustPath(t, "/f"), &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%v, %d bytes", err, got.Len())
	}
}
