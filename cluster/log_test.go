package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// compact makes a member forget log entries soon.
func compact(c *Config) { c.SnapshotThreshold, c.TrailingLogs = 4, 4 }

func applyMany(t *testing.T, n *node, prefix string, count int) {
	t.Helper()
	ctx, cancel := testContext()
	defer cancel()
	for i := range count {
		if _, err := n.Apply(ctx, fmt.Appendf(nil, "%s%d", prefix, i)); err != nil {
			t.Fatal(err)
		}
	}
}

func snapshot(t *testing.T, n *node) uint64 {
	t.Helper()
	ctx, cancel := testContext()
	defer cancel()
	index, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func firstIndex(t *testing.T, n *node) uint64 {
	t.Helper()
	first, err := n.store.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func TestRestartFromCompactedLog(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1")
	compact(&n.cfg)
	n.start()
	leaderOf(t, n)
	applyMany(t, n, "a", 20)
	index := snapshot(t, n)
	if index < 20 || firstIndex(t, n) < 10 {
		t.Fatalf("snapshot at %d, log from %d", index, firstIndex(t, n))
	}
	if again := snapshot(t, n); again < index {
		t.Errorf("a second snapshot went from %d to %d", index, again)
	}
	applyMany(t, n, "b", 3)
	want := n.machine.entries()
	for range 2 {
		n.stop()
		n.start()
		leaderOf(t, n)
		if got := n.machine.entries(); !slices.Equal(got, want) {
			t.Fatalf("after a restart it holds %q instead of %q", got, want)
		}
	}
	if again := snapshot(t, n); again < index {
		t.Errorf("the snapshot after a restart is at %d, the one before at %d", again, index)
	}
}

func TestSnapshotOfNothing(t *testing.T) {
	t.Parallel()
	nodes := newPeers(t, 3)
	nodes[0].start()
	if index := snapshot(t, nodes[0]); index != 0 {
		t.Errorf("an empty member has a snapshot at %d", index)
	}
}

func TestFollowerCatchesUpBySnapshot(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3, compact)
	leader := leaderOf(t, nodes...)
	late := others(nodes, leader)[0]
	late.stop()
	applyMany(t, leader, "a", 30)
	for _, n := range others(nodes, late) {
		awaitEntry(t, n, "a29")
		snapshot(t, n)
	}
	if firstIndex(t, leader) < 10 {
		t.Fatal("the leader could still send the entries: this test shows nothing")
	}
	late.start()
	awaitEntry(t, late, "a29")
	if got := late.machine.entries(); len(got) != 30 {
		t.Errorf("it holds %q", got)
	}
	// It can lead from what it was given, and keep it.
	applyMany(t, leaderOf(t, nodes...), "b", 1)
	awaitEntry(t, late, "b0")
	want := late.machine.entries()
	late.stop()
	late.start()
	awaitEntry(t, late, "b0")
	if got := late.machine.entries(); !slices.Equal(got, want) {
		t.Errorf("after a restart it holds %q", got)
	}
	ctx, cancel := testContext()
	defer cancel()
	waitUntil(t, "the late one to lead", func() bool {
		if leader := leaderOf(t, nodes...); leader != late {
			_ = leader.Transfer(ctx, late.cfg.ID) // until it works
		}
		return late.IsLeader()
	})
	apply(t, nodes, "c")
	for _, n := range nodes {
		awaitEntry(t, n, "c")
		if !slices.Equal(n.machine.entries(), late.machine.entries()) {
			t.Errorf("%s holds %q", n.cfg.ID, n.machine.entries())
		}
	}
}

// TestSnapshotReplacesDivergentLog gives a follower entries that were never
// committed, beyond the end of the snapshot that it will get.
func TestSnapshotReplacesDivergentLog(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			nodes := newGroup(t, 3, compact)
			leader, next, lost, last, term := leftBehind(t, nodes)
			appendOffline(t, lost, last, term, 100)
			goOn(t, leader, next)
			for _, n := range []*node{leader, next} {
				snapshot(t, n)
			}
			lost.start()
			awaitEntry(t, lost, "b29")
			if restart {
				lost.stop()
				refuseConnections(t, lost, 12)
				lost.start()
			}
			// The leader still waits before it tries again, and then knows
			// of more commits than it had entries to send.
			applyMany(t, leaderOf(t, nodes...), "c", 10)
			awaitEntry(t, lost, "c9")
			if got, want := lost.machine.entries(), next.machine.entries(); !slices.Equal(got, want) {
				t.Errorf("it holds %q instead of %q", got, want)
			}
			if got := lost.raft.LastIndex(); got > next.raft.LastIndex() {
				t.Errorf("its log reaches to %d, that of the leader to %d", got, next.raft.LastIndex())
			}
		})
	}
}

// leftBehind stops a follower that holds all, and says where its log ends.
func leftBehind(t *testing.T, nodes []*node) (leader, next, lost *node, last, term uint64) {
	t.Helper()
	leader = leaderOf(t, nodes...)
	applyMany(t, leader, "a", 3)
	lost = others(nodes, leader)[0]
	next = others(others(nodes, leader), lost)[0]
	awaitEntry(t, lost, "a2")
	waitUntil(t, "the follower to hold all", func() bool { return lost.raft.LastIndex() == leader.raft.LastIndex() })
	last, term = lost.raft.LastIndex(), lost.Term()
	lost.stop()
	return leader, next, lost, last, term
}

// goOn has the next one lead and write what the leader of before then holds.
func goOn(t *testing.T, leader, next *node) {
	t.Helper()
	ctx, cancel := testContext()
	defer cancel()
	if err := leader.Transfer(ctx, next.cfg.ID); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the next one to lead", next.IsLeader)
	applyMany(t, next, "b", 30)
	awaitEntry(t, leader, "b29")
}

// refuseConnections takes the place of a stopped node until it was tried so
// many times that its peers take their time.
func refuseConnections(t *testing.T, n *node, count int) {
	t.Helper()
	listener, err := net.Listen("tcp", n.cfg.RaftAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range count {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// appendOffline writes entries as a leader of term would have, had it not lost
// its followers.
func appendOffline(t *testing.T, n *node, last, term uint64, count int) {
	t.Helper()
	s, err := openStore(n.cfg.Dir, patience, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		entry := &raft.Log{Index: last + 1 + uint64(i), Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "lost%d", i)}
		if err := s.StoreLog(entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func TestRebase(t *testing.T) {
	t.Parallel()
	type entry struct{ index, term uint64 }
	cases := []struct {
		name string
		end  snapshotEnd
		want []entry // what the log, from 1 to 20 in term 1, gives afterwards
	}{
		{"snapshot of the log", snapshotEnd{5, 1}, []entry{{1, 1}, {4, 1}, {5, 1}, {6, 1}, {20, 1}}},
		{"snapshot ahead of the log", snapshotEnd{30, 1}, []entry{{1, 0}, {20, 0}, {29, 0}, {30, 1}, {31, 0}}},
		{"snapshot of another log", snapshotEnd{5, 2}, []entry{{1, 0}, {4, 0}, {5, 2}, {6, 1}, {20, 1}}},
		{"snapshot right behind the log", snapshotEnd{21, 2}, []entry{{20, 0}, {21, 2}, {22, 0}}},
		{"nothing comes before the first entry", snapshotEnd{1, 2}, []entry{{1, 0}, {2, 1}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t, func(err error) { t.Error(err) })
			cache, err := raft.NewLogCache(logCacheSize, s)
			if err != nil {
				t.Fatal(err)
			}
			l := &rebasedLog{LogStore: cache}
			if err := l.StoreLogs(entriesUpTo(20)); err != nil {
				t.Fatal(err)
			}
			for range 2 { // again, as after a restart
				if err := l.rebase(c.end); err != nil {
					t.Fatal(err)
				}
				for _, want := range c.want {
					var got raft.Log
					err := l.GetLog(want.index, &got)
					if want.term == 0 && err != raft.ErrLogNotFound || want.term != 0 && (err != nil || got.Index != want.index || got.Term != want.term) {
						t.Errorf("entry %d is %+v, error %v", want.index, got, err)
					}
				}
			}
		})
	}
}

// TestDamagedSnapshotFallsBack damages the newest snapshot: the one before it
// and the log behind that one hold everything.
func TestDamagedSnapshotFallsBack(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1")
	n.cfg.SnapshotThreshold, n.cfg.TrailingLogs = 100, 100
	n.start()
	leaderOf(t, n)
	for _, prefix := range []string{"a", "b", "c"} {
		applyMany(t, n, prefix, 10)
		if prefix != "c" {
			snapshot(t, n)
		}
	}
	want := n.machine.entries()
	n.stop()
	states, err := filepath.Glob(filepath.Join(n.cfg.Dir, "snapshots", "*", "state.bin"))
	if err != nil || len(states) != 2 {
		t.Fatalf("snapshots %v, error %v", states, err)
	}
	slices.Sort(states)
	overwrite(t, states[1], 3, []byte{'#'})
	n.start()
	leaderOf(t, n)
	if got := n.machine.entries(); !slices.Equal(got, want) {
		t.Errorf("it holds %q", got)
	}
	n.stop()
	overwrite(t, states[0], 3, []byte{'#'})
	wantCode(t, n.open(), dfs.Corrupt)
}

func TestDamagedLogIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1").start()
	leaderOf(t, n)
	applyMany(t, n, "marker", 3)
	n.stop()
	path := filepath.Join(n.cfg.Dir, storeName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(data, []byte("marker1"))
	overwrite(t, path, int64(at), []byte("M"))
	// bbolt may still hold older copies of the page; damage all of them.
	for i := bytes.Index(data, []byte("marker1")); i >= 0 && i < at; {
		overwrite(t, path, int64(i), []byte("M"))
		next := bytes.Index(data[i+1:], []byte("marker1"))
		i += 1 + next
	}
	err = n.open()
	wantCode(t, err, dfs.Corrupt)
	if !strings.Contains(err.Error(), rejoinAdvice) {
		t.Errorf("the error does not say what to do: %v", err)
	}
	select {
	case err := <-n.fatal:
		t.Errorf("a failure to open was also reported as fatal: %v", err)
	default:
	}
}

func TestFailingRestoreIsFatal(t *testing.T) {
	t.Parallel()
	nodes := newGroup(t, 3, compact)
	leader := leaderOf(t, nodes...)
	late := others(nodes, leader)[0]
	late.stop()
	applyMany(t, leader, "a", 30)
	snapshot(t, leader)
	late.start()
	late.machine.mu.Lock()
	late.machine.fail = true
	late.machine.mu.Unlock()
	select {
	case err := <-late.fatal:
		wantCode(t, err, dfs.Corrupt)
	case <-time.After(patience):
		t.Fatal("a failing restore was not reported")
	}
	apply(t, others(nodes, late), "b")
	if _, err := late.Apply(context.Background(), nil); err == nil {
		t.Error("it goes on after a failing restore")
	}
}
