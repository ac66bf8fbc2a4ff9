package client

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	maxReports     = 1024 // in one download
	reportsAtATime = 8    // more are not made: the node has a scrubber

	defaultReportTimeout = 5 * time.Second // of one
	defaultReportGrace   = time.Second     // for those under way when the download is over
)

// mismatchError is what a replica is found out by when it is compared with the
// namespace.
type mismatchError struct{ error }

func (e *mismatchError) Unwrap() error { return e.error }

// reports tells DataNodes, in the background, of replicas that looked bad, so
// that they read them again. It does not matter whether a report arrives: the
// download goes on with the next replica in any case.
type reports struct {
	c      *Client
	ctx    context.Context // of the download
	cancel context.CancelFunc
	group  errgroup.Group

	mu   sync.Mutex
	told map[report]struct{} // guarded by mu
}

// report is made once in a download.
type report struct {
	chunk dfs.ChunkID
	node  dfs.NodeID
}

// newReports makes the reports of one download. The caller must call wait.
func newReports(ctx context.Context, c *Client) *reports {
	r := &reports{c: c, told: make(map[report]struct{})}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.group.SetLimit(reportsAtATime)
	return r
}

// tell reports a replica, unless that was done, or too much is being reported.
// It does not wait.
func (r *reports) tell(id dfs.ChunkID, target protocol.Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := report{id, target.ID}
	if _, done := r.told[what]; done || len(r.told) == maxReports {
		return
	}
	begun := r.group.TryGo(func() error {
		ctx, cancel := context.WithTimeout(r.ctx, r.c.reportTimeout)
		defer cancel()
		if err := r.c.data.suspect(ctx, id, target); err != nil {
			r.c.log.Debug("a bad replica could not be reported", "chunk", id, "node", target.ID, "error", err)
		}
		return nil
	})
	if begun {
		r.told[what] = struct{}{}
	}
}

// wait gives the reports under way a moment, and ends them.
func (r *reports) wait() {
	defer r.cancel()
	if r.none() {
		return
	}
	timer := time.AfterFunc(r.c.reportGrace, r.cancel)
	defer timer.Stop()
	_ = r.group.Wait() // failures were logged
}

func (r *reports) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.told) == 0
}

// suspect asks a DataNode to read its replica again.
func (d *dataNodes) suspect(ctx context.Context, id dfs.ChunkID, target protocol.Target) error {
	request, err := d.request(ctx, protocol.VerifyChunk, id, target)
	if err != nil {
		return err
	}
	response, err := d.transport.RoundTrip(request)
	if err != nil {
		return dfs.Errorf(dfs.Unavailable, "%w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		return protocol.ReadError(response)
	}
	_, _ = io.CopyN(io.Discard, response.Body, maxChunkAnswer) // read to the end, the connection can be used again
	return nil
}
