package chunkstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func openInternal(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1, Unpacked: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitLoaded(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-s.Urgent() // that it is loaded is news
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestScrubStateIsKept(t *testing.T) {
	dir := t.TempDir()
	s := openInternal(t, dir)
	if state, err := s.LoadScrub(); err != nil || state != (ScrubState{}) {
		t.Fatalf("%+v, %v", state, err)
	}
	began := time.Date(2026, 11, 22, 9, 0, 0, 123, time.UTC)
	for _, want := range []ScrubState{
		{},
		{Started: began},
		{Started: began, After: 1<<64 - 1, Done: true, Chunks: 7, Bytes: 1 << 40, Damaged: 2},
		{Started: began, After: 42, Chunks: 1},
	} {
		if err := s.SaveScrub(want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.LoadScrub(); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := openInternal(t, dir).LoadScrub(); err != nil || got.After != 42 {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}

func TestScrubStateIsDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openInternal(t, dir)
	for _, text := range []string{
		"", "{", "[]", "{}", `{"format":2}`, `{"format":1,"after":"7"}`, `{"format":1,"after":"0000000000000000"}`, `{"format":1,"started":"yesterday"}`,
		`{"format":1,"chunks":-1}`, `{"format":1,"bytes":-1}`, `{"format":1,"damaged":-1}`, `{"format":1,"bytes":1e30}`, `{"format":1} x`,
	} {
		if err := os.WriteFile(filepath.Join(dir, scrubFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if state, err := s.LoadScrub(); dfs.CodeOf(err) != dfs.Corrupt || state != (ScrubState{}) {
			t.Errorf("%s: %+v, %v", text, state, err)
		}
	}
}

func FuzzDecodeScrub(f *testing.F) {
	f.Add([]byte(`{"format":1,"started":"2026-11-22T09:00:00Z","after":"000000000000002a","done":false,"chunks":1,"bytes":2,"damaged":0}`))
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		state, err := decodeScrub(content)
		if err == nil && (state.Chunks < 0 || state.Bytes < 0 || state.Damaged < 0) || err != nil && state != (ScrubState{}) {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

func TestRaiseTerm(t *testing.T) {
	dir := t.TempDir()
	s := openInternal(t, dir)
	check := func(term uint64, code dfs.Code, want uint64) {
		t.Helper()
		if err := s.RaiseTerm(term); dfs.CodeOf(err) != code || s.Identity().Term != want {
			t.Errorf("term %d: %v, %+v", term, err, s.Identity())
		}
	}
	check(0, "", 0)
	check(3, "", 3)
	check(3, "", 3)
	check(2, dfs.Conflict, 3)
	check(7, "", 7)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openInternal(t, dir)
	check(6, dfs.Conflict, 7)
	check(7, "", 7)
	check(1<<64-1, "", 1<<64-1)
}

func TestUrgent(t *testing.T) {
	s := openInternal(t, t.TempDir())
	check := func(want bool) {
		t.Helper()
		select {
		case <-s.Urgent():
			if !want {
				t.Error("nothing is urgent")
			}
		default:
			if want {
				t.Error("nobody is told")
			}
		}
	}
	for id := range dfs.ChunkID(3) {
		w, err := s.Create(id+1, 4)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(dfs.ChecksumOf([]byte("data"))); err != nil {
			t.Fatal(err)
		}
	}
	check(false) // new chunks can wait
	s.Hurry()
	s.Hurry()
	check(true)
	check(false)
	if err := s.Quarantine(1, "a test"); err != nil {
		t.Fatal(err)
	}
	check(true)
	if err := os.Remove(s.volumes[0].path(2)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(2); dfs.CodeOf(err) != dfs.Corrupt {
		t.Errorf("%v", err)
	}
	check(true)
	if err := s.Verify(3); err != nil {
		t.Error(err)
	}
	check(false)
}
