package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// seeded returns a source whose seed is printed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("DFS_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("DFS_CHAOS_SEED: %v", err)
		}
	}
	t.Logf("seed: DFS_CHAOS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func mustPath(t *testing.T, format string, args ...any) dfs.Path {
	t.Helper()
	path, err := dfs.ParsePath(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ledger is what a load may expect to find: what was acknowledged must be
// there, what has an unknown outcome may be, nothing else can be.
type ledger struct {
	mu       sync.Mutex
	sums     map[string][sha256.Size]byte // by path, of all that was tried
	acked    map[string]bool
	acks     []time.Time
	failures []string
}

func newLedger() *ledger {
	return &ledger{sums: make(map[string][sha256.Size]byte), acked: make(map[string]bool)}
}

func (l *ledger) try(path string, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sums[path] = sha256.Sum256(data)
}

func (l *ledger) outcome(path string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures = append(l.failures, fmt.Sprintf("%s: %s: %v", path, dfs.CodeOf(err), err))
		return
	}
	l.acked[path] = true
	l.acks = append(l.acks, time.Now())
}

// gaps returns the longest time without an acknowledgement after each of the
// given moments, until the next of them.
func (l *ledger) gaps(moments []time.Time) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(l.acks, time.Time.Compare)
	gaps := make([]time.Duration, len(moments))
	for i := 1; i < len(l.acks); i++ {
		for m, moment := range moments {
			beforeNext := m == len(moments)-1 || l.acks[i].Before(moments[m+1])
			if l.acks[i].After(moment) && beforeNext {
				gaps[m] = max(gaps[m], l.acks[i].Sub(l.acks[i-1]))
			}
		}
	}
	return gaps
}

// TestLeaderKills kills the leader again and again while a client makes a
// directory every 50 ms. DFS_CHAOS_KILLS says how often.
func TestLeaderKills(t *testing.T) {
	duration(t)
	kills := 3
	if text := os.Getenv("DFS_CHAOS_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	b := newBed(t, 3, 0)
	c := b.client()
	defer c.Close()
	l := newLedger()
	load, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	clients.Go(func() { makeDirectories(load, c, t, l) })

	var moments []time.Time
	for range kills {
		leader := b.leader(c)
		moments = append(moments, time.Now())
		b.kill(leader)
		b.leader(c)
		b.start(leader)
		count := l.count()
		b.waitUntil("directories are made again", func() bool { return l.count() > count+20 })
	}
	stop()
	clients.Wait()

	names := make(map[string]int)
	for entry, err := range c.List(t.Context(), mustPath(t, "/load")) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		names[entry.Path]++
	}
	for path := range l.acked {
		if names[path] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", path, names[path])
		}
	}
	for path := range names {
		if _, tried := l.sums[path]; !tried {
			t.Errorf("%s is there and was never made", path)
		}
	}
	if len(l.failures) > 0 {
		t.Errorf("%d calls failed that the client should have retried: %v", len(l.failures), l.failures[0])
	}
	gaps := l.gaps(moments)
	slices.Sort(gaps)
	t.Logf("%d kills, %d directories, gap without an acknowledgement: median %s, longest %s",
		kills, len(l.acked), gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond))
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

func makeDirectories(ctx context.Context, c *client.Client, t *testing.T, l *ledger) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	if err := c.MkdirAll(t.Context(), mustPath(t, "/load")); err != nil {
		t.Errorf("mkdir /load: %v", err)
	}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		path := mustPath(t, "/load/%06d", i)
		l.try(path.String(), nil)
		// Without -p: a directory that is made twice would be an error.
		l.outcome(path.String(), c.Mkdir(t.Context(), path))
	}
}

// TestMixedFaults uploads files of random size while processes are killed,
// stopped and continued, and then reads back everything.
func TestMixedFaults(t *testing.T) {
	length := duration(t)
	random := seeded(t)
	b := newBed(t, 3, 4)
	c := b.client()
	defer c.Close()
	l := newLedger()
	load, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 3 {
		source := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
		clients.Go(func() { uploadFiles(load, c, t, l, i, source) })
	}
	faults := make(map[string]int)
	for end := time.Now().Add(length); time.Now().Before(end); {
		faults[b.fault(c, random)]++
	}
	b.startAll()
	b.waitReady()
	stop()
	clients.Wait()
	l.verify(t, c)
	if len(l.acked) == 0 {
		t.Fatal("the run is void: nothing was acknowledged")
	}
	t.Logf("%d files acknowledged, %d calls failed, faults: %v", len(l.acked), len(l.failures), faults)
	for _, failure := range l.failures {
		t.Logf("failed: %s", failure)
	}
}

// fault does one harm, lets it act for a while, and undoes it.
func (b *bed) fault(c *client.Client, random *rand.Rand) string {
	b.t.Helper()
	act := func() { time.Sleep(time.Duration(500+random.IntN(2000)) * time.Millisecond) }
	dataNode := b.dataNodes[random.IntN(len(b.dataNodes))]
	name := []string{"kill the leader", "kill a DataNode", "stop the leader", "stop a DataNode", "kill leader and DataNode", "kill all NameNodes", "kill everything"}[random.IntN(7)]
	switch name {
	case "kill the leader":
		leader := b.leader(c)
		b.kill(leader)
		act()
	case "kill a DataNode":
		b.kill(dataNode)
		act()
	case "stop the leader":
		b.pause(b.leader(c), act)
	case "stop a DataNode":
		b.pause(dataNode, act)
	case "kill leader and DataNode":
		b.kill(b.leader(c))
		b.kill(dataNode)
		act()
	case "kill all NameNodes":
		for _, id := range b.nameNodes {
			b.kill(id)
		}
	case "kill everything":
		for _, id := range b.all() {
			b.kill(id)
		}
	}
	b.startAll()
	b.waitReady()
	act()
	return name
}

func (b *bed) pause(id string, act func()) {
	b.t.Helper()
	b.signal(id, syscall.SIGSTOP)
	act()
	act()
	b.signal(id, syscall.SIGCONT)
}

func uploadFiles(ctx context.Context, c *client.Client, t *testing.T, l *ledger, worker int, random *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		data := make([]byte, random.IntN(2<<20))
		for at := range data {
			data[at] = byte(random.Uint32())
		}
		path := mustPath(t, "/files/%d/%06d", worker, i)
		l.try(path.String(), data)
		_, err := c.Upload(t.Context(), path, bytes.NewReader(data), client.UploadOptions{Size: int64(len(data)), ChunkSize: 256 << 10})
		l.outcome(path.String(), err)
	}
}

// verify reads back every file that is there, and looks for every one that was
// acknowledged.
func (l *ledger) verify(t *testing.T, c *client.Client) {
	t.Helper()
	found := make(map[string]bool)
	var walk func(dfs.Path)
	walk = func(dir dfs.Path) {
		for entry, err := range c.List(t.Context(), dir) {
			if err != nil {
				t.Fatalf("list %s: %v", dir, err)
			}
			if entry.Type == "directory" {
				walk(mustPath(t, "%s", entry.Path))
				continue
			}
			found[entry.Path] = true
			hash := sha256.New()
			if _, err := c.Download(t.Context(), mustPath(t, "%s", entry.Path), hash, client.DownloadOptions{}); err != nil {
				t.Errorf("read %s: %v", entry.Path, err)
				continue
			}
			want, tried := l.sums[entry.Path]
			if !tried || !bytes.Equal(want[:], hash.Sum(nil)) {
				t.Errorf("%s does not hold what was written (tried: %t)", entry.Path, tried)
			}
		}
	}
	walk(dfs.Root)
	for path := range l.acked {
		if !found[path] {
			t.Errorf("%s was acknowledged and is gone", path)
		}
	}
}

// TestKillEverythingDuringUpload: after a crash of all processes the finished
// file is whole and the unfinished one is absent.
func TestKillEverythingDuringUpload(t *testing.T) {
	duration(t)
	b := newBed(t, 3, 3)
	c := b.client()
	defer c.Close()
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i * 7)
	}
	if _, err := c.Upload(t.Context(), mustPath(t, "/whole"), bytes.NewReader(data), client.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	source := &crashing{data: data, crash: func() {
		for _, id := range b.all() {
			b.kill(id)
		}
		giveUp()
	}}
	if _, err := c.Upload(ctx, mustPath(t, "/unfinished"), source, client.UploadOptions{Size: -1}); err == nil {
		t.Fatal("an upload to a dead cluster was acknowledged")
	}
	restarted := time.Now()
	b.startAll()
	b.waitReady()
	t.Logf("serving %s after the restart", time.Since(restarted).Round(time.Millisecond))
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), mustPath(t, "/whole"), &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Fatalf("the acknowledged file: %v, equal: %t", err, bytes.Equal(got.Bytes(), data))
	}
	if _, err := c.Stat(t.Context(), mustPath(t, "/unfinished")); dfs.CodeOf(err) != dfs.NotFound {
		t.Fatalf("the unfinished file: %v", err)
	}
}

type crashing struct {
	data  []byte
	at    int
	crash func()
}

func (c *crashing) Read(p []byte) (int, error) {
	if c.at > len(c.data)/2 && c.crash != nil {
		c.crash()
		c.crash = nil
	}
	if c.at == len(c.data) {
		return 0, io.EOF
	}
	n := copy(p, c.data[c.at:])
	c.at += n
	return n, nil
}
