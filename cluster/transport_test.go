package cluster

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// TestCommitIndexKeepsToTheEntries: a follower is told of commits up to the last
// entry of the request, whatever else its log holds.
func TestCommitIndexKeepsToTheEntries(t *testing.T) {
	open := func(id dfs.NodeID) *transport {
		s, _ := newTestStream(t, ready(id, clusterA))
		tr := newTransport(s, hclog.NewNullLogger())
		t.Cleanup(func() { tr.Close() })
		return tr
	}
	leader, follower := open("nn1"), open("nn2")
	cases := []struct {
		prev, entries, commit, want uint64
	}{
		{0, 0, 0, 0},  // a heartbeat
		{39, 0, 9, 9}, // an old commit
		{39, 0, 39, 39},
		{39, 0, 43, 39},
		{39, 2, 40, 40},
		{39, 2, 41, 41},
		{39, 2, 43, 41},
		{0, 3, 4, 3}, // a log from its beginning
	}
	received := make(chan uint64)
	go func() {
		for range 2 * len(cases) {
			select {
			case rpc := <-follower.Consumer():
				request := rpc.Command.(*raft.AppendEntriesRequest)
				rpc.Respond(&raft.AppendEntriesResponse{Term: request.Term, Success: true}, nil)
				received <- request.LeaderCommitIndex
			case <-t.Context().Done():
				return
			}
		}
	}()

	pipeline, err := leader.AppendEntriesPipeline("nn2", follower.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer pipeline.Close()
	ways := map[string]func(args *raft.AppendEntriesRequest) error{
		"alone": func(args *raft.AppendEntriesRequest) error {
			return leader.AppendEntries("nn2", follower.LocalAddr(), args, &raft.AppendEntriesResponse{})
		},
		"in a pipeline": func(args *raft.AppendEntriesRequest) error {
			future, err := pipeline.AppendEntries(args, &raft.AppendEntriesResponse{})
			if err != nil {
				return err
			}
			<-pipeline.Consumer()
			return future.Error()
		},
	}
	for name, send := range ways {
		for _, c := range cases {
			args := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: c.prev, PrevLogTerm: 2, LeaderCommitIndex: c.commit}
			for i := range c.entries {
				args.Entries = append(args.Entries, &raft.Log{Index: c.prev + 1 + i, Term: 3})
			}
			if err := send(args); err != nil {
				t.Fatalf("%s: %+v: %v", name, c, err)
			}
			if got := <-received; got != c.want {
				t.Errorf("%s: %+v: the follower is told %d", name, c, got)
			}
		}
	}
}
