package bench

import (
	"math"
	"time"
)

// growth is the ratio between the bounds of neighbouring buckets: quantiles are
// right to 2 %, and the memory does not depend on how many values there are.
const growth = 1.02

// buckets reach from a microsecond to more than a day.
const buckets = 1300

// histogram counts durations. Not safe for concurrent use.
type histogram struct {
	counts [buckets]int64
	total  int64
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	at := 0
	if micros := float64(d) / float64(time.Microsecond); micros > 1 {
		at = min(int(math.Log(micros)/math.Log(growth)), buckets-1)
	}
	h.counts[at]++
	h.total++
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, count := range other.counts {
		h.counts[i] += count
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// quantile returns the duration that the share q of all values does not exceed,
// 0 when there is none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := int64(math.Ceil(q * float64(h.total)))
	seen := int64(0)
	for i, count := range h.counts {
		if seen += count; seen >= max(rank, 1) && i < buckets-1 {
			bound := time.Duration(math.Pow(growth, float64(i+1)) * float64(time.Microsecond))
			return min(bound, h.max)
		}
	}
	return h.max
}
