package datanode

import (
	"context"
	"errors"
	"slices"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// deletedTogether is how many small chunks are deleted under one fence: a matter of
// milliseconds.
const deletedTogether = 256

// delete gives up chunks that nothing uses any more. One that is not held is
// done. A chunk that cannot be removed does not stand in the way of the others;
// the first such failure is returned.
//
// Nobody is asked, and what is promised to keepers does not count: what is
// garbage once is garbage for ever. The fence is there for the leader that errs.
func (o *orders) delete(ctx context.Context, chunks []dfs.ChunkID, fence func() error) error {
	var failure error
	failed, deleted := 0, 0
	defer func() {
		if deleted > 0 {
			o.metrics.deleted.Add(float64(deleted))
			o.store.Hurry()
		}
	}()
	note := func(err error) {
		switch {
		case err == nil:
			deleted++
		case dfs.CodeOf(err) != dfs.NotFound:
			failed++
			if failure == nil {
				failure = err
			}
		}
	}
	allowed := func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fence()
	}
	for some := range slices.Chunk(chunks, deletedTogether) {
		if err := allowed(); err != nil {
			return err
		}
		var alone []dfs.ChunkID
		for i, err := range o.store.RemoveTogether(some) {
			if errors.Is(err, chunkstore.ErrAlone) {
				alone = append(alone, some[i])
			} else {
				note(err)
			}
		}
		for _, id := range alone {
			if err := allowed(); err != nil {
				return err
			}
			note(o.store.Remove(id))
		}
	}
	if failure != nil {
		return dfs.Errorf(dfs.Internal, "%d of %d chunks could not be deleted: %w", failed, len(chunks), failure)
	}
	return nil
}

func checkDelete(o protocol.Order) error {
	switch {
	case len(o.Chunks) == 0 || len(o.Chunks) > protocol.MaxOrderChunks:
		return dfs.Errorf(dfs.Invalid, "an order to delete %d chunks is not possible: 1 to %d are", len(o.Chunks), protocol.MaxOrderChunks)
	case slices.Contains(o.Chunks, 0):
		return dfs.Errorf(dfs.Invalid, "the order names a chunk without an ID")
	}
	return nil
}
