//go:build linux

package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// healChunks is how many chunks a test of healing begins with, unless
// DFS_FAULT_CHUNKS says otherwise.
const healChunks = 60

// healing is a cluster whose duties come soon, with files in it that are read
// and written all the time.
type healing struct {
	t      *testing.T
	b      *faultbed.Bed
	c      *client.Client
	random *rand.Rand
	want   map[string]content // files that stay as they are
	paths  []string
	chunks int

	readOnly bool // traffic writes nothing

	reads    atomic.Int64
	failures atomic.Int64
}

func newHealing(t *testing.T, dataNodes int, change func(*faultbed.Options)) *healing {
	t.Helper()
	faultbed.Duration(t)
	t.Parallel() // these tests wait more than they work
	options := faultbed.Options{
		NameNodes: 3, DataNodes: dataNodes,
		NameNodeFlags: []string{"-suspect-after", "3s", "-down-after", "8s", "-heartbeat", "1s", "-reclaim-grace", "2s", "-trim-delay", "3s"},
		DataNodeFlags: []string{"-heartbeat", "1s", "-trash-keep", "1s"},
	}
	if change != nil {
		change(&options)
	}
	h := &healing{t: t, b: faultbed.New(t, options), random: faultbed.Random(t), want: make(map[string]content)}
	h.c = h.b.Client()
	return h
}

// fill stores files until there are count chunks, three to a file.
func (h *healing) fill(count int) {
	h.t.Helper()
	for h.chunks < count {
		path := fmt.Sprintf("/kept/%04d", len(h.paths))
		// All three chunks have files of their own, for others to harm.
		data := randomData(h.random, 2*chunkSize+packLimit+1+h.random.IntN(chunkSize-packLimit))
		h.store(path, data, chunkSize)
		h.want[path] = contentOf(data)
		h.paths = append(h.paths, path)
		h.chunks += 3
	}
}

// fillLarge stores count files of one chunk of 4 MiB: what balancing moves must
// be worth the while.
func (h *healing) fillLarge(count int) {
	h.t.Helper()
	for range count {
		path := fmt.Sprintf("/kept/%04d", len(h.paths))
		data := randomData(h.random, dfs.DefaultChunkSize)
		h.store(path, data, dfs.DefaultChunkSize)
		h.want[path] = contentOf(data)
		h.paths = append(h.paths, path)
		h.chunks++
	}
}

func (h *healing) store(path string, data []byte, chunk int64) {
	h.t.Helper()
	_, err := h.c.Upload(h.t.Context(), mustPath(h.t, "%s", path), bytes.NewReader(data),
		client.UploadOptions{Size: int64(len(data)), ChunkSize: chunk})
	if err != nil {
		h.t.Fatalf("upload %s: %v", path, err)
	}
}

// read reads one file and compares it.
func (h *healing) read(c *client.Client, path string) error {
	hash := sha256.New()
	if _, err := c.Download(h.t.Context(), mustPath(h.t, "%s", path), hash, client.DownloadOptions{}); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got := content(hex.EncodeToString(hash.Sum(nil))); got != h.want[path] {
		return fmt.Errorf("%s holds %s and should hold %s", path, got, h.want[path])
	}
	return nil
}

// traffic reads the kept files, and writes and deletes others, until stop is
// called. None of it may fail.
func (h *healing) traffic() (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	for i := range 3 {
		c := h.b.Client()
		random := rand.New(rand.NewPCG(h.random.Uint64(), uint64(i)))
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := h.one(c, random, fmt.Sprintf("/passing/%d-%d", i, n)); err != nil {
					h.failures.Add(1)
					h.t.Errorf("under load: %v", err)
				}
				h.reads.Add(1)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (h *healing) one(c *client.Client, random *rand.Rand, path string) error {
	if err := h.read(c, h.paths[random.IntN(len(h.paths))]); err != nil {
		return err
	}
	if h.readOnly {
		return nil
	}
	data := randomData(random, 1+random.IntN(chunkSize))
	_, err := c.Upload(h.t.Context(), mustPath(h.t, "%s", path), bytes.NewReader(data), client.UploadOptions{Size: int64(len(data)), ChunkSize: chunkSize})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := c.Remove(h.t.Context(), mustPath(h.t, "%s", path)); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	return nil
}

// readAll reads every kept file.
func (h *healing) readAll() {
	h.t.Helper()
	for _, path := range h.paths {
		if err := h.read(h.c, path); err != nil {
			h.t.Error(err)
		}
	}
}

// waitFsck waits until fsck finds what is wanted, and returns how long it took.
func (h *healing) waitFsck(what string, wanted func(protocol.FsckReply) bool) time.Duration {
	h.t.Helper()
	began := time.Now()
	var last protocol.FsckReply
	defer func() {
		if h.t.Failed() {
			h.t.Logf("the last fsck: %+v", last)
		}
	}()
	h.b.WaitUntil(what, func() bool {
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		reply, err := h.c.Fsck(ctx)
		last = reply
		return err == nil && wanted(reply)
	})
	return time.Since(began)
}

func (h *healing) waitState(id, state string) {
	h.t.Helper()
	h.b.WaitUntil(id+" is "+state, func() bool { return h.node(id).State == state })
}

func whole(r protocol.FsckReply) bool { return r.Healthy && r.OverReplicated == 0 }

func clean(r protocol.FsckReply) bool { return whole(r) && r.Orphaned == 0 }

func (h *healing) node(id string) (info protocol.NodeInfo) {
	h.t.Helper()
	nodes, err := h.c.Nodes(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	at := slices.IndexFunc(nodes, func(n protocol.NodeInfo) bool { return string(n.ID) == id })
	if at < 0 {
		h.t.Fatalf("there is no %s", id)
	}
	return nodes[at]
}

// chunkFiles returns the chunk files of a node, trash and quarantine not counted.
func (h *healing) chunkFiles(id string) (paths []string) {
	h.t.Helper()
	err := filepath.WalkDir(filepath.Join(h.b.Dir(id), "chunks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		if os.IsNotExist(err) {
			return nil // it went away while we looked
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return paths
}

// TestDeadDataNode: a DataNode dies under load and its disk is lost; the cluster
// gets back to full health by itself, nobody notices, and it can happen again
// when the node is back with an empty disk.
func TestDeadDataNode(t *testing.T) {
	h := newHealing(t, 4, nil)
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	stop := h.traffic()
	lost := len(h.chunkFiles("dn2"))
	h.b.Kill("dn2")
	if err := os.RemoveAll(h.b.Dir("dn2")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.waitState("dn2", protocol.StateDown)
	noticed := time.Since(began)
	took := h.waitFsck("all chunks have their replicas again", func(r protocol.FsckReply) bool { return r.Healthy })
	stop()
	t.Logf("%d replicas lost; noticed after %s, healthy %s later; %d rounds of reading and writing meanwhile, %d failed",
		lost, noticed.Round(time.Millisecond), took.Round(time.Millisecond), h.reads.Load(), h.failures.Load())
	h.b.Start("dn2") // under its old name, with nothing
	h.waitState("dn2", protocol.StateUp)
	h.b.Kill("dn4")
	h.readAll()
	h.waitState("dn4", protocol.StateDown)
	h.waitFsck("the empty one has taken the place of the next", func(r protocol.FsckReply) bool { return r.Healthy })
	h.readAll()
}

// TestFlippedBits: one bit is flipped in one replica of each chunk. Nobody ever
// gets wrong bytes, one pass of the scrubbers finds all, and all are replaced.
func TestFlippedBits(t *testing.T) {
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.DataNodeFlags = append(o.DataNodeFlags, "-scrub-rate", "1GiB", "-scrub-interval", "2s")
	})
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	stop := h.traffic()
	flipped := make(map[string]string) // by chunk
	for _, id := range h.b.DataNodes() {
		for _, path := range h.chunkFiles(id) {
			name := filepath.Base(path)
			if _, done := flipped[name]; done || !h.isKept(name) {
				continue
			}
			flipped[name] = id
			h.flip(path)
		}
	}
	h.b.WaitUntil("every damaged replica is in quarantine", func() bool { return h.quarantined() >= len(flipped) })
	took := h.waitFsck("all are replaced", func(r protocol.FsckReply) bool { return r.Healthy && r.Corrupt == 0 })
	stop()
	t.Logf("%d bits flipped and found; healthy %s later; %d rounds of reading and writing meanwhile, %d failed",
		len(flipped), took.Round(time.Millisecond), h.reads.Load(), h.failures.Load())
	if len(flipped) != h.chunks || h.quarantined() != len(flipped) {
		t.Errorf("%d chunks, %d flipped, %d in quarantine", h.chunks, len(flipped), h.quarantined())
	}
	h.readAll()
}

// TestAllReplicasBad: when no replica is good, reading says which chunk is lost,
// and what is left of it stays for people.
func TestAllReplicasBad(t *testing.T) {
	h := newHealing(t, 3, func(o *faultbed.Options) {
		o.DataNodeFlags = append(o.DataNodeFlags, "-scrub-rate", "1GiB", "-scrub-interval", "2s")
		o.Patience = 2 * time.Second
	})
	h.fill(9)
	file, err := h.c.File(t.Context(), mustPath(t, "%s", h.paths[0]))
	if err != nil {
		t.Fatal(err)
	}
	bad := file.Chunks[1].ID
	for _, id := range h.b.DataNodes() {
		h.flip(h.pathOf(id, bad))
	}
	err = h.read(h.c, h.paths[0])
	if err == nil || !strings.Contains(err.Error(), bad.String()) {
		t.Errorf("reading a file whose chunk %s is bad everywhere: %v", bad, err)
	}
	for _, path := range h.paths[1:] {
		if err := h.read(h.c, path); err != nil {
			t.Errorf("another file: %v", err)
		}
	}
	h.waitFsck("fsck names it", func(r protocol.FsckReply) bool {
		return r.Missing == 1 && slices.ContainsFunc(r.Problems, func(p protocol.Problem) bool { return p.Chunk == bad })
	})
	if kept := h.quarantined(); kept != 3 {
		t.Errorf("%d of the 3 bad replicas are kept", kept)
	}
}

func (h *healing) isKept(chunk string) bool {
	for _, path := range h.paths {
		for _, c := range h.file(path).Chunks {
			if c.ID.String() == chunk {
				return true
			}
		}
	}
	return false
}

var fileCache sync.Map // path to protocol.File: kept files do not change

func (h *healing) file(path string) protocol.File {
	key := h.b.Path(path)
	if known, ok := fileCache.Load(key); ok {
		return known.(protocol.File)
	}
	file, err := h.c.File(h.t.Context(), mustPath(h.t, "%s", path))
	if err != nil {
		h.t.Fatal(err)
	}
	fileCache.Store(key, file)
	return file
}

func (h *healing) pathOf(id string, chunk dfs.ChunkID) string {
	h.t.Helper()
	for _, path := range h.chunkFiles(id) {
		if filepath.Base(path) == chunk.String() {
			return path
		}
	}
	h.t.Fatalf("%s does not hold chunk %s", id, chunk)
	return ""
}

// flip changes one bit of the data of a chunk file.
func (h *healing) flip(path string) {
	h.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	at := h.random.IntN(min(len(data), chunkSize/2))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{data[at] ^ 1<<h.random.IntN(8)}, int64(at)); err != nil {
		h.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *healing) quarantined() (count int) {
	h.t.Helper()
	for _, id := range h.b.DataNodes() {
		entries, err := os.ReadDir(filepath.Join(h.b.Dir(id), "quarantine"))
		if err != nil {
			h.t.Fatal(err)
		}
		count += len(entries)
	}
	return count
}

// disks returns how many bytes all DataNodes hold on their disks.
func (h *healing) disks() (bytes int64) {
	h.t.Helper()
	for _, id := range h.b.DataNodes() {
		err := filepath.WalkDir(h.b.Dir(id), func(_ string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil // it went away while we looked
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if os.IsNotExist(err) {
				return nil
			}
			if err == nil {
				bytes += info.Size()
			}
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	return bytes
}

// slowly gives its bytes at a pace that makes the whole take some time.
type slowly struct {
	data  *bytes.Reader
	pause time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.pause) // this is what is tested
	return s.data.Read(p[:min(len(p), chunkSize/2)])
}

// slowUploads is how many uploads are slow at the same time.
const slowUploads = 20

// TestSpaceComesBack: uploading and deleting leaves the disks as they were, and
// reclaim takes nothing from uploads that last three times its grace. What an
// upload that died has left on the DataNodes goes, too.
func TestSpaceComesBack(t *testing.T) {
	h := newHealing(t, 4, nil)
	h.fill(9)
	before := h.disks()
	slow := randomData(h.random, 10*chunkSize)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range slowUploads {
		wg.Go(func() {
			source := &slowly{bytes.NewReader(slow[i:]), 300 * time.Millisecond}
			_, err := h.c.Upload(t.Context(), mustPath(t, "/slow/%d", i), source, client.UploadOptions{Size: -1, ChunkSize: chunkSize})
			if err != nil {
				t.Errorf("a slow upload: %v", err)
			}
		})
	}
	stop := h.traffic()
	died, die := context.WithCancel(t.Context())
	wg.Go(func() {
		_, err := h.c.Upload(died, mustPath(t, "/never"), &slowly{bytes.NewReader(slow), 300 * time.Millisecond}, client.UploadOptions{Size: -1, ChunkSize: chunkSize})
		if err == nil {
			t.Error("the upload that dies has come to its end")
		}
	})
	h.b.WaitUntil("some of it is stored", func() bool { return time.Since(began) > 2*time.Second })
	die()
	wg.Wait()
	stop()
	t.Logf("the slow uploads took %s; %d files came and went", time.Since(began).Round(time.Millisecond), h.reads.Load())
	for i := range slowUploads {
		path := fmt.Sprintf("/slow/%d", i)
		h.want[path] = contentOf(slow[i:])
		if err := h.read(h.c, path); err != nil {
			t.Error(err)
		}
	}
	if err := h.c.RemoveAll(t.Context(), mustPath(t, "/slow")); err != nil {
		t.Fatal(err)
	}
	took := h.waitFsck("nothing is left over", clean)
	h.b.WaitUntil("the disks are where they were", func() bool { return h.disks() <= before+16<<10 })
	t.Logf("%d bytes before, %d after; %s until nothing was left over", before, h.disks(), took.Round(time.Millisecond))
	h.readAll()
}

// even is how uneven used space may stay, as a share of the mean. What is moved
// must be worth the while, and these nodes hold two dozen chunks each.
const even = 0.2

// TestDrainAndBalance: a node is emptied under load and nobody notices; then a
// new, empty one gets its share, and the traffic stops.
func TestDrainAndBalance(t *testing.T) {
	h := newHealing(t, 5, nil)
	h.fillLarge(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks) * 2 / 3)
	stop := h.traffic()
	began := time.Now()
	if _, err := h.c.Drain(t.Context(), "dn1"); err != nil {
		t.Fatal(err)
	}
	h.waitState("dn1", protocol.StateDrained)
	t.Logf("drained after %s, with %d rounds of reading and writing, %d failed", time.Since(began).Round(time.Millisecond), h.reads.Load(), h.failures.Load())
	if left := len(h.chunkFiles("dn1")); left > 0 {
		t.Errorf("%d chunks are left on the drained node", left)
	}
	stop()
	h.b.Stop("dn1")
	h.readAll()
	h.b.Start("dn1")
	began = time.Now()
	if _, err := h.c.Undrain(t.Context(), "dn1"); err != nil {
		t.Fatal(err)
	}
	h.b.WaitUntil("used space is even", func() bool { return h.unevenness() <= even })
	t.Logf("even to within %.0f %% after %s", 100*h.unevenness(), time.Since(began).Round(time.Millisecond))
	h.waitFsck("the surplus of the moves is gone", clean)
	settled := h.copies()
	for quiet := time.Now(); time.Since(quiet) < 10*time.Second; time.Sleep(time.Second) { // it must stay so
		if now := h.copies(); now != settled {
			settled, quiet = now, time.Now()
			if time.Since(began) > time.Minute {
				t.Fatal("chunks are moved about for ever")
			}
		}
	}
	if uneven := h.unevenness(); uneven > even {
		t.Errorf("uneven again: %.2f", uneven)
	}
	h.readAll()
}

// unevenness is how far, as a share of the mean, a node's use is from it.
func (h *healing) unevenness() (most float64) {
	h.t.Helper()
	nodes, err := h.c.Nodes(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	mean := 0.0
	for _, n := range nodes {
		mean += float64(n.Used) / float64(len(nodes))
	}
	for _, n := range nodes {
		most = max(most, (float64(n.Used)-mean)/mean, (mean-float64(n.Used))/mean)
	}
	return most
}

// copies sums up the orders to copy that DataNodes have carried out.
func (h *healing) copies() (count int) {
	h.t.Helper()
	for _, id := range h.b.DataNodes() {
		if h.b.Running(id) {
			count += int(h.metric(id, `dfs_datanode_orders_total{kind="copy",result="done"}`))
		}
	}
	return count
}

// metric returns what a node's /metrics says of one series, 0 when it has none.
func (h *healing) metric(id, series string) float64 {
	h.t.Helper()
	response, err := http.Get(h.b.URL(id) + protocol.Metrics.Pattern)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close() // only read from
	body, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				h.t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

// TestReturningDataNode: a node comes back with what it held when it went. What
// was deleted meanwhile stays deleted, its surplus copies go, and nothing is lost
// when another node dies at that moment.
func TestReturningDataNode(t *testing.T) {
	h := newHealing(t, 4, nil)
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	h.b.Pause("dn3")
	h.waitState("dn3", protocol.StateDown)
	h.waitFsck("all chunks have their replicas again", func(r protocol.FsckReply) bool { return r.Healthy })
	var deleted []string
	for len(deleted) < len(h.want)/3 {
		path := h.paths[len(h.paths)-1]
		if err := h.c.Remove(t.Context(), mustPath(t, "%s", path)); err != nil {
			t.Fatal(err)
		}
		h.paths, deleted = h.paths[:len(h.paths)-1], append(deleted, path)
	}
	h.b.Continue("dn3")
	h.b.Kill("dn1")
	h.readAll()
	h.waitState("dn3", protocol.StateUp)
	h.waitFsck("all is in order with three nodes", whole)
	h.readAll()
	h.b.Start("dn1")
	h.waitFsck("nothing is left over", clean)
	for _, path := range deleted {
		if _, err := h.c.Stat(t.Context(), mustPath(t, "%s", path)); dfs.CodeOf(err) != dfs.NotFound {
			t.Errorf("%s was deleted, and now: %v", path, err)
		}
	}
	left := 0
	for _, id := range h.b.DataNodes() {
		left += len(h.chunkFiles(id))
	}
	if want := 3 * 3 * len(h.paths); left != want {
		t.Errorf("%d chunk files are left of %d files, and should be %d", left, len(h.paths), want)
	}
	h.readAll()
}

// TestFullDataNodes: while one DataNode is full, writes go elsewhere. When all
// are, they are refused in a way that helps; reads and deletes go on, and what
// they free is used again.
func TestFullDataNodes(t *testing.T) {
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.DataNodeDisk = faultbed.Disk{Kind: faultbed.Tmpfs, Size: 48 << 20}
		o.DataNodeFlags = append(o.DataNodeFlags, "-reserve", "4MiB")
	})
	h.fill(30)
	l := newLedger(t, h.b)
	work := newLoad(t, h.c, l, h.random, "full", 3, 4*chunkSize)
	work.start(t.Context())
	give := h.b.Fill("dn2")
	count := l.count()
	h.b.WaitUntil("the load goes on", func() bool { return l.count() > count+30 })
	h.b.WaitUntil("dn2 says that it is full", func() bool { return !h.node("dn2").Writable })
	work.quit()
	h.checkLoad(l)
	stored := h.paths
	for range 5 {
		h.fill(h.chunks + 3)
	}
	for _, path := range h.paths[len(stored):] {
		for _, chunk := range h.file(path).Chunks {
			if slices.ContainsFunc(chunk.Locations, func(l protocol.Target) bool { return l.ID == "dn2" }) {
				t.Errorf("chunk %s of %s was put on the full node", chunk.ID, path)
			}
		}
	}
	give()
	var last error
	for i := 0; last == nil; i++ {
		data := randomData(h.random, 16*chunkSize)
		_, last = h.c.Upload(t.Context(), mustPath(t, "/fill/%d", i), bytes.NewReader(data), client.UploadOptions{Size: int64(len(data)), ChunkSize: 16 * chunkSize})
		if i > 300 {
			t.Fatal("the disks do not get full")
		}
	}
	if dfs.CodeOf(last) != dfs.NoSpace {
		t.Errorf("with all disks full: %s: %v", dfs.CodeOf(last), last)
	}
	t.Logf("the refusal: %v", last)
	h.readAll()
	h.checkLoad(l)
	if err := h.c.RemoveAll(t.Context(), mustPath(t, "/fill")); err != nil {
		t.Fatal(err)
	}
	h.b.WaitUntil("what was freed is used again", func() bool {
		data := randomData(h.random, 64*chunkSize)
		_, err := h.c.Upload(t.Context(), mustPath(t, "/again"), bytes.NewReader(data), client.UploadOptions{Size: int64(len(data)), ChunkSize: 16 * chunkSize})
		return err == nil
	})
	h.readAll()
}

// checkLoad compares what a load has left with what its ledger knows.
func (h *healing) checkLoad(l *ledger) {
	h.t.Helper()
	found := readBack(h.t, h.c, loadDir)
	found[loadDir] = directory
	l.check(h.t, found)
	l.checkRefusals(h.t)
}

// TestOldLeaderGivesNoOrders: a leader that was stopped while another took over
// wakes up with work on its list. Nothing of it is obeyed.
func TestOldLeaderGivesNoOrders(t *testing.T) {
	h := newHealing(t, 4, nil)
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	stop := h.traffic()
	for round := range 3 {
		old := h.b.Leader()
		// Work for the old leader: chunks that lack replicas, and garbage.
		h.b.Kill("dn4")
		h.store(fmt.Sprintf("/gone/%d", round), randomData(h.random, 4*chunkSize), chunkSize)
		if err := h.c.Remove(t.Context(), mustPath(t, "/gone/%d", round)); err != nil {
			t.Fatal(err)
		}
		h.b.Pause(old)
		next := h.b.LeaderAmong(h.b.Others(old)...)
		h.b.Start("dn4")
		h.waitState("dn4", protocol.StateUp)
		h.b.Continue(old)
		t.Logf("round %d: %s was stopped, %s leads", round+1, old, next)
		h.waitFsck("all is in order again", whole)
	}
	stop()
	h.waitFsck("nothing is left over", clean)
	h.readAll()
}
