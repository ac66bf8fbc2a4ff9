package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	repeatLogEvery    = 10 * time.Second
	maxRememberedLogs = 256
)

// quiet returns a logger for raft, which writes a line for each of its several
// attempts a second to reach a peer that is down. The same warning or error
// about the same peer passes once in repeatLogEvery.
func quiet(logger hclog.Logger) hclog.Logger {
	return &quietLogger{Logger: logger, seen: &repeats{last: make(map[string]time.Time)}}
}

type quietLogger struct {
	hclog.Logger
	seen *repeats
}

// Error is part of hclog.Logger.
func (q *quietLogger) Error(msg string, args ...any) {
	if q.seen.due(subject(msg, args)) {
		q.Logger.Error(msg, args...)
	}
}

// Warn is part of hclog.Logger.
func (q *quietLogger) Warn(msg string, args ...any) {
	if q.seen.due(subject(msg, args)) {
		q.Logger.Warn(msg, args...)
	}
}

// subject is what makes two lines the same: the message and the first pair,
// which names the peer. Others hold times and counters.
func subject(msg string, args []any) string {
	return fmt.Sprint(msg, args[:min(len(args), 2)])
}

// repeats remembers when a line was last written.
type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// due tells whether line may be written again.
func (r *repeats) due(line string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.last[line]) < repeatLogEvery {
		return false
	}
	if len(r.last) >= maxRememberedLogs {
		clear(r.last)
	}
	r.last[line] = now
	return true
}
