//go:build linux

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// replayed is how many changes are to be in the log that is replayed.
const replayed = 400

var stateDocuments = []string{"files.json", "nodes.json"}

// sameState has every NameNode that runs write down its state at the same index,
// and compares them byte by byte. Nothing else may change the namespace.
func sameState(t *testing.T, b *faultbed.Bed, c *client.Client) {
	t.Helper()
	if t.Failed() {
		return // with what differs, or with what never gets ready
	}
	index := uint64(0)
	b.WaitUntil("all NameNodes have written down their state at the same index", func() bool {
		var ok bool
		index, ok = compareStates(t, b, c)
		return ok
	})
	t.Logf("all NameNodes have the same state at index %d", index)
}

// compareStates is one attempt: DataNodes report all the time, so that one
// snapshot may come after an entry more than another.
func compareStates(t *testing.T, b *faultbed.Bed, c *client.Client) (index uint64, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	// Or a snapshot from before a restart would do.
	path := mustPath(t, "/same-state")
	if c.MkdirAll(ctx, path) != nil || c.Remove(ctx, path) != nil {
		return 0, false
	}
	reply, err := c.Leader(ctx)
	if err != nil || reply.Leader == nil {
		return 0, false
	}
	leader := string(reply.Leader.ID)
	ids := append([]string{leader}, slices.DeleteFunc(b.Others(leader), func(id string) bool { return !b.Running(id) })...)
	atLeast := uint64(0)
	for _, id := range ids {
		if atLeast, err = c.Snapshot(ctx, b.URL(id), atLeast); err != nil {
			return 0, false
		}
	}
	for _, document := range stateDocuments {
		var first []byte
		for i, id := range ids {
			data, err := os.ReadFile(filepath.Join(b.Dir(id), document))
			if err != nil {
				return 0, false
			}
			var header struct {
				AppliedIndex uint64 `json:"applied_index"`
			}
			if err := json.Unmarshal(data, &header); err != nil {
				t.Fatalf("%s of %s: %v", document, id, err)
			}
			if i == 0 {
				first, index = data, header.AppliedIndex
			}
			if header.AppliedIndex != index {
				return 0, false
			}
			if !bytes.Equal(data, first) {
				t.Fatalf("%s of %s and of %s differ at index %d: %s", document, ids[0], id, index, firstDifference(first, data))
			}
		}
	}
	return index, true
}

func firstDifference(one, other []byte) string {
	at := 0
	for at < min(len(one), len(other)) && one[at] == other[at] {
		at++
	}
	from := max(0, at-60)
	return fmt.Sprintf("%q and %q", one[from:min(len(one), at+60)], other[from:min(len(other), at+60)])
}

// TestReplay: a NameNode that starts from the log alone, or from either snapshot
// and the log behind it, has the state of those that never stopped.
func TestReplay(t *testing.T) {
	length := faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, DataNodes: 3,
		NameNodeFlags: []string{"-snapshot-threshold", "60", "-snapshot-interval", "1s", "-trailing-logs", "10000000"},
	})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "replay", 6, 2*chunkSize)
	work.start(t.Context())
	end := time.Now().Add(length / 4)
	b.WaitUntil("there is something to replay", func() bool { return l.count() >= replayed })
	time.Sleep(max(0, time.Until(end))) // a longer run has a longer log
	work.quit()
	l.check(t, readBack(t, c, "/"))
	sameState(t, b, c)
	follower := b.Others(b.LeaderAmong(b.NameNodes()...))[0]
	for _, from := range []struct {
		what string
		lose func(snapshots []string) []string // the newest last
	}{
		{"the newest snapshot and the log", func([]string) []string { return nil }},
		{"an older snapshot and the log", func(all []string) []string { return all[len(all)-1:] }},
		{"the log alone", func(all []string) []string { return all }},
	} {
		b.Kill(follower)
		snapshots := snapshotsOf(t, b, follower)
		if len(snapshots) < 2 {
			t.Fatalf("the run is void: %s has the snapshots %v", follower, snapshots)
		}
		for _, dir := range from.lose(snapshots) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		for _, document := range stateDocuments {
			if err := os.Remove(filepath.Join(b.Dir(follower), document)); err != nil {
				t.Fatal(err)
			}
		}
		b.Start(follower)
		b.WaitReady()
		t.Log("from " + from.what)
		sameState(t, b, c)
		if t.Failed() {
			return
		}
		// So that there are two again, by indexes in their names.
		b.WaitUntil("there is another snapshot", func() bool {
			sameState(t, b, c)
			return len(snapshotsOf(t, b, follower)) >= 2
		})
	}
}

// snapshotsOf returns the snapshots of a NameNode, the newest last.
func snapshotsOf(t *testing.T, b *faultbed.Bed, id string) []string {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(b.Dir(id), "raft", "snapshots", "*", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, meta := range metas {
		if dir := filepath.Dir(meta); filepath.Ext(dir) != ".tmp" {
			dirs = append(dirs, dir)
		}
	}
	slices.SortFunc(dirs, func(x, y string) int { return int(snapshotIndex(t, x)) - int(snapshotIndex(t, y)) })
	return dirs
}

func snapshotIndex(t *testing.T, dir string) (index uint64) {
	t.Helper()
	var meta struct{ Index uint64 }
	data, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err == nil {
		err = json.Unmarshal(data, &meta)
	}
	if err != nil {
		t.Fatal(err)
	}
	return meta.Index
}
