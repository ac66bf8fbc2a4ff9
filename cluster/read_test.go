package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestReadIndex(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()
	if err := leader.ReadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range others(nodes, leader) {
		wantCode(t, n.ReadIndex(ctx), dfs.NotLeader)
	}
	alone := newNode(t, "nn9").start()
	leaderOf(t, alone)
	if err := alone.ReadIndex(ctx); err != nil {
		t.Errorf("a group of one: %v", err)
	}
}

// TestReadsSeeAcknowledgedEntries changes the leader again and again while
// entries are applied and, each time one is acknowledged, read back through
// every node that is willing to answer.
func TestReadsSeeAcknowledgedEntries(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	ctx, cancel := testContext()
	defer cancel()
	var acknowledged, reads atomic.Int64
	stop := make(chan struct{})
	var tasks sync.WaitGroup
	for writer := range 3 {
		tasks.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				entry := fmt.Sprintf("%d-%d", writer, i)
				if !applyAnywhere(ctx, nodes, entry) {
					continue
				}
				acknowledged.Add(1)
				for _, n := range nodes {
					if n.ReadIndex(ctx) != nil {
						continue
					}
					reads.Add(1)
					if !slices.Contains(n.machine.entries(), entry) {
						t.Errorf("%s does not hold the acknowledged entry %s", n.cfg.ID, entry)
						return
					}
				}
			}
		})
	}
	for range 4 {
		seen := reads.Load()
		waitUntil(t, "reads", func() bool { return reads.Load() > seen+20 })
		// A leader that is not one any longer is no failure of the transfer.
		if err := leaderOf(t, nodes...).Transfer(ctx, ""); err != nil && dfs.CodeOf(err) != dfs.NotLeader && dfs.CodeOf(err) != dfs.Unavailable {
			t.Error(err)
		}
	}
	close(stop)
	tasks.Wait()
	t.Logf("%d entries acknowledged, %d reads", acknowledged.Load(), reads.Load())
}

// applyAnywhere tells whether some node acknowledged entry.
func applyAnywhere(ctx context.Context, nodes []*node, entry string) bool {
	for _, n := range nodes {
		if _, err := n.Apply(ctx, []byte(entry)); err == nil {
			return true
		}
	}
	return false
}

func TestReadRoundsAreShared(t *testing.T) {
	t.Parallel()
	var tasks sync.WaitGroup
	begun, release := make(chan struct{}), make(chan error)
	var rounds atomic.Int32
	q := readRounds{
		spawn: func(f func()) bool { tasks.Go(f); return true },
		check: func() error {
			rounds.Add(1)
			begun <- struct{}{}
			return <-release
		},
	}
	ctx, cancel := testContext()
	defer cancel()
	first := make(chan error)
	go func() { first <- q.join(ctx) }()
	<-begun

	// These come while the first round is under way: it may have begun before
	// what they must see, so they share the next one.
	const readers = 10
	later := make(chan error)
	for range readers {
		go func() { later <- q.join(ctx) }()
	}
	waitUntil(t, "a second round to be asked for", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.next != nil
	})
	release <- nil
	if err := <-first; err != nil {
		t.Error(err)
	}
	<-begun
	select {
	case err := <-later:
		t.Fatalf("a read got the answer of a round that began before it: %v", err)
	default:
	}
	lost := errors.New("not the leader")
	late := 0
	for got := 0; got < readers; {
		select {
		case release <- lost:
		case <-begun: // for readers that were not yet in line for the second round
			late++
		case err := <-later:
			got++
			if !errors.Is(err, lost) {
				t.Errorf("a read got %v", err)
			}
		}
	}
	tasks.Wait()
	if got := int(rounds.Load()); got != 2+late {
		t.Errorf("%d rounds", got)
	}
}

func TestReadRoundEndsWithItsReader(t *testing.T) {
	t.Parallel()
	var tasks sync.WaitGroup
	release := make(chan struct{})
	q := readRounds{
		spawn: func(f func()) bool { tasks.Go(f); return true },
		check: func() error { <-release; return nil },
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantCode(t, q.join(ctx), dfs.Timeout)
	close(release)
	tasks.Wait()
	q.spawn = func(func()) bool { return false }
	wantCode(t, q.join(context.Background()), dfs.NotLeader)
}

func TestMajoritySince(t *testing.T) {
	t.Parallel()
	configuration := raft.Configuration{Servers: []raft.Server{
		{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d", Suffrage: raft.Nonvoter}, {ID: "e", Suffrage: raft.Nonvoter},
	}}
	const since, term = 100, 5
	cases := []struct {
		name string
		acks map[raft.ServerID]ack
		want bool
	}{
		{"nobody", nil, false},
		{"one of two", map[raft.ServerID]ack{"b": {term, 101}}, true},
		{"asked before", map[raft.ServerID]ack{"b": {term, 99}, "c": {term, 100}}, false},
		{"in another term", map[raft.ServerID]ack{"b": {4, 101}, "c": {6, 101}}, false},
		{"without a vote", map[raft.ServerID]ack{"d": {term, 101}, "e": {term, 101}}, false},
		{"no member any longer", map[raft.ServerID]ack{"x": {term, 101}, "y": {term, 101}}, false},
	}
	for _, c := range cases {
		tr := &transport{acks: make(map[raft.ServerID]ack)}
		for id, a := range c.acks {
			tr.acknowledge(id, a)
		}
		if got := tr.majoritySince(since, term, "a", configuration); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	tr := &transport{acks: make(map[raft.ServerID]ack)}
	tr.acknowledge("b", ack{6, 102})
	tr.acknowledge("b", ack{5, 101}) // a late answer
	if tr.majoritySince(since, 5, "a", configuration) || !tr.majoritySince(since, 6, "a", configuration) {
		t.Error("a late answer took the place of a newer one")
	}
}

// TestDeposedLeaderRefusesReads cuts off a leader that would go on believing in
// itself for very long.
func TestDeposedLeaderRefusesReads(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	old := nodes[0]
	for _, n := range nodes {
		n.cfg.Timing = calmTiming() // the others must not depose it before it is cut off
	}
	old.cfg.Timing = timing(patience)
	for _, n := range nodes {
		n.start()
	}
	elect(t, nodes)
	awaitCluster(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()
	waitUntil(t, "nn1 to lead", func() bool {
		if leader := leaderOf(t, nodes...); leader != old {
			_ = leader.Transfer(ctx, "nn1") // until it works
		}
		return old.IsLeader()
	})
	if err := old.ReadIndex(ctx); err != nil {
		t.Fatal(err)
	}
	old.stream.Close()
	apply(t, nodes[1:], "a")
	if !old.IsLeader() {
		t.Fatal("the old leader knows that it is deposed: this test shows nothing")
	}
	short, end := context.WithTimeout(ctx, 200*time.Millisecond)
	defer end()
	if err := old.ReadIndex(short); err == nil {
		t.Error("a deposed leader allows a read")
	}
	old.Group.fatal(errors.New("enough")) // or Close waits until it steps down
}

// TestAnswersFromBeforeAPauseConfirmNothing does to a leader what stopping its
// process for some seconds does: answers of its followers wait in its sockets,
// a new leader is elected, and then a read and the old answers come in together.
func TestAnswersFromBeforeAPauseConfirmNothing(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	old := nodes[0]
	// The old leader believes in itself for long, but sends heartbeats often
	// enough (every tenth of its timeout, or twice that) for its followers.
	for _, n := range nodes {
		n.cfg.Timing = timing(6 * time.Second)
	}
	old.cfg.Timing = timing(16 * time.Second)
	toOld := putBehindLink(t, old, "")
	links := []*pausableLink{putBehindLink(t, nodes[1], "nn1"), putBehindLink(t, nodes[2], "nn1")}
	for _, n := range nodes {
		n.start()
	}
	elect(t, nodes)
	awaitCluster(t, nodes...)
	ctx, cancel := testContext()
	defer cancel()
	waitUntil(t, "nn1 to lead", func() bool {
		if leader := leaderOf(t, nodes...); leader != old {
			_ = leader.Transfer(ctx, "nn1") // until it works
		}
		return old.IsLeader()
	})
	toOld.swallowQuestions()
	for _, l := range links {
		l.holdAnswers()
	}
	for _, l := range links {
		waitUntil(t, "an answer to wait", l.hasHeldAnswer)
	}
	for _, l := range links {
		l.swallowQuestions()
	}
	apply(t, nodes[1:], "a")
	result := make(chan error, 1)
	go func() { result <- old.ReadIndex(ctx) }()
	waitUntil(t, "the read to be under way", func() bool {
		old.reads.mu.Lock()
		defer old.reads.mu.Unlock()
		return old.reads.running && old.reads.next == nil
	})
	time.Sleep(20 * time.Millisecond) // for raft to have counted what it has; the result must be the same without
	for _, l := range links {
		l.releaseAnswers()
	}
	select {
	case err := <-result:
		if err == nil {
			t.Errorf("a deposed leader allows a read; it holds %q", old.machine.entries())
		}
	case <-time.After(time.Second): // it asks on, and nobody answers
	}
	old.Group.fatal(errors.New("enough")) // or Close waits until it steps down
}

// pausableLink is a proxy in front of one node. It can hold up what goes between
// the node and one dialler, or all with the ID "", once the handshake is over.
type pausableLink struct {
	dialler dfs.NodeID
	mu      sync.Mutex
	changed *sync.Cond
	hold    bool // answers wait
	swallow bool // questions vanish
	held    int  // answers that wait
}

// putBehindLink lets a node that was not started yet be reached through a link
// only.
func putBehindLink(t *testing.T, n *node, dialler dfs.NodeID) *pausableLink {
	t.Helper()
	l := &pausableLink{dialler: dialler}
	l.changed = sync.NewCond(&l.mu)
	outside := n.cfg.Listener
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.cfg.Listener = inside
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	tasks.Go(func() {
		for {
			conn, err := outside.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { l.forward(ctx, conn, inside.Addr().String()) })
		}
	})
	t.Cleanup(func() {
		cancel()
		outside.Close()
		inside.Close()
		l.releaseAnswers()
		tasks.Wait()
	})
	return l
}

func (l *pausableLink) forward(ctx context.Context, from net.Conn, addr string) {
	defer from.Close()
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() { from.Close(); to.Close() })()
	body, err := readFrame(from)
	if err != nil {
		return
	}
	h, err := parseHello(body)
	if err != nil {
		return
	}
	if _, err := to.Write(frame(body)); err != nil {
		return
	}
	ours := h.kind == kindRaft && (h.id == l.dialler || l.dialler == "")
	var answers sync.WaitGroup
	answers.Go(func() {
		defer from.Close()
		l.pump(from, to, func() bool { l.waitWhileHeld(ours); return true })
	})
	l.pump(to, from, func() bool { return !ours || !l.swallows() })
	to.Close()
	answers.Wait()
}

// pump copies until an end; forward decides about each piece.
func (l *pausableLink) pump(to io.Writer, from io.Reader, forward func() bool) {
	piece := make([]byte, 4096)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		if forward() {
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
	}
}

func (l *pausableLink) waitWhileHeld(ours bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ours || !l.hold {
		return
	}
	l.held++
	for l.hold {
		l.changed.Wait()
	}
}

func (l *pausableLink) swallows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.swallow
}

func (l *pausableLink) hasHeldAnswer() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held > 0
}

func (l *pausableLink) holdAnswers()      { l.set(func() { l.hold = true }) }
func (l *pausableLink) swallowQuestions() { l.set(func() { l.swallow = true }) }
func (l *pausableLink) releaseAnswers()   { l.set(func() { l.hold = false }) }

func (l *pausableLink) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.changed.Broadcast()
}
