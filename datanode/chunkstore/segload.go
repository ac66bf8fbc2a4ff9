package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// segmentLoaders is how many segments are examined at once.
	segmentLoaders = 4

	maxEstimate = 16 << 20 // chunks
)

// loading is what is found in the segments of a volume at the start.
type loading struct {
	g       *segments
	restore map[dfs.ChunkID]struct{} // removed chunks to bring back

	mu      sync.Mutex // guards what follows
	content *volumeContent
	back    [shardCount]bool         // which directories have got chunks that were brought back
	full    bool                     // the disk has no room for all of them
	missing map[dfs.ChunkID]struct{} // those of restore that were not found
}

// examine finds out what the segments hold. Where there is a good index the
// segment is not read.
func (g *segments) examine(ctx context.Context, content *volumeContent, moved func()) error {
	names, err := g.list()
	if err != nil {
		return err
	}
	l := &loading{g: g, content: content}
	l.restore, err = g.wanted()
	if dfs.CodeOf(err) == dfs.Invalid {
		return err // it says all
	}
	if err != nil {
		return unreadable(g.volume.dir, err)
	}
	l.missing = maps.Clone(l.restore)
	// What the last process has unlinked must not come back: its number may be
	// used again.
	if err := g.volume.disk.syncDir(g.dir()); err != nil {
		return unreadable(g.volume.dir, err)
	}
	content.held = make([]found, 0, g.estimate(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(segmentLoaders)
	for i, name := range names {
		last := i == len(names)-1
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			moved()
			return l.load(name, last, moved)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return l.endRestoring()
}

// estimate says how many chunks there may be, by the length of the indexes: to
// grow a list of millions step by step would take twice the memory.
func (g *segments) estimate(names []segmentName) (count int64) {
	for _, name := range names {
		if info, err := os.Stat(g.index(name)); err == nil && info.Size() <= maxIndex {
			count += info.Size() / indexEntry
		}
	}
	return min(count, maxEstimate)
}

// list returns the segments in the order of their numbers, and removes what
// does not belong to any.
func (g *segments) list() ([]segmentName, error) {
	entries, err := os.ReadDir(g.dir())
	if err != nil {
		return nil, unreadable(g.volume.dir, err)
	}
	var names []segmentName
	var indexes []segmentName
	for _, e := range entries {
		path := filepath.Join(g.dir(), e.Name())
		text, suffix := strings.CutSuffix(e.Name(), segmentSuffix)
		name, ok := parseSegmentName(text)
		if suffix && ok && e.Type().IsRegular() {
			names = append(names, name)
			g.last = max(g.last, name.number)
			continue
		}
		text, suffix = strings.CutSuffix(strings.TrimSuffix(e.Name(), ".tmp"), indexSuffix)
		name, ok = parseSegmentName(text)
		switch {
		case suffix && ok && strings.HasSuffix(e.Name(), ".tmp"):
			g.discard(path)
		case suffix && ok:
			indexes = append(indexes, name)
			g.last = max(g.last, name.number)
		case e.Name() != restoreFile:
			g.volume.log.Warn("this is not a segment and is left alone", "path", path)
		}
	}
	slices.SortFunc(names, func(a, b segmentName) int { return strings.Compare(a.String(), b.String()) })
	for i := 1; i < len(names); i++ {
		if names[i].number == names[i-1].number {
			return nil, dfs.Errorf(dfs.Conflict, "the data directory %s has two segments with the number %d; it was mixed with another: move one of %s and %s away",
				g.volume.dir, names[i].number, names[i-1], names[i])
		}
	}
	for _, index := range indexes {
		if !slices.Contains(names, index) { // its segment was given up
			g.discard(g.index(index))
		}
	}
	return names, nil
}

// load takes in one segment.
func (l *loading) load(name segmentName, last bool, moved func()) error {
	g, v := l.g, l.g.volume
	found, err := g.find(name, last, moved)
	if err != nil {
		return l.judge(name, err)
	}
	seg := &segment{segmentName: name, sealed: true, length: max(found.end, segmentHead), indexed: found.indexed}
	if found.indexed == 0 {
		seg.records = found.records
	}
	for _, r := range found.records {
		if !r.removed {
			seg.live += r.length()
		}
	}
	for _, r := range found.damaged {
		seg.live += r.length() // until it is in quarantine
	}
	g.mu.Lock()
	g.known[name.number] = seg
	g.mu.Unlock()
	if len(found.records) == 0 && len(found.damaged) == 0 && len(found.gaps) == 0 {
		g.unlink(seg)
		return nil
	}
	kept, err := l.keepDamaged(seg, found, moved)
	if err != nil {
		return err
	}
	if !found.wasIndexed && kept { // or else the next start is to find it again
		if err := g.writeIndex(seg, found.records); err != nil {
			v.log.Warn("a segment has no index until the next start", "segment", name, "error", err)
		}
	}
	return l.take(seg, found, moved)
}

// keepDamaged puts what is damaged in a segment into quarantine. When the disk is
// full it stays where it is: that is no reason not to serve the rest.
func (l *loading) keepDamaged(seg *segment, found segmentContent, moved func()) (kept bool, err error) {
	g, v := l.g, l.g.volume
	kept = true
	for _, r := range found.damaged {
		moved()
		v.log.Error("a damaged chunk goes into quarantine", "chunk", r.id, "why", "its record is damaged", "segment", seg.segmentName)
		err := v.moveAway(r.id, r.entry(seg.number, v.index))
		if err != nil && !isFull(err) {
			return false, err
		}
		if err != nil {
			v.log.Error("it could not be put there and stays where it is until the next start", "chunk", r.id, "error", err)
			kept = false
		}
	}
	for _, gap := range found.gaps {
		moved()
		err := g.keepGap(seg, gap)
		if err != nil && !isFull(err) {
			return false, unreadable(v.dir, err)
		}
		if err != nil {
			v.log.Error("it could not be put there and stays where it is until the next start", "segment", seg.segmentName, "error", err)
			g.setAside(seg)
			kept = false
		}
	}
	return kept, nil
}

// keepGap copies a part of a segment of which nothing is known into quarantine.
// What was there is missing from the inventory.
func (g *segments) keepGap(seg *segment, gap gap) error {
	v := g.volume
	name := fmt.Sprintf("segment-%s-%d", seg.segmentName, gap.from)
	v.log.Error("a part of a segment is damaged so that it cannot be told whose it was; it goes into quarantine", "file", name, "bytes", gap.to-gap.from)
	_, f, err := g.acquire(seg.number)
	if err != nil {
		return err
	}
	defer g.release(seg)
	content := make([]byte, gap.to-gap.from) // not longer than a segment
	if err := v.disk.readWhole(f, content, gap.from); err != nil {
		return err
	}
	return v.disk.writeFile(filepath.Join(v.quarantineDir(), name), content)
}

// take notes what a segment holds, and what of it is in the trash.
func (l *loading) take(seg *segment, s segmentContent, moved func()) error {
	trash := waiting{segment: seg.number, since: time.Now()}
	for _, r := range s.records {
		if _, wanted := l.restore[r.id]; r.removed && wanted {
			moved()
			if err := l.bringBack(seg, r); err != nil {
				return err
			}
		}
		if r.removed {
			trash.chunks++
			trash.bytes += r.length()
		}
	}
	if trash.chunks > 0 {
		l.g.await(trash)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range s.damaged {
		l.content.lost = append(l.content.lost, r.id)
	}
	l.content.held = slices.Grow(l.content.held, len(s.records))
	for _, r := range s.records {
		if !r.removed {
			l.content.held = append(l.content.held, found{r.id, r.entry(seg.number, l.g.volume.index)})
		}
	}
	return nil
}

// judge deals with a segment that cannot be read. A part of a disk that cannot
// be read condemns nothing.
func (l *loading) judge(name segmentName, err error) error {
	v := l.g.volume
	switch {
	case errors.Is(err, errNewer):
		return dfs.Errorf(dfs.Conflict, "the segment %s %w; start that version", l.g.path(name), err)
	case IsUnreadable(err):
		v.log.Error("a segment cannot be read from the disk, and its chunks are not offered; it stays where it is", "path", l.g.path(name), "error", err)
		return nil
	}
	return unreadable(v.dir, err)
}

// segmentContent is what a segment was found to have.
type segmentContent struct {
	scan
	wasIndexed bool
	indexed    int64 // records in the index
}

// find reads the index of a segment, or else the segment.
func (g *segments) find(name segmentName, last bool, moved func()) (segmentContent, error) {
	disk := g.volume.disk
	f, err := disk.open(g.path(name))
	if err != nil {
		return segmentContent{}, err
	}
	defer f.Close() // what was written has been fsynced, or is cut off again at the next start
	stat, err := f.Stat()
	if err != nil {
		return segmentContent{}, err
	}
	if err := g.checkHead(name, f, stat.Size()); err != nil {
		return segmentContent{}, err
	}
	if records, length, err := g.readIndex(name); err == nil {
		return known(records, length, stat.Size()), nil
	}
	s, err := name.scanSegment(diskFile{disk, f}, min(stat.Size(), maxSegment), !last, moved)
	if err != nil {
		return segmentContent{}, err
	}
	return segmentContent{scan: s}, g.settle(name, s, last)
}

// known is what an index says, as far as there is enough of the segment.
func known(records []record, length, size int64) segmentContent {
	c := segmentContent{scan: scan{end: length}, wasIndexed: true, indexed: int64(len(records))}
	for _, r := range records {
		if r.end() > size && !r.removed {
			c.damaged = append(c.damaged, r)
		} else {
			c.records = append(c.records, r)
		}
	}
	return c
}

// settle makes durable what was found in a segment: the process that wrote it
// may have died before it could. If it is the last one, what was never durable is
// cut off, and wiped out between whole records: a later scan must not take it
// for damage.
func (g *segments) settle(name segmentName, s scan, last bool) error {
	disk := g.volume.disk
	f, err := disk.openToMark(g.path(name))
	if err != nil {
		return err
	}
	for _, torn := range s.torn {
		err = errors.Join(err, disk.writeAt(f, make([]byte, torn.to-torn.from), torn.from))
	}
	if last && err == nil {
		err = disk.truncate(f, s.end)
	}
	if err == nil {
		err = disk.syncFile(f)
	}
	return errors.Join(err, f.Close())
}

func (g *segments) checkHead(name segmentName, f *os.File, size int64) error {
	head := make([]byte, min(size, segmentHead))
	if err := g.volume.disk.readWhole(f, head, 0); err != nil {
		return err
	}
	var bad damage
	err := name.checkHead(head)
	if errors.As(err, &bad) {
		g.volume.log.Warn("the beginning of a segment is damaged; its records may be well", "segment", name)
		return nil
	}
	return err
}

// readIndex fails with a damage when the index is of no use.
func (g *segments) readIndex(name segmentName) ([]record, int64, error) {
	f, err := g.volume.disk.open(g.index(name))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() // only read from
	if err := g.volume.disk.before(OpRead, f.Name()); err != nil {
		return nil, 0, err
	}
	stat, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	content := make([]byte, min(stat.Size(), maxIndex))
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, 0, err
	}
	records, length, ok := name.decodeIndex(content)
	if !ok {
		return nil, 0, damage("the index is damaged")
	}
	return records, length, nil
}

// diskFile reads a file through the disk.
type diskFile struct {
	disk disk
	file *os.File
}

// ReadAt implements io.ReaderAt.
func (f diskFile) ReadAt(p []byte, offset int64) (int, error) {
	if err := f.disk.readWhole(f.file, p, offset); err != nil {
		return 0, err
	}
	return len(p), nil
}
