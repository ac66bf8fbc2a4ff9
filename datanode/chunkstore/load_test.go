package chunkstore_test

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestUseWhileLoading(t *testing.T) { fileLayouts(t, testUseWhileLoading) }

func testUseWhileLoading(t *testing.T, root string) {
	c := config(root)
	s := open(t, c)
	for id := dfs.ChunkID(1); id <= 5; id++ {
		mustPut(t, s, id, content(id, 1000))
	}
	whole := s.Totals()
	shut(t, s)
	truncate(t, chunkPath(root, 5), 10)
	goOn, begun := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.Hook = func(op chunkstore.Op, _ string) error {
		if op == chunkstore.OpOpen {
			once.Do(func() { close(begun) })
			<-goOn
		}
		return nil
	}
	s, err := chunkstore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	<-begun
	select {
	case <-s.Loaded():
		t.Error("loaded although the disk hangs")
	default:
	}
	checkCode(t, s.Ready(), dfs.Unavailable)
	checkCode(t, s.Writable(), dfs.Unavailable)
	_, err = s.Create(1, 10)
	checkCode(t, err, dfs.Unavailable)
	_, err = s.OpenChunk(1)
	checkCode(t, err, dfs.Unavailable)
	for _, id := range []dfs.ChunkID{1, 99} {
		checkCode(t, s.Verify(id), dfs.Unavailable)
		checkCode(t, s.Remove(id), dfs.Unavailable)
		checkCode(t, s.Quarantine(id, "a test"), dfs.Unavailable)
	}
	if _, held := s.Stat(1); held || len(s.List(0, 10)) > 0 {
		t.Error("chunks are known before they are read")
	}
	if id := s.Identity(); id.Incarnation != 2 {
		t.Errorf("%+v", id)
	}
	checkCode(t, s.RaiseTerm(3), "") // the node is there already
	early := s.Report(10)
	if early.Count != 0 || early.Digest != (dfs.Digest(0)) || len(early.Added)+len(early.Removed)+len(early.Corrupt) > 0 || early.More {
		t.Errorf("reported %+v", early)
	}
	s.Probe()
	close(goOn)
	<-s.Loaded()
	checkCode(t, s.Ready(), "")
	<-s.Urgent()
	s.Acknowledge(early) // late, and of no meaning any more
	if got := s.Totals(); got.Count != 4 || got.Digest != whole.Digest.Remove(5) {
		t.Errorf("%+v", got)
	}
	r := s.Report(10)
	if r.Count != 4 || r.Digest != s.Totals().Digest || len(r.Added)+len(r.Removed) > 0 || len(r.Corrupt) != 1 || r.Corrupt[0] != 5 {
		t.Errorf("reported %+v", r)
	}
	checkHolds(t, s, 1, content(1, 1000))
	mustPut(t, s, 5, content(5, 1000))
}

func TestCloseWhileLoading(t *testing.T) {
	root := t.TempDir()
	c := config(root)
	s := open(t, c)
	for id := dfs.ChunkID(1); id <= 50; id++ {
		mustPut(t, s, id, content(id, 100))
	}
	shut(t, s)
	goOn, begun := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.Hook = func(op chunkstore.Op, _ string) error {
		if op == chunkstore.OpOpen {
			once.Do(func() { close(begun) })
			<-goOn
		}
		return nil
	}
	s, err := chunkstore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	close(goOn)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	<-s.Loaded()
	checkCode(t, s.Ready(), dfs.Unavailable)
	c.Hook = nil
	if got := open(t, c).Totals().Count; got != 50 {
		t.Errorf("%d chunks", got)
	}
}

func TestLoadFails(t *testing.T) {
	f, c, s := faulty(t)
	mustPut(t, s, 1, content(1, 100))
	shut(t, s)
	f.reset(func(_ int, op chunkstore.Op, path string) error {
		if op == chunkstore.OpOpen {
			return &os.PathError{Op: "open", Path: path, Err: syscall.EACCES}
		}
		return nil
	})
	s, err := chunkstore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	<-s.Loaded()
	checkCode(t, s.Ready(), dfs.Invalid)
	_, err = s.Create(1, 10)
	checkCode(t, err, dfs.Invalid)
	shut(t, s)
	if left := files(t, filepath.Join(c.Dirs[0], "quarantine")); len(left) > 0 {
		t.Errorf("in quarantine: %v", left)
	}
}

func TestDirectoryGoesWhileLoading(t *testing.T) {
	c := severalDirs(t)
	s := open(t, c)
	where := fill(t, s, c)
	shut(t, s)
	goOn := make(chan struct{})
	c.Hook = func(op chunkstore.Op, _ string) error {
		if op == chunkstore.OpOpen {
			<-goOn
		}
		return nil
	}
	s, err := chunkstore.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	mine := readIdentity(t, c.Dirs[1])
	mine.Volume = mine.Instance
	writeIdentity(t, c.Dirs[1], mine)
	s.Probe()
	checkCode(t, s.Writable(), dfs.Unavailable)
	if space, err := s.Space(); err != nil || space.Free == 0 {
		t.Errorf("while the directories are being read: %+v, %v", space, err)
	}
	close(goOn)
	checkCode(t, s.WaitLoaded(t.Context()), "")
	<-s.Urgent() // that it can be used is news
	checkAll(t, s, where, c.Dirs[0], c.Dirs[2])
	if r := s.Report(1000); len(r.Added)+len(r.Removed)+len(r.Corrupt) > 0 || r.Count != s.Totals().Count {
		t.Errorf("reported %+v", r)
	}
}
