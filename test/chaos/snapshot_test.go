package chaos

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// TestCatchUpBySnapshot lets a follower miss more than the log keeps: it has to
// catch up from a snapshot, and everyone restarts from one.
func TestCatchUpBySnapshot(t *testing.T) {
	duration(t)
	b := newBed(t, 3, 0)
	c := b.client()
	defer c.Close()
	leader := b.leader(c)
	var late int
	for i, id := range b.nameNodes {
		if id != leader {
			late = i
		}
	}
	b.kill(b.nameNodes[late])
	const count = 2500 // more than four times what the log keeps behind a snapshot
	var next atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for i := next.Add(1); i <= count; i = next.Add(1) {
				if err := c.MkdirAll(t.Context(), mustPath(t, "/many/%05d", i)); err != nil {
					t.Errorf("mkdir: %v", err)
				}
			}
		})
	}
	clients.Wait()
	if t.Failed() {
		return
	}
	b.waitUntil("the leader has a snapshot", func() bool {
		found, err := filepath.Glob(filepath.Join(b.dir, leader, "raft", "snapshots", "*", "meta.json"))
		return err == nil && len(found) > 0
	})
	b.start(b.nameNodes[late])
	b.waitUntil("the late follower has all directories", func() bool { return b.holds(late, count) })
	for _, id := range b.nameNodes {
		b.kill(id)
	}
	b.startAll()
	b.leader(c)
	for i := range b.nameNodes {
		b.waitUntil("every NameNode has all directories after a restart", func() bool { return b.holds(i, count) })
	}
	if _, err := os.Stat(filepath.Join(b.dir, leader, "files.json")); err != nil {
		t.Error(err)
	}
}

// holds tells whether the NameNode's own copy of /many has count entries.
func (b *bed) holds(i, count int) bool {
	response, err := http.Get(b.urls[i] + "/list?path=/many&limit=10000&consistency=stale")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var listing struct{ Entries []struct{ Name string } }
	return json.NewDecoder(response.Body).Decode(&listing) == nil && len(listing.Entries) == count
}
