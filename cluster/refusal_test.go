package cluster

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// follower is raft on a disk of its own. It never stands for election, and the
// test speaks for its peers A and B.
type follower struct {
	t     *testing.T
	dir   string
	raft  *raft.Raft
	store *diskStore
	fatal chan error
	peers map[string]*raft.InmemTransport
}

func newFollower(t *testing.T) *follower {
	t.Helper()
	f := &follower{t: t, dir: filepath.Join(t.TempDir(), "raft")}
	f.start(true)
	t.Cleanup(f.stop)
	return f
}

func (f *follower) start(first bool) {
	t := f.t
	t.Helper()
	f.fatal = make(chan error, 10)
	var err error
	if f.store, err = openStore(f.dir, patience, func(err error) { f.fatal <- err }); err != nil {
		t.Fatal(err)
	}
	files, err := raft.NewFileSnapshotStore(f.dir, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := snapshotStore{files}
	cache, err := raft.NewLogCache(logCacheSize, f.store)
	if err != nil {
		t.Fatal(err)
	}
	log := &rebasedLog{LogStore: cache}
	if err := log.rebaseAtStart(snapshots); err != nil {
		t.Fatal(err)
	}
	machine := &stateMachine{inner: &journal{}, log: log, report: func(err error) { f.fatal <- err }}
	_, transport := raft.NewInmemTransport("F")
	f.peers = make(map[string]*raft.InmemTransport)
	var servers []raft.Server
	for _, id := range []string{"A", "B", "F"} {
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		if id != "F" {
			_, peer := raft.NewInmemTransport(raft.ServerAddress(id))
			peer.Connect("F", transport)
			f.peers[id] = peer
		}
	}
	config := raft.DefaultConfig()
	config.LocalID = "F"
	config.HeartbeatTimeout, config.ElectionTimeout, config.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
	config.Logger = testLogger(t, "F")
	if first {
		if err := raft.BootstrapCluster(config, log, f.store, snapshots, transport, raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
	}
	if f.raft, err = newRaft(config, machine, log, f.store, snapshots, transport); err != nil {
		t.Fatal(err)
	}
}

func (f *follower) stop() {
	if f.raft == nil {
		return
	}
	if err := f.raft.Shutdown().Error(); err != nil {
		f.t.Error(err)
	}
	f.store.close()
	f.raft = nil
}

func (f *follower) restart() {
	f.t.Helper()
	f.stop()
	f.start(false)
}

func headerOf(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)}
}

// append has a leader send entries that follow one of prevTerm.
func (f *follower) append(from string, term, prevTerm uint64, entries ...*raft.Log) bool {
	f.t.Helper()
	var response raft.AppendEntriesResponse
	err := f.peers[from].AppendEntries("F", "F", &raft.AppendEntriesRequest{
		RPCHeader: headerOf(from), Term: term, PrevLogEntry: entries[0].Index - 1, PrevLogTerm: prevTerm, Entries: entries,
	}, &response)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.Success
}

// vote has a candidate, whose log ends with an entry, ask for a vote.
func (f *follower) vote(from string, term, last, lastTerm uint64) bool {
	f.t.Helper()
	var response raft.RequestVoteResponse
	err := f.peers[from].RequestVote("F", "F", &raft.RequestVoteRequest{RPCHeader: headerOf(from), Term: term, LastLogIndex: last, LastLogTerm: lastTerm}, &response)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.Granted
}

func entriesOf(term, first, last uint64) []*raft.Log {
	var entries []*raft.Log
	for i := first; i <= last; i++ {
		entries = append(entries, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: []byte("entry")})
	}
	return entries
}

// TestEntriesBehindAHoleAreNotAcknowledged: a follower deletes what contradicts
// the leader, and cannot store what is to take its place.
func TestEntriesBehindAHoleAreNotAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFollower(t)
	if !f.append("A", 3, 1, entriesOf(3, 2, 10)...) {
		t.Fatal("refused")
	}
	fillUp(f.store, true)
	if f.append("B", 5, 3, entriesOf(5, 5, 5)...) {
		t.Fatal("a full disk took an entry")
	}
	fillUp(f.store, false)
	select {
	case err := <-f.fatal:
		t.Log(err)
	case <-time.After(patience):
		t.Fatal("it goes on without knowing where its log ends")
	}
	f.restart()
	if f.append("A", 6, 3, entriesOf(6, 11, 11)...) {
		t.Error("entry 11 was acknowledged without those before it")
	}
	if !f.append("B", 7, 3, entriesOf(7, 5, 12)...) {
		t.Error("it takes nothing any more")
	}
}

// fillUp makes the disk of a store full, as far as the store knows.
func fillUp(s *diskStore, full bool) {
	s.room.taken.Store(0)
	s.room.full.Store(full)
}

// TestFullFollowerGoesOn: nothing is wrong when there was nothing to delete.
func TestFullFollowerGoesOn(t *testing.T) {
	t.Parallel()
	f := newFollower(t)
	fillUp(f.store, true)
	configuration := &raft.Log{Index: 2, Term: 3, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(f.raft.GetConfiguration().Configuration())}
	for _, entry := range []*raft.Log{entriesOf(3, 2, 2)[0], configuration} {
		if f.append("A", 3, 1, entry) {
			t.Fatal("a full disk took an entry")
		}
	}
	fillUp(f.store, false)
	if !f.append("A", 3, 1, configuration) {
		t.Error("refused although there is room")
	}
	if len(f.fatal) > 0 {
		t.Errorf("it gave up: %v", <-f.fatal)
	}
}

// TestHalfAVote: the power fails while a vote is written. What is left must not
// count as a vote for the candidate of an earlier term.
func TestHalfAVote(t *testing.T) {
	t.Parallel()
	votes := []struct {
		name  string
		write func(s *diskStore) error
	}{
		{"the term", func(s *diskStore) error { return s.SetUint64([]byte(keyVoteTerm), 7) }},
		{"the candidate", func(s *diskStore) error { return s.bolt.Set([]byte(keyVoteCandidate), []byte("B")) }},
	}
	for _, half := range votes {
		t.Run(half.name, func(t *testing.T) {
			f := newFollower(t)
			if !f.vote("A", 5, 1, 1) {
				t.Fatal("refused")
			}
			if !f.append("B", 6, 1, entriesOf(6, 2, 3)...) {
				t.Fatal("refused")
			}
			if err := f.store.SetUint64([]byte("CurrentTerm"), 7); err != nil {
				t.Fatal(err)
			}
			if err := half.write(f.store); err != nil {
				t.Fatal(err)
			}
			f.restart()
			if f.vote("A", 7, 1, 1) {
				t.Error("A got the vote of term 7, and its log lacks entries")
			}
			if !f.vote("B", 7, 3, 6) {
				t.Error("B did not get the vote")
			}
			f.restart()
			if f.vote("A", 7, 4, 6) {
				t.Error("two got the vote of term 7")
			}
		})
	}
}

// TestSnapshotWhereAContradictingLogEnds: the last entry of a follower has the
// index of the snapshot's end.
func TestSnapshotWhereAContradictingLogEnds(t *testing.T) {
	t.Parallel()
	for _, crash := range []bool{false, true} {
		name := "installed"
		if crash {
			name = "installed just before a crash"
		}
		t.Run(name, func(t *testing.T) {
			nodes := newGroup(t, 3, compact, func(c *Config) { c.SnapshotInterval = time.Hour })
			leader, next, lost, last, term := leftBehind(t, nodes)
			goOn(t, leader, next)
			var end uint64
			for _, n := range []*node{leader, next} {
				end = snapshot(t, n)
			}
			if end != next.raft.LastIndex() {
				t.Skipf("the snapshot ends at %d, the log at %d", end, next.raft.LastIndex())
			}
			appendOffline(t, lost, last, term, int(end-last))
			lost.start()
			err := <-lost.fatal
			t.Log(err)
			lost.stop()
			if crash { // as if it had come before the log was dealt with
				appendOffline(t, lost, last, term, int(end-last))
			}
			lost.start()
			awaitEntry(t, lost, "b29")
			applyMany(t, leaderOf(t, nodes...), "c", 3) // fewer than make another snapshot
			awaitEntry(t, lost, "c2")
			if got, want := lost.machine.entries(), next.machine.entries(); !slices.Equal(got, want) {
				t.Errorf("it holds %q instead of %q", got, want)
			}
		})
	}
}

// TestConfigurationThatCouldNotBeStored: the leader's disk is full when a member
// is to be removed.
func TestConfigurationThatCouldNotBeStored(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3)
	leader := leaderOf(t, nodes...)
	gone := others(nodes, leader)[0]
	ctx, cancel := testContext()
	defer cancel()

	fillUp(leader.store, true)
	err := leader.Remove(ctx, gone.cfg.ID)
	if code := dfs.CodeOf(err); code != dfs.Unavailable && code != dfs.NoSpace {
		t.Errorf("removing a member with a full disk: %v", err)
	}
	if len(leader.fatal) > 0 {
		t.Fatalf("the leader gave up: %v", <-leader.fatal)
	}
	fillUp(leader.store, false)

	// The disk fills up between that look and the write.
	leader = leaderOf(t, nodes...)
	gone = others(nodes, leader)[0]
	err = leader.change(ctx, func(m membership) (begin, error) {
		fillUp(leader.store, true)
		return func() raft.Future { return leader.raft.RemoveServer(raft.ServerID(gone.cfg.ID), m.index, 0) }, nil
	})
	if dfs.CodeOf(err) != dfs.UnknownOutcome {
		t.Errorf("removing a member that could not be stored: %v", err)
	}
	t.Log(<-leader.fatal)
	leader.stop()
	leader.start()
	applyMany(t, leaderOf(t, nodes...), "a", 1)
	for _, n := range nodes {
		awaitEntry(t, n, "a0")
		if members := n.servers(); len(members) != 3 {
			t.Errorf("%s sees %v", n.cfg.ID, members)
		}
	}
}
