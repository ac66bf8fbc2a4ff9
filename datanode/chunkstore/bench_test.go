package chunkstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// The benchmarks compare with the disk as it is, in the same process and in turn.
// TMPDIR says on which disk; otherwise they are in memory, where an fsync is
// nothing.

const benchWriters = 16

// inParallel lets writers do something n times in all, and says how long it took.
func inParallel(b *testing.B, writers, n int, do func(i int) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range writers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// rawPut is what a chunk in a file of its own costs at least.
func rawPut(dir string, data []byte) func(i int) error {
	return func(i int) error {
		temp := filepath.Join(dir, fmt.Sprintf("temp-%d", i))
		f, err := os.Create(temp)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		if err := os.Rename(temp, filepath.Join(dir, fmt.Sprintf("file-%d", i))); err != nil {
			return err
		}
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	}
}

func processTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchStore(b *testing.B, dir string) *Store {
	b.Helper()
	s, err := Open(Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1})
	if err == nil {
		err = s.WaitLoaded(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// comparePuts runs rounds of the store and of the raw disk in turn.
func comparePuts(b *testing.B, size, writers, rounds int) {
	data := make([]byte, size)
	sum := dfs.ChecksumOf(data)
	s, raw := benchStore(b, b.TempDir()), rawPut(b.TempDir(), data)
	put := func(id int) error {
		_, err := s.Put(dfs.ChunkID(id), data, sum)
		return err
	}
	var ours, theirs, cpu, rawCPU time.Duration
	base := 0
	b.ReportAllocs()
	for b.Loop() {
		for range rounds {
			n := 4 * writers
			at := base
			base += n
			before := processTime()
			ours += inParallel(b, writers, n, func(i int) error { return put(at + i) })
			middle := processTime()
			theirs += inParallel(b, writers, n, func(i int) error { return raw(at + i) })
			cpu += middle - before
			rawCPU += processTime() - middle
		}
	}
	count := float64(base)
	b.ReportMetric(float64(theirs)/float64(ours), "x_raw")
	b.ReportMetric(count/ours.Seconds(), "puts/s")
	b.ReportMetric(float64(cpu.Microseconds())/count, "µs_cpu/put")
	b.ReportMetric(float64(rawCPU.Microseconds())/count, "µs_cpu/raw")
}

func BenchmarkSmallPut(b *testing.B) { comparePuts(b, 4096, benchWriters, 4) }
func BenchmarkBlockPut(b *testing.B) { comparePuts(b, PackLimit, benchWriters, 2) }
func BenchmarkLargePut(b *testing.B) { comparePuts(b, dfs.DefaultChunkSize, 4, 1) }

// BenchmarkSmallRemove compares removals of small chunks together, as many as an order
// of a leader has under one fence, with as many one by one, in turn.
func BenchmarkSmallRemove(b *testing.B) {
	for _, sealed := range []bool{true, false} {
		b.Run(fmt.Sprint("sealed=", sealed), func(b *testing.B) { compareRemovals(b, sealed) })
	}
}

func compareRemovals(b *testing.B, sealed bool) {
	const count, together = 8192, 256
	data := make([]byte, 4096)
	sum := dfs.ChecksumOf(data)
	s := benchStore(b, b.TempDir())
	var alone, many, aloneCPU, manyCPU time.Duration
	removed, last := 0, 0
	for b.Loop() {
		b.StopTimer()
		base := last
		last += count
		inParallel(b, 64, count, func(i int) error {
			_, err := s.Put(dfs.ChunkID(base+i), data, sum)
			return err
		})
		if sealed {
			sealTail(b, s)
		}
		b.StartTimer()
		for first := base + 1; first <= last; first += 2 * together {
			some := fromTo(dfs.ChunkID(first), dfs.ChunkID(first+2*together-1))
			began, cpu := time.Now(), processTime()
			for _, id := range some[:together] {
				if err := s.Remove(id); err != nil {
					b.Fatal(err)
				}
			}
			alone += time.Since(began)
			aloneCPU += processTime() - cpu
			began, cpu = time.Now(), processTime()
			if err := errors.Join(s.RemoveTogether(some[together:])...); err != nil {
				b.Fatal(err)
			}
			many += time.Since(began)
			manyCPU += processTime() - cpu
		}
		removed += count / 2
	}
	b.ReportMetric(float64(alone)/float64(many), "x_faster")
	b.ReportMetric(float64(aloneCPU.Microseconds())/float64(removed), "µs_cpu/alone")
	b.ReportMetric(float64(manyCPU.Microseconds())/float64(removed), "µs_cpu/together")
}

func BenchmarkSmallGet(b *testing.B) {
	s := benchStore(b, b.TempDir())
	data := make([]byte, 4096)
	const count = 2000
	inParallel(b, benchWriters, count, func(i int) error {
		_, err := s.Put(dfs.ChunkID(i), data, dfs.ChecksumOf(data))
		return err
	})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c, err := s.OpenChunk(dfs.ChunkID(1 + i*7%count))
		if err != nil {
			b.Fatal(err)
		}
		_ = c.Close() // only read from
	}
}

// BenchmarkLoadMillion is how long a start takes with a million small chunks, and
// how much memory they cost. Run it with -benchtime=1x.
func BenchmarkLoadMillion(b *testing.B) {
	const count, size = 1_000_000, 64
	dir := b.TempDir()
	s := benchStore(b, dir)
	data := make([]byte, size)
	sum := dfs.ChecksumOf(data)
	s.volumes[0].segments.limit = 16384 * recordSize(size) // as many records as there would be of 4 KiB
	inParallel(b, 512, count, func(i int) error {
		_, err := s.Put(dfs.ChunkID(i), data, sum)
		return err
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	s = nil
	var before, after runtime.MemStats
	var peak uint64
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		loaded, err := Open(Config{Dirs: []string{dir}, NodeID: "dn1", Reserve: 1})
		if err == nil {
			err = loaded.WaitLoaded(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		peak = after.HeapSys
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := loaded.Totals().Count; n != count {
			b.Fatalf("%d chunks", n)
		}
		if err := loaded.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/count, "bytes/chunk")
	b.ReportMetric(float64(peak)/(1<<20), "MiB_heap")
}
