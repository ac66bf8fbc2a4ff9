package namenode_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
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

// cuttable is a Raft port whose connections can be cut all at once.
type cuttable struct {
	net.Listener

	mu   sync.Mutex
	open map[net.Conn]bool // guarded by mu; nil while cut
}

func (c *cuttable) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		if c.open != nil {
			c.open[conn] = true
			c.mu.Unlock()
			return conn, nil
		}
		c.mu.Unlock()
		conn.Close()
	}
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
	c.open = nil
}

func (c *cuttable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = make(map[net.Conn]bool)
}

// TestExactlyOnceWhileLeadersChange: leaders lose their followers while entries
// of several commands are on their way, so that nobody can say what becomes of
// those. Whoever asks again gets the first answer: that a name is there already
// would mean that a command took effect twice.
func TestExactlyOnceWhileLeadersChange(t *testing.T) {
	t.Parallel() // it waits
	const workers, changes, least = 24, 3, 40
	var ports []*cuttable
	nodes := group(t, func(c *namenode.Config) {
		port := &cuttable{Listener: c.RaftListener, open: make(map[net.Conn]bool)}
		ports = append(ports, port)
		c.RaftListener = port
		c.Timing = timing(2 * time.Second) // whoever leads does
	})
	caller := callerOf(t, nodes)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
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
		for _, port := range ports {
			port.cut()
		}
		waitUntil(t, "nobody leads", func() bool { return leaderOf(nodes) == nil })
		for _, port := range ports {
			port.mend()
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

// TestLonelyLeaderDeniesNothing: a leader without followers that still believes
// in itself may not know of chunks that another one has allocated. It must not
// call a commit wrong for them, which would be the end of the upload.
func TestLonelyLeaderDeniesNothing(t *testing.T) {
	t.Parallel()
	nodes := group(t, func(c *namenode.Config) {
		if c.ID == "nn1" {
			c.Timing = timing(12 * time.Second)
		}
	})
	lonely := nodes[0]
	waitUntil(t, "nn1 leads", func() bool {
		leads := leaderOf(nodes)
		if leads != nil && leads != lonely {
			leads.call(http.MethodPost, "/cluster/transfer", protocol.MemberRequest{ID: "nn1"}, nil) // until it works
		}
		return leads == lonely
	})
	allocation, commit := lonely.store(register(t, lonely, "dn1", "dn2", "dn3"), "/f", "data")
	commit.Chunks[0].ID++
	for _, follower := range nodes[1:] {
		follower.stop()
	}
	var state protocol.LeaderReply
	if lonely.must(http.MethodGet, "/leader", nil, &state); state.Leader == nil || state.Leader.ID != "nn1" {
		t.Fatal("nn1 knows that it is alone: this test shows nothing")
	}
	_, failure := lonely.call(http.MethodPost, "/uploads/"+allocation.UploadID.String()+"/commit", commit, nil)
	if failure.Code == "" || failure.Code == dfs.Invalid {
		t.Errorf("%q: %s", failure.Code, failure.Message)
	}
}
