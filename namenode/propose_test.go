package namenode_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func callerOf(t *testing.T, nodes []*nameNode) *leader.Caller {
	t.Helper()
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL())
	}
	caller, err := leader.New(leader.Config{Endpoints: urls})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(caller.Close)
	return caller
}

// TestRefusalsConcernNobodyElse: many race for few names. Each name is made
// once, whoever shares a log entry with whom.
func TestRefusalsConcernNobodyElse(t *testing.T) {
	const racers, names = 8, 25
	caller := callerOf(t, []*nameNode{single(t)})
	var made [names]atomic.Int64
	var wg sync.WaitGroup
	for name := range names {
		for range racers {
			wg.Go(func() {
				body := protocol.MkdirRequest{Path: fmt.Sprintf("/%d", name)}
				switch err := caller.Do(t.Context(), protocol.Mkdir, leader.Call{Body: body}); dfs.CodeOf(err) {
				case "":
					made[name].Add(1)
				case dfs.Exists:
				default:
					t.Errorf("name %d: %v", name, err)
				}
			})
		}
	}
	wg.Wait()
	for name := range made {
		if got := made[name].Load(); got != 1 {
			t.Errorf("name %d was made %d times", name, got)
		}
	}
}

// TestExactlyOnceWhileLeadersChange: the leadership moves while entries of
// several commands are on their way. Who is not told the outcome asks again; that
// a name is there already would mean that a command took effect twice.
func TestExactlyOnceWhileLeadersChange(t *testing.T) {
	const workers, changes, least = 24, 3, 40
	nodes := group(t, nil)
	caller := callerOf(t, nodes)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var done atomic.Int64
	over := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				path := fmt.Sprintf("/%d-%d", w, i)
				if err := caller.Do(ctx, protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{Path: path}}); err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for range changes {
		before := done.Load()
		waitUntil(t, "there is some work between two changes", func() bool { return done.Load() >= before+least || t.Failed() })
		old := waitLeader(t, nodes)
		heir := others(nodes, old)[0]
		if status, failure := old.call(http.MethodPost, "/cluster/transfer", protocol.MemberRequest{ID: heir.ID()}, nil); status >= 300 {
			t.Logf("the leadership did not move: %+v", failure) // somebody else has taken it
		}
	}
	close(over)
	wg.Wait()
}

// TestCommitsThatShareQuestions: of many commits at once, those whose chunks are
// where they should be succeed, and only those.
func TestCommitsThatShareQuestions(t *testing.T) {
	n := single(t)
	nodes := register(t, n, "dn1", "dn2", "dn3", "dn4")
	caller := callerOf(t, []*nameNode{n})
	var wg sync.WaitGroup
	for i := range 30 {
		allocation, commit := n.store(nodes, fmt.Sprintf("/f%d", i), "data")
		wrong := i%3 == 0
		if wrong {
			commit.Chunks[0].Size++
		}
		wg.Go(func() {
			err := caller.Do(t.Context(), protocol.CommitUpload, leader.Call{Args: []string{allocation.UploadID.String()}, Body: commit})
			if want := map[bool]dfs.Code{true: dfs.Invalid}[wrong]; dfs.CodeOf(err) != want {
				t.Errorf("commit %d: %v; want %q", i, err, want)
			}
		})
	}
	wg.Wait()
}
