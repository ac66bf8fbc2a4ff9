package wal

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// BenchmarkAppend appends batches of entries of 200 bytes to bolt alone and through a
// journal, by turns in one process, and carries what the journal has each time. It
// reports wall time and processor time of both in microseconds for each batch.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []uint64{1, 16, 64} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			alone, behind := benchBolt(b), benchBolt(b)
			path := filepath.Join(b.TempDir(), "journal")
			if err := Create(path, testID); err != nil {
				b.Fatal(err)
			}
			s := defaults()
			s.interval = time.Hour
			l, err := open(path, testID, behind, unguarded, s)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Stop()
			const block = 200 // batches
			var spent [2]cost
			index := uint64(1)
			for done := 0; done < b.N; done += block {
				n := min(block, b.N-done)
				for i, store := range []raft.LogStore{alone, l} {
					before := costNow()
					for k := range uint64(n) {
						if err := store.StoreLogs(entries(index+k*size, index+k*size+size-1, 1, 200)); err != nil {
							b.Fatal(err)
						}
					}
					wall := time.Since(before.at)
					if store == raft.LogStore(l) {
						if err := l.carry(); err != nil {
							b.Fatal(err)
						}
					}
					spent[i].add(wall, before)
				}
				index += uint64(n) * size
			}
			for i, name := range []string{"bolt", "journal"} {
				b.ReportMetric(float64(spent[i].wall.Microseconds())/float64(b.N), name+"-µs")
				b.ReportMetric(float64(spent[i].cpu.Microseconds())/float64(b.N), name+"-cpu-µs")
			}
			b.ReportMetric(0, "ns/op") // of both together
		})
	}
}

func benchBolt(b *testing.B) *raftboltdb.BoltStore {
	b.Helper()
	s, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(b.TempDir(), "bolt"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

type cost struct {
	at        time.Time
	wall, cpu time.Duration
}

func costNow() cost {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // has no way to fail here
	return cost{at: time.Now(), cpu: time.Duration(r.Utime.Nano() + r.Stime.Nano())}
}

func (c *cost) add(wall time.Duration, before cost) {
	c.wall += wall
	c.cpu += costNow().cpu - before.cpu
}
