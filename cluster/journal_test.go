package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/dfs-go/dfs-go/cluster/wal"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func openForTest(t *testing.T, dir string) *diskStore {
	t.Helper()
	s, err := openStore(dir, patience, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stopShort ends a store as a crash does: what the journal holds stays there.
func stopShort(t *testing.T, s *diskStore) {
	t.Helper()
	if err := errors.Join(s.log.Stop(), s.bolt.Close()); err != nil {
		t.Fatal(err)
	}
}

func wantEntries(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	from, err := s.FirstIndex()
	to, lastErr := s.LastIndex()
	if err = errors.Join(err, lastErr); err != nil || from != first || to != last {
		t.Fatalf("the log goes from %d to %d (%v) instead of %d to %d", from, to, err, first, last)
	}
	for i := max(first, 1); i <= last; i++ {
		var got raft.Log
		if err := s.GetLog(i, &got); err != nil || got.Index != i || !bytes.HasPrefix(got.Data, []byte{byte(i)}) {
			t.Fatalf("entry %d is %+v, %v", i, got, err)
		}
	}
}

func TestStoreAfterCrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	s := openForTest(t, dir)
	if err := errors.Join(s.StoreLogs(entriesUpTo(20)), s.SetUint64([]byte("term"), 7)); err != nil {
		t.Fatal(err)
	}
	stopShort(t, s)
	s = openForTest(t, dir)
	wantEntries(t, s, 1, 20)
	if err := s.DeleteRange(15, 20); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(entriesUpTo(16)[14:]); err != nil {
		t.Fatal(err)
	}
	stopShort(t, s)
	s = openForTest(t, dir)
	defer s.close()
	wantEntries(t, s, 1, 16)
	if term, err := s.GetUint64([]byte("term")); err != nil || term != 7 {
		t.Errorf("term %d, %v", term, err)
	}
}

// TestBrokenStoreWritesNothing, not even at its end.
func TestBrokenStoreWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s := openForTest(t, dir)
	for last := uint64(1); ; last++ {
		if err := s.StoreLogs(entriesUpTo(last)[last-1:]); err != nil {
			t.Fatal(err)
		}
		s.broken.Store(true)
		if s.log.Pending() > 0 {
			break
		}
		s.broken.Store(false) // it was carried just then
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if empty, err := wal.Empty(filepath.Join(dir, journalName)); empty || err != nil {
		t.Errorf("what the journal held was carried (%v)", err)
	}
}

// TestStoreOfEarlierVersion: a raft.db without a journal gets one, and after Close
// all is in raft.db again.
func TestStoreOfEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	if err := createStore(dir); err != nil {
		t.Fatal(err)
	}
	withBolt := func(f func(*raftboltdb.BoltStore)) {
		t.Helper()
		bolt, err := raftboltdb.New(boltOptions(filepath.Join(dir, storeName)))
		if err != nil {
			t.Fatal(err)
		}
		f(bolt)
		if err := bolt.Close(); err != nil {
			t.Fatal(err)
		}
	}
	withBolt(func(bolt *raftboltdb.BoltStore) {
		for _, e := range entriesUpTo(5) {
			if err := bolt.StoreLog(seal(e)); err != nil {
				t.Fatal(err)
			}
		}
	})
	s := openForTest(t, dir)
	wantEntries(t, s, 1, 5)
	if err := s.StoreLogs(entriesUpTo(9)[5:]); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	withBolt(func(bolt *raftboltdb.BoltStore) { wantEntries(t, bolt, 1, 9) })

	// A version without a journal goes on from there, and then this one again.
	withBolt(func(bolt *raftboltdb.BoltStore) {
		if err := bolt.StoreLogs([]*raft.Log{seal(entriesUpTo(10)[9])}); err != nil {
			t.Fatal(err)
		}
	})
	s = openForTest(t, dir)
	wantEntries(t, s, 1, 10)
	if err := s.StoreLogs(entriesUpTo(11)[10:]); err != nil {
		t.Fatal(err)
	}
	stopShort(t, s)

	// But not when the journal had something for it.
	withBolt(func(bolt *raftboltdb.BoltStore) {
		other := &raft.Log{Index: 11, Term: 2, Data: []byte("other")}
		if err := bolt.StoreLogs([]*raft.Log{seal(other)}); err != nil {
			t.Fatal(err)
		}
	})
	_, err := openStore(dir, patience, func(err error) { t.Error(err) })
	wantCode(t, err, dfs.Corrupt)
}

// TestUnfinishedJournal leaves what a crash leaves while raft.db gets its journal.
func TestUnfinishedJournal(t *testing.T) {
	dir := t.TempDir()
	s := openForTest(t, dir)
	if err := s.bolt.Set(journalKey, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	_, err := openStore(dir, patience, func(err error) { t.Error(err) })
	wantCode(t, err, dfs.Corrupt) // a name that is none

	dir = t.TempDir()
	openForTest(t, dir).close()
	if err := os.Remove(filepath.Join(dir, storeName)); err != nil {
		t.Fatal(err)
	}
	if err := createStore(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, journalName+".tmp"), []byte("half a"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openForTest(t, dir) // the journal is empty, and raft.db knows of none
	defer s.close()
	if err := s.StoreLogs(entriesUpTo(3)); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, s, 1, 3)
}

// TestDamagedJournalIsRefused: entries that were acknowledged must not be missing.
func TestDamagedJournalIsRefused(t *testing.T) {
	change := func(f func(journal []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, journalName)
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, f(data), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage := map[string]func(t *testing.T, dir string){
		"gone":                remove(journalName),
		"without raft.db":     remove(storeName),
		"cut off":             change(func(b []byte) []byte { return b[:len(b)/2] }),
		"empty":               change(func([]byte) []byte { return nil }),
		"of zeros":            change(func(b []byte) []byte { return make([]byte, len(b)) }),
		"too long":            change(func(b []byte) []byte { return append(b, 0) }),
		"first record":        change(func(b []byte) []byte { b[4096+50] ^= 1; return b }),
		"last record":         change(func(b []byte) []byte { b[bytes.LastIndex(b, []byte("RJL1"))-60] ^= 1; return b }),
		"zeros at the front":  change(func(b []byte) []byte { clear(b[4096:4608]); return b }),
		"that of another log": func(t *testing.T, dir string) { exchange(t, filepath.Join(dir, journalName)) },
		"raft.db of before":   func(t *testing.T, dir string) { exchange(t, filepath.Join(dir, storeName)) },
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raft")
			s := openForTest(t, dir)
			for i := range 10 {
				if err := s.StoreLogs(entriesUpTo(uint64(2*i + 2))[2*i:]); err != nil {
					t.Fatal(err)
				}
			}
			stopShort(t, s)
			spoil(t, dir)
			for range 2 { // the first try makes nothing better
				_, err := openStore(dir, patience, func(err error) { t.Error(err) })
				wantCode(t, err, dfs.Corrupt)
				if !strings.Contains(err.Error(), filepath.Join(dir, journalName)) || !strings.Contains(err.Error(), rejoinAdvice) {
					t.Errorf("the error does not say what to do: %v", err)
				}
			}
		})
	}
}

// exchange puts the file of another, new store in the place of path.
func exchange(t *testing.T, path string) {
	t.Helper()
	dir := t.TempDir()
	if filepath.Base(path) == storeName {
		if err := createStore(dir); err != nil {
			t.Fatal(err)
		}
	} else {
		openForTest(t, dir).close()
	}
	if err := os.Rename(filepath.Join(dir, filepath.Base(path)), path); err != nil {
		t.Fatal(err)
	}
}

const appenderDir = "DFS_TEST_APPENDER" // set in the process that is to be killed

// TestKilledStore kills a process that stores entries, again and again: those it
// has told of are there.
func TestKilledStore(t *testing.T) {
	if dir := os.Getenv(appenderDir); dir != "" {
		appendUntilKilled(t, dir)
	}
	dir := filepath.Join(t.TempDir(), "raft")
	for round := range 6 {
		told := killAppender(t, dir, 5+17*round)
		s := openForTest(t, dir)
		first, err := s.FirstIndex()
		last, lastErr := s.LastIndex()
		if err := errors.Join(err, lastErr); err != nil || last < told {
			t.Fatalf("the log goes from %d to %d (%v), and %d was acknowledged", first, last, err, told)
		}
		wantEntries(t, s, first, last)
		if term, err := s.GetUint64([]byte("term")); told >= 10 && (err != nil || term < told/10) {
			t.Fatalf("term %d (%v), and %d was acknowledged", term, err, told/10)
		}
		if round%2 == 0 {
			stopShort(t, s)
		} else if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAppender lets a process append so many entries, and returns the last one that
// it told of.
func killAppender(t *testing.T, dir string, count int) uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledStore$")
	cmd.Env = append(os.Environ(), appenderDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told uint64
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Errorf("it says %q", lines.Text())
			break
		}
		told = n
		if count--; count == 0 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it ended by itself")
	}
	return told
}

// appendUntilKilled stores entries, terms, and now and then deletes what is old, or
// the newest to store it again.
func appendUntilKilled(t *testing.T, dir string) {
	s := openForTest(t, dir)
	for {
		first, err := s.FirstIndex()
		last, lastErr := s.LastIndex()
		if err := errors.Join(err, lastErr); err != nil {
			t.Fatal(err)
		}
		next := last + 1
		switch {
		case next%10 == 0:
			err = s.SetUint64([]byte("term"), next/10)
		case next%23 == 0:
			err = s.DeleteRange(first, next-15)
		case next%31 == 0:
			err = errors.Join(s.DeleteRange(last, last), s.StoreLog(&raft.Log{Index: last, Data: []byte{byte(last)}}))
		}
		if err == nil {
			err = s.StoreLog(&raft.Log{Index: next, Data: bytes.Repeat([]byte{byte(next)}, int(next%7)*100+1)})
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(next)
	}
}

// TestRestartFromJournal: a member whose store could not be closed in good order
// goes on from its journal.
func TestRestartFromJournal(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nn1")
	compact(&n.cfg)
	n.start()
	for round := range 3 {
		leaderOf(t, n)
		applyMany(t, n, fmt.Sprintf("round%d-", round), 10)
		if round == 1 {
			snapshot(t, n)
		}
		applyMany(t, n, fmt.Sprintf("more%d-", round), 3)
		want := n.machine.entries()
		n.store.broken.Store(true) // so nothing is carried at the end
		n.stop()
		n.start()
		leaderOf(t, n)
		awaitEntry(t, n, fmt.Sprintf("more%d-2", round))
		if got := n.machine.entries(); !slices.Equal(got, want) {
			t.Fatalf("it holds %q instead of %q", got, want)
		}
	}
}
