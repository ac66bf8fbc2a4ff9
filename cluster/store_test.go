package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func newStore(t *testing.T, report func(error)) *diskStore {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "raft"), patience, report)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

func entriesUpTo(n uint64) []*raft.Log {
	var entries []*raft.Log
	for i := uint64(1); i <= n; i++ {
		entries = append(entries, &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: []byte{byte(i)}, Extensions: []byte("x")})
	}
	return entries
}

func TestStoreKeepsEntries(t *testing.T) {
	s := newStore(t, func(err error) { t.Error(err) })
	entries := entriesUpTo(20)
	if err := s.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(&raft.Log{Index: 21, Term: 1, Type: raft.LogNoop}); err != nil {
		t.Fatal(err)
	}
	if string(entries[0].Data) != "\x01" {
		t.Error("storing an entry changed it")
	}
	if err := s.DeleteRange(1, 10); err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 21; i++ {
		var got raft.Log
		err := s.GetLog(i, &got)
		switch {
		case i <= 10:
			if err != raft.ErrLogNotFound { // raft compares by identity
				t.Errorf("entry %d: error %v", i, err)
			}
		case err != nil || got.Index != i || i <= 20 && (!bytes.Equal(got.Data, []byte{byte(i)}) || string(got.Extensions) != "x"):
			t.Errorf("entry %d is %+v, error %v", i, got, err)
		}
	}
	if first, err := s.FirstIndex(); first != 11 || err != nil {
		t.Errorf("first index %d, error %v", first, err)
	}
	if err := errors.Join(s.Set([]byte("a"), []byte("b")), s.SetUint64([]byte("c"), 7)); err != nil {
		t.Fatal(err)
	}
	a, _ := s.Get([]byte("a"))
	c, _ := s.GetUint64([]byte("c"))
	if string(a) != "b" || c != 7 {
		t.Errorf("kept %q and %d", a, c)
	}
	if _, err := s.Get([]byte("none")); err == nil || err.Error() != "not found" { // raft compares the text
		t.Errorf("a missing key: error %v", err)
	}
}

// TestStoreFindsDamagedEntry changes each part of an entry behind the store's
// back.
func TestStoreFindsDamagedEntry(t *testing.T) {
	damage := map[string]func(*raft.Log){
		"data":       func(l *raft.Log) { l.Data[0] ^= 1 },
		"checksum":   func(l *raft.Log) { l.Data[len(l.Data)-1] ^= 1 },
		"cut off":    func(l *raft.Log) { l.Data = l.Data[:2] },
		"index":      func(l *raft.Log) { l.Index++ },
		"term":       func(l *raft.Log) { l.Term++ },
		"type":       func(l *raft.Log) { l.Type = raft.LogNoop },
		"extensions": func(l *raft.Log) { l.Extensions[0] ^= 1 },
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			var reported []error
			dir := t.TempDir()
			s := openForTest(t, dir)
			if err := errors.Join(s.StoreLogs(entriesUpTo(3)), s.close()); err != nil { // now bolt has them
				t.Fatal(err)
			}
			s, err := openStore(dir, patience, func(err error) { reported = append(reported, err) })
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			spoilEntry(t, s, 2, spoil)
			var got raft.Log
			if err := s.GetLog(1, &got); err != nil {
				t.Errorf("a good entry: %v", err)
			}
			wantCode(t, s.GetLog(2, &got), dfs.Corrupt)
			if len(reported) != 1 || !strings.Contains(reported[0].Error(), "join again") {
				t.Errorf("reported %v", reported)
			}
			wantCode(t, s.StoreLogs(entriesUpTo(4)[3:]), dfs.Internal)
			if len(reported) != 1 {
				t.Errorf("reported %v", reported)
			}
		})
	}
}

func spoilEntry(t *testing.T, s *diskStore, index uint64, spoil func(*raft.Log)) {
	t.Helper()
	var raw raft.Log
	if err := s.bolt.GetLog(index, &raw); err != nil {
		t.Fatal(err)
	}
	spoil(&raw)
	moved := raw
	moved.Index = index
	if raw.Index != index { // keep the place, change what is written there
		raw.Index = index
		sealed := seal(&raft.Log{Index: index + 1, Term: raw.Term, Type: raw.Type, Data: raw.Data[:len(raw.Data)-checksumSize], Extensions: raw.Extensions})
		moved.Data = sealed.Data
	}
	if err := s.bolt.StoreLog(&moved); err != nil {
		t.Fatal(err)
	}
}

func TestHangingDiskIsReported(t *testing.T) {
	reported := make(chan error, 2)
	s := newStore(t, func(err error) { reported <- err })
	s.timeout = 10 * time.Millisecond
	release := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- s.write("test", func() error { <-release; return nil })
	}()
	select {
	case err := <-reported:
		wantCode(t, err, dfs.Internal)
	case <-time.After(patience):
		t.Fatal("a write that hangs was not reported")
	}
	close(release)
	<-done
	wantCode(t, s.Set([]byte("a"), nil), dfs.Internal)
	if len(reported) > 0 {
		t.Errorf("reported again: %v", <-reported)
	}
}

func TestFailingDiskIsReported(t *testing.T) {
	reported := make(chan error, 2)
	s := newStore(t, func(err error) { reported <- err })
	if err := s.bolt.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.SetUint64([]byte("a"), 1), dfs.Internal)
	wantCode(t, s.StoreLogs(entriesUpTo(1)), dfs.Internal)
	if len(reported) != 1 {
		t.Errorf("reported %d times", len(reported))
	}
}

// TestFailingCarrierIsReported: what the journal has taken was acknowledged, but
// a store behind it that fails must not go unnoticed.
func TestFailingCarrierIsReported(t *testing.T) {
	reported := make(chan error, 2)
	s := newStore(t, func(err error) { reported <- err })
	if err := s.bolt.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs(entriesUpTo(1)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-reported:
		wantCode(t, err, dfs.Internal)
	case <-time.After(patience):
		t.Fatal("it was not reported")
	}
	wantCode(t, s.StoreLogs(entriesUpTo(2)[1:]), dfs.Internal)
	if len(reported) > 0 {
		t.Errorf("reported again: %v", <-reported)
	}
}

func TestDamagedStoreIsRefused(t *testing.T) {
	damage := map[string]func(t *testing.T, path string, size int64){
		"cut off": func(t *testing.T, path string, _ int64) {
			if err := os.Truncate(path, 4*int64(os.Getpagesize())); err != nil {
				t.Fatal(err)
			}
		},
		"too short for anything": func(t *testing.T, path string, _ int64) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		},
		"not bbolt": func(t *testing.T, path string, _ int64) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"all pages but the first overwritten": func(t *testing.T, path string, size int64) {
			page := int64(os.Getpagesize())
			overwrite(t, path, 2*page, bytes.Repeat([]byte{0xff}, int(size-2*page)))
		},
		"all pages but the first zeroed": func(t *testing.T, path string, size int64) {
			page := int64(os.Getpagesize())
			overwrite(t, path, 2*page, make([]byte, size-2*page))
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raft")
			s, err := openStore(dir, patience, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				entry := &raft.Log{Index: uint64(i + 1), Data: bytes.Repeat([]byte("d"), 1000)}
				if err := s.StoreLog(entry); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, storeName)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			spoil(t, path, info.Size())
			_, err = openStore(dir, patience, func(err error) { t.Error(err) })
			wantCode(t, err, dfs.Corrupt)
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), rejoinAdvice) {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if now, err := os.Stat(path); err != nil || now.Size() == 0 {
				t.Errorf("the damaged file was touched: %v, %v", now, err)
			}
		})
	}
}

func overwrite(t *testing.T, path string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
}

func TestLockedStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir, patience, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	_, err = openStore(dir, patience, func(err error) { t.Error(err) })
	wantCode(t, err, dfs.Conflict)
}

// TestUnfinishedCreation leaves what a crash in the middle of making the store
// leaves behind.
func TestUnfinishedCreation(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, storeTmpName), []byte("half a"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(dir, patience, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, storeTmpName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished file is still there: %v", err)
	}
	db, err := bbolt.Open(filepath.Join(dir, storeName), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
}

// TestSnapshotWithoutLog: a snapshot alone would make a member of one that has
// forgotten its votes, and what it acknowledged since.
func TestSnapshotWithoutLog(t *testing.T) {
	n := newNode(t, "nn1").start()
	leaderOf(t, n)
	if _, err := n.Apply(t.Context(), []byte("entry")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.stop()
	for _, gone := range []string{storeName, journalName} { // one, then both
		if err := os.Remove(filepath.Join(n.cfg.Dir, gone)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first try may make a new log
			err := n.open()
			wantCode(t, err, dfs.Corrupt)
			if err != nil && (!strings.Contains(err.Error(), rejoinAdvice) || !strings.Contains(err.Error(), "the Raft log is gone")) {
				t.Errorf("the error does not say what to do: %v", err)
			}
		}
	}
}

// FuzzLogRecord reads an entry of the Raft log from a disk that may have
// changed anything in it: what is accepted is what was sealed, and what was
// sealed is accepted.
func FuzzLogRecord(f *testing.F) {
	for _, l := range []*raft.Log{
		{Index: 7, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("x")},
		{Index: 1, Type: raft.LogNoop},
	} {
		sealed := seal(l)
		f.Add(l.Index, l.Index, l.Term, byte(l.Type), sealed.Data, l.Extensions)
		f.Add(l.Index+1, l.Index, l.Term, byte(l.Type), sealed.Data, l.Extensions)
		f.Add(l.Index, l.Index+1, l.Term, byte(l.Type), sealed.Data, l.Extensions)
		f.Add(l.Index, l.Index, l.Term, byte(l.Type), l.Data, l.Extensions)
	}
	f.Fuzz(func(t *testing.T, wanted, index, term uint64, kind byte, data, extensions []byte) {
		found := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: bytes.Clone(data), Extensions: extensions}
		if unseal(wanted, &found) == nil {
			if again := seal(&found); found.Index != wanted || !bytes.Equal(again.Data, data) {
				t.Fatalf("%x of entry %d was read as %x of %d", data, wanted, found.Data, found.Index)
			}
		}
		written := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: data, Extensions: extensions}
		read := *seal(&written)
		if err := unseal(index, &read); err != nil || !bytes.Equal(read.Data, data) || cap(read.Data) != len(data) {
			t.Fatalf("%x came back as %x, %v", data, read.Data, err)
		}
		for _, spoil := range []func(*raft.Log){
			func(l *raft.Log) { l.Index ^= 1 },
			func(l *raft.Log) { l.Term ^= 1 << 63 },
			func(l *raft.Log) { l.Type ^= 1 },
			func(l *raft.Log) { l.Data[len(l.Data)/2] ^= 0x80 },
			func(l *raft.Log) { l.Data = l.Data[:checksumSize-1] },
		} {
			spoilt := *seal(&written)
			spoil(&spoilt)
			if unseal(index, &spoilt) == nil {
				t.Fatalf("%+v is accepted", spoilt)
			}
		}
	})
}
