package reclaim

import (
	"slices"
	"time"
)

// graceSamples bounds how many moments are remembered. The grace is exact to
// that part of itself, on the long side.
const graceSamples = 128

// Grace finds the log entries that were applied at least some time ago. Log
// entries do carry the time, but that of whatever leader wrote them. So the
// caller notes now and then how far the log has got, by its own monotonic clock.
// Not safe for concurrent use.
type Grace struct {
	period  time.Duration
	samples []sample // oldest first
}

type sample struct {
	at    time.Time
	index uint64
}

// NewGrace returns a grace of the given length, which may be 0. It begins with
// nothing noted: nothing is old enough yet.
func NewGrace(period time.Duration) *Grace { return &Grace{period: period} }

// Note takes in that the log was applied up to index (at least) at now, which
// must not be before index was read.
func (g *Grace) Note(now time.Time, index uint64) {
	if last := len(g.samples) - 1; last >= 0 && now.Sub(g.samples[last].at) < g.period/graceSamples {
		return
	}
	g.samples = append(g.samples, sample{now, index})
	if old := g.old(now); old > 1 {
		g.samples = slices.Delete(g.samples, 0, old-1) // the newest of them stands for all
	}
}

// Cutoff returns the newest log index that is known to have been applied for the
// whole grace; 0, which is no index, when there is none.
func (g *Grace) Cutoff(now time.Time) uint64 {
	if old := g.old(now); old > 0 {
		return g.samples[old-1].index
	}
	return 0
}

// old returns how many of the samples are older than the grace.
func (g *Grace) old(now time.Time) int {
	if young := slices.IndexFunc(g.samples, func(s sample) bool { return now.Sub(s.at) < g.period }); young >= 0 {
		return young
	}
	return len(g.samples)
}
