package testcluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/testcluster"
)

const smallFile = 4096 // bytes

func BenchmarkSmallFiles1(b *testing.B)  { benchFiles(b, 1, false) }
func BenchmarkSmallFiles16(b *testing.B) { benchFiles(b, 16, false) }
func BenchmarkSmallReads16(b *testing.B) { benchFiles(b, 16, true) }

// BenchmarkMkdir128 makes directories, one change of the namespace each.
func BenchmarkMkdir128(b *testing.B) {
	ctx, caller := benchCluster(b)
	measure(b, 128, func(i int64) {
		path, err := dfs.ParsePath(fmt.Sprintf("/directories/%d/%d/%d", b.N, i/1000, i))
		if err == nil {
			err = caller.MkdirAll(ctx, path)
		}
		if err != nil {
			b.Error(err)
		}
	})
}

// benchFiles stores small files with three replicas, or reads one of them, and
// reports what that costs all nodes and the client together.
func benchFiles(b *testing.B, callers int, read bool) {
	ctx, caller := benchCluster(b)
	data := bytes.Repeat([]byte("DFS "), smallFile/4)
	put := func(i int64) {
		path, err := dfs.ParsePath(fmt.Sprintf("/files/%d/%d", i/1000, i))
		if err == nil {
			_, err = caller.Upload(ctx, path, bytes.NewReader(data), client.UploadOptions{Size: smallFile})
		}
		if err != nil {
			b.Error(err)
		}
	}
	get := func(i int64) {
		path, err := dfs.ParsePath(fmt.Sprintf("/files/0/%d", i%16))
		if err == nil {
			_, err = caller.Download(ctx, path, io.Discard, client.DownloadOptions{})
		}
		if err != nil {
			b.Error(err)
		}
	}
	work := put
	if read {
		for i := range int64(16) {
			put(i)
		}
		work = get
	} else {
		put(-1)
	}
	measure(b, callers, work)
}

// benchCluster starts a cluster, and a client of it, for a benchmark.
func benchCluster(b *testing.B) (context.Context, *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	b.Cleanup(cancel)
	c, err := testcluster.Start(ctx, testcluster.Config{NameNodes: 3, DataNodes: 4, Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	caller, err := client.New(client.Config{NameNodes: c.URLs()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(caller.Close)
	return ctx, caller
}

// measure lets callers work b.N times, and reports what that costs all sides.
func measure(b *testing.B, callers int, work func(i int64)) {
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	cpu, began := cpuTime(b), time.Now()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				work(i)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/took.Seconds(), "ops/s")
	b.StopTimer()
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
