package datanode_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Whatever the disk does to a chunk, the scrubber finds it, and says so.
func TestScrub(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.ScrubRate, c.ScrubInterval = 1<<40, 10*time.Millisecond
	d := start(t, c)
	ready(t, n, d)
	data := content(1, 200_000)
	path := func(id dfs.ChunkID) string {
		return filepath.Join(c.DataDirs[0], "chunks", id.String()[14:], id.String())
	}
	for id := range dfs.ChunkID(6) {
		put(t, d, id+1, data, "")
	}
	n.reported(t, "dn1", 6, true)
	damage(t, path(1), 0)
	damage(t, path(3), 199_999)
	damage(t, path(4), 200_000+10) // the footer
	if err := os.Truncate(path(5), 100_000); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path(6)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []dfs.ChunkID{1, 3, 4, 5, 6} {
		n.reported(t, "dn1", id, false)
		checkHoldsNot(t, d, id)
	}
	waitUntil(t, "the metrics", func() bool { return metric(t, d, "dfs_datanode_scrub_damaged_total 5") })
	checkHolds(t, d, 2, data)
	n.set(func(n *nameNode) {
		slices.Sort(n.corrupt["dn1"])
		if !slices.Equal(n.corrupt["dn1"], []dfs.ChunkID{1, 3, 4, 5, 6}) {
			t.Errorf("reported as damaged: %v", n.corrupt["dn1"])
		}
	})
	stop(t, d)
	var saved struct {
		Format int
		Done   *bool
	}
	content, err := os.ReadFile(filepath.Join(c.DataDirs[0], "scrub.json"))
	if err == nil {
		err = json.Unmarshal(content, &saved)
	}
	if err != nil || saved.Format != 1 || saved.Done == nil {
		t.Errorf("%s, %v", content, err)
	}
}

func TestScrubIsOffUnlessAskedFor(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	d := start(t, c)
	ready(t, n, d)
	stop(t, d)
	if _, err := os.Stat(filepath.Join(c.DataDirs[0], "scrub.json")); !os.IsNotExist(err) {
		t.Errorf("scrub.json: %v", err)
	}
}
