package client_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// atFirstCommit does something before the first commit is judged, which goes on
// when that returns true.
func (f *fakeCluster) atFirstCommit(do func(w http.ResponseWriter) bool) {
	var once sync.Once
	f.setBefore(func(w http.ResponseWriter, r *http.Request) (goOn bool) {
		goOn = true
		if strings.HasSuffix(r.URL.Path, "/commit") {
			once.Do(func() { goOn = do(w) })
		}
		return goOn
	})
}

func (f *fakeCluster) seenCommits() []seenCommit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commits)
}

// The first chunks lie on dn1 and dn2 only, since dn3 is full, and the others on
// dn1, dn2 and dn4. When dn2 dies before the commit, the first ones are sent
// again, from dn1: the source cannot be read twice.
func TestHolderDiesBeforeTheCommit(t *testing.T) {
	f := newFakeCluster(t, 4)
	f.nodes[2].setBefore(refuse(dfs.NoSpace))
	f.atFirstCommit(func(http.ResponseWriter) bool { f.nodes[1].die(); return true })
	c := f.client()
	c.SetRescueAfter(10 * time.Millisecond)
	data := randomBytes(20*chunkSize + 5)
	var done atomic.Int64
	result, err := c.Upload(t.Context(), mustPath(t, "/file"), io.MultiReader(bytes.NewReader(data)), client.UploadOptions{
		Size: -1, ChunkSize: chunkSize, Progress: func(n int64) { done.Add(n) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), mustPath(t, "/file"), &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("read back %d bytes of %d: %v", got.Len(), len(data), err)
	}
	if done.Load() != int64(len(data)) {
		t.Errorf("progress says %d of %d bytes", done.Load(), len(data))
	}
	if result.Chunks != 21 || result.UnderReplicated != 21 || result.LeastReplicas != 2 {
		t.Errorf("all chunks lie on dn1 and dn4 now: %+v", result)
	}
	checkReplaced(t, f.seenCommits())
}

// checkReplaced compares the first commit with the one that went through.
func checkReplaced(t *testing.T, commits []seenCommit) {
	t.Helper()
	first, last := commits[0], commits[len(commits)-1]
	if first.requestID == last.requestID {
		t.Error("another list has the same request ID")
	}
	replaced := 0
	for i, chunk := range first.chunks {
		lost := len(chunk.Nodes) == 2 && slices.Contains(chunk.Nodes, "dn2")
		if lost {
			replaced++
		}
		if lost != (last.chunks[i].ID != chunk.ID) {
			t.Errorf("chunk %d on %v became %s on %v", i, chunk.Nodes, last.chunks[i].ID, last.chunks[i].Nodes)
		}
	}
	if replaced == 0 || replaced == len(first.chunks) {
		t.Errorf("the test tests nothing: %d of %d chunks replaced", replaced, len(first.chunks))
	}
}

func TestAllHoldersDieBeforeTheCommit(t *testing.T) {
	t.Parallel() // it waits
	f := newFakeCluster(t, 5)
	f.atFirstCommit(func(http.ResponseWriter) bool {
		for _, n := range f.nodes[:3] {
			n.die()
		}
		return true
	})
	c := f.client(func(config *client.Config) { config.Timeout = 5 * time.Second })
	c.SetRescueAfter(10 * time.Millisecond)
	_, err := c.Upload(t.Context(), mustPath(t, "/file"), bytes.NewReader(randomBytes(chunkSize)), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.Unavailable || !strings.Contains(err.Error(), "was seen on too few DataNodes") {
		t.Errorf("got %v", err)
	}
	if puts, _ := f.nodes[3].counts(); puts > 0 {
		t.Errorf("%d chunks were sent in vain", puts)
	}
	assertNothingStored(t, f)
}

// While a commit may have happened, no other list may be committed, whatever
// later tries are told.
func TestUnknownCommitIsRepeatedUnchanged(t *testing.T) {
	t.Parallel() // it waits
	f := newFakeCluster(t, 4)
	f.nodes[2].setBefore(refuse(dfs.NoSpace))
	f.atFirstCommit(func(w http.ResponseWriter) bool {
		f.nodes[1].die()
		w.Header().Set("Retry-After", "1")
		protocol.WriteError(w, dfs.Errorf(dfs.UnknownOutcome, "lost"))
		return false
	})
	c := f.client(func(config *client.Config) { config.Timeout = 5 * time.Second })
	c.SetRescueAfter(10 * time.Millisecond)
	_, err := c.Upload(t.Context(), mustPath(t, "/file"), bytes.NewReader(randomBytes(3*chunkSize)), client.UploadOptions{})
	if dfs.CodeOf(err) != dfs.UnknownOutcome || f.liveUploads() != 1 {
		t.Errorf("got %v, %d uploads", err, f.liveUploads())
	}
	commits := f.seenCommits()
	if len(commits) < 2 {
		t.Fatalf("%d commits were judged: the test tests nothing", len(commits))
	}
	for _, commit := range commits {
		if commit.requestID != commits[0].requestID || !slices.EqualFunc(commit.chunks, commits[0].chunks, func(a, b protocol.CommittedChunk) bool { return a.ID == b.ID }) {
			t.Errorf("%v became %v", commits[0], commit)
		}
	}
}
