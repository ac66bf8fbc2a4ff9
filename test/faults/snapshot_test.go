//go:build linux

package faults

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dfs-go/dfs-go/internal/faultbed"
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

// holds tells whether the NameNode's own copy of /many has count entries.
func holds(b *faultbed.Bed, id string, count int) bool {
	response, err := http.Get(b.URL(id) + "/list?path=/many&limit=10000&consistency=stale")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var listing struct{ Entries []struct{ Name string } }
	return json.NewDecoder(response.Body).Decode(&listing) == nil && len(listing.Entries) == count
}
