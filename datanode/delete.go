package datanode

import (
	"context"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

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
	for _, id := range chunks {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fence(); err != nil {
			return err
		}
		switch err := o.store.Remove(id); {
		case err == nil:
			deleted++
		case dfs.CodeOf(err) != dfs.NotFound:
			failed++
			if failure == nil {
				failure = err
			}
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
