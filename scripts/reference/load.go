package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load is what repeating an operation has shown. Times are in seconds.
type load struct {
	Seconds     float64 `json:"seconds"`
	Operations  int64   `json:"operations"`
	Bytes       int64   `json:"bytes"`
	PerSecond   float64 `json:"operations_per_second"`
	BytesPerSec float64 `json:"bytes_per_second"`
	P50         float64 `json:"p50"`
	P99         float64 `json:"p99"`
	Max         float64 `json:"max"`
}

// repeat lets workers repeat an operation for as long as d, or count times when
// count is not 0. The first error ends it: a reference must not fail.
func repeat(ctx context.Context, workers int, d time.Duration, count int64, work func(ctx context.Context, i int64) (int64, error)) (load, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline := time.Now().Add(d)
	var next, bytes atomic.Int64
	latencies := make([][]time.Duration, workers)
	var wg sync.WaitGroup
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil && (d == 0 || time.Now().Before(deadline)) {
				i := next.Add(1) - 1
				if count > 0 && i >= count {
					return
				}
				start := time.Now()
				n, err := work(ctx, i)
				if err != nil {
					cancel(err)
					return
				}
				latencies[w] = append(latencies[w], time.Since(start))
				bytes.Add(n)
			}
		})
	}
	wg.Wait()
	seconds := time.Since(began).Seconds()
	if err := context.Cause(ctx); err != nil {
		return load{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return load{}, errors.New("nothing was carried out in the time given")
	}
	slices.Sort(all)
	return load{
		Seconds: seconds, Operations: int64(len(all)), Bytes: bytes.Load(),
		PerSecond: float64(len(all)) / seconds, BytesPerSec: float64(bytes.Load()) / seconds,
		P50: all[len(all)/2].Seconds(), P99: all[len(all)*99/100].Seconds(), Max: all[len(all)-1].Seconds(),
	}, nil
}
