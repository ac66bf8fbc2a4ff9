package testcluster_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/history"
)

// TestCallsAreLinearizable: whatever clients see while the leadership moves and
// a NameNode is restarted can be explained by one order of all their calls.
func TestCallsAreLinearizable(t *testing.T) {
	c, caller := start(t, 3, 3)
	const worlds, clients, changes = 2, 3, 6
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	var loads []*history.Load
	for w := range worlds {
		load := &history.Load{Root: fmt.Sprintf("/world%d", w), Seed: uint64(w), Recorder: history.NewRecorder()}
		for range clients {
			one, err := client.New(client.Config{NameNodes: c.URLs()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(one.Close)
			load.Clients = append(load.Clients, one)
		}
		if err := load.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		loads = append(loads, load)
		wg.Go(func() { load.Run(ctx) })
	}
	calls := func() (all, unknown int) {
		for _, load := range loads {
			a, u := load.Recorder.Counts()
			all, unknown = all+a, unknown+u
		}
		return all, unknown
	}
	for change := range changes {
		before, _ := calls()
		deadline := time.Now().Add(time.Minute)
		for all, _ := calls(); all < before+50; all, _ = calls() {
			if time.Now().After(deadline) {
				t.Fatal("the clients do not get on")
			}
			time.Sleep(5 * time.Millisecond) // between two looks
		}
		leader := leaderID(t, caller)
		if change%2 == 0 {
			if err := caller.Transfer(context.Background(), ""); err != nil {
				t.Logf("leadership stays: %v", err)
			}
			continue
		}
		if err := c.Stop(leader); err != nil {
			t.Fatal(err)
		}
		if err := c.StartNameNode(context.Background(), leader); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	all, unknown := calls()
	t.Logf("%d calls, %d with an unknown outcome", all, unknown)
	for w, load := range loads {
		if err := load.Recorder.Check(time.Minute, filepath.Join(t.ArtifactDir(), fmt.Sprintf("world%d.html", w))); err != nil {
			t.Errorf("world %d: %v", w, err)
		}
	}
}
