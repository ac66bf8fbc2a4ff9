package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/testcluster"
	"github.com/dfs-go/dfs-go/namenode"
)

func TestQuantiles(t *testing.T) {
	var h, other histogram
	if h.quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	for i := range 1000 {
		to := &h
		if i%3 == 0 {
			to = &other
		}
		to.add(time.Duration(i+1) * time.Millisecond)
	}
	h.merge(&other)
	for q, want := range map[float64]float64{0: 0.001, 0.5: 0.5, 0.99: 0.99, 1: 1} {
		if got := h.quantile(q).Seconds(); math.Abs(got-want) > 0.021*want {
			t.Errorf("quantile %v: %v", q, got)
		}
	}
	h.add(0)
	h.add(time.Nanosecond)
	h.add(1000 * time.Hour)
	if h.quantile(1) != 1000*time.Hour || h.total != 1003 {
		t.Errorf("max %v of %d", h.quantile(1), h.total)
	}
}

func TestRun(t *testing.T) {
	var mu sync.Mutex
	var seen []int64
	result := Run(t.Context(), "test", Plan{Concurrency: 3, Count: 100}, func(_ context.Context, i int64) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, i)
		if i%10 == 9 {
			return 7, errors.New("no")
		}
		return 7, nil
	})
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 100 || seen[99] != 99 {
		t.Errorf("carried out: %v", seen)
	}
	if result.Operations != 90 || result.Errors != 10 || result.Bytes != 630 || result.FirstError != "no" || result.PerSecond <= 0 {
		t.Errorf("%+v", result)
	}
	warm := Run(t.Context(), "test", Plan{Concurrency: 1, Count: 5, WarmUp: time.Millisecond}, func(context.Context, int64) (int64, error) { return 1, nil })
	if warm.Operations != 5 || warm.Bytes != 5 {
		t.Errorf("after the warm-up: %+v", warm)
	}
	timed := Run(t.Context(), "test", Plan{Concurrency: 2, Duration: 10 * time.Millisecond}, func(context.Context, int64) (int64, error) { return 0, nil })
	if timed.Operations == 0 {
		t.Errorf("%+v", timed)
	}
}

// TestSmallFilesTakeAnEntryEach measures what `dfs bench small` and `dfs bench
// meta` do to the log, with one caller, so that no two share an entry.
func TestSmallFilesTakeAnEntryEach(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := testcluster.Start(ctx, testcluster.Config{NameNodes: 1, DataNodes: 3, Dir: t.TempDir(), Change: func(config *namenode.Config) {
		config.HeartbeatInterval, config.SuspectAfter, config.DownAfter = time.Hour, 3*time.Hour, 9*time.Hour // no reports in the log
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	caller, err := client.New(client.Config{NameNodes: c.URLs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(caller.Close)
	field, err := NewField(ctx, caller, dfs.Root)
	if err != nil {
		t.Fatal(err)
	}
	create, err := field.Meta("create", 0)
	if err != nil {
		t.Fatal(err)
	}
	applied := func() uint64 {
		reply, err := caller.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return reply.AppliedIndex
	}
	const count = 300
	for name, work := range map[string]Work{"small": field.Put(4096, nil), "create": create} {
		before := applied()
		if result := Run(ctx, name, Plan{Concurrency: 1, Count: count}, work); result.Errors != 0 {
			t.Errorf("%+v", result)
		}
		if entries := applied() - before; entries < count || entries > count+10 {
			t.Errorf("%d files of %s took %d entries", count, name, entries)
		}
	}
}

// TestWorks carries each operation out against real nodes.
func TestWorks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := testcluster.Start(ctx, testcluster.Config{NameNodes: 1, DataNodes: 3, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	caller, err := client.New(client.Config{NameNodes: c.URLs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(caller.Close)
	root, err := dfs.ParsePath("/")
	if err != nil {
		t.Fatal(err)
	}
	field, err := NewField(ctx, caller, root)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, bytes int64, work Work) {
		t.Helper()
		r := Run(ctx, name, Plan{Concurrency: 2, Count: 6}, work)
		if r.Operations != 6 || r.Errors != 0 || r.Bytes != bytes || r.P50 <= 0 {
			t.Errorf("%+v", r)
		}
	}
	check("put", 6*100_000, field.Put(100_000, nil))
	check("get", 6*100_000, field.Get(6))
	for _, kind := range []string{"create", "stat", "list", "rename", "mkdir"} {
		work, err := field.Meta(kind, 6)
		if err != nil {
			t.Fatal(err)
		}
		check(kind, 0, work)
	}
	if _, err := field.Meta("fly", 6); dfs.CodeOf(err) != dfs.Invalid {
		t.Errorf("fly: %v", err)
	}
	names, data := Servers(ctx, caller)
	if names := names.Since(nil); names.CPUSeconds <= 0 || names.Resident <= 0 || len(data) != 3 {
		t.Errorf("usage: %+v, %+v", names, data)
	}
	if err := field.Remove(ctx); err != nil {
		t.Error(err)
	}
	if _, err := caller.Stat(ctx, field.Root()); dfs.CodeOf(err) != dfs.NotFound {
		t.Errorf("what is left: %v", err)
	}
}
