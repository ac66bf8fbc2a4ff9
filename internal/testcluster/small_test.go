package testcluster_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// writers store small files, empty ones too, each under a name of its own, until
// done. What they were told is stored has to be there; nobody may be told that
// his own file stands in his way.
type writers struct {
	t      *testing.T
	c      *client.Client
	stored atomic.Int64
	done   atomic.Bool
	wg     sync.WaitGroup

	mu    sync.Mutex
	files map[string][]byte // guarded by mu
}

func (w *writers) start(count int) {
	w.files = make(map[string][]byte)
	for i := range count {
		w.wg.Go(func() {
			for j := 0; !w.done.Load(); j++ {
				w.write(fmt.Sprintf("/small/%d/%d", i, j), content(j%5*1000, uint64(i*1000+j)))
			}
		})
	}
}

func (w *writers) write(path string, data []byte) {
	_, err := w.c.Upload(w.t.Context(), mustPath(w.t, path), bytes.NewReader(data), client.UploadOptions{Size: int64(len(data))})
	if code := dfs.CodeOf(err); code == dfs.UnknownOutcome {
		return // it is there, or not
	} else if err != nil {
		w.t.Errorf("upload %s: %v", path, err)
		return
	}
	w.mu.Lock()
	w.files[path] = data
	w.mu.Unlock()
	w.stored.Add(1)
}

// more waits until more files are stored.
func (w *writers) more(count int64) {
	w.t.Helper()
	want := w.stored.Load() + count
	for deadline := time.Now().Add(patience); w.stored.Load() < want; {
		if time.Now().After(deadline) {
			w.t.Fatal("the writers do not get on")
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}

// end stops the writers and reads all that they have stored.
func (w *writers) end() {
	w.t.Helper()
	w.done.Store(true)
	w.wg.Wait()
	for path, data := range w.files {
		expect(w.t, w.c, path, data)
	}
	w.t.Logf("%d small files", len(w.files))
}

func TestSmallFilesWhileLeadersChange(t *testing.T) {
	cluster, c := start(t, 3, 3)
	w := &writers{t: t, c: c}
	w.start(4)
	for change := range 4 {
		w.more(20)
		leader := leaderID(t, c)
		if change%2 == 0 {
			if err := c.Transfer(t.Context(), ""); err != nil {
				t.Logf("leadership stays: %v", err)
			}
			continue
		}
		if err := cluster.Stop(leader); err != nil {
			t.Errorf("stop %s: %v", leader, err)
		}
		w.more(10)
		if err := cluster.StartNameNode(t.Context(), leader); err != nil {
			t.Error(err)
		}
	}
	w.more(20)
	w.end()
}

func TestSmallFilesWhileDataNodesEnd(t *testing.T) {
	cluster, c := start(t, 1, 4)
	w := &writers{t: t, c: c}
	w.start(4)
	for _, id := range []dfs.NodeID{"dn1", "dn2", "dn3"} {
		w.more(20)
		if err := cluster.Stop(id); err != nil {
			t.Errorf("stop %s: %v", id, err)
		}
		w.more(20)
		if err := cluster.StartDataNode(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	w.more(20)
	w.end()
}

// Of many who create one path, one succeeds; of many who replace it, the content
// of one is there in the end, and it is that of one who was told so.
func TestSmallFilesOfOnePath(t *testing.T) {
	_, c := start(t, 3, 3)
	path := mustPath(t, "/d/one")
	race := func(overwrite bool) (told map[string]bool) {
		told = make(map[string]bool)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				data := fmt.Sprintf("written by %d, overwrite %t", i, overwrite)
				_, err := c.Upload(t.Context(), path, bytes.NewReader([]byte(data)), client.UploadOptions{Size: int64(len(data)), Overwrite: overwrite})
				mu.Lock()
				defer mu.Unlock()
				switch code := dfs.CodeOf(err); {
				case err == nil:
					told[data] = true
				case code != dfs.Exists && code != dfs.Conflict, code == dfs.Exists && overwrite:
					t.Errorf("%s: %v", data, err)
				}
			})
		}
		wg.Wait()
		var got bytes.Buffer
		if _, err := c.Download(t.Context(), path, &got, client.DownloadOptions{}); err != nil || !told[got.String()] {
			t.Errorf("%q is there, %v; told were %v", got.String(), err, told)
		}
		return told
	}
	if told := race(false); len(told) != 1 {
		t.Errorf("%d writers created one file", len(told))
	}
	race(true)
}
