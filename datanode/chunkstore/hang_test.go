package chunkstore

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// hanging is a disk that does not answer under one directory for a while.
type hanging struct {
	dir   string
	op    Op
	on    atomic.Bool
	calls atomic.Int64
	goOn  chan struct{}
}

func (h *hanging) hook(op Op, path string) error {
	if h.on.Load() && op == h.op && strings.HasPrefix(path, h.dir) {
		h.calls.Add(1)
		<-h.goOn
	}
	return nil
}

func openHanging(t *testing.T, op Op) (*hanging, *Store) {
	top := t.TempDir()
	dirs := []string{filepath.Join(top, "a"), filepath.Join(top, "b")}
	h := &hanging{dir: dirs[1], op: op, goOn: make(chan struct{})}
	return h, openTrash(t, h.hook, dirs...)
}

func checkStalled(t *testing.T, s *Store, want bool) {
	t.Helper()
	status := s.Volumes()
	if status[0].Failure != nil || (status[1].Failure != nil) != want || status[1].Gone {
		t.Errorf("%+v; stalled should be %v", status, want)
	}
}

func TestProbeHangs(t *testing.T) {
	for _, op := range []Op{OpStat, OpCreate, OpSyncFile} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, s := openHanging(t, op)
				h.on.Store(true)
				began := time.Now()
				s.Probe()
				if took := time.Since(began); took != hangTimeout {
					t.Errorf("the first probe took %s", took)
				}
				checkStalled(t, s, true)
				for range 3 { // one probe at a time
					s.Probe()
				}
				if took := time.Since(began); took != hangTimeout || h.calls.Load() != 1 {
					t.Errorf("%d probes hang after %s", h.calls.Load(), took)
				}
				if err := s.Writable(); err != nil {
					t.Error(err)
				}
				for id := range dfs.ChunkID(20) {
					keepChunk(t, s, id+1, 10)
				}
				if got := s.Volumes()[0].Chunks; got != 20 {
					t.Errorf("%d of 20 chunks went to the disk that answers", got)
				}
				h.on.Store(false)
				close(h.goOn)
				synctest.Wait()
				checkStalled(t, s, false) // it was only slow
				s.Probe()
				checkStalled(t, s, false)
			})
		})
	}
}

// Neither heartbeats nor orders wait for a disk that hangs.
func TestTheRestGoesOnWhileADiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := openHanging(t, OpRename)
		for id := dfs.ChunkID(1); s.Volumes()[1].Chunks == 0; id++ {
			keepChunk(t, s, id, 10)
		}
		h.on.Store(true)
		began := time.Now()
		if err := s.RaiseTerm(7); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != hangTimeout || s.Identity().Term != 7 {
			t.Errorf("term %d after %s", s.Identity().Term, took)
		}
		checkStalled(t, s, true)
		if err := s.RaiseTerm(8); err != nil {
			t.Error(err)
		}
		s.EmptyTrash(time.Now())
		s.Probe()
		s.Report(10)
		if _, err := s.Space(); err != nil || time.Since(began) != hangTimeout {
			t.Errorf("%s, %v", time.Since(began), err)
		}
		h.on.Store(false)
		close(h.goOn)
		synctest.Wait()
		checkTerm := func(want uint64) {
			t.Helper()
			for _, v := range s.volumes {
				if found, err := readIdentity(v.identityPath()); err != nil || found.Term != want || found.Volume != v.id {
					t.Errorf("%+v, %v; want term %d", found, err, want)
				}
			}
		}
		s.Probe() // it may be the only disk at the next start
		checkTerm(8)
		if err := s.RaiseTerm(9); err != nil {
			t.Error(err)
		}
		checkTerm(9)
	})
}

// The disk may fail, or hang, or answer again, at any moment of Create.
func TestCreateOnADiskThatComesAndGoes(t *testing.T) {
	s := openTrash(t, nil, t.TempDir())
	v := s.volumes[0]
	stop := make(chan struct{})
	var toggling sync.WaitGroup
	toggling.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, change := range []int{1, -1} {
				v.mu.Lock()
				v.overdue += change
				v.mu.Unlock()
				runtime.Gosched()
			}
		}
	})
	defer toggling.Wait()
	defer close(stop)
	for id := range dfs.ChunkID(50000) {
		w, err := s.Create(id+1, 10)
		if err == nil && w == nil {
			t.Fatal("neither a writer nor an error")
		}
		if err == nil {
			w.Abort()
		}
	}
}

// openWhere is openHanging with a chunk of its own on the disk that hangs, and
// one on the other.
func openWhere(t *testing.T, op Op) (h *hanging, s *Store, here, there dfs.ChunkID) {
	t.Helper()
	h, s = openHanging(t, op)
	for id := dfs.ChunkID(1); here == 0 || there == 0; id++ {
		keepChunk(t, s, id, 10)
		if e, err := s.entry(id); err == nil && s.volumes[e.volume] == s.volumes[1] {
			here = id
		} else {
			there = id
		}
	}
	return h, s, here, there
}

func checkAnswers(t *testing.T, want dfs.Code, limit time.Duration, ask func() error) {
	t.Helper()
	began := time.Now()
	if err := ask(); dfs.CodeOf(err) != want || time.Since(began) != limit {
		t.Errorf("%v after %s; want %q after %s", err, time.Since(began), want, limit)
	}
}

// Whoever reads, verifies or removes what lies on a disk that hangs waits for it
// once, and not at all while others do; the other disk is not touched by it.
func TestChunksOnADiskThatHangs(t *testing.T) {
	for op, ask := range map[Op]func(*Store, dfs.ChunkID) error{
		OpOpen:   func(s *Store, id dfs.ChunkID) error { return s.Verify(id) },
		OpRead:   func(s *Store, id dfs.ChunkID) error { _, err := s.OpenChunk(id); return err },
		OpRename: func(s *Store, id dfs.ChunkID) error { return s.Remove(id) },
	} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, s, here, there := openWhere(t, op)
				h.on.Store(true)
				checkAnswers(t, dfs.Unavailable, hangTimeout, func() error { return ask(s, here) })
				checkStalled(t, s, true)
				if op == OpRename {
					if _, held := s.Stat(here); held {
						t.Error("what is being removed is still held")
					}
					checkAnswers(t, dfs.Unavailable, writeTimeout, func() error { return s.Remove(here) })
				} else {
					checkAnswers(t, dfs.Unavailable, 0, func() error { return ask(s, here) })
				}
				checkAnswers(t, "", 0, func() error { return s.Verify(there) })
				checkAnswers(t, "", 0, func() error { return s.Remove(there) })
				h.on.Store(false)
				close(h.goOn)
				synctest.Wait()
				checkStalled(t, s, false)
				if op == OpRename {
					checkAnswers(t, dfs.NotFound, 0, func() error { return s.Verify(here) })
				} else {
					checkAnswers(t, "", 0, func() error { return s.Verify(here) })
				}
			})
		})
	}
}

// A removal that fails after all gives the chunk back, for others to rely on.
func TestLateRemovalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn, hangs := make(chan struct{}), atomic.Bool{}
		s := openTrash(t, func(op Op, path string) error {
			if hangs.Load() && (op == OpRename || op == OpRemove) {
				<-goOn
				return syscall.EIO
			}
			return nil
		}, t.TempDir())
		keepChunk(t, s, 1, 10)
		hangs.Store(true)
		checkAnswers(t, dfs.Unavailable, hangTimeout, func() error { return s.Remove(1) })
		close(goOn)
		synctest.Wait()
		hangs.Store(false)
		checkAnswers(t, "", 0, func() error { return s.Verify(1) })
		checkAnswers(t, "", 0, func() error { return s.Remove(1) })
	})
}

// One who writes gets away from a disk that hangs at any step, and leaves
// nothing behind when it answers again.
func TestWritersOnADiskThatHangs(t *testing.T) {
	for _, op := range []Op{OpCreate, OpAllocate, OpWrite, OpSyncFile, OpRename, OpSyncDir, OpRemove} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hanging{op: op, goOn: make(chan struct{})}
				s := openTrash(t, h.hook, t.TempDir())
				data := []byte("data")
				put := func(want dfs.Checksum) error {
					w, err := s.Create(7, int64(len(data)))
					if err != nil {
						return err
					}
					defer w.Abort()
					if _, err := w.Write(data); err != nil {
						return err
					}
					_, err = w.Commit(want)
					return err
				}
				h.on.Store(true)
				want := dfs.Code(dfs.Unavailable)
				if op == OpRemove {
					want = dfs.Invalid // the temporary file is what it hangs on
					checkAnswers(t, want, writeTimeout, func() error { return put(1) })
				} else {
					checkAnswers(t, want, writeTimeout, func() error { return put(dfs.ChecksumOf(data)) })
				}
				checkAnswers(t, dfs.Internal, 0, func() error { return put(1) })
				h.on.Store(false)
				close(h.goOn)
				synctest.Wait()
				if left, err := os.ReadDir(s.volumes[0].tempDir()); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
				if v := s.volumes[0]; v.writers != 0 || v.writing != 0 || v.overdue != 0 {
					t.Errorf("%d writers of %d bytes, %d overdue", v.writers, v.writing, v.overdue)
				}
				checkAnswers(t, "", 0, func() error { return put(dfs.ChecksumOf(data)) })
			})
		})
	}
}

// Sending is not the store's, but its disk hangs all the same.
func TestReadingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, here, _ := openWhere(t, OpRead)
		c, err := s.OpenChunk(here)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s.Reading(c, time.Minute)()
		done := s.Reading(c, time.Minute)
		time.Sleep(time.Minute - time.Second) // of the bubble's clock
		synctest.Wait()
		checkStalled(t, s, false)
		time.Sleep(time.Second)
		synctest.Wait()
		checkStalled(t, s, true)
		checkAnswers(t, dfs.Unavailable, 0, func() error { return s.Verify(here) })
		done()
		checkStalled(t, s, false)
		checkAnswers(t, "", 0, func() error { return s.Verify(here) })
	})
}

// A disk that hangs while its directory is being read is left out, when there
// is another; one that is only slow is waited for.
func TestLoadingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, here, there := openWhere(t, OpOpen)
		config := Config{Dirs: []string{s.volumes[0].dir, s.volumes[1].dir}, NodeID: "dn1", Reserve: 1, Hook: h.hook}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		h.on.Store(true)
		s, err := Open(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitLoaded(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status := s.Volumes(); status[0].Failure != nil || !status[1].Gone {
			t.Errorf("%+v", status)
		}
		checkAnswers(t, "", 0, func() error { return s.Verify(there) })
		checkAnswers(t, dfs.NotFound, 0, func() error { return s.Verify(here) })
		checkAnswers(t, dfs.Internal, hangTimeout, s.Close)
		h.on.Store(false)
		_, err = Open(config)
		if dfs.CodeOf(err) != dfs.Conflict {
			t.Errorf("a directory that is still being used was opened again: %v", err)
		}
		close(h.goOn)
		synctest.Wait()
		s, err = Open(config)
		if err == nil {
			err = s.WaitLoaded(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		checkAnswers(t, "", 0, func() error { return s.Verify(here) })
		checkAnswers(t, "", 0, s.Close)
	})
}

// Nor does a start wait for ever for a disk that hangs when it is looked at.
func TestStartHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s, here, there := openWhere(t, OpWrite) // of identity.json
		config := Config{Dirs: []string{s.volumes[0].dir, s.volumes[1].dir}, NodeID: "dn1", Reserve: 1, Hook: h.hook}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		h.on.Store(true)
		began := time.Now()
		s, err := Open(config)
		if err != nil || time.Since(began) != loadTimeout {
			t.Fatalf("%v after %s", err, time.Since(began))
		}
		if err := s.WaitLoaded(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkAnswers(t, "", 0, func() error { return s.Verify(there) })
		checkAnswers(t, "", 0, func() error { return s.Verify(here) }) // it is only written to that hangs
		if status := s.Volumes(); status[0].Failure != nil || status[1].Failure == nil {
			t.Errorf("%+v", status)
		}
		close(h.goOn)
		synctest.Wait()
		checkAnswers(t, "", 0, s.Close)
	})
}

// Nor for one that hangs when a second copy is to be moved away.
func TestSettlingDuplicatesHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := t.TempDir()
		dirs := []string{filepath.Join(top, "a"), filepath.Join(top, "b")}
		shutdown(t, openPackedIn(t, nil, 0, segmentSize, dirs...))
		for _, dir := range dirs {
			s := openPackedIn(t, nil, 0, segmentSize, dir)
			for id := range dfs.ChunkID(3) {
				mustPutBytes(t, s, id+1, 100)
			}
			shutdown(t, s)
		}
		h := &hanging{dir: filepath.Join(dirs[1], "quarantine"), op: OpCreate, goOn: make(chan struct{})}
		h.on.Store(true)
		s, err := Open(Config{Dirs: dirs, NodeID: "dn1", Reserve: 1, Hook: h.hook})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*loadTimeout)
		defer cancel()
		if err := s.WaitLoaded(ctx); err != nil {
			t.Error(err)
		}
		checkStalled(t, s, true)
		h.on.Store(false)
		close(h.goOn)
		synctest.Wait()
		checkStalled(t, s, false)
		for id := range dfs.ChunkID(3) {
			checkAnswers(t, "", 0, func() error { return s.Verify(id + 1) })
		}
		checkAnswers(t, "", 0, s.Close)
	})
}
