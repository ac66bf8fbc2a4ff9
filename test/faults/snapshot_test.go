//go:build linux

package faults

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// TestCatchUpBySnapshot lets a follower miss more than the log keeps: it has to
// catch up from a snapshot, and everyone restarts from one.
func TestCatchUpBySnapshot(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, NameNodeFlags: quickSnapshots})
	c := b.Client()
	leader := b.Leader()
	late := b.Others(leader)[0]
	b.Kill(late)
	const count = 2500 // by 16 clients: at least three times what the log keeps behind a snapshot
	makeMany(t, c, count)
	if t.Failed() {
		return
	}
	b.WaitUntil("the leader has a snapshot", func() bool {
		found, err := filepath.Glob(filepath.Join(b.Dir(leader), "raft", "snapshots", "*", "meta.json"))
		return err == nil && len(found) > 0
	})
	b.Start(late)
	b.WaitUntil("the late follower has all directories", func() bool { return holds(b, late, count) })
	b.Kill()
	b.StartAll()
	b.Leader()
	for _, id := range b.NameNodes() {
		b.WaitUntil("every NameNode has all directories after a restart", func() bool { return holds(b, id, count) })
	}
	if _, err := os.Stat(filepath.Join(b.Dir(leader), "files.json")); err != nil {
		t.Error(err)
	}
}

// TestSnapshotsUnderLoad has all NameNodes, which hold DFS_FAULT_NAMES
// directories, write one snapshot after the other while clients go on. Then
// everybody starts again from what was written.
func TestSnapshotsUnderLoad(t *testing.T) {
	length := faultbed.Duration(t)
	count := faultbed.Count(t, "DFS_FAULT_NAMES", 5000)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3, NameNodeFlags: []string{"-snapshot-threshold", "1000000"}})
	c := b.Client()
	makeMany(t, c, count)
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "snapshots", 6, 2*chunkSize)
	before, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	work.start(t.Context())
	var moments []time.Time
	for end := time.Now().Add(length / 4); time.Now().Before(end); {
		b.WaitUntil("changes go on", func() bool { return l.count() > 50*(1+len(moments)) })
		moments = append(moments, time.Now())
		for _, id := range b.NameNodes() {
			if _, err := c.Snapshot(t.Context(), b.URL(id), 0); err != nil {
				t.Fatalf("a snapshot of %s: %v", id, err)
			}
		}
	}
	work.quit()
	after, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := readBack(t, c, loadDir)
	found[loadDir] = directory
	l.check(t, found)
	l.checkRefusals(t)
	gaps := l.gaps(moments)
	t.Logf("%d times three snapshots of %d directories, %d changes, gap without an acknowledgement: median %s, longest %s; term %d before, %d after",
		len(moments), count, l.count(), quantile(gaps, 0.5), quantile(gaps, 1), before.Term, after.Term)
	b.Kill()
	b.StartAll()
	b.WaitReady()
	for _, id := range b.NameNodes() {
		b.WaitUntil("every NameNode has all directories after a restart", func() bool { return holds(b, id, count) })
	}
	sameState(t, b, c)
}

// makeMany makes so many directories in /many, by several clients at once.
func makeMany(t *testing.T, c *client.Client, count int) {
	t.Helper()
	var next atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for i := next.Add(1); i <= int64(count); i = next.Add(1) {
				if err := c.MkdirAll(t.Context(), mustPath(t, "/many/%06d", i)); err != nil {
					t.Errorf("mkdir: %v", err)
				}
			}
		})
	}
	clients.Wait()
}

// holds tells whether the NameNode's own copy of /many has count entries.
func holds(b *faultbed.Bed, id string, count int) bool {
	cursor, found := "", 0
	for {
		response, err := http.Get(b.URL(id) + "/list?path=/many&limit=10000&consistency=stale&cursor=" + url.QueryEscape(cursor))
		if err != nil {
			return false
		}
		var page protocol.Listing
		err = json.NewDecoder(response.Body).Decode(&page)
		response.Body.Close()
		if err != nil {
			return false
		}
		found += len(page.Entries)
		if cursor = page.Cursor; cursor == "" {
			return found == count
		}
	}
}
