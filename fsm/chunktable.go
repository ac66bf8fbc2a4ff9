package fsm

import (
	"math/bits"
	"slices"

	"github.com/tidwall/btree"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// pageBits is how many bits of a chunk's ID tell its place in a page. IDs come
// from a counter, so pages are full until files are deleted.
const (
	pageBits  = 6
	pageSlots = 1 << pageBits
)

// chunkTable holds the chunks by ID, in pages of neighbours. Like the trees, it
// is copied in O(1): a page that a copy may know is replaced when it changes,
// one that only this table knows is changed in place.
type chunkTable struct {
	pages *btree.Map[uint64, *chunkPage] // by the high bits of the ID
	count int
	owner *pageOwner
}

// pageOwner is a name for what may change a page in place; only its address
// matters.
type pageOwner struct{ _ byte }

// chunkPage holds chunks whose IDs differ only in their low bits.
type chunkPage struct {
	owner   *pageOwner
	present uint64  // which of the slots are taken
	chunks  []chunk // those, in order
}

func newChunkTable() *chunkTable {
	return &chunkTable{pages: new(btree.Map[uint64, *chunkPage]), owner: new(pageOwner)}
}

// copy returns a table that later changes of t do not reach. From then on
// neither changes the pages they share. Not safe beside any other use of t.
func (t *chunkTable) copy() *chunkTable {
	t.owner = new(pageOwner)
	return &chunkTable{pages: t.pages.Copy(), count: t.count, owner: new(pageOwner)}
}

// Len returns how many chunks there are.
func (t *chunkTable) Len() int { return t.count }

func pageOf(id dfs.ChunkID) (page uint64, slot uint) {
	return uint64(id) >> pageBits, uint(id % pageSlots)
}

// find returns where in chunks the slot is, or would be, and whether it is taken.
func (p *chunkPage) find(slot uint) (at int, taken bool) {
	return bits.OnesCount64(p.present & (1<<slot - 1)), p.present&(1<<slot) != 0
}

// Get returns the chunk with an ID.
func (t *chunkTable) Get(id dfs.ChunkID) (chunk, bool) {
	number, slot := pageOf(id)
	if p, ok := t.pages.Get(number); ok {
		if at, taken := p.find(slot); taken {
			return p.chunks[at], true
		}
	}
	return chunk{}, false
}

// Set puts the chunk in the place of the one with this ID, if any, and tells
// whether there was one.
func (t *chunkTable) Set(id dfs.ChunkID, c chunk) (replaced bool) {
	number, slot := pageOf(id)
	p, ok := t.pages.Get(number)
	if !ok {
		p = &chunkPage{owner: t.owner}
		t.pages.Load(number, p) // nearly always the last
	}
	p = t.own(number, p)
	at, taken := p.find(slot)
	if taken {
		p.chunks[at] = c
		return true
	}
	if full := cap(p.chunks); len(p.chunks) == full {
		p.resize(min(pageSlots, max(4, 2*full)))
	}
	p.chunks = slices.Insert(p.chunks, at, c)
	p.present |= 1 << slot
	t.count++
	return false
}

// Delete forgets the chunk.
func (t *chunkTable) Delete(id dfs.ChunkID) {
	number, slot := pageOf(id)
	p, ok := t.pages.Get(number)
	if !ok {
		return
	}
	at, taken := p.find(slot)
	if !taken {
		return
	}
	t.count--
	if len(p.chunks) == 1 {
		t.pages.Delete(number)
		return
	}
	p = t.own(number, p)
	p.chunks = slices.Delete(p.chunks, at, at+1)
	p.present &^= 1 << slot
	if len(p.chunks) <= cap(p.chunks)/4 {
		p.resize(cap(p.chunks) / 2)
	}
}

// own returns a page that may be changed in place: p, or a copy in its stead.
func (t *chunkTable) own(number uint64, p *chunkPage) *chunkPage {
	if p.owner == t.owner {
		return p
	}
	mine := &chunkPage{owner: t.owner, present: p.present, chunks: p.chunks}
	mine.resize(cap(p.chunks))
	t.pages.Set(number, mine)
	return mine
}

// resize moves the chunks to a place of their own with room for so many.
func (p *chunkPage) resize(room int) {
	moved := make([]chunk, len(p.chunks), room)
	copy(moved, p.chunks)
	p.chunks = moved
}

// Ascend calls fn with the chunks from an ID on, in order, until it returns
// false. fn must not change or keep the chunk, nor change the table.
func (t *chunkTable) Ascend(from dfs.ChunkID, fn func(dfs.ChunkID, *chunk) bool) {
	first, slot := pageOf(from)
	t.pages.Ascend(first, func(number uint64, p *chunkPage) bool {
		present, at := p.present, 0
		if number == first {
			at, _ = p.find(slot)
			present &^= 1<<slot - 1
		}
		for ; present != 0; present &= present - 1 {
			id := dfs.ChunkID(number<<pageBits) + dfs.ChunkID(bits.TrailingZeros64(present))
			if !fn(id, &p.chunks[at]) {
				return false
			}
			at++
		}
		return true
	})
}

// Scan calls fn with all chunks in order, as Ascend.
func (t *chunkTable) Scan(fn func(dfs.ChunkID, *chunk) bool) { t.Ascend(0, fn) }
