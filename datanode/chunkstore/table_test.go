package chunkstore

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// A table is a sorted map, in whatever order chunks come and go.
func TestTable(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var tab table
		model := make(map[dfs.ChunkID]entry)
		next := dfs.ChunkID(1)
		for step := range 20_000 {
			id := dfs.ChunkID(1 + rng.IntN(4000))
			if seed%2 == 0 { // mostly in order, as in life
				id = next
				next++
			}
			if rng.IntN(5) < 2 || step > 15_000 {
				id = dfs.ChunkID(1 + rng.IntN(6000))
				old, had := tab.Delete(id)
				if want, ok := model[id]; had != ok || old != want {
					t.Fatalf("seed %d: removed %v, %v; want %v, %v", seed, old, had, want, ok)
				}
				delete(model, id)
				continue
			}
			e := entry{size: rng.Uint32()}
			old, had := tab.Set(id, e)
			if want, ok := model[id]; had != ok || old != want {
				t.Fatalf("seed %d: replaced %v, %v; want %v, %v", seed, old, had, want, ok)
			}
			model[id] = e
		}
		checkTable(t, &tab, model)
	}
}

func checkTable(t *testing.T, tab *table, model map[dfs.ChunkID]entry) {
	t.Helper()
	if tab.Len() != len(model) {
		t.Fatalf("%d chunks, want %d", tab.Len(), len(model))
	}
	want := slices.Sorted(maps.Keys(model))
	for _, from := range []dfs.ChunkID{0, 1, 777, 5999, 1 << 40} {
		rest := want[sortedFrom(want, from):]
		i := 0
		tab.Ascend(from, func(id dfs.ChunkID, e entry) bool {
			if i >= len(rest) || id != rest[i] || e != model[id] {
				t.Fatalf("from %d: chunk %d comes at %d", from, id, i)
			}
			i++
			return i < 3000
		})
		if i != min(len(rest), 3000) {
			t.Fatalf("from %d: %d chunks, want %d", from, i, len(rest))
		}
	}
	for _, p := range tab.pages {
		if len(p.ids) == 0 || len(p.ids) != len(p.entries) || len(p.ids) > pageSize {
			t.Fatalf("a page has %d IDs and %d entries", len(p.ids), len(p.entries))
		}
	}
	for id := dfs.ChunkID(1); id < 6000; id += 7 {
		got, ok := tab.Get(id)
		if e, held := model[id]; ok != held || got != e {
			t.Fatalf("chunk %d: %v, %v; want %v", id, got, ok, e)
		}
	}
}

func sortedFrom(list []dfs.ChunkID, from dfs.ChunkID) int {
	at, _ := slices.BinarySearch(list, from)
	return at
}

// Chunks that come in order fill their pages: that is what makes a million small.
func TestTableIsDense(t *testing.T) {
	var tab table
	for id := range dfs.ChunkID(10 * pageSize) {
		tab.Set(id+1, entry{})
	}
	if len(tab.pages) != 10 {
		t.Errorf("%d pages", len(tab.pages))
	}
}
