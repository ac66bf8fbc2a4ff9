package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	firstFetchPause   = 100 * time.Millisecond
	longestFetchPause = 3 * time.Second
	noticeAfter       = 2 * time.Second
)

// fetch fills buffer with a piece from whichever replica is good. When none is,
// the NameNode is asked again where the chunk lies, until the patience is over:
// a DataNode may be about to come back, or a repair about to finish.
func (d *download) fetch(ctx context.Context, p piece, buffer []byte) error {
	started := time.Now()
	until := started.Add(d.c.patience)
	for pause := firstFetchPause; ; pause = min(2*pause, longestFetchPause) {
		refreshes := d.refreshCount()
		failures, err := d.tryReplicas(ctx, p, buffer)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Now().After(until) {
			return d.unreadable(p.ID, failures)
		}
		if time.Since(started) >= min(noticeAfter, d.c.patience/4) {
			d.waiting.Do(func() {
				d.c.notice(fmt.Sprintf("%s; trying for %gs", d.unreadable(p.ID, failures), d.c.patience.Seconds()))
			})
		}
		if err := sleep(ctx, pause/2+rand.N(pause/2)); err != nil {
			return err
		}
		if err := d.refresh(ctx, refreshes, until); err != nil {
			d.c.log.Debug("cannot ask where a chunk lies", "chunk", p.ID, "error", err)
		}
		if d.isGone(p.ID) && failures.only(dfs.NotFound) {
			return dfs.Errorf(dfs.NotFound, "%s was replaced or removed during the download, and its old content is gone; start again", d.path)
		}
	}
}

// tryReplicas asks every location once, those that failed before last.
func (d *download) tryReplicas(ctx context.Context, p piece, buffer []byte) (nodeFailures, error) {
	failures := make(nodeFailures)
	good, bad := d.nodes.split(d.locationsOf(p.ID))
	for _, target := range slices.Concat(good, bad) {
		err := d.c.data.get(ctx, target, p, buffer)
		if err == nil {
			d.nodes.succeed(target.ID)
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		d.c.log.Warn("a replica could not be read", "chunk", p.ID, "node", target.ID, "url", target.URL, "error", err)
		d.nodes.fail(target.ID, time.Now())
		var mismatch *mismatchError
		if errors.As(err, &mismatch) {
			d.reports.tell(p.ID, target)
		}
		failures[target.ID] = err
	}
	return failures, d.unreadable(p.ID, failures)
}

func (d *download) unreadable(id dfs.ChunkID, failures nodeFailures) error {
	code := dfs.Unavailable
	if len(failures) > 0 && failures.only(dfs.Corrupt) {
		code = dfs.Corrupt
	}
	if len(failures) == 0 {
		return dfs.Errorf(code, "chunk %s of %s lies on no DataNode that is up; see `dfs nodes`", id, d.path)
	}
	return dfs.Errorf(code, "no replica of chunk %s of %s could be read (%s)", id, d.path, failures)
}

func (d *download) locationsOf(id dfs.ChunkID) []protocol.Target {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locations[id]
}

func (d *download) refreshCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refreshes
}

func (d *download) isGone(id dfs.ChunkID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gone[id]
}

// refresh asks the NameNode for the locations anew, unless another chunk's
// trouble has made that happen since. Chunks that the file no longer has keep
// their old locations, because deleted chunks are kept for a while.
func (d *download) refresh(ctx context.Context, since int, until time.Time) error {
	d.refreshing.Lock()
	defer d.refreshing.Unlock()
	if d.refreshCount() != since {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	file, err := d.c.File(ctx, d.path)
	switch dfs.CodeOf(err) {
	case "", dfs.NotFound, dfs.IsDirectory, dfs.NotDirectory:
	default:
		return err
	}
	now := make(map[dfs.ChunkID][]protocol.Target, len(file.Chunks))
	for _, chunk := range file.Chunks {
		now[chunk.ID] = chunk.Locations
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refreshes++
	for id := range d.locations {
		if locations, there := now[id]; there {
			d.locations[id] = locations
		} else {
			d.gone[id] = true
		}
	}
	return nil
}
