package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// figure is one row of the table.
type figure struct {
	Key      string  `json:"key"`
	Title    string  `json:"title"`
	Unit     string  `json:"unit"`
	Lower    bool    `json:"lower_is_better,omitempty"`
	Versus   string  `json:"reference,omitempty"` // what it is held against
	Ratio    float64 `json:"aim_ratio,omitempty"` // to that, at least
	AtLeast  float64 `json:"aim_at_least,omitempty"`
	AtMost   float64 `json:"aim_at_most,omitempty"`
	quotient float64 // of the unit: values are divided by it
}

// sample is one measurement: a value for each figure, and all that was printed.
type sample struct {
	Values map[string]float64 `json:"values"`
	Raw    json.RawMessage    `json:"raw,omitempty"`
}

// experiment gives some figures at once. A run measures ours, the reference and
// the previous revision, one after the other.
type experiment struct {
	id        string
	figures   []figure
	dataNodes int    // of a fresh cluster; 0: none is needed
	needs     string // which reference
	partly    bool   // the reference can do some of it without
	once      bool   // it repeats by itself, or is too long
	anew      bool   // each run needs an empty cluster: the one before leaves work behind
	ours      func(ctx context.Context, c *dfsCluster) (sample, error)
	reference func(ctx context.Context) (sample, error)
}

const (
	nginx    = "nginx"
	etcdName = "etcd"
)

// experiments are all that is measured. The aims are for the full size; see
// docs/performance.md.
func experiments(s settings, r *references) []experiment {
	all := []experiment{putOne(s, r), putFour(s, r), getOne(s, r), getEight(s, r), small(s, r)}
	all = append(all, namespace(s, r)...)
	return append(all, list(s), failover(s), repairs(s, r), memory(s), many(s), manyChunks(s))
}

func putOne(s settings, r *references) experiment {
	e := experiment{
		id: "put", dataNodes: 3,
		figures: []figure{{Key: "put", Title: "put " + size(s.Size) + ", 3 replicas, fsync", Unit: "MiB/s", Versus: "3 raw files at once, fsync", Ratio: 0.85, quotient: mib}},
		reference: func(ctx context.Context) (sample, error) {
			return bytesOf("put")(r.disk.rawWrite(ctx, 3, s.Size))
		},
	}
	e.ours = benched(map[string]string{"put": "put"}, bytesPerSecond, "put", "--size", fmt.Sprint(s.Size), "--count", "1")
	return e
}

func putFour(s settings, r *references) experiment {
	each := max(s.Size/4, 1)
	e := experiment{
		id: "put4", dataNodes: 3,
		figures: []figure{{Key: "put4", Title: "put 4 × " + size(each) + " at once", Unit: "MiB/s", Versus: "12 raw files at once, fsync", Ratio: 0.9, quotient: mib}},
		reference: func(ctx context.Context) (sample, error) {
			return bytesOf("put4")(r.disk.rawWrite(ctx, 12, each))
		},
	}
	e.ours = benched(map[string]string{"put": "put4"}, bytesPerSecond, "put", "--size", fmt.Sprint(each), "--count", "4", "--concurrency", "4")
	return e
}

func getOne(s settings, r *references) experiment {
	e := experiment{
		id: "get", dataNodes: 3, needs: nginx,
		figures: []figure{{Key: "get", Title: "get " + size(s.Size) + ", verified, warm", Unit: "MiB/s", Versus: "nginx, 1 stream", Ratio: 0.8, quotient: mib}},
		reference: func(ctx context.Context) (sample, error) {
			if err := r.web.put("one", 1, s.Size); err != nil {
				return sample{}, err
			}
			return bytesOf("get")(r.web.read(ctx, "one", 1, 1, 0, 3))
		},
	}
	e.ours = benched(map[string]string{"get": "get"}, bytesPerSecond, "get", "--size", fmt.Sprint(s.Size), "--count", "3", "--warm-up", "500ms")
	return e
}

func getEight(s settings, r *references) experiment {
	each := max(s.Size/8, 1)
	e := experiment{
		id: "get8", dataNodes: 3, needs: nginx,
		figures: []figure{{Key: "get8", Title: "get " + size(each) + ", 8 readers", Unit: "MiB/s", Versus: "nginx, 8 connections", Ratio: 0.8, quotient: mib}},
		reference: func(ctx context.Context) (sample, error) {
			if err := r.web.put("eight", 8, each); err != nil {
				return sample{}, err
			}
			return bytesOf("get8")(r.web.read(ctx, "eight", 8, 8, 0, 24))
		},
	}
	e.ours = benched(map[string]string{"get": "get8"}, bytesPerSecond, "get", "--size", fmt.Sprint(each), "--count", "24", "--concurrency", "8", "--warm-up", "500ms")
	return e
}

func small(s settings, r *references) experiment {
	const clients, bytes, files = 16, 4 * kib, 4000
	e := experiment{
		id: "small", dataNodes: 3, needs: nginx, partly: true,
		figures: []figure{
			{Key: "small put", Title: "put 4-KiB files, 3 replicas, fsync, 16 clients", Unit: "files/s", Versus: "3 × create, fsync, rename, fsync of directory, 16 writers", Ratio: 2, AtLeast: 4000},
			{Key: "small get", Title: "get 4-KiB files, 16 clients", Unit: "files/s", Versus: "nginx, 16 connections", Ratio: 0.15, AtLeast: 12_000},
		},
		reference: func(ctx context.Context) (sample, error) {
			writes, err := r.disk.rawSmall(ctx, clients, bytes, s.Each)
			if err != nil {
				return sample{}, err
			}
			values := map[string]float64{"small put": writes.PerSecond}
			if r.web == nil {
				return sample{Values: values}, nil
			}
			if err := r.web.put("small", files, bytes); err != nil {
				return sample{}, err
			}
			reads, err := r.web.read(ctx, "small", files, clients, s.Each, 0)
			values["small get"] = reads.PerSecond
			return sample{Values: values, Raw: encoded([]load{writes, reads})}, err
		},
	}
	e.ours = benched(map[string]string{"put small": "small put", "get small": "small get"}, perSecond,
		"small", "--size", fmt.Sprint(bytes), "--concurrency", fmt.Sprint(clients), "--duration", s.Each.String())
	return e
}

// namespace are the operations that are held against etcd.
func namespace(s settings, r *references) []experiment {
	one := func(kind string, clients int, title, versus string, ratio float64, reference func(ctx context.Context) (load, error)) experiment {
		return experiment{
			id: kind, needs: etcdName, dataNodes: 3,
			figures: []figure{{Key: kind, Title: fmt.Sprintf("%s, %d clients", title, clients), Unit: "/s", Versus: versus, Ratio: ratio}},
			ours: benched(map[string]string{kind: kind}, perSecond, "meta", "--operations", kind, "--concurrency", fmt.Sprint(clients),
				"--duration", s.Each.String(), "--warm-up", "500ms"),
			reference: func(ctx context.Context) (sample, error) {
				l, err := reference(ctx)
				return sample{Values: map[string]float64{kind: l.PerSecond}, Raw: encoded(l)}, err
			},
		}
	}
	put := func(ctx context.Context) (load, error) { return r.etcd.put(ctx, 128, 200, s.Each) }
	get := func(ctx context.Context) (load, error) { return r.etcd.get(ctx, 64, s.Each) }
	return []experiment{
		one("mkdir", 128, "mkdir", "etcd put of 200 bytes", 1.5, put),
		one("create", 128, "create an empty file", "etcd put of 200 bytes", 0.75, put),
		one("stat", 64, "stat, linearizable", "etcd get, linearizable", 1, get),
	}
}

func list(s settings) experiment {
	e := experiment{
		id: "list", dataNodes: 3, once: true,
		figures: []figure{{Key: "list", Title: "list " + thousands(s.Names) + " names of one directory", Unit: "s", Lower: true, AtMost: 1}},
	}
	e.ours = benched(map[string]string{"list": "list"}, func(r benchResult) float64 { return r.P50 },
		"meta", "--operations", "list", "--names", fmt.Sprint(s.Names), "--per-directory", fmt.Sprint(s.Names), "--concurrency", "1", "--count", fmt.Sprint(s.Runs))
	return e
}

func failover(s settings) experiment {
	return experiment{
		id: "failover", dataNodes: 3, once: true,
		figures: []figure{
			{Key: "failover median", Title: fmt.Sprintf("leader killed → next write acknowledged, median of %d", s.Kills), Unit: "s", Lower: true, AtMost: 1},
			{Key: "failover max", Title: "the same, longest", Unit: "s", Lower: true, AtMost: 2},
		},
		ours: func(ctx context.Context, c *dfsCluster) (sample, error) {
			results, raw, err := c.bench(ctx, "failover", "--count", fmt.Sprint(s.Kills), "--kill", c.script()+" kill {id}", "--start", c.script()+" start-one {id}")
			r := results["failover: write"]
			return sample{Values: map[string]float64{"failover median": r.P50, "failover max": r.Max}, Raw: raw}, err
		},
	}
}

func repairs(s settings, r *references) experiment {
	const files = 32
	each := max(s.Repair/files, 1)
	lost := int64(0)
	return experiment{
		id: "recover", dataNodes: 4, anew: true,
		figures: []figure{{Key: "recover", Title: "one dead DataNode of four, " + size(s.Repair) + " stored, copying only", Unit: "MiB/s", Versus: "raw copy of its bytes, fsync", Ratio: 0.6, quotient: mib}},
		ours: func(ctx context.Context, c *dfsCluster) (sample, error) {
			results, raw, err := c.bench(ctx, "recover", "--count", fmt.Sprint(files), "--size", fmt.Sprint(each),
				"--kill", c.script()+" kill {id}", "--start", c.script()+" start-one {id}")
			if err != nil {
				return sample{}, err
			}
			lost = results["recover"].Repair.Bytes
			return sample{Values: map[string]float64{"recover": results["recover"].BytesPerSec}, Raw: raw}, nil
		},
		reference: func(ctx context.Context) (sample, error) { return bytesOf("recover")(r.disk.rawCopy(ctx, lost)) },
	}
}

func memory(s settings) experiment {
	return experiment{
		id: "memory", dataNodes: 3, once: true,
		figures: []figure{
			{Key: "upload memory", Title: "client, at most, uploading " + size(s.Memory), Unit: "MiB", Lower: true, AtMost: 64, quotient: mib},
			{Key: "download memory", Title: "client, at most, downloading it", Unit: "MiB", Lower: true, AtMost: 64, quotient: mib},
		},
		ours: func(ctx context.Context, c *dfsCluster) (sample, error) {
			up, down, err := c.clientMemory(ctx, s.Memory)
			return sample{Values: map[string]float64{"upload memory": float64(up), "download memory": float64(down)}}, err
		},
	}
}

// many is the namespace in the memory of one NameNode; a benchmark of Go makes
// it, without a cluster.
func many(s settings) experiment {
	files := thousands(s.Files)
	return experiment{
		id: "files", once: true,
		figures: []figure{
			{Key: "heap", Title: "NameNode, " + files + " files of one chunk: live heap for each", Unit: "B", Lower: true, AtMost: 320},
			{Key: "longest apply", Title: "longest Apply while a snapshot of them is written", Unit: "ms", Lower: true, AtMost: 50, quotient: 0.001},
			{Key: "restart", Title: "restart from it until a read is answered", Unit: "s", Lower: true, AtMost: 5},
		},
		ours: func(ctx context.Context, c *dfsCluster) (sample, error) {
			points, err := measureFiles(ctx, c, []int{s.Files})
			if err != nil {
				return sample{}, err
			}
			p := points[0]
			return sample{Values: map[string]float64{"heap": p.Values["heap-B/file"], "longest apply": p.Values["s-longest-apply"], "restart": p.Values["s-restart"]}, Raw: encoded(points)}, nil
		},
	}
}

func manyChunks(s settings) experiment {
	chunks := thousands(s.Chunks)
	return experiment{
		id: "chunks", once: true,
		figures: []figure{
			{Key: "start", Title: "DataNode with " + chunks + " chunks: start until all are known", Unit: "s", Lower: true, AtMost: 15},
			{Key: "resident", Title: "its resident memory after that", Unit: "MB", Lower: true, AtMost: 150, quotient: 1e6},
		},
		ours: func(ctx context.Context, c *dfsCluster) (sample, error) {
			points, err := measureChunks(ctx, s, c, []int{s.Chunks})
			if err != nil {
				return sample{}, err
			}
			p := points[0]
			return sample{Values: map[string]float64{"start": p.Values["start"], "resident": p.Values["resident"]}, Raw: encoded(points)}, nil
		},
	}
}

func bytesPerSecond(r benchResult) float64 { return r.BytesPerSec }
func perSecond(r benchResult) float64      { return r.PerSecond }

// benched measures by 'dfs bench'. Names maps those of its results to figures.
func benched(names map[string]string, value func(benchResult) float64, args ...string) func(context.Context, *dfsCluster) (sample, error) {
	return func(ctx context.Context, c *dfsCluster) (sample, error) {
		results, raw, err := c.bench(ctx, args...)
		if err != nil {
			return sample{}, err
		}
		s := sample{Values: make(map[string]float64), Raw: raw}
		for name, key := range names {
			r, ok := results[name]
			if !ok {
				return sample{}, fmt.Errorf("dfs bench %s did not measure %q", args[0], name)
			}
			s.Values[key] = value(r)
		}
		return s, nil
	}
}

// bytesOf makes a sample of bytes a second.
func bytesOf(key string) func(load, error) (sample, error) {
	return func(l load, err error) (sample, error) {
		return sample{Values: map[string]float64{key: l.BytesPerSec}, Raw: encoded(l)}, err
	}
}

func encoded(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(strconv.Quote(err.Error()))
	}
	return text
}

// since is the seconds since began.
func since(began time.Time) float64 { return time.Since(began).Seconds() }
