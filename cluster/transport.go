package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	maxPooledConnections = 3 // for each peer
	rpcTimeout           = 10 * time.Second
	maxAppendEntries     = 256
)

// transport is raft's own, with four changes. One is in pipeline.go.
//
// A follower hears of no commit beyond the entries that it was asked about. See
// bound.
//
// Heartbeats take the same way as all other messages. Raft's fast path handles
// them beside the main loop, where they can raise the term behind the back of
// a node that has just won an election (hashicorp/raft#695).
//
// It remembers when each peer last acknowledged this leader, by the time the
// question was sent. Raft's VerifyLeader also counts an answer to a question
// that was under way already when it was called: a leader that was paused for
// longer than an election would find such answers in its sockets, and take
// itself for the leader still.
type transport struct {
	*raft.NetworkTransport

	clock atomic.Uint64 // counts events; orders them without trusting a wall clock
	mu    sync.Mutex
	acks  map[raft.ServerID]ack // guarded by mu
	next  chan struct{}         // closed at the next acknowledgement; nil when nobody waits for it; guarded by mu
}

// ack says that a peer was in term, and not in a later one, at some moment
// after the event numbered sent.
type ack struct {
	term uint64
	sent uint64
}

func newTransport(s *stream, logger hclog.Logger) *transport {
	return &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:  s,
			MaxPool: maxPooledConnections,
			Timeout: rpcTimeout,
			Logger:  logger,
		}),
		acks: make(map[raft.ServerID]ack),
	}
}

// SetHeartbeatHandler does nothing, which raft.Transport allows.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries also carries the heartbeats.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	bound(args)
	sent := t.now()
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Success && resp.Term <= args.Term {
		t.acknowledge(id, ack{term: args.Term, sent: sent})
	}
	return err
}

// bound keeps the commit index within what the request compares: "the index of
// the last new entry", as the Raft paper has it in figure 2. Raft takes the end
// of the follower's log instead, and sends a commit index that is newer than the
// entries beside it, by as much as it waited before it tried a peer again. After
// a snapshot a follower may hold more entries than the request speaks of, that
// were never committed: it would apply them.
func bound(args *raft.AppendEntriesRequest) {
	args.LeaderCommitIndex = min(args.LeaderCommitIndex, args.PrevLogEntry+uint64(len(args.Entries)))
}

func (t *transport) acknowledge(id raft.ServerID, a ack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.sent <= t.acks[id].sent {
		return
	}
	t.acks[id] = a
	if t.next != nil {
		close(t.next)
		t.next = nil
	}
}

// heard returns a channel that is closed when a peer acknowledges something anew.
func (t *transport) heard() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = make(chan struct{})
	}
	return t.next
}

func (t *transport) now() uint64 { return t.clock.Add(1) }

// majoritySince tells whether a majority of the voters, self among them,
// acknowledged the leader of term in answer to a question sent after since.
func (t *transport) majoritySince(since, term uint64, self raft.ServerID, c raft.Configuration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	voters, votes := 0, 0
	for _, s := range c.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if a := t.acks[s.ID]; s.ID == self || a.term == term && a.sent > since {
			votes++
		}
	}
	return votes > voters/2
}
