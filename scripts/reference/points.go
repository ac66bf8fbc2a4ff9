package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// point is what was measured at one place of a curve.
type point struct {
	At     float64            `json:"at"`
	Values map[string]float64 `json:"values"`
}

// measureFiles has Go's benchmark of a NameNode with so many files run in the
// checkout of c.
func measureFiles(ctx context.Context, c *dfsCluster, counts []int) ([]point, error) {
	var texts []string
	for _, n := range counts {
		texts = append(texts, strconv.Itoa(n))
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkNamespace$", "-benchtime", "1x", "-timeout", "60m", "./internal/bench")
	cmd.Dir = c.root
	// Snapshots lie on the disk that is measured, not in memory.
	cmd.Env = append(os.Environ(), "DFS_BENCH_FILES="+strings.Join(texts, ","), "TMPDIR="+filepath.Dir(c.home))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench BenchmarkNamespace: %w: %s", err, lastLine(string(out)))
	}
	points := parseBenchmarks(string(out), "files=")
	if len(points) != len(counts) {
		return nil, fmt.Errorf("go test -bench BenchmarkNamespace gave %d results instead of %d", len(points), len(counts))
	}
	return points, nil
}

// parseBenchmarks reads lines like
//
//	BenchmarkNamespace/files=1000-2  1  1544675244 ns/op  767.8 heap-B/file
func parseBenchmarks(text, parameter string) []point {
	var points []point
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		_, at, found := strings.Cut(fields[0], parameter)
		at, _, _ = strings.Cut(at, "-")
		n, err := strconv.ParseFloat(at, 64)
		if !found || err != nil {
			continue
		}
		p := point{At: n, Values: make(map[string]float64)}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				p.Values[fields[i+1]] = v
			}
		}
		points = append(points, p)
	}
	return points
}

// measureChunks starts a DataNode on directories with ever more chunks. It needs
// no NameNode for that: what it holds it finds out alone.
func measureChunks(ctx context.Context, s settings, c *dfsCluster, counts []int) ([]point, error) {
	dir := filepath.Join(filepath.Dir(c.home), "chunks")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	node := chunkNode{program: c.program(), dir: dir, port: s.Port + 300}
	if _, err := node.start(ctx, 0); err != nil { // makes the directory ready
		return nil, err
	}
	var points []point
	made := 0
	for _, count := range counts {
		if err := makeChunks(ctx, filepath.Join(dir, "data", "chunks"), made+1, count); err != nil {
			return nil, err
		}
		made = count
		// What is written back during the start would be measured, too.
		if err := exec.CommandContext(ctx, "sync", "-f", dir).Run(); err != nil {
			return nil, fmt.Errorf("sync: %w", err)
		}
		p, err := node.start(ctx, count)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

// chunkNode is a DataNode that is started and stopped.
type chunkNode struct {
	program, dir string
	port         int
}

// start measures how long the DataNode takes until it knows all its chunks, and
// its memory, and stops it.
func (n chunkNode) start(ctx context.Context, chunks int) (p point, err error) {
	began := time.Now()
	process, err := startProcess(n.dir, "datanode", n.program, "datanode", "-id", "dn1", "-addr", fmt.Sprintf("127.0.0.1:%d", n.port),
		"-namenode", fmt.Sprintf("http://127.0.0.1:%d", n.port+1), "-data-dir", filepath.Join(n.dir, "data"), "-scrub-rate", "0")
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, process.stop()) }()
	err = process.waitFor(ctx, 30*time.Minute, func(ctx context.Context) error { return n.knows(ctx, int64(chunks)) })
	if err != nil {
		return p, err
	}
	p = point{At: float64(chunks), Values: map[string]float64{"start": since(began)}}
	status := fmt.Sprintf("/proc/%d/status", process.cmd.Process.Pid)
	for name, key := range map[string]string{"VmRSS": "resident", "VmHWM": "peak"} {
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(field(status, name), " kB"), 10, 64)
		if err != nil {
			return p, fmt.Errorf("%s of the DataNode: %w", name, err)
		}
		p.Values[key] = float64(kilobytes << 10)
	}
	return p, nil
}

// knows tells why the DataNode does not hold all its chunks yet.
func (n chunkNode) knows(ctx context.Context, chunks int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/health", n.port), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() // only read from
	var health struct {
		Status  string `json:"status"`
		Volumes []struct {
			Chunks int64 `json:"chunks"`
		} `json:"volumes"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, mib)).Decode(&health); err != nil {
		return err
	}
	if health.Status != "ok" || len(health.Volumes) != 1 || health.Volumes[0].Chunks != chunks {
		return fmt.Errorf("the DataNode says %q and has %+v, not %d chunks", health.Status, health.Volumes, chunks)
	}
	return nil
}

// chunkSize of the made chunks is small: a start reads only the footers.
const chunkSize = 1 * kib

// makeChunks writes chunk files from one ID to another, as docs/disk-formats.md
// describes them, but without fsync: nothing is to outlive a power cut.
func makeChunks(ctx context.Context, dir string, from, to int) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	data := make([]byte, chunkSize)
	sum := crc32.Checksum(data, table)
	for id := from; id <= to; id++ {
		if id%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		footer := binary.LittleEndian.AppendUint32(nil, sum) // of the only block
		footer = append(footer, "DFSCHUNK"...)
		footer = binary.LittleEndian.AppendUint32(footer, 1)     // format
		footer = binary.LittleEndian.AppendUint32(footer, 65536) // block size
		footer = binary.LittleEndian.AppendUint64(footer, uint64(id))
		footer = binary.LittleEndian.AppendUint64(footer, chunkSize)
		footer = binary.LittleEndian.AppendUint32(footer, sum)
		footer = binary.LittleEndian.AppendUint32(footer, crc32.Checksum(footer, table))
		name := filepath.Join(dir, fmt.Sprintf("%02x", id&0xff), fmt.Sprintf("%016x", id))
		if err := os.WriteFile(name, append(data[:chunkSize:chunkSize], footer...), 0o644); err != nil {
			return err
		}
	}
	return nil
}
