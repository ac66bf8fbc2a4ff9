package fsm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// sameChunks compares a table with what should be in it.
func sameChunks(t *testing.T, what string, table *chunkTable, want map[dfs.ChunkID]chunk) {
	t.Helper()
	ids := slices.Sorted(maps.Keys(want))
	var seen []dfs.ChunkID
	table.Scan(func(id dfs.ChunkID, c *chunk) bool {
		if want[id] != *c {
			t.Fatalf("%s: chunk %s is %v; want %v", what, id, *c, want[id])
		}
		seen = append(seen, id)
		return true
	})
	if !slices.Equal(seen, ids) || table.Len() != len(ids) {
		t.Fatalf("%s: %d chunks %v; want %v", what, table.Len(), seen, ids)
	}
	for _, p := range ids {
		for _, id := range []dfs.ChunkID{p, p - 1, p + 1} {
			c, ok := table.Get(id)
			if known, has := want[id]; ok != has || c != known {
				t.Fatalf("%s: chunk %s is %v, %v; want %v, %v", what, id, c, ok, known, has)
			}
		}
	}
}

// TestChunkTable changes a table and copies of it and copies of those at
// random: each holds what was put into it and no other.
func TestChunkTable(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	type copied struct {
		table *chunkTable
		model map[dfs.ChunkID]chunk
	}
	all := []copied{{newChunkTable(), make(map[dfs.ChunkID]chunk)}}
	for i := range *stepsFlag {
		at := rng.IntN(len(all))
		c := all[at]
		id := dfs.ChunkID(1 + rng.IntN(5*pageSlots))
		if rng.IntN(20) == 0 {
			id += 1 << 40
		}
		switch rng.IntN(8) {
		case 0, 1, 2:
			c.table.Delete(id)
			delete(c.model, id)
		case 3:
			if rng.IntN(30) > 0 {
				continue
			}
			all = append(all, copied{c.table.copy(), maps.Clone(c.model)})
			if len(all) > 6 {
				all = slices.Delete(all, 0, 1)
			}
		default:
			put := chunk{upload: dfs.UploadID(i), size: int32(i)}
			_, known := c.model[id]
			if c.table.Set(id, put) != known {
				t.Fatalf("step %d: chunk %s was there: %v", i, id, known)
			}
			c.model[id] = put
		}
		if i%50 == 0 {
			for j, c := range all {
				sameChunks(t, fmt.Sprintf("step %d, table %d", i, j), c.table, c.model)
			}
		}
	}
}

func TestChunkTableAscend(t *testing.T) {
	table := newChunkTable()
	ids := []dfs.ChunkID{1, 2, 62, 63, 64, 65, 127, 128, 1000, 1<<64 - 1}
	for _, id := range ids {
		table.Set(id, chunk{})
	}
	for _, from := range []dfs.ChunkID{0, 1, 2, 3, 62, 63, 64, 66, 127, 128, 129, 999, 1000, 1001, 1<<64 - 1} {
		at, _ := slices.BinarySearch(ids, from)
		for _, limit := range []int{1, 3, 100} {
			var got []dfs.ChunkID
			table.Ascend(from, func(id dfs.ChunkID, _ *chunk) bool {
				got = append(got, id)
				return len(got) < limit
			})
			if want := ids[at:min(len(ids), at+limit)]; !slices.Equal(got, want) {
				t.Errorf("from %d, %d of them: %v; want %v", from, limit, got, want)
			}
		}
	}
}

// A page that has lost most of its chunks gives their memory back.
func TestChunkTableShrinks(t *testing.T) {
	table := newChunkTable()
	for id := range dfs.ChunkID(pageSlots) {
		table.Set(id, chunk{})
	}
	for id := range dfs.ChunkID(pageSlots - 1) {
		table.Delete(id)
	}
	p, _ := table.pages.Get(0)
	if len(p.chunks) != 1 || cap(p.chunks) > 4 {
		t.Fatalf("one chunk is left in a page of %d with room for %d", len(p.chunks), cap(p.chunks))
	}
	table.Delete(pageSlots - 1)
	if table.pages.Len() != 0 || table.Len() != 0 {
		t.Fatalf("%d pages are left of nothing", table.pages.Len())
	}
}

// FuzzChunkReplicas adds, drops and damages replicas of more nodes than fit in
// place, and compares with plain sets. Copies of the chunk stay as they were.
func FuzzChunkReplicas(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Add([]byte{10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 22, 23, 24, 25, 26})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 41, 42, 5, 8, 9, 10, 21, 41, 1, 2})
	f.Fuzz(func(t *testing.T, steps []byte) {
		type moment struct {
			c                 chunk
			replicas, damaged []NodeNum
		}
		var c chunk
		var replicas, damaged []NodeNum
		var past []moment
		for _, step := range steps {
			num := NodeNum(1 + step%20)
			at, held := slices.BinarySearch(replicas, num)
			if c.heldBy(num) != held {
				t.Fatalf("%v: held by %d: %v", c, num, !held)
			}
			switch step / 20 % 3 {
			case 0:
				if c.addReplica(num) == held {
					t.Fatalf("%v: adding %d was new: %v", c, num, held)
				}
				if !held {
					replicas, damaged = slices.Insert(slices.Clone(replicas), at, num), replaced(damaged, num)
				}
			case 1, 2:
				if c.dropReplica(num) != held {
					t.Fatalf("%v: dropping %d was something: %v", c, num, !held)
				}
				if held {
					replicas = slices.Delete(slices.Clone(replicas), at, at+1)
				}
				if where, found := slices.BinarySearch(damaged, num); step/20%3 == 2 && held {
					c.addDamaged(num)
					if !found {
						damaged = slices.Insert(slices.Clone(damaged), where, num)
					}
				}
			}
			past = append(past, moment{c, replicas, damaged})
			for _, m := range past {
				if !slices.Equal(m.c.replicas(), m.replicas) || !slices.Equal(m.c.damaged(), m.damaged) || m.c.replicaCount() != len(m.replicas) {
					t.Fatalf("it has %v and, damaged, %v; want %v and %v", m.c.replicas(), m.c.damaged(), m.replicas, m.damaged)
				}
			}
		}
	})
}

// Lists that share memory must not grow into each other.
func TestWalkGivesListsOfTheirOwn(t *testing.T) {
	r := newRig(t)
	nodes := r.nodes(9)
	for i := range 30 {
		ids := r.write(fmt.Sprintf("/f%d", i), 3)
		for _, num := range nodes[:i%10] {
			d := newDisk(num)
			d.seq = uint64(i)
			r.beat(d.report(ids[:2], nil))
		}
	}
	want := make(map[dfs.ChunkID][]NodeNum)
	kept := make(map[dfs.ChunkID][]NodeNum)
	s := r.m.Freeze()
	s.Walk(func(f *File) bool {
		for _, c := range f.Contents {
			kept[c.ID], want[c.ID] = c.Replicas, r.replicas(c.ID)
			_ = append(c.Replicas, 999) // a caller that does not care
		}
		return true
	})
	if len(kept) != 90 {
		t.Fatalf("%d chunks", len(kept))
	}
	for id, replicas := range kept {
		if !slices.Equal(replicas, want[id]) {
			t.Errorf("chunk %s: %v; want %v", id, replicas, want[id])
		}
	}
}

// TestManyReplicas: a chunk on more nodes than are kept in place is reported,
// lost and damaged like any other, in copies and after a restart, too.
func TestManyReplicas(t *testing.T) {
	r := newRig(t)
	nodes := r.nodes(12)
	id := r.write("/f", 1)[0]
	others := r.write("/g", 2) // one has as many, one has all but two
	var want []NodeNum
	var disks []*disk
	frozen := make(map[*State]int)
	for i, num := range nodes {
		d := newDisk(num)
		ids := []dfs.ChunkID{id, others[0]}
		if i != 5 && i != 7 {
			ids = append(ids, others[1])
		}
		r.beat(d.report(ids, nil))
		disks = append(disks, d)
		if want = append(want, num); i >= 1 {
			frozen[r.m.Freeze()] = i + 1
		}
		if i == fewReplicas {
			r.m = restored(t, r.m)
		}
	}
	r.m = restored(t, r.m)
	for i, all := range [][]NodeNum{want, slices.Concat(want[:5], want[6:7], want[8:])} {
		if got := r.replicas(others[i]); !slices.Equal(got, all) {
			t.Fatalf("chunk %s is on %v; want %v", others[i], got, all)
		}
	}
	for i, d := range disks[:10] {
		report := d.report(nil, []dfs.ChunkID{id})
		if i%2 == 0 {
			report.Corrupt, report.Removed = report.Removed, nil
		}
		r.beat(report)
		if got := r.replicas(id); !slices.Equal(got, want[i+1:]) {
			t.Fatalf("after %d are gone: %v", i+1, got)
		}
		r.m = restored(t, r.m)
	}
	if c, _ := r.m.Freeze().Chunk(id); !slices.Equal(c.Damaged, []NodeNum{1, 3, 5, 7, 9}) {
		t.Fatalf("damaged on %v", c.Damaged)
	}
	for s, count := range frozen {
		c, _ := s.Chunk(id)
		if !slices.Equal(c.Replicas, want[:count]) {
			t.Fatalf("a copy with %d replicas has become %v", count, c.Replicas)
		}
	}
}
