package datanode

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// An order to delete small chunks deletes many under one fence, with few operations on
// the disk and no fsync; what is left when it becomes void stays.
func TestSmallChunksAreDeletedTogether(t *testing.T) {
	var opens, syncs atomic.Int64
	hook := func(op chunkstore.Op, _ string) error {
		switch op {
		case chunkstore.OpOpen:
			opens.Add(1)
		case chunkstore.OpSyncData, chunkstore.OpSyncFile, chunkstore.OpSyncDir:
			syncs.Add(1)
		}
		return nil
	}
	st, err := chunkstore.Open(chunkstore.Config{Dirs: []string{t.TempDir()}, NodeID: "dn1", Reserve: 1, Hook: hook})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	awaitLoaded(t, st)
	const count = 3*deletedTogether + 1
	data := []byte("data")
	var all []dfs.ChunkID
	for id := range dfs.ChunkID(count) {
		if _, err := st.Put(id+1, data, dfs.ChecksumOf(data)); err != nil {
			t.Fatal(err)
		}
		all = append(all, id+1)
	}
	file := make([]byte, chunkstore.PackLimit+1)
	if _, err := st.Put(5000, file, dfs.ChecksumOf(file)); err != nil {
		t.Fatal(err)
	}
	o := testOrders(st, nil)
	asked := 0
	fence := func() error {
		if asked++; asked > 2 {
			return &voidError{orderExpired, "over"}
		}
		return nil
	}
	opens.Store(0)
	syncs.Store(0)
	var void *voidError
	if err := o.delete(t.Context(), all, fence); !errors.As(err, &void) || st.Totals().Count != deletedTogether+2 {
		t.Errorf("%v, %d chunks are left", err, st.Totals().Count)
	}
	checkMetric(t, o.metrics, "dfs_datanode_deleted_chunks_total 512")
	asked = -protocol.MaxOrderChunks
	if err := o.delete(t.Context(), slices.Insert(all, 3, 5000, 6000), fence); err != nil || st.Totals().Count != 0 {
		t.Errorf("%v, %d chunks are left", err, st.Totals().Count)
	}
	checkMetric(t, o.metrics, "dfs_datanode_deleted_chunks_total 770")
	if opens.Load() > count/8 || syncs.Load() > 0 {
		t.Errorf("%d files were opened, %d fsyncs", opens.Load(), syncs.Load())
	}
}
