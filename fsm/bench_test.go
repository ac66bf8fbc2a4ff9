package fsm

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func BenchmarkApplyMkdir(b *testing.B) {
	m := New(nil)
	entries := make([][]byte, 0, b.N)
	for i := range b.N {
		entries = append(entries, Encode(&Mkdir{Path: path(b, fmt.Sprintf("/%d/%d", i/1000, i)), Parents: true}, dfs.RequestID(fmt.Sprint(i)), epoch))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i, entry := range entries {
		if _, err := m.Apply(uint64(i+1), entry); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApplyFile is what a small file costs: an allocation and a commit.
func BenchmarkApplyFile(b *testing.B) {
	r := newRig(b)
	r.nodes(3)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.writeFast(b, path(b, fmt.Sprintf("/%d/%d", i/1000, i)), i)
	}
}

func (r *rig) writeFast(b *testing.B, p dfs.Path, i int) {
	result, err := r.applyAs(dfs.RequestID(fmt.Sprintf("b%d", i)), begin(p, 1))
	if err == nil {
		_, err = r.applyAs(dfs.RequestID(fmt.Sprintf("c%d", i)), opened(result).commit())
	}
	if err != nil {
		b.Fatal(err)
	}
}

const manyFiles = 100_000

// manyFilesRig holds files of one chunk, a thousand a directory.
func manyFilesRig(b *testing.B) *rig {
	r := newRig(b)
	r.nodes(3)
	for i := range manyFiles {
		r.writeFast(b, path(b, fmt.Sprintf("/dir-%d/file-%d", i/1000, i)), i)
	}
	return r
}

// BenchmarkMemory reports the bytes of memory a file of one chunk takes.
func BenchmarkMemory(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := manyFilesRig(b)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(r)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/manyFiles, "B/file")
}

func BenchmarkWriteFiles(b *testing.B) {
	s := manyFilesRig(b).m.Freeze()
	var size int64
	b.ReportAllocs()
	for b.Loop() {
		counted := &counter{}
		if err := s.WriteFiles(counted); err != nil {
			b.Fatal(err)
		}
		size = counted.n
	}
	b.ReportMetric(float64(size)/manyFiles, "B/file")
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func BenchmarkReadSnapshot(b *testing.B) {
	snapshot := snapshotOf(b, manyFilesRig(b).m.Freeze())
	b.SetBytes(int64(len(snapshot)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadSnapshot(io.Reader(bytes.NewReader(snapshot))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFreeze is how long Apply waits for a snapshot to begin.
func BenchmarkFreeze(b *testing.B) {
	r := manyFilesRig(b)
	b.ReportAllocs()
	for b.Loop() {
		r.m.Freeze()
	}
}

// BenchmarkWalk is the cost of a survey without the judging.
func BenchmarkWalk(b *testing.B) {
	s := manyFilesRig(b).m.Freeze()
	for b.Loop() {
		files := 0
		s.Walk(func(*File) bool { files++; return true })
		b.ReportMetric(float64(files), "files")
	}
}
