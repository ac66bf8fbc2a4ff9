package datanode

import (
	"context"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
)

// keepInterval is how often the data directories are looked after.
const keepInterval = 5 * time.Second

// keepStore looks after the data directories until ctx ends: it notices disks
// that fail while nobody writes, and empties the trash.
func keepStore(ctx context.Context, store *chunkstore.Store) {
	eachTime(ctx, func() {
		store.Probe()
		store.EmptyTrash(time.Now())
	})
}

// compactStore gives back the space of removed small chunks until ctx ends. It
// takes its time, and nobody waits for it.
func compactStore(ctx context.Context, store *chunkstore.Store) {
	eachTime(ctx, func() { store.Compact(ctx) })
}

// eachTime calls look every keepInterval, until ctx ends.
func eachTime(ctx context.Context, look func()) {
	ticker := time.NewTicker(keepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			look()
		}
	}
}
