package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// TestRoomOfTheLog: blocks are taken before the log needs them, and when there
// are none left the log does not use up what terms and votes need.
func TestRoomOfTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var taken []int64
	var err error
	free := int64(roomLeft)
	r := &room{path: path, reserve: 100, free: func(string) (int64, error) { return free, nil }, take: func(_ string, length int64) error {
		taken = append(taken, length)
		return err
	}}
	grow := func(size int64) {
		t.Helper()
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func(wantFull bool, wantTaken ...int64) {
		t.Helper()
		taken = nil
		if full := r.look(); full != wantFull || len(taken) != len(wantTaken) || len(taken) > 0 && taken[0] != wantTaken[0] {
			t.Errorf("full: %t, taken: %v; want %t, %v", r.full.Load(), taken, wantFull, wantTaken)
		}
	}
	look(false) // there is no file yet
	grow(10)
	look(false, 110)
	look(false) // it has what it needs
	grow(60)
	look(false, 160)
	err = syscall.ENOSPC
	grow(70)
	look(true, 170)
	if err := r.admit(90); err != nil {
		t.Errorf("what was taken before may be used: %v", err)
	}
	wantCode(t, r.admit(91), dfs.NoSpace)
	grow(161)
	look(true, 261)
	wantCode(t, r.admit(0), dfs.NoSpace)
	err = syscall.EIO
	look(true, 261) // says nothing of the room
	err = nil
	look(false, 261)
	free--
	look(true)
	if err := r.admit(0); err != nil {
		t.Error(err)
	}
}

func TestFullDiskIsNoFailure(t *testing.T) {
	s := newStore(t, func(err error) { t.Errorf("reported: %v", err) })
	full := func(op string) error { return &os.PathError{Op: op, Path: "raft.db", Err: syscall.ENOSPC} }
	for _, op := range []string{"write", "truncate"} {
		wantCode(t, s.write("test", func() error { return full(op) }), dfs.NoSpace)
	}
	if err := s.StoreLogs(entriesUpTo(1)); err != nil {
		t.Errorf("after the disk was full for a while: %v", err)
	}
	reported := 0
	s = newStore(t, func(error) { reported++ })
	wantCode(t, s.write("test", func() error { return full("sync") }), dfs.Internal) // who knows what it has lost
	wantCode(t, s.write("test", func() error { return syscall.ENOSPC }), dfs.Internal)
	if reported != 1 {
		t.Errorf("reported %d times", reported)
	}
}

// TestFullLeaderHandsOver: the member whose disk is full does not lead for long,
// and leads again, if need be, when it has room.
func TestFullLeaderHandsOver(t *testing.T) {
	t.Parallel()
	var full atomic.Value // ID of the member without room
	full.Store(dfs.NodeID(""))
	nodes := newGroup(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.freeBytes = func(string) (int64, error) {
			if full.Load() == id {
				return 0, nil
			}
			return 1 << 30, nil
		}
	})
	leader := leaderOf(t, nodes...)
	full.Store(leader.cfg.ID)
	waitUntil(t, "the full leader to hand over", func() bool { return !leader.IsLeader() && leader.Room() != nil })
	wantCode(t, leader.Room(), dfs.Unavailable)
	next := leaderOf(t, others(nodes, leader)...)
	if err := next.Room(); err != nil {
		t.Errorf("the new leader: %v", err)
	}
	full.Store(dfs.NodeID(""))
	waitUntil(t, "there is room again", func() bool { return leader.Room() == nil })

	// The same again, sooner than a handover that was in vain would be repeated.
	waitUntil(t, "the first one leads again", func() bool { return next.Transfer(t.Context(), leader.cfg.ID) == nil || leader.IsLeader() })
	leaderOf(t, nodes...)
	again := time.Now()
	full.Store(leader.cfg.ID)
	waitUntil(t, "the full leader to hand over again", func() bool { return !leader.IsLeader() && leader.Room() != nil })
	if since := time.Since(again); since >= handoverPeriod {
		t.Errorf("it led for another %s", since)
	}
}

// TestFullLeaderTriesAgain: an attempt to hand over that fails is soon repeated,
// and until then nobody is told that there is no other.
func TestFullLeaderTriesAgain(t *testing.T) {
	t.Parallel()
	var full atomic.Value // ID of the member without room
	full.Store(dfs.NodeID(""))
	var attempts atomic.Int64
	nodes := newGroup(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.freeBytes = func(string) (int64, error) {
			if full.Load() == id {
				return 0, nil
			}
			return 1 << 30, nil
		}
		cfg.beforeHandOver = func() error {
			if attempts.Add(1) == 1 {
				return errors.New("nobody took over in time")
			}
			return nil
		}
	})
	leader := leaderOf(t, nodes...)
	since := time.Now()
	full.Store(leader.cfg.ID)
	waitUntil(t, "the first attempt", func() bool { return attempts.Load() > 0 })
	wantCode(t, leader.Room(), dfs.Unavailable)
	waitUntil(t, "the full leader to hand over", func() bool { return !leader.IsLeader() })
	if took := time.Since(since); took >= handoverPeriod {
		t.Errorf("it led for another %s", took)
	}
}

func TestFullAndAlone(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	full.Store(true)
	n := newNode(t, "nn1")
	n.cfg.freeBytes = func(string) (int64, error) {
		if full.Load() {
			return 0, nil
		}
		return 1 << 30, nil
	}
	n.start()
	leaderOf(t, n)
	waitUntil(t, "it says that nobody else can lead", func() bool { return dfs.CodeOf(n.Room()) == dfs.NoSpace })
	full.Store(false)
	waitUntil(t, "there is room again", func() bool { return n.Room() == nil })
}

// TestFullAmongFull: a full leader hands over to the one that has room, and when
// all are full the one that leads says so instead of passing it round.
func TestFullAmongFull(t *testing.T) {
	t.Parallel()
	var roomy atomic.Value // ID of the only member with room
	roomy.Store(dfs.NodeID(""))
	var full atomic.Bool
	nodes := newGroup(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.freeBytes = func(string) (int64, error) {
			if full.Load() && roomy.Load() != id {
				return 0, nil
			}
			return 1 << 30, nil
		}
	})
	leader := leaderOf(t, nodes...)
	last := others(nodes, leader)[1]
	roomy.Store(last.cfg.ID)
	full.Store(true)
	waitUntil(t, "the one with room to lead", func() bool { return last.IsLeader() && last.Room() == nil })
	roomy.Store(dfs.NodeID(""))
	waitUntil(t, "the leader to say that nobody has room", func() bool { return dfs.CodeOf(leaderOf(t, nodes...).Room()) == dfs.NoSpace })
	full.Store(false)
	waitUntil(t, "there is room again", func() bool { return leaderOf(t, nodes...).Room() == nil })
}
