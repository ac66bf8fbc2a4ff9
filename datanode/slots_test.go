package datanode

import (
	"context"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots("uploads", 1, 3*time.Second)
		release, err := s.take(t.Context(), httptest.NewRecorder())
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		w := httptest.NewRecorder()
		if _, err := s.take(t.Context(), w); dfs.CodeOf(err) != dfs.OverLimit || w.Header().Get("Retry-After") == "" {
			t.Errorf("%v, header %v", err, w.Header())
		}
		if waited := time.Since(started); waited != 3*time.Second {
			t.Errorf("refused after %s", waited)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.take(gone, w); dfs.CodeOf(err) != dfs.Unavailable {
			t.Errorf("a caller that has gone: %v", err)
		}
		go func() { // ends by itself
			time.Sleep(time.Second)
			release()
		}()
		release, err = s.take(t.Context(), w)
		if err != nil {
			t.Errorf("a slot became free in time: %v", err)
			return
		}
		release()
		if len(s.taken) != 0 {
			t.Error("a slot is lost")
		}
	})
}
