package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Work is one operation: the i-th, from 0, over all workers. It returns how many
// bytes of files it has moved.
type Work func(ctx context.Context, i int64) (bytes int64, err error)

// Plan says how often an operation is repeated, and by how many at once.
type Plan struct {
	Concurrency int
	Count       int64         // operations that are measured; 0: as many as Duration lets
	Duration    time.Duration // of measuring; 0: until Count is reached
	WarmUp      time.Duration // before that, not measured
}

// Result is what was measured. Durations are in seconds.
type Result struct {
	Name        string  `json:"name"`
	Concurrency int     `json:"concurrency"`
	Seconds     float64 `json:"seconds"`
	Operations  int64   `json:"operations"`
	Errors      int64   `json:"errors"`
	FirstError  string  `json:"first_error,omitempty"`
	Bytes       int64   `json:"bytes"`
	PerSecond   float64 `json:"operations_per_second"`
	BytesPerSec float64 `json:"bytes_per_second"`
	P50         float64 `json:"p50"`
	P99         float64 `json:"p99"`
	Max         float64 `json:"max"`
	Client      Usage   `json:"client"`
	NameNodes   Usage   `json:"namenodes"` // all of them together
	DataNodes   Usage   `json:"datanodes"`

	How     string    `json:"how,omitempty"`     // of a fault: what was done
	Samples []float64 `json:"samples,omitempty"` // each value, where there are few
	Repair  *Repair   `json:"repair,omitempty"`
}

// Usage is what a process, or several, used.
type Usage struct {
	CPUSeconds float64 `json:"cpu_seconds"`                   // during the measurement
	Resident   int64   `json:"resident_bytes"`                // at its end
	Peak       int64   `json:"peak_resident_bytes,omitempty"` // since the process began; of this one only
}

// tally is what one worker has counted.
type tally struct {
	latency    histogram
	errors     int64
	firstError error
	bytes      int64
}

// Run repeats work as planned. What fails is counted and does not end it; only
// the end of ctx does.
func Run(ctx context.Context, name string, plan Plan, work Work) Result {
	var next atomic.Int64
	if plan.WarmUp > 0 {
		warm, cancel := context.WithTimeout(ctx, plan.WarmUp)
		repeat(warm, plan.Concurrency, 0, &next, work)
		cancel()
	}
	measured := ctx
	if plan.Duration > 0 {
		var cancel context.CancelFunc
		measured, cancel = context.WithTimeout(ctx, plan.Duration)
		defer cancel()
	}
	limit := int64(0)
	if plan.Count > 0 {
		limit = next.Load() + plan.Count
	}
	before, began := ownUsage(), time.Now()
	sum := repeat(measured, plan.Concurrency, limit, &next, work)
	seconds := time.Since(began).Seconds()
	after := ownUsage()
	result := sum.result(name, plan.Concurrency, seconds)
	result.Client = after.Since(before)
	return result
}

func (t *tally) result(name string, concurrency int, seconds float64) Result {
	result := Result{
		Name: name, Concurrency: concurrency, Seconds: seconds,
		Operations: t.latency.total, Errors: t.errors, Bytes: t.bytes,
		PerSecond: float64(t.latency.total) / seconds, BytesPerSec: float64(t.bytes) / seconds,
		P50: t.latency.quantile(0.5).Seconds(), P99: t.latency.quantile(0.99).Seconds(), Max: t.latency.max.Seconds(),
	}
	if t.firstError != nil {
		result.FirstError = t.firstError.Error()
	}
	return result
}

// repeat lets workers work until ctx ends or limit operations, if not 0, have
// been begun. An operation that is under way then is finished and counts.
func repeat(ctx context.Context, concurrency int, limit int64, next *atomic.Int64, work Work) *tally {
	tallies := make([]tally, concurrency)
	var wg sync.WaitGroup
	for w := range tallies {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if limit > 0 && i >= limit {
					return
				}
				tallies[w].one(context.WithoutCancel(ctx), i, work)
			}
		})
	}
	wg.Wait()
	sum := new(tally)
	for i := range tallies {
		sum.merge(&tallies[i])
	}
	return sum
}

func (t *tally) one(ctx context.Context, i int64, work Work) {
	began := time.Now()
	bytes, err := work(ctx, i)
	t.add(time.Since(began), bytes, err)
}

func (t *tally) add(took time.Duration, bytes int64, err error) {
	if err != nil {
		t.errors++
		if t.firstError == nil {
			t.firstError = err
		}
		return
	}
	t.latency.add(took)
	t.bytes += bytes
}

func (t *tally) merge(other *tally) {
	t.latency.merge(&other.latency)
	t.errors += other.errors
	t.bytes += other.bytes
	if t.firstError == nil {
		t.firstError = other.firstError
	}
}
