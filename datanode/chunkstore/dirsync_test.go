package chunkstore

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// One fsync serves everyone who came before it began, and nobody is served by
// one that began before they came.
func TestSyncGroup(t *testing.T) {
	const callers = 200
	var group syncGroup
	var arrived, covered atomic.Int64
	fsync := func() error {
		covered.Store(arrived.Load()) // what a real fsync would make durable
		return nil
	}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			mine := arrived.Add(1)
			if err := group.do(fsync); err != nil {
				t.Error(err)
			}
			if covered.Load() < mine {
				t.Errorf("caller %d returned, but only %d are covered", mine, covered.Load())
			}
		})
	}
	wg.Wait()
}

func TestSyncGroupShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group syncGroup
		goOn := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := group.do(func() error { <-goOn; return nil }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // the first fsync has begun
		failure := errors.New("broken")
		var rounds atomic.Int64
		for range 20 {
			wg.Go(func() {
				if err := group.do(func() error { rounds.Add(1); return failure }); !errors.Is(err, failure) {
					t.Errorf("a failure was not told: %v", err)
				}
			})
		}
		synctest.Wait() // the others wait for it to end
		close(goOn)
		wg.Wait()
		if rounds.Load() != 1 {
			t.Errorf("20 callers needed %d fsyncs", rounds.Load())
		}
	})
}
