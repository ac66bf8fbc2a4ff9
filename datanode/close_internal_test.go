package datanode

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// A disk that hangs must not keep the process from ending.
func TestCloseOnADiskThatHangs(t *testing.T) {
	t.Parallel() // it takes as long as a disk is waited for
	goOn, reached := make(chan struct{}), make(chan struct{}, 1)
	var hangs atomic.Bool
	d, err := New(Config{
		ID: "dn1", Addr: "127.0.0.1:0", NameNodes: []string{"http://127.0.0.1:1"}, DataDirs: []string{t.TempDir()}, Reserve: 1,
		DiskHook: func(op chunkstore.Op, _ string) error {
			if hangs.Load() && op == chunkstore.OpRead {
				select {
				case reached <- struct{}{}:
				default:
				}
				<-goOn
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.patience = time.Millisecond
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitLoaded(t, d.store)
	store(t, d.store, 1)
	hangs.Store(true)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if response, err := http.Get(d.URL() + protocol.GetChunk.Path(dfs.ChunkID(1).String())); err == nil {
			t.Errorf("answered %s", response.Status)
			_ = response.Body.Close()
		}
	}()
	<-reached
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Close(ended); dfs.CodeOf(err) != dfs.Internal {
		t.Errorf("closed with %v", err)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	<-answered
	close(goOn)
	<-d.gate.close()
	d.goroutines.Wait()
}
