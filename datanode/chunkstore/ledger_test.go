package chunkstore

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// reader is a NameNode as far as reports go.
type reader map[dfs.ChunkID]bool

func (n reader) apply(r *Report) {
	for _, id := range r.Added {
		n[id] = true
	}
	for _, id := range slices.Concat(r.Removed, r.Corrupt) {
		delete(n, id)
	}
	if p := r.Page; p != nil {
		for id := range n {
			if uint64(id) > p.After && uint64(id) <= p.Through {
				delete(n, id)
			}
		}
		for _, id := range p.Chunks {
			n[id] = true
		}
	}
}

func (n reader) digest() (d dfs.Digest) {
	for id := range n {
		d = d.Add(id)
	}
	return d
}

func (n reader) agrees(r *Report) bool {
	return int64(len(n)) == r.Count && n.digest() == r.Digest
}

func heldBy(l *ledger) reader {
	n := reader{}
	l.held.Scan(func(id dfs.ChunkID, _ entry) bool { n[id] = true; return true })
	return n
}

func ids(list ...dfs.ChunkID) []dfs.ChunkID { return list }

func TestReportTellsNetChanges(t *testing.T) {
	type step func(*ledger)
	add := func(id dfs.ChunkID) step { return func(l *ledger) { l.add(id, entry{size: 1}) } }
	remove := func(id dfs.ChunkID) step { return func(l *ledger) { l.remove(id) } }
	condemn := func(id dfs.ChunkID) step { return func(l *ledger) { l.condemn(id) } }
	lost := func(id dfs.ChunkID) step { return func(l *ledger) { l.lost(id) } }
	sent := func(l *ledger) { l.report(100) } // and never acknowledged
	acknowledged := func(l *ledger) { l.acknowledge(l.report(100)) }
	// Chunk 1 is held from the start.
	for name, c := range map[string]struct {
		steps                   []step
		added, removed, corrupt []dfs.ChunkID
		count                   int64
	}{
		"nothing":                    {nil, nil, nil, nil, 1},
		"add":                        {[]step{add(2)}, ids(2), nil, nil, 2},
		"add, told":                  {[]step{add(2), acknowledged}, nil, nil, nil, 2},
		"add, answer lost":           {[]step{add(2), sent}, ids(2), nil, nil, 2},
		"add, remove":                {[]step{add(2), remove(2)}, nil, ids(2), nil, 1},
		"add, lost, remove":          {[]step{add(2), sent, remove(2)}, nil, ids(2), nil, 1},
		"add, told, remove":          {[]step{add(2), acknowledged, remove(2)}, nil, ids(2), nil, 1},
		"add, lost, remove, lost":    {[]step{add(2), sent, remove(2), sent}, nil, ids(2), nil, 1},
		"remove":                     {[]step{remove(1)}, nil, ids(1), nil, 0},
		"remove, add":                {[]step{remove(1), add(1)}, ids(1), nil, nil, 1},
		"condemn":                    {[]step{condemn(1)}, nil, nil, ids(1), 0},
		"condemn, lost":              {[]step{condemn(1), sent}, nil, nil, ids(1), 0},
		"condemn, copy":              {[]step{condemn(1), add(1)}, ids(1), nil, nil, 1},
		"condemn, lost, copy":        {[]step{condemn(1), sent, add(1)}, ids(1), nil, nil, 1},
		"condemn, copy, remove":      {[]step{condemn(1), add(1), remove(1)}, nil, ids(1), nil, 0},
		"remove, lost, add, condemn": {[]step{remove(1), sent, add(1), condemn(1)}, nil, nil, ids(1), 0},
		"condemn, lost, add, remove": {[]step{condemn(1), sent, add(1), remove(1)}, nil, ids(1), nil, 0},
		"remove what is not held":    {[]step{remove(9), condemn(9)}, nil, nil, nil, 1},
		"found damaged at the open":  {[]step{lost(3)}, nil, nil, ids(3), 1},
	} {
		l := &ledger{}
		l.add(1, entry{size: 1})
		l.begin()
		for _, s := range c.steps {
			s(l)
		}
		r := l.report(100)
		if !reflect.DeepEqual([][]dfs.ChunkID{r.Added, r.Removed, r.Corrupt}, [][]dfs.ChunkID{c.added, c.removed, c.corrupt}) || r.Count != c.count {
			t.Errorf("%s: got added %v removed %v corrupt %v count %d", name, r.Added, r.Removed, r.Corrupt, r.Count)
		}
	}
}

func TestReportIsBounded(t *testing.T) {
	l := &ledger{}
	l.begin()
	for id := range dfs.ChunkID(25) {
		l.add(id+1, entry{size: 1})
	}
	n := reader{}
	for round := 1; ; round++ {
		r := l.report(10)
		if len(r.Added) > 10 {
			t.Fatalf("%d chunks in a report of 10", len(r.Added))
		}
		n.apply(r)
		if !n.agrees(r) {
			t.Fatalf("round %d: count %d and digest are not of what was told so far", round, r.Count)
		}
		l.acknowledge(r)
		if !r.More {
			if round != 3 || len(n) != 25 {
				t.Fatalf("%d chunks were told in %d rounds", len(n), round)
			}
			return
		}
	}
}

func TestOnlyTheLatestReportIsAcknowledged(t *testing.T) {
	l := &ledger{}
	l.begin()
	l.add(1, entry{size: 1})
	old := l.report(10)
	l.add(2, entry{size: 1})
	l.report(10)
	l.acknowledge(old) // its answer came after it was given up
	if r := l.report(10); !slices.Equal(r.Added, ids(1, 2)) {
		t.Fatalf("got %v; what an answer to an old report acknowledges may be too little", r.Added)
	}
	l.acknowledge(nil)
}

// Whatever happens to reports, a reader that gets one at last agrees with the
// node, and at each report in between it agrees with what the report says it
// should know, as long as no report was taken in whose answer was lost.
func TestReportsConverge(t *testing.T) {
	for seed := range uint64(400) {
		converge(t, rand.New(rand.NewPCG(seed, 1)), fmt.Sprintf("seed %d", seed))
	}
}

func converge(t *testing.T, rng *rand.Rand, name string) {
	l := &ledger{}
	for range rng.IntN(10) {
		l.add(dfs.ChunkID(1+rng.IntN(40)), entry{size: 1})
	}
	l.begin()
	n := heldBy(l)
	exact := true
	for range 120 {
		churn(l, rng)
		if rng.IntN(3) > 0 {
			continue
		}
		r := l.report(1 + rng.IntN(6))
		switch rng.IntN(4) {
		case 0: // the report is lost
			continue
		case 1: // the answer is lost
			n.apply(r)
			exact = false
			continue
		}
		n.apply(r)
		if exact && !n.agrees(r) {
			t.Fatalf("%s: the reader has %v, the report says %d", name, slices.Sorted(maps.Keys(n)), r.Count)
		}
		l.acknowledge(r)
	}
	for {
		r := l.report(6)
		n.apply(r)
		l.acknowledge(r)
		if !r.More {
			if !n.agrees(r) || !maps.Equal(n, heldBy(l)) {
				t.Fatalf("%s: the reader has %v at the end", name, slices.Sorted(maps.Keys(n)))
			}
			return
		}
	}
}

func churn(l *ledger, rng *rand.Rand) {
	id := dfs.ChunkID(1 + rng.IntN(40))
	switch rng.IntN(5) {
	case 0, 1:
		l.add(id, entry{size: 1})
	case 2:
		l.remove(id)
	case 3:
		l.condemn(id)
	}
}

// An inventory puts right whatever a reader believed, while the chunks change
// and reports and answers are lost.
func TestInventoryPutsRight(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		l := &ledger{}
		for range rng.IntN(30) {
			l.add(dfs.ChunkID(1+rng.IntN(40)), entry{size: 1})
		}
		l.begin()
		n := reader{}
		for range rng.IntN(30) {
			n[dfs.ChunkID(1+rng.IntN(60))] = true
		}
		exact := true
		for after, last := uint64(0), false; !last; {
			for range rng.IntN(4) {
				churn(l, rng)
			}
			r := l.reportPage(after, 1+rng.IntN(6))
			checkPage(t, l, r.Page, after)
			if rng.IntN(4) > 0 { // else the report is lost
				n.apply(r)
				answered := rng.IntN(8) > 0
				exact = exact && answered
				if answered {
					l.acknowledge(r)
					after, last = r.Page.Through, r.Page.Last
				}
				if exact && last && !n.agrees(r) {
					t.Fatalf("seed %d: after the last page the reader has %v, the report says %d", seed, slices.Sorted(maps.Keys(n)), r.Count)
				}
			}
		}
		r := l.report(1000)
		n.apply(r)
		if !n.agrees(r) || !maps.Equal(n, heldBy(l)) {
			t.Fatalf("seed %d: the reader has %v, the node %v", seed, slices.Sorted(maps.Keys(n)), slices.Sorted(maps.Keys(heldBy(l))))
		}
	}
}

func checkPage(t *testing.T, l *ledger, p *Page, after uint64) {
	t.Helper()
	var want []dfs.ChunkID
	l.held.Scan(func(id dfs.ChunkID, _ entry) bool {
		if uint64(id) > p.After && uint64(id) <= p.Through {
			want = append(want, id)
		}
		return true
	})
	if p.After != after || !slices.Equal(p.Chunks, want) || p.Last != (p.Through == math.MaxUint64) {
		t.Fatalf("page %+v, but %v are held", p, want)
	}
}

func TestPageOfNothing(t *testing.T) {
	l := &ledger{}
	l.begin()
	for _, after := range []uint64{0, 5, math.MaxUint64} {
		p := l.reportPage(after, 10).Page
		if !p.Last || p.Through != math.MaxUint64 || p.Chunks == nil || len(p.Chunks) != 0 {
			t.Errorf("after %d: %+v", after, p)
		}
	}
}

func TestHighestID(t *testing.T) {
	l := &ledger{}
	l.add(math.MaxUint64, entry{size: 1})
	l.add(math.MaxUint64-1, entry{size: 1})
	l.begin()
	p := l.reportPage(0, 1).Page
	if p.Last || p.Through != math.MaxUint64-1 {
		t.Fatalf("first page %+v", p)
	}
	if p = l.reportPage(p.Through, 1).Page; !p.Last || len(p.Chunks) != 1 {
		t.Fatalf("last page %+v", p)
	}
}
