package chunkstore

import (
	"slices"
	"sort"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// pageSize is how many chunks a page of a table has at most.
const pageSize = 512

// table is what is known of many chunks, in the order of their IDs. It is made
// for millions: sorted pages without pointers, which are full when chunks come
// in the order of their IDs, as they nearly always do.
type table struct {
	pages []*page
	count int
}

// page has at least one chunk.
type page struct {
	ids     []dfs.ChunkID
	entries []entry
}

func newPage() *page {
	return &page{ids: make([]dfs.ChunkID, 0, pageSize), entries: make([]entry, 0, pageSize)}
}

func (p *page) last() dfs.ChunkID { return p.ids[len(p.ids)-1] }

func (p *page) insert(at int, id dfs.ChunkID, e entry) {
	p.ids = slices.Insert(p.ids, at, id)
	p.entries = slices.Insert(p.entries, at, e)
}

// cut moves what follows the first n chunks to a page of its own.
func (p *page) cut(n int) *page {
	rest := newPage()
	rest.ids = append(rest.ids, p.ids[n:]...)
	rest.entries = append(rest.entries, p.entries[n:]...)
	p.ids, p.entries = p.ids[:n], p.entries[:n]
	return rest
}

// Len returns how many chunks there are.
func (t *table) Len() int { return t.count }

// pageOf returns the first page whose last ID is not below id.
func (t *table) pageOf(id dfs.ChunkID) int {
	return sort.Search(len(t.pages), func(i int) bool { return t.pages[i].last() >= id })
}

// Get returns what is known of a chunk.
func (t *table) Get(id dfs.ChunkID) (entry, bool) {
	if i := t.pageOf(id); i < len(t.pages) {
		if at, found := slices.BinarySearch(t.pages[i].ids, id); found {
			return t.pages[i].entries[at], true
		}
	}
	return entry{}, false
}

// Set adds or replaces a chunk, and returns what was known of it.
func (t *table) Set(id dfs.ChunkID, e entry) (old entry, had bool) {
	i := t.pageOf(id)
	if i == len(t.pages) {
		t.push(id, e)
		return entry{}, false
	}
	p := t.pages[i]
	at, found := slices.BinarySearch(p.ids, id)
	if found {
		old, p.entries[at] = p.entries[at], e
		return old, true
	}
	if len(p.ids) == pageSize {
		rest := p.cut(pageSize / 2)
		t.pages = slices.Insert(t.pages, i+1, rest)
		if at > len(p.ids) {
			p, at = rest, at-len(p.ids)
		}
	}
	p.insert(at, id, e)
	t.count++
	return entry{}, false
}

// push adds a chunk behind all others.
func (t *table) push(id dfs.ChunkID, e entry) {
	if len(t.pages) == 0 || len(t.pages[len(t.pages)-1].ids) == pageSize {
		t.pages = append(t.pages, newPage())
	}
	p := t.pages[len(t.pages)-1]
	p.insert(len(p.ids), id, e)
	t.count++
}

// Delete removes a chunk, and returns what was known of it.
func (t *table) Delete(id dfs.ChunkID) (old entry, had bool) {
	i := t.pageOf(id)
	if i == len(t.pages) {
		return entry{}, false
	}
	p := t.pages[i]
	at, found := slices.BinarySearch(p.ids, id)
	if !found {
		return entry{}, false
	}
	old = p.entries[at]
	p.ids = slices.Delete(p.ids, at, at+1)
	p.entries = slices.Delete(p.entries, at, at+1)
	t.count--
	if len(p.ids) == 0 {
		t.pages = slices.Delete(t.pages, i, i+1)
	} else {
		t.join(i-1, i)
		t.join(i, i+1)
	}
	return old, true
}

// join makes one of two neighbours that are nearly empty.
func (t *table) join(i, j int) {
	if i < 0 || j >= len(t.pages) {
		return
	}
	p, next := t.pages[i], t.pages[j]
	if len(p.ids)+len(next.ids) > pageSize/2 {
		return
	}
	p.ids = append(p.ids, next.ids...)
	p.entries = append(p.entries, next.entries...)
	t.pages = slices.Delete(t.pages, j, j+1)
}

// Ascend calls yield for the chunks from an ID on, in order, until it says no.
func (t *table) Ascend(from dfs.ChunkID, yield func(dfs.ChunkID, entry) bool) {
	for i := t.pageOf(from); i < len(t.pages); i++ {
		p := t.pages[i]
		at, _ := slices.BinarySearch(p.ids, from)
		for ; at < len(p.ids); at++ {
			if !yield(p.ids[at], p.entries[at]) {
				return
			}
		}
	}
}

// Scan is Ascend from the beginning.
func (t *table) Scan(yield func(dfs.ChunkID, entry) bool) { t.Ascend(0, yield) }
