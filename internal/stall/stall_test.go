package stall_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/stall"
)

func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, guard := stall.Watch(t.Context(), time.Second)
		defer guard.Stop()
		r := guard.Reader(iotest.OneByteReader(strings.NewReader("12345")))
		for range 5 {
			time.Sleep(900 * time.Millisecond)
			if _, err := r.Read(make([]byte, 1)); err != nil || ctx.Err() != nil {
				t.Fatal("ended although it moved:", err, ctx.Err())
			}
		}
		time.Sleep(900 * time.Millisecond)
		if _, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // the end of the data is no movement
		if !guard.Stalled() || ctx.Err() == nil {
			t.Fatal("went on although nothing moved")
		}
	})
}

func TestEndedByOthers(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	ctx, guard := stall.Watch(parent, time.Hour)
	cancel()
	<-ctx.Done()
	if guard.Stalled() || !errors.Is(ctx.Err(), context.Canceled) {
		t.Fatal("the parent ended it, not the guard")
	}
	guard.Stop()

	ctx, guard = stall.Watch(t.Context(), time.Hour)
	guard.Stop()
	if ctx.Err() == nil || guard.Stalled() {
		t.Fatal("Stop must end the context, and not as a stall")
	}
}
