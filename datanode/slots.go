package datanode

import (
	"context"
	"net/http"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// slots bounds how many requests of a kind run at a time. More of them wait for
// a while, in order.
//
// An upload holds its slot while it waits for one on the next node of its
// pipeline. Each upload that has the same number of nodes behind it shares the
// slots of its node, and waits only for those of uploads with fewer behind
// them: pipelines that cross never wait for one another in a circle.
type slots struct {
	what     string
	taken    chan struct{}
	patience time.Duration
}

func newSlots(what string, count int, patience time.Duration) slots {
	return slots{what: what, taken: make(chan struct{}, count), patience: patience}
}

// take waits for a slot. It fails with OverLimit when none becomes free in
// time, and with Unavailable when ctx ends.
func (s slots) take(ctx context.Context, w http.ResponseWriter) (release func(), err error) {
	release = func() { <-s.taken }
	select {
	case s.taken <- struct{}{}:
		return release, nil
	default:
	}
	patience := time.NewTimer(s.patience)
	defer patience.Stop()
	select {
	case s.taken <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, dfs.Errorf(dfs.Unavailable, "the caller has gone while it waited for one of %d %s to end", cap(s.taken), s.what)
	case <-patience.C:
		w.Header().Set("Retry-After", "1")
		return nil, dfs.Errorf(dfs.OverLimit, "%d %s are running on this DataNode, and none has ended within %s; try again or use another", cap(s.taken), s.what, s.patience)
	}
}
