package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func environment(pairs ...string) func(string) string {
	values := map[string]string{"BENCH_ROOT": "/r", "BENCH_HOME": "/h"}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return values[name] }
}

func TestSettings(t *testing.T) {
	s, err := settingsFrom(environment())
	if err != nil || s.Runs != 5 || s.Size != gib || s.Files != 1_000_000 || s.Quick || !s.wants("anything") {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = settingsFrom(environment("BENCH_QUICK", "yes", "RUNS", "2", "SECONDS_EACH", "7", "ROWS", "put,get"))
	if err != nil || s.Runs != 2 || s.Each != 7*time.Second || s.Size != 256*mib || !s.wants("get") || s.wants("stat") {
		t.Errorf("%+v, %v", s, err)
	}
	for _, wrong := range [][]string{{"RUNS", "0"}, {"SIZE", "1GiB"}, {"FILES", "-1"}, {"BENCH_HOME", "relative"}, {"BENCH_ROOT", ""}} {
		if _, err := settingsFrom(environment(wrong...)); err == nil || !strings.Contains(err.Error(), wrong[0]) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

func TestFit(t *testing.T) {
	s := settings{Home: t.TempDir(), Memory: 1 << 60}
	s.fit()
	if s.Memory >= 1<<60 || s.Memory < mib || s.Reduced == "" {
		t.Errorf("%+v", s)
	}
	s = settings{Home: t.TempDir(), Memory: 1}
	if s.fit(); s.Memory != 1 || s.Reduced != "" {
		t.Errorf("%+v", s)
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		size(gib): "1 GiB", size(3 * mib): "3 MiB", size(4 * kib): "4 KiB", size(1000): "1000 B",
		thousands(1): "1", thousands(999): "999", thousands(1000): "1,000", thousands(1_000_000): "1,000,000", thousands(123_456): "123,456",
		number(1234.6): "1,235", number(12.34): "12.3", number(1.234): "1.23", number(0.01234): "0.0123",
		short(0.001): "0.001", short(1000): "1k", short(2e6): "2M", memoryText("25165824 kB"): "24.0 GiB of memory", memoryText("?"): "?", lastLine("a\nb\n"): "b", lastLine(""): "",
	} {
		if got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(test.values); got != test.want {
			t.Errorf("%v: %v", test.values, got)
		}
	}
}

func samples(key string, values ...float64) []sample {
	var all []sample
	for _, v := range values {
		all = append(all, sample{Values: map[string]float64{key: v}})
	}
	return all
}

func TestRows(t *testing.T) {
	throughput := figure{Key: "x", Unit: "MiB/s", Ratio: 0.8, quotient: mib}
	floor := figure{Key: "x", Ratio: 2, AtLeast: 4000}
	ceiling := figure{Key: "x", Lower: true, AtMost: 1}
	for _, test := range []struct {
		name            string
		f               figure
		ours, reference []sample
		ratio           float64
		met             string
	}{
		{"met", throughput, samples("x", 90*mib, 80*mib, 10*mib), samples("x", 100*mib, 100*mib), 0.8, "yes"},
		{"missed", throughput, samples("x", 79*mib), samples("x", 100*mib), 0.79, "no"},
		{"no reference", throughput, samples("x", 79*mib), nil, 0, "no reference"},
		{"of another figure", throughput, samples("x", 79*mib), samples("y", 1), 0, "no reference"},
		{"nothing", throughput, nil, samples("x", 100*mib), 0, "not measured"},
		{"both aims", floor, samples("x", 5000), samples("x", 2000), 2.5, "yes"},
		{"only the ratio", floor, samples("x", 3000), samples("x", 1000), 3, "no"},
		{"only the floor", floor, samples("x", 5000), samples("x", 4000), 1.25, "no"},
		{"below the floor, nothing to compare", floor, samples("x", 3000), nil, 0, "no"},
		{"at the ceiling", ceiling, samples("x", 1), nil, 0, "yes"},
		{"above", ceiling, samples("x", 1.01), nil, 0, "no"},
	} {
		m := measurement{Figures: []figure{test.f}, Ours: test.ours, Reference: test.reference, Previous: samples("x", 10*mib)}
		r := m.rows()[0]
		if r.Ratio != test.ratio || r.Met != test.met {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
	failed := measurement{Figures: []figure{ceiling}, Ours: samples("x", 1), Failure: "broken"}
	if r := failed.rows()[0]; r.Met != "failed" {
		t.Errorf("%+v", r)
	}
	if aim := floor.aim(); aim != "≥ 2 ×, ≥ 4,000" {
		t.Errorf("%q", aim)
	}
}

// TestExperiments: every figure has a key of its own, an aim, and somebody to
// measure it.
func TestExperiments(t *testing.T) {
	s, err := settingsFrom(environment())
	if err != nil {
		t.Fatal(err)
	}
	ids, keys := make(map[string]bool), make(map[string]bool)
	for _, e := range experiments(s, &references{}) {
		if ids[e.id] || e.ours == nil {
			t.Errorf("%s comes twice, or measures nothing", e.id)
		}
		ids[e.id] = true
		for _, f := range e.figures {
			if keys[f.Key] || f.aim() == "" || f.Unit == "" || f.Title == "" {
				t.Errorf("%+v", f)
			}
			keys[f.Key] = true
			if (f.Ratio > 0) != (e.reference != nil) || (f.Ratio > 0) != (f.Versus != "") {
				t.Errorf("%s: an aim relative to nothing, or a reference for nothing", f.Key)
			}
		}
	}
	script, err := os.ReadFile("../bench.sh")
	if err != nil {
		t.Fatal(err)
	}
	for id := range ids {
		if !strings.Contains(string(script), " "+id) {
			t.Errorf("the usage of bench.sh does not name %s", id)
		}
	}
}

func TestReport(t *testing.T) {
	r := &report{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "abc", Previous: "def", Settings: settings{Quick: true, Runs: 3}}
	r.Measurements = []measurement{
		{ID: "a", Figures: []figure{{Key: "x", Title: "one", Unit: "s", AtMost: 1}}, Ours: samples("x", 0.5), Previous: samples("x", 1)},
		{ID: "b", Figures: []figure{{Key: "x", Title: "two", Unit: "/s", Ratio: 1, Versus: "etcd"}}, Failure: "no disk"},
	}
	dir := t.TempDir()
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	results := filepath.Join(dir, "20260102-030405.json")
	if text := r.text(); !strings.Contains(text, "one") || !strings.Contains(text, "to def") || !strings.Contains(text, "b failed: no disk") {
		t.Error(text)
	}
	document := filepath.Join(dir, "performance.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("no place")
	if err := publish([]string{results}, document); err == nil {
		t.Error("published where there is no place")
	}
	write("before\n" + tableBegins + "\nold\n" + tableEnds + "\nafter\n")
	for range 2 { // the second time, it replaces the first
		if err := publish([]string{results}, document); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for _, part := range []string{"before\n" + tableBegins, tableEnds + "\nafter\n", "commit abc", "Provisional", "| one | 0.5 s | – | – | ≤ 1 | yes | 0.50 |", "| two | – | – (etcd) | – | ≥ 1 × | failed | – |"} {
		if strings.Count(text, part) != 1 {
			t.Errorf("%q is not there once: %s", part, text)
		}
	}
	if strings.Contains(text, "old") {
		t.Error("what was there before is still there")
	}
	if err := publish([]string{document}, document); err == nil {
		t.Error("published what is no result")
	}
}

func TestPublishLaterRows(t *testing.T) {
	dir := t.TempDir()
	document := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(document, []byte(tableBegins+"\n"+tableEnds), 0o644); err != nil {
		t.Fatal(err)
	}
	var files []string
	run := func(r *report) {
		t.Helper()
		if err := r.save(dir); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, r.Time.Format("20060102-150405")+".json"))
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	one := measurement{ID: "a", Figures: []figure{{Key: "x", Title: "one", Unit: "s", AtMost: 1}}, Ours: samples("x", 5)}
	two := measurement{ID: "b", Figures: []figure{{Key: "x", Title: "two", Unit: "s", AtMost: 1}}, Ours: samples("x", 7)}
	again := measurement{ID: "b", Figures: two.Figures, Ours: samples("x", 0.25)}
	run(&report{Time: at, Commit: "abc", Measurements: []measurement{one, two}})
	run(&report{Time: at.Add(time.Hour), Commit: "def", Measurements: []measurement{again}, Machine: machine{LoadBefore: "1"}})
	run(&report{Time: at.Add(2 * time.Hour), Commit: "fed", Measurements: []measurement{again}})
	if err := publish(files, document); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for _, part := range []string{"| one | 5.00 s |", `| two\*\* | 0.25 s |`, "commit abc", `Rows with \*: 2026-01-02 04:04 UTC, commit def`, "commit fed"} {
		if strings.Count(text, part) != 1 {
			t.Errorf("%q is not there once: %s", part, text)
		}
	}
	if strings.Contains(text, "7.00") {
		t.Error("the row that was measured again is still there")
	}

	run(&report{Time: at.Add(3 * time.Hour), Machine: machine{Processors: 99}, Measurements: []measurement{again}})
	if err := publish(files, document); err == nil {
		t.Error("rows of another machine were taken over")
	}
	files = files[:2]
	again.Figures = []figure{{Key: "x", Title: "three", Unit: "s", AtMost: 1}}
	run(&report{Time: at.Add(4 * time.Hour), Measurements: []measurement{again}})
	if err := publish(files, document); err == nil {
		t.Error("a row that the first run has not was taken over")
	}
}

func TestRepeat(t *testing.T) {
	var calls atomic.Int64
	l, err := repeat(t.Context(), 4, 0, 100, func(context.Context, int64) (int64, error) { calls.Add(1); return 3, nil })
	if err != nil || l.Operations != 100 || l.Bytes != 300 || calls.Load() != 100 || l.PerSecond <= 0 || l.Max < l.P99 || l.P99 < l.P50 {
		t.Errorf("%+v, %v", l, err)
	}
	broken := errors.New("broken")
	if _, err := repeat(t.Context(), 4, time.Hour, 0, func(_ context.Context, i int64) (int64, error) {
		if i == 50 {
			return 0, broken
		}
		return 0, nil
	}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestRawDisk(t *testing.T) {
	d := disk{t.TempDir()}
	for name, measure := range map[string]func() (load, error){
		"write": func() (load, error) { return d.rawWrite(t.Context(), 3, 100_001) },
		"small": func() (load, error) { return d.rawSmall(t.Context(), 4, 4096, time.Millisecond) },
		"copy":  func() (load, error) { return d.rawCopy(t.Context(), copied+1) },
	} {
		l, err := measure()
		if err != nil || l.BytesPerSec <= 0 || l.Operations < 1 {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if name == "write" && l.Bytes != 100_001 {
			t.Errorf("replicas count: %d bytes", l.Bytes)
		}
	}
	if left, err := os.ReadDir(d.dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWeb(t *testing.T) {
	dir := t.TempDir()
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	w := &web{root: dir, url: server.URL, client: server.Client()}
	if err := w.put("x", 3, 1000); err != nil {
		t.Fatal(err)
	}
	l, err := w.read(t.Context(), "x", 3, 2, 0, 10)
	if err != nil || l.Operations != 10 || l.Bytes != 10_000 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := w.read(t.Context(), "y", 1, 1, 0, 1); err == nil {
		t.Error("what is not there was read")
	}
}

// TestChunkFiles holds the made files against the length that is documented.
func TestChunkFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"01", "02", "ff"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeChunks(t.Context(), dir, 1, 2); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "02", "0000000000000002"))
	if err != nil || len(content) != chunkSize+4+40 || string(content[chunkSize+4:chunkSize+12]) != "DFSCHUNK" || content[chunkSize+20] != 2 {
		t.Errorf("%d bytes, %v", len(content), err)
	}
}

func TestParseBenchmarks(t *testing.T) {
	points := parseBenchmarks(`goos: linux
BenchmarkNamespace/files=1000-2   1	1544675244 ns/op	767.8 heap-B/file	0.8204 s-restart
BenchmarkNamespace/files=20000-16   1	3417743608 ns/op	944.0 heap-B/file
BenchmarkOther-2  1  3 ns/op
PASS
`, "files=")
	if len(points) != 2 || points[0].At != 1000 || points[0].Values["s-restart"] != 0.8204 || points[1].At != 20000 || points[1].Values["heap-B/file"] != 944 {
		t.Errorf("%+v", points)
	}
}

func TestPlot(t *testing.T) {
	p := plot{Title: "a < b", X: "bytes", Y: "MiB/s", Binary: true, Curves: []curve{
		{Name: "put", Points: [][2]float64{{1024, 0.5}, {1 << 20, 90}, {1 << 30, 0}}}, {Name: "p99", Dashed: true, Points: [][2]float64{{1024, 2}}},
	}}
	text := p.svg()
	if err := wellFormed(text); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	for part, want := range map[string]int{"<polyline": 2, "<circle": 3, "a &lt; b": 1, "stroke-dasharray": 3, ">1 MiB<": 1, "NaN": 0, "Inf": 0} {
		if got := strings.Count(text, part); got != want {
			t.Errorf("%q is there %d times", part, got)
		}
	}
	if err := wellFormed(plot{}.svg()); err != nil || strings.Contains(plot{}.svg(), "NaN") {
		t.Errorf("an empty plot: %v", err)
	}
}

func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestBetween(t *testing.T) {
	for _, test := range []struct {
		low, high, factor int64
		want              string
	}{{1, 8, 2, "[1,2,4,8]"}, {1, 512, 8, "[1,8,64,512]"}, {1000, 5000, 10, "[1000,5000]"}, {7, 7, 10, "[7]"}} {
		got, err := json.Marshal(between(test.low, test.high, test.factor))
		if err != nil || string(got) != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	p, err := startProcess(dir, "sleeper", "sh", "-c", "echo here; exec sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "sleeper.log")
	if err := p.waitFor(t.Context(), time.Minute, func(context.Context) error {
		if content, err := os.ReadFile(log); err != nil || string(content) != "here\n" {
			return errors.New("nothing yet")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	p, err = startProcess(dir, "short", "false")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.waitFor(t.Context(), time.Minute, func(context.Context) error { return errors.New("no") }); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("waiting for one that has ended: %v", err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}
