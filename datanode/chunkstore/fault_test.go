package chunkstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// faults records operations and makes some of them fail.
type faults struct {
	mu    sync.Mutex
	done  []string
	count int
	fail  func(n int, op chunkstore.Op, path string) error // n counts from 1
}

func (f *faults) hook(op chunkstore.Op, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	f.done = append(f.done, string(op)+" "+filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path))
	if f.fail == nil {
		return nil
	}
	return f.fail(f.count, op, path)
}

func (f *faults) reset(fail func(n int, op chunkstore.Op, path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count, f.done, f.fail = 0, nil, fail
}

func (f *faults) operations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.done)
}

func faulty(t *testing.T) (*faults, chunkstore.Config, *chunkstore.Store) {
	t.Helper()
	return faultyIn(t, t.TempDir())
}

func faultyIn(t *testing.T, root string) (*faults, chunkstore.Config, *chunkstore.Store) {
	t.Helper()
	f := &faults{}
	c := config(root)
	c.Hook = f.hook
	return f, c, open(t, c)
}

// The order of the operations is what makes an acknowledged chunk durable.
func TestOrderOfWriting(t *testing.T) {
	f, c, s := faulty(t)
	f.reset(nil)
	mustPut(t, s, 0x2a, content(1, 10))
	got := strings.Join(f.operations(), "\n")
	want := strings.Join([]string{
		"create tmp/000000000000002a-1", "allocate tmp/000000000000002a-1",
		"write tmp/000000000000002a-1", "write tmp/000000000000002a-1", "sync file tmp/000000000000002a-1",
		"rename 2a/000000000000002a", "sync dir chunks/2a",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	checkNoTemp(t, c.Dirs[0])
}

// notOpened is the error of an fsync whose directory could not be opened.
func notOpened(err error) error {
	return &fs.PathError{Op: "open", Path: "a directory", Err: err}
}

func TestOneFailingOperation(t *testing.T) {
	failOp := func(which chunkstore.Op, err error) func(int, chunkstore.Op, string) error {
		return func(_ int, op chunkstore.Op, _ string) error {
			if op == which {
				return err
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		op       chunkstore.Op
		err      error
		code     dfs.Code
		unusable bool // afterwards
	}{
		"create":         {chunkstore.OpCreate, syscall.EMFILE, dfs.Internal, false},
		"create, full":   {chunkstore.OpCreate, syscall.ENOSPC, dfs.NoSpace, false},
		"read-only":      {chunkstore.OpCreate, syscall.EROFS, dfs.Internal, true},
		"allocate, full": {chunkstore.OpAllocate, syscall.ENOSPC, dfs.NoSpace, false},
		"quota":          {chunkstore.OpAllocate, syscall.EDQUOT, dfs.NoSpace, false},
		"write, full":    {chunkstore.OpWrite, syscall.ENOSPC, dfs.NoSpace, false},
		"write":          {chunkstore.OpWrite, syscall.EIO, dfs.Internal, true},
		"fsync":          {chunkstore.OpSyncFile, syscall.EIO, dfs.Internal, true},
		"fsync, full":    {chunkstore.OpSyncFile, syscall.ENOSPC, dfs.NoSpace, false},
		"fsync, quota":   {chunkstore.OpSyncFile, syscall.EDQUOT, dfs.NoSpace, false},
		"fsync, memory":  {chunkstore.OpSyncFile, syscall.ENOMEM, dfs.Internal, true},
		"rename":         {chunkstore.OpRename, syscall.EACCES, dfs.Internal, false},
		"rename, broken": {chunkstore.OpRename, syscall.EIO, dfs.Internal, true},
		"fsync dir":      {chunkstore.OpSyncDir, syscall.EIO, dfs.Internal, true},
		"dir, full":      {chunkstore.OpSyncDir, syscall.ENOSPC, dfs.NoSpace, false},
		"dir, no files":  {chunkstore.OpSyncDir, notOpened(syscall.EMFILE), dfs.Internal, false},
		"dir, no memory": {chunkstore.OpSyncDir, notOpened(syscall.ENOMEM), dfs.Internal, false},
		"dir, no open":   {chunkstore.OpSyncDir, notOpened(syscall.EIO), dfs.Internal, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, config, s := faulty(t)
			mustPut(t, s, 1, content(1, 1000))
			f.reset(failOp(c.op, c.err))
			checkCode(t, put(s, 2, content(2, 1000)), c.code)
			f.reset(nil)
			checkHeldNot(t, s, 2)
			checkNoTemp(t, config.Dirs[0])
			checkHolds(t, s, 1, content(1, 1000)) // reading goes on in any case
			if r := s.Report(10); !slices.Equal(r.Added, []dfs.ChunkID{1}) {
				t.Errorf("reported %+v", r)
			}
			if c.unusable {
				checkCode(t, put(s, 2, content(2, 1000)), dfs.Internal)
				checkCode(t, s.Writable(), dfs.Internal)
				for _, done := range f.operations() {
					if strings.HasPrefix(done, "sync") || strings.HasPrefix(done, "create") {
						t.Errorf("after a failed fsync: %s", done)
					}
				}
			} else {
				mustPut(t, s, 2, content(2, 1000))
			}
			s = reopen(t, s, config)
			checkHolds(t, s, 1, content(1, 1000))
			if c.unusable {
				checkHeldNot(t, s, 2)
			}
			mustPut(t, s, 2, content(2, 1000)) // a new start is a new chance
		})
	}
}

// The process may die before any operation. Afterwards every acknowledged chunk
// is there, nothing is half visible, and everything can be written again.
func TestDeathAtEachOperation(t *testing.T) {
	for _, size := range []int{100, 100_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			everyLayout(t, func(t *testing.T, layout string) { testDeathAtEachOperation(t, layout, size) })
		})
	}
}

func testDeathAtEachOperation(t *testing.T, layout string, size int) {
	for at := 1; ; at++ {
		root := another(t, layout)
		f, c, s := faultyIn(t, root)
		mustPut(t, s, 1, content(1, size))
		dead := errors.New("the process is dead")
		f.reset(func(n int, _ chunkstore.Op, _ string) error {
			if n >= at {
				return dead
			}
			return nil
		})
		acknowledged := map[dfs.ChunkID]bool{}
		for _, id := range []dfs.ChunkID{2, 0x102} {
			acknowledged[id] = put(s, id, content(id, size)) == nil
		}
		removed := s.Remove(1) == nil
		all := len(f.operations()) < at
		f.reset(nil)
		s = reopen(t, s, c)
		for id, acked := range acknowledged {
			if _, held := s.Stat(id); acked && !held {
				t.Fatalf("death at operation %d: chunk %s was acknowledged and is lost", at, id)
			} else if held {
				checkHolds(t, s, id, content(id, size))
			} else {
				mustPut(t, s, id, content(id, size))
			}
		}
		if !removed {
			checkHolds(t, s, 1, content(1, size))
		}
		checkNoTemp(t, root)
		if n := len(inAll(t, root, "quarantine")); n != 0 {
			t.Fatalf("death at operation %d: %d files in quarantine", at, n)
		}
		if all {
			return
		}
	}
}

func TestIdentityWriteFails(t *testing.T) {
	const cluster = dfs.ClusterID("0123456789abcdef0123456789abcdef")
	for _, op := range []chunkstore.Op{chunkstore.OpCreate, chunkstore.OpWrite, chunkstore.OpSyncFile, chunkstore.OpRename} {
		f, c, s := faulty(t)
		before := s.Identity()
		f.reset(func(_ int, o chunkstore.Op, _ string) error {
			if o == op {
				return syscall.EIO
			}
			return nil
		})
		checkCode(t, s.SetClusterID(cluster), dfs.Internal)
		if s.Identity() != before {
			t.Errorf("%s: believed without being written", op)
		}
		f.reset(nil)
		s = reopen(t, s, c)
		if got := s.Identity(); got.ClusterID != "" || got.Incarnation != before.Incarnation+1 {
			t.Errorf("%s: %+v", op, got)
		}
		checkCode(t, s.SetClusterID(cluster), "")
	}
}

func TestReadFaults(t *testing.T) {
	f, _, s := faulty(t)
	mustPut(t, s, 1, content(1, 100_000))
	for _, op := range []chunkstore.Op{chunkstore.OpOpen, chunkstore.OpRead} {
		f.reset(func(_ int, o chunkstore.Op, _ string) error {
			if o == op {
				return syscall.EIO
			}
			return nil
		})
		_, err := s.OpenChunk(1)
		checkCode(t, err, dfs.Internal)
		checkCode(t, s.Verify(1), dfs.Internal)
	}
	f.reset(nil)
	checkHolds(t, s, 1, content(1, 100_000)) // a failing read condemns nothing
}

func TestRemoveFails(t *testing.T) {
	f, _, s := faulty(t)
	mustPut(t, s, 1, content(1, 100))
	s.Acknowledge(s.Report(10))
	f.reset(func(_ int, op chunkstore.Op, _ string) error { return syscall.EIO })
	checkCode(t, s.Remove(1), dfs.Internal)
	f.reset(nil)
	checkHolds(t, s, 1, content(1, 100))
	if r := s.Report(10); r.Count != 1 || len(r.Removed) != 0 {
		t.Errorf("reported %+v", r)
	}
}

// What is found out about a file says nothing of the one that has taken its
// place meanwhile.
func TestVerdictOnAReplacedFile(t *testing.T) {
	data := content(1, 1000)
	c := config(t.TempDir())
	reading, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.Hook = func(op chunkstore.Op, _ string) error {
		if op == chunkstore.OpRead {
			once.Do(func() { close(reading); <-goOn })
		}
		return nil
	}
	s := open(t, c)
	mustPut(t, s, 1, data)
	truncate(t, chunkPath(c.Dirs[0], 1), 500)
	verdict := make(chan error)
	go func() { verdict <- s.Verify(1) }()
	<-reading
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, 1, data)
	close(goOn)
	checkCode(t, <-verdict, dfs.Corrupt)
	checkHolds(t, s, 1, data)
}
