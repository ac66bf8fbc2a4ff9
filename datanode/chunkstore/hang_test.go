package chunkstore

import (
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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
		if err := s.RaiseTerm(9); err != nil {
			t.Error(err)
		}
		for _, v := range s.volumes {
			if found, err := readIdentity(v.identityPath()); err != nil || found.Term != 9 {
				t.Errorf("%+v, %v", found, err)
			}
		}
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
