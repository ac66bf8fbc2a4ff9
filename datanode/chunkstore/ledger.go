package chunkstore

import (
	"math"

	"github.com/tidwall/btree"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Info describes a chunk.
type Info struct {
	ID     dfs.ChunkID
	Size   int64 // bytes of data
	CRC32C dfs.Checksum
}

// Page is a part of a full inventory: exactly the chunks held with an ID above
// After and up to Through, in order. Last marks the final page.
type Page struct {
	After   uint64
	Through uint64
	Last    bool
	Chunks  []dfs.ChunkID
}

// Report is what has changed since the last acknowledged report. Count and
// Digest are of the set that the reader of the reports knows after this one.
// That is not yet everything held when the changes did not fit: would they
// count too, the reader could not tell a backlog from a lost report.
type Report struct {
	Added   []dfs.ChunkID
	Removed []dfs.ChunkID
	Corrupt []dfs.ChunkID // no longer held because damaged
	Count   int64
	Digest  dfs.Digest
	More    bool  // some changes did not fit
	Page    *Page // when one was asked for

	changes []pendingChange
}

// entry has no pointers and few bytes: there are millions.
type entry struct {
	size uint32 // bytes of data
	crc  dfs.Checksum
	place
	volume uint8 // index of its volume
}

// place is where the bytes of a chunk are. It tells them from others that were,
// or will be, held under the same ID.
type place struct {
	segment uint32 // 0 for a chunk that has a file of its own
	at      uint32 // in the segment; of a file, which of those that had its name
}

func (p place) packed() bool { return p.segment != 0 }

func (e entry) info(id dfs.ChunkID) Info { return Info{ID: id, Size: int64(e.size), CRC32C: e.crc} }

func (e entry) record(id dfs.ChunkID) record {
	return record{id: id, at: e.at, size: e.size, crc: e.crc}
}

// change is news about one chunk. Only the latest state counts, and the ledger
// knows that; a change just says that there is something to tell. It is kept
// also for a chunk that came and went unreported: its writer may have had the
// namespace record it here.
type change struct {
	reported bool // the last report before this change had the chunk as held
	corrupt  bool // if it is not held: because it was damaged
}

type pendingChange struct {
	id dfs.ChunkID
	change
}

// ledger is the index of the chunks held, together with what of it is still to
// be reported. It has no lock and does no I/O: the store guards it.
type ledger struct {
	held    table
	used    int64 // bytes of data
	digest  dfs.Digest
	on      [MaxDirs]tally // what each volume has of it
	pending btree.Map[dfs.ChunkID, change]

	// The set as the last acknowledged report left it.
	reportedCount  int64
	reportedDigest dfs.Digest

	open *Report // sent, neither acknowledged nor put back
}

type tally struct {
	count int64
	used  int64 // bytes of data
}

// begin counts everything held so far as reported: what a node had when it
// stopped, the NameNodes know, and the digest shows where they do not. Reports
// of before, which were empty, do not count.
func (l *ledger) begin() {
	l.pending.Clear()
	l.open = nil
	l.reportedCount, l.reportedDigest = int64(l.held.Len()), l.digest
}

func (l *ledger) add(id dfs.ChunkID, e entry) {
	old, had := l.held.Set(id, e)
	l.used += int64(e.size) - int64(old.size)
	if had {
		l.tally(old, -1)
	} else {
		l.digest = l.digest.Add(id)
	}
	l.tally(e, 1)
	l.note(id, change{reported: had})
}

// load takes in what was found at the start: that is no news.
func (l *ledger) load(id dfs.ChunkID, e entry) {
	l.held.Set(id, e)
	l.used += int64(e.size)
	l.digest = l.digest.Add(id)
	l.tally(e, 1)
}

// move notes that the bytes of a chunk lie elsewhere on its volume, if they
// still were where they are said to have been. That is no news either.
func (l *ledger) move(id dfs.ChunkID, from, to place) bool {
	e, held := l.held.Get(id)
	if !held || e.place != from {
		return false
	}
	e.place = to
	l.held.Set(id, e)
	return true
}

func (l *ledger) tally(e entry, sign int64) {
	t := &l.on[e.volume]
	t.count, t.used = t.count+sign, t.used+sign*int64(e.size)
}

// removeAll removes what is on a volume, and returns how much that was.
func (l *ledger) removeAll(volume uint8) int {
	var list []dfs.ChunkID
	l.held.Scan(func(id dfs.ChunkID, e entry) bool {
		if e.volume == volume {
			list = append(list, id)
		}
		return true
	})
	for _, id := range list {
		l.remove(id)
	}
	return len(list)
}

func (l *ledger) remove(id dfs.ChunkID) bool { return l.drop(id, change{reported: true}) }

// condemn removes a chunk because it is damaged.
func (l *ledger) condemn(id dfs.ChunkID) bool {
	return l.drop(id, change{reported: true, corrupt: true})
}

func (l *ledger) drop(id dfs.ChunkID, c change) bool {
	e, had := l.held.Delete(id)
	if had {
		l.used -= int64(e.size)
		l.tally(e, -1)
		l.digest = l.digest.Remove(id)
		l.note(id, c)
	}
	return had
}

// lost notes a chunk that was found damaged before it was ever counted.
func (l *ledger) lost(id dfs.ChunkID) { l.note(id, change{corrupt: true}) }

// note keeps what the reader believed before the first of several changes.
func (l *ledger) note(id dfs.ChunkID, c change) {
	if earlier, ok := l.pending.Get(id); ok {
		c.reported = earlier.reported
	}
	l.pending.Set(id, c)
}

// report takes up to limit changes. A report that was not acknowledged is put
// back first, so its changes are part of this one unless newer ones undid them.
func (l *ledger) report(limit int) *Report {
	l.putBack()
	r := l.newReport()
	l.takeRest(r, limit)
	l.open = r
	return r
}

// reportPage is report with the inventory page of up to limit chunks above
// after. Changes inside the page's range are told by the page itself, however
// many there are.
func (l *ledger) reportPage(after uint64, limit int) *Report {
	l.putBack()
	r := l.newReport()
	r.Page = l.page(after, limit)
	l.takeRange(r, r.Page, limit)
	l.takeRest(r, limit)
	l.open = r
	return r
}

// acknowledge makes r the last thing that the reader knows.
func (l *ledger) acknowledge(r *Report) {
	if l.open == r && r != nil {
		l.open = nil
		l.reportedCount, l.reportedDigest = r.Count, r.Digest
	}
}

// putBack undoes the open report. The reader may or may not have it; telling
// the current state of its chunks again is right in both cases.
func (l *ledger) putBack() {
	if l.open == nil {
		return
	}
	for _, old := range l.open.changes {
		c := old.change
		if newer, ok := l.pending.Get(old.id); ok {
			c.corrupt = newer.corrupt
		}
		l.pending.Set(old.id, c)
	}
	l.open = nil
}

func (l *ledger) newReport() *Report {
	return &Report{Count: l.reportedCount, Digest: l.reportedDigest}
}

func (l *ledger) page(after uint64, limit int) *Page {
	p := &Page{After: after, Through: math.MaxUint64, Last: true, Chunks: []dfs.ChunkID{}}
	if after == math.MaxUint64 {
		return p
	}
	l.held.Ascend(dfs.ChunkID(after+1), func(id dfs.ChunkID, _ entry) bool {
		if len(p.Chunks) == limit {
			p.Last, p.Through = false, uint64(p.Chunks[limit-1])
			return false
		}
		p.Chunks = append(p.Chunks, id)
		return true
	})
	return p
}

func (l *ledger) takeRange(r *Report, p *Page, limit int) {
	var taken []pendingChange
	l.pending.Ascend(dfs.ChunkID(p.After), func(id dfs.ChunkID, c change) bool {
		if uint64(id) > p.Through {
			return false
		}
		if uint64(id) > p.After {
			taken = append(taken, pendingChange{id, c})
		}
		return true
	})
	l.take(r, taken, limit)
}

// takeRest goes by ID, and so nearly by age.
func (l *ledger) takeRest(r *Report, limit int) {
	var taken []pendingChange
	room := limit - len(r.changes)
	l.pending.Scan(func(id dfs.ChunkID, c change) bool {
		if len(taken) >= room {
			return false
		}
		taken = append(taken, pendingChange{id, c})
		return true
	})
	l.take(r, taken, limit)
	r.More = l.pending.Len() > 0
}

func (l *ledger) take(r *Report, taken []pendingChange, limit int) {
	for _, c := range taken {
		l.pending.Delete(c.id)
		r.changes = append(r.changes, c)
		_, held := l.held.Get(c.id)
		switch {
		case held && !c.reported:
			r.Count, r.Digest = r.Count+1, r.Digest.Add(c.id)
		case !held && c.reported:
			r.Count, r.Digest = r.Count-1, r.Digest.Remove(c.id)
		}
		list := &r.Removed
		if held {
			list = &r.Added
		} else if c.corrupt {
			list = &r.Corrupt
		}
		if len(*list) < limit { // beyond it the page tells enough
			*list = append(*list, c.id)
		}
	}
}
