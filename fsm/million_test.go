package fsm

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const million = 1_000_000

// millionRig holds files of one chunk with three replicas each, a thousand a
// directory, that the DataNodes have reported: what a cluster of many small
// files looks like.
func millionRig(b *testing.B, files int) *rig {
	r := newRig(b)
	r.nodes(3)
	w := newPhotographer(b, r)
	for range files {
		w.shoot()
	}
	w.report()
	return r
}

// photographer writes one-chunk files as a client of a real cluster does, and
// lets the DataNodes report them a thousand at a time.
type photographer struct {
	b      *testing.B
	r      *rig
	disks  [3]*disk
	added  []dfs.ChunkID
	digest dfs.Digest
	shots  int
}

func newPhotographer(b *testing.B, r *rig) *photographer {
	return &photographer{b: b, r: r, disks: [3]*disk{newDisk(1), newDisk(2), newDisk(3)}}
}

func (p *photographer) request(kind int) dfs.RequestID {
	return dfs.RequestID(fmt.Sprintf("%016x%016x", uint64(p.shots*2+kind)*0x9e3779b97f4a7c15, p.shots))
}

func (p *photographer) shoot() {
	name := path(p.b, fmt.Sprintf("/albums/%04d/photo-%06d.jpg", p.shots/1000, p.shots))
	nodes := []NodeNum{1, 2, 3}
	result, err := p.r.applyAs(p.request(0), &BeginUpload{Path: name, Replication: 3, ChunkSize: 4 << 20, Targets: [][]NodeNum{nodes}})
	if err == nil {
		id := result.First
		p.added, p.digest = append(p.added, id), p.digest.Add(id)
		_, err = p.r.applyAs(p.request(1), &Commit{Upload: result.Upload, Final: true, Chunks: []StoredChunk{
			{ID: id, Size: 1 + int64(id)*4099%(4<<20), Checksum: dfs.Checksum(id) * 2654435761, Nodes: nodes},
		}})
	}
	if err != nil {
		p.b.Fatal(err)
	}
	if p.shots++; len(p.added) == 1000 {
		p.report()
	}
}

func (p *photographer) report() {
	var c Heartbeats
	for _, d := range p.disks {
		d.seq++
		c.Reports = append(c.Reports, NodeReport{
			Node: d.node, Incarnation: 1, Seq: d.seq, Capacity: 1 << 40, Free: 1 << 39, Writable: true,
			Count: int64(p.shots), Digest: p.digest, Added: p.added,
		})
	}
	if wanted := p.r.beat(c.Reports...); len(wanted) > 0 {
		p.b.Fatalf("DataNodes %v do not agree", wanted)
	}
	p.added = p.added[:0]
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// processorTime is how long all threads of the process have computed: on a busy
// machine this says more than the clock on the wall.
func processorTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// threadTime is the same of the calling thread alone.
func threadTime(b *testing.B) time.Duration {
	var used unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Nano())
}

// measured reports how long fn took, on the wall and of the processors.
func measured(b *testing.B, what string, fn func()) {
	start, used := time.Now(), processorTime(b)
	fn()
	b.ReportMetric(time.Since(start).Seconds(), "s-"+what)
	b.ReportMetric((processorTime(b) - used).Seconds(), "cpu-s-"+what)
}

// BenchmarkMillionFiles reports what a million files cost: bytes of live heap,
// the time to write and to read their snapshot, and the longest that an Apply
// took while a snapshot was written. One round is enough.
func BenchmarkMillionFiles(b *testing.B) {
	for b.Loop() {
		before := liveHeap()
		var r *rig
		measured(b, "fill", func() { r = millionRig(b, million) })
		b.ReportMetric(float64(liveHeap()-before)/million, "B/file")
		frozen := r.m.Freeze()
		measured(b, "write", func() {
			if err := frozen.WriteFiles(new(counter)); err != nil {
				b.Fatal(err)
			}
		})
		snapshot := snapshotOf(b, frozen)
		longestApply(b, r)
		frozen, r.m = nil, New(nil)
		timeRestore(b, snapshot)
	}
}

// longestApply writes a snapshot while files are created as fast as can be, and
// lets as many be created without one, to compare: on a busy machine a thread may
// wait for its turn longer than for anything else.
func longestApply(b *testing.B, r *rig) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := newPhotographer(b, r)
	w.shots = 10 * million // names of their own
	frozen := r.m.Freeze()
	written := make(chan error, 1)
	go func() { written <- frozen.WriteFiles(new(counter)) }()
	beside := w.shootUntil(func(int) bool { return len(written) > 0 })
	if err := <-written; err != nil {
		b.Fatal(err)
	}
	alone := w.shootUntil(func(shots int) bool { return shots == beside.shots })
	b.ReportMetric(float64(beside.shots), "files-meanwhile")
	b.ReportMetric(beside.longest.Seconds()*1000, "ms-longest")
	b.ReportMetric(beside.longestComputed.Seconds()*1000, "cpu-ms-longest")
	b.ReportMetric(alone.longest.Seconds()*1000, "ms-longest-alone")
	b.ReportMetric(alone.longestComputed.Seconds()*1000, "cpu-ms-longest-alone")
}

type longest struct {
	shots                    int
	longest, longestComputed time.Duration
}

func (p *photographer) shootUntil(done func(shots int) bool) (l longest) {
	for !done(l.shots) {
		start, used := time.Now(), threadTime(p.b)
		p.shoot()
		l.longestComputed = max(l.longestComputed, threadTime(p.b)-used)
		l.longest = max(l.longest, time.Since(start))
		l.shots++
		p.added = p.added[:min(len(p.added), 900)] // no report
	}
	return l
}

func timeRestore(b *testing.B, snapshot []byte) {
	before := liveHeap()
	var s *State
	measured(b, "read", func() {
		var err error
		if s, err = ReadSnapshot(bytes.NewReader(snapshot)); err != nil {
			b.Fatal(err)
		}
	})
	b.ReportMetric(float64(liveHeap()-before)/million, "B/file-restored")
	runtime.KeepAlive(s)
}

// BenchmarkList lists a directory of 100,000 files in pages of 1000.
func BenchmarkList(b *testing.B) {
	const files = 100_000
	r := newRig(b)
	r.nodes(3)
	for i := range files {
		r.writeFast(b, path(b, fmt.Sprintf("/d/photo-%06d.jpg", i)), i)
	}
	dir := path(b, "/d")
	s := r.m.Freeze()
	b.ReportAllocs()
	for b.Loop() {
		listed, after := 0, ""
		for more := true; more; {
			var entries []Entry
			var err error
			if entries, more, err = s.List(dir, after, 1000); err != nil {
				b.Fatal(err)
			}
			listed += len(entries)
			after = entries[len(entries)-1].Name
		}
		if listed != files {
			b.Fatal(listed)
		}
	}
}

// BenchmarkApplyReport is the report of a thousand new chunks by a DataNode.
func BenchmarkApplyReport(b *testing.B) {
	r := newRig(b)
	r.nodes(3)
	w := newPhotographer(b, r)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for range 999 {
			w.shoot()
		}
		b.StartTimer()
		w.shoot()
	}
}
