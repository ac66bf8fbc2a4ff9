package chunkstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
)

// synced lists the directories that were fsynced, in order.
func (f *faults) synced() (dirs []string) {
	for _, done := range f.operations() {
		if name, ok := strings.CutPrefix(done, string(chunkstore.OpSyncDir)+" "); ok {
			dirs = append(dirs, name)
		}
	}
	return dirs
}

// A process that is killed between the rename and the fsync of the directory
// leaves a file that is seen but not durable.
func TestKilledBeforeTheDirectoryIsSynced(t *testing.T) {
	f, c, s := faulty(t)
	var image []byte
	f.reset(func(_ int, op chunkstore.Op, _ string) error {
		if op != chunkstore.OpSyncDir {
			return nil
		}
		var err error
		if image, err = os.ReadFile(chunkPath(c.Dirs[0], 7)); err != nil {
			t.Error(err)
		}
		return errors.New("killed")
	})
	if put(s, 7, content(7, 1000)) == nil {
		t.Fatal("acknowledged without an fsync")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, chunkPath(c.Dirs[0], 7), image) // what a killed process would have left
	f.reset(nil)
	s = open(t, c)
	checkHolds(t, s, 7, content(7, 1000))
	if got := f.synced(); !slices.Contains(got, "chunks/07") {
		t.Errorf("chunk 7 is held, and only these were fsynced: %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.reset(func(_ int, op chunkstore.Op, path string) error {
		if op == chunkstore.OpSyncDir && filepath.Base(path) == "07" {
			return errors.New("killed")
		}
		return nil
	})
	if _, err := tryOpen(c); err == nil {
		t.Error("chunks are believed in although their directory cannot be fsynced")
	}
}

// Whenever a first start dies, the next one makes durable what is still in
// doubt: every directory that was made, and all above the data directory.
func TestNewDirectoriesAreDurable(t *testing.T) {
	f := &faults{}
	top := t.TempDir()
	c := config(filepath.Join(top, "a", "b", "c"))
	c.Hook = f.hook
	all := []string{filepath.Base(filepath.Dir(top)) + "/" + filepath.Base(top), filepath.Base(top) + "/a", "a/b", "b/c", "c/chunks"}
	for at := 1; ; at++ {
		f.reset(func(n int, _ chunkstore.Op, _ string) error {
			if n >= at {
				return errors.New("killed")
			}
			return nil
		})
		s, err := tryOpen(c)
		if err == nil {
			if at <= len(all) {
				t.Errorf("a first start takes only %d operations", at-1)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		done := f.synced()
		if len(done) > 0 {
			done = done[:len(done)-1] // the last operation may be an fsync, and failed
		}
		_, err = os.Stat(filepath.Join(c.Dirs[0], "chunks"))
		begun := err == nil
		_, err = os.Stat(filepath.Join(c.Dirs[0], "identity.json"))
		finished := err == nil
		f.reset(nil)
		if s, err = tryOpen(c); err != nil {
			t.Fatal(err)
		}
		again := f.synced()
		for _, dir := range all {
			if !finished && !slices.Contains(done, dir) && !slices.Contains(again, dir) {
				t.Errorf("death at operation %d: %s was never fsynced, only %q and then %q", at, dir, done, again)
			}
		}
		if begun && !finished && !slices.Contains(again, "c/chunks") {
			t.Errorf("death at operation %d: the shards are not fsynced again, only %q", at, again)
		}
		if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(top, "a"))); err != nil {
			t.Fatal(err)
		}
	}
}
