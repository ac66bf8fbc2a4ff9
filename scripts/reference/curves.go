package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// runCurves measures how speed and delay change with concurrency, size of
// files, number of files and number of chunks, and draws them.
func runCurves(ctx context.Context, s settings) (err error) {
	s.Previous = ""
	s.fit()
	r, err := newRunner(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	if err := r.build(ctx); err != nil {
		return err
	}
	folder := filepath.Join(s.Root, "docs", "performance")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	report := newReport(ctx, s)
	for _, set := range []struct {
		id   string
		take func(context.Context, *runner) ([]plot, error)
	}{
		{"concurrency", concurrencyCurves}, {"size", sizeCurves}, {"names", nameCurves}, {"files", fileCurves}, {"chunks", chunkCurves},
	} {
		if !s.wants(set.id) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format(time.TimeOnly), set.id)
		plots, err := set.take(ctx, r)
		if err != nil {
			return err
		}
		if err := saveCurves(folder, set.id, report, plots); err != nil {
			return err
		}
	}
	fmt.Println(folder)
	return nil
}

// saveCurves writes id.json with all values, and a picture of each plot.
func saveCurves(folder, id string, r *report, plots []plot) error {
	for i, p := range plots {
		name := id
		if i > 0 {
			name = fmt.Sprintf("%s-%d", id, i+1)
		}
		if err := os.WriteFile(filepath.Join(folder, name+".svg"), []byte(p.svg()), 0o644); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(folder, id+".json"), struct {
		Time     time.Time `json:"time"`
		Commit   string    `json:"commit"`
		Machine  machine   `json:"machine"`
		Settings settings  `json:"settings"`
		Plots    []plot    `json:"plots"`
	}{r.Time, r.Commit, r.Machine, r.Settings, plots})
}

// family collects the curves of several operations over one axis.
type family struct {
	names []string
	speed map[string][][2]float64
	p50   map[string][][2]float64
	p99   map[string][][2]float64
}

func newFamily(names ...string) *family {
	return &family{names: names, speed: make(map[string][][2]float64), p50: make(map[string][][2]float64), p99: make(map[string][][2]float64)}
}

func (f *family) add(name string, at, speed float64, r benchResult) {
	f.speed[name] = append(f.speed[name], [2]float64{at, speed})
	f.p50[name] = append(f.p50[name], [2]float64{at, 1000 * r.P50})
	f.p99[name] = append(f.p99[name], [2]float64{at, 1000 * r.P99})
}

// plots are two: speed, and delays.
func (f *family) plots(title, x, unit string, binary bool) []plot {
	speed := plot{Title: title + ": throughput", X: x, Y: unit, Binary: binary}
	delay := plot{Title: title + ": latency", X: x, Y: "ms", Binary: binary}
	for _, name := range f.names {
		speed.Curves = append(speed.Curves, curve{Name: name, Points: f.speed[name]})
		delay.Curves = append(delay.Curves, curve{Name: name + ", p50", Points: f.p50[name]}, curve{Name: name + ", p99", Dashed: true, Points: f.p99[name]})
	}
	return []plot{speed, delay}
}

// between are the values from low to high, each times factor the one before.
func between(low, high, factor int64) []int64 {
	var values []int64
	for v := low; v < high; v *= factor {
		values = append(values, v)
	}
	return append(values, high)
}

func concurrencyCurves(ctx context.Context, r *runner) ([]plot, error) {
	f := newFamily("mkdir", "stat", "put 4 KiB", "get 4 KiB")
	if err := r.ours.fresh(ctx, 3); err != nil {
		return nil, err
	}
	factor := int64(2)
	if r.s.Quick {
		factor = 8
	}
	for _, clients := range between(1, 512, factor) {
		at, last := float64(clients), r.s.Each.String()
		meta, _, err := r.ours.bench(ctx, "meta", "--operations", "mkdir,stat", "--concurrency", fmt.Sprint(clients), "--duration", last, "--warm-up", "200ms")
		if err != nil {
			return nil, err
		}
		small, _, err := r.ours.bench(ctx, "small", "--concurrency", fmt.Sprint(clients), "--duration", last, "--warm-up", "200ms")
		if err != nil {
			return nil, err
		}
		for name, result := range map[string]benchResult{"mkdir": meta["mkdir"], "stat": meta["stat"], "put 4 KiB": small["put small"], "get 4 KiB": small["get small"]} {
			f.add(name, at, result.PerSecond, result)
		}
	}
	return f.plots("Three replicas, over concurrency", "clients at once", "operations/s", false), nil
}

func sizeCurves(ctx context.Context, r *runner) ([]plot, error) {
	f := newFamily("put", "get")
	largest := 4 * r.s.Size // 4 GiB at full size
	for _, bytes := range between(kib, largest, 4) {
		if err := r.ours.fresh(ctx, 3); err != nil { // so that the disk does not fill
			return nil, err
		}
		// About as many bytes in all as the large ones have, but not for ever.
		count := fmt.Sprint(min(max(r.s.Size/bytes, 1), 500))
		for _, name := range f.names {
			results, _, err := r.ours.bench(ctx, name, "--size", fmt.Sprint(bytes), "--count", count)
			if err != nil {
				return nil, err
			}
			f.add(name, float64(bytes), results[name].BytesPerSec/mib, results[name])
		}
	}
	return f.plots("One file at a time, three replicas, over its size", "size of the file", "MiB/s", true), nil
}

// nameCurves is a real cluster that gets ever more files, for ten minutes at
// most.
func nameCurves(ctx context.Context, r *runner) ([]plot, error) {
	f := newFamily("create", "stat", "delete")
	began := time.Now()
	for _, names := range between(1000, int64(max(r.s.Names, 1000)), 10) {
		if time.Since(began) > 5*time.Minute { // the next takes ten times as long as the last
			break
		}
		if err := r.ours.fresh(ctx, 3); err != nil {
			return nil, err
		}
		results, _, err := r.ours.bench(ctx, "meta", "--operations", "create,stat,delete", "--count", fmt.Sprint(names), "--concurrency", "64", "--duration", "5m")
		if err != nil {
			return nil, err
		}
		for _, name := range f.names {
			f.add(name, float64(names), results[name].PerSecond, results[name])
		}
	}
	return f.plots("64 clients, over the number of files", "files", "operations/s", false), nil
}

func fileCurves(ctx context.Context, r *runner) ([]plot, error) {
	points, err := measureFiles(ctx, r.ours, counts(r.s.Files))
	if err != nil {
		return nil, err
	}
	times := plot{Title: "One NameNode, over the number of files", X: "files of one chunk", Y: "seconds", Curves: []curve{
		taken(points, "restart", "s-restart"), taken(points, "snapshot", "s-snapshot"), taken(points, "longest Apply", "s-longest-apply"),
	}}
	bytes := plot{Title: "One NameNode: bytes for each file", X: "files of one chunk", Y: "bytes", Curves: []curve{
		taken(points, "live heap", "heap-B/file"), taken(points, "snapshot", "snapshot-B/file"),
	}}
	return []plot{times, bytes}, nil
}

func chunkCurves(ctx context.Context, r *runner) ([]plot, error) {
	points, err := measureChunks(ctx, r.s, r.ours, counts(r.s.Chunks))
	if err != nil {
		return nil, err
	}
	memory := []curve{taken(points, "resident", "resident"), taken(points, "at most", "peak")}
	for _, c := range memory {
		for i := range c.Points {
			c.Points[i][1] /= 1e6
		}
	}
	return []plot{
		{Title: "Start of a DataNode (warm cache)", X: "chunks in its directory", Y: "seconds", Curves: []curve{taken(points, "start", "start")}},
		{Title: "Memory of a DataNode", X: "chunks in its directory", Y: "MB", Curves: memory},
	}, nil
}

func counts(most int) []int {
	var all []int
	for _, n := range between(min(1000, int64(most)), int64(most), 10) {
		all = append(all, int(n))
	}
	return all
}

func taken(points []point, name, key string) curve {
	c := curve{Name: name}
	for _, p := range points {
		c.Points = append(c.Points, [2]float64{p.At, p.Values[key]})
	}
	return c
}
