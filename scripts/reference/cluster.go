package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// dfsCluster is a quorum of DFS-Go, of this or an earlier revision, which its
// own scripts/quorum.sh starts and stops.
type dfsCluster struct {
	root string // of the checkout
	home string
	port int
	data int // DataNodes
}

func (c *dfsCluster) environment() []string {
	return append(os.Environ(), "DFS_HOME="+c.home, fmt.Sprintf("DFS_RAFT_BASE=%d", c.port), fmt.Sprintf("DFS_HTTP_BASE=%d", c.port+20),
		fmt.Sprintf("DFS_DATA_BASE=%d", c.port+40), "NAMENODES=3", fmt.Sprintf("DATANODES=%d", c.data), "DFS_PATIENCE=120",
		"DFS_NAMENODES="+c.nameNodes())
}

func (c *dfsCluster) nameNodes() string {
	var urls []string
	for i := range 3 {
		urls = append(urls, fmt.Sprintf("http://localhost:%d", c.port+20+i))
	}
	return strings.Join(urls, ",")
}

func (c *dfsCluster) script() string  { return filepath.Join(c.root, "scripts", "quorum.sh") }
func (c *dfsCluster) program() string { return filepath.Join(c.home, "dfs") }

// fresh starts empty nodes.
func (c *dfsCluster) fresh(ctx context.Context, dataNodes int) error {
	if err := c.clear(ctx); err != nil {
		return err
	}
	c.data = dataNodes
	return c.quorum(ctx, "start")
}

// clear ends all nodes and removes what they have kept, except the program.
func (c *dfsCluster) clear(ctx context.Context) error {
	if _, err := os.Stat(c.home); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	err := c.quorum(ctx, "stop")
	left, globbing := filepath.Glob(filepath.Join(c.home, "[dn]n[0-9]*"))
	err = errors.Join(err, globbing)
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(name))
	}
	return err
}

func (c *dfsCluster) quorum(ctx context.Context, args ...string) error {
	_, err := c.run(ctx, nil, c.script(), args...)
	return err
}

// run returns what a command prints, and its resource usage.
func (c *dfsCluster) run(ctx context.Context, stdin io.Reader, program string, args ...string) (output, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	var out output
	var complaints bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.environment(), stdin, &out, &complaints
	cmd.Dir = c.root
	err := cmd.Run()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		out.peak = usage.Maxrss << 10
	}
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, lastLine(complaints.String()))
	}
	return out, nil
}

// output keeps the beginning of what a command prints, and counts the rest.
type output struct {
	text bytes.Buffer
	n    int64
	peak int64 // resident bytes of the command at its largest
}

const keptOutput = 4 * mib

func (o *output) Write(p []byte) (int, error) {
	o.n += int64(len(p))
	if o.text.Len() < keptOutput {
		o.text.Write(p[:min(len(p), keptOutput-o.text.Len())])
	}
	return len(p), nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// benchResult is what of the answers of 'dfs bench --json' is looked at.
type benchResult struct {
	Name        string  `json:"name"`
	Operations  int64   `json:"operations"`
	Errors      int64   `json:"errors"`
	FirstError  string  `json:"first_error"`
	Bytes       int64   `json:"bytes"`
	PerSecond   float64 `json:"operations_per_second"`
	BytesPerSec float64 `json:"bytes_per_second"`
	P50         float64 `json:"p50"`
	P99         float64 `json:"p99"`
	Max         float64 `json:"max"`
	Repair      struct {
		Bytes int64 `json:"bytes"`
	} `json:"repair"`
}

// bench runs 'dfs bench' and returns its results, by name, and all it printed.
// What fails of a load is an error, except that of a fault.
func (c *dfsCluster) bench(ctx context.Context, args ...string) (map[string]benchResult, json.RawMessage, error) {
	out, err := c.run(ctx, nil, c.program(), append([]string{"--json", "bench"}, args...)...)
	if err != nil {
		return nil, nil, err
	}
	var results []benchResult
	if err := json.Unmarshal(out.text.Bytes(), &results); err != nil {
		return nil, nil, fmt.Errorf("dfs bench %s: %w", strings.Join(args, " "), err)
	}
	byName := make(map[string]benchResult)
	for _, r := range results {
		if r.Errors > 0 && !strings.HasPrefix(r.Name, "load") {
			return nil, nil, fmt.Errorf("dfs bench %s: %d operations failed, the first: %s", args[0], r.Errors, r.FirstError)
		}
		byName[r.Name] = r
	}
	return byName, bytes.Clone(out.text.Bytes()), nil
}

// clientMemory returns the most memory that an upload and a download took.
func (c *dfsCluster) clientMemory(ctx context.Context, bytes int64) (up, down int64, err error) {
	const path = "/memory"
	upload, err := c.run(ctx, &zeros{left: bytes}, c.program(), "upload", "--no-progress", "-", path)
	if err != nil {
		return 0, 0, err
	}
	download, err := c.run(ctx, nil, c.program(), "download", "--no-progress", path, "-")
	if err == nil && download.n != bytes {
		err = fmt.Errorf("%d of %d bytes were downloaded", download.n, bytes)
	}
	return upload.peak, download.peak, err
}

type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	return int(n), nil
}
