package chunkstore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// recoverers is how many directories of a volume are examined at once. It is
// more than a processor has use for: what takes the time at a cold start is
// waiting for the disk, which answers many questions faster than one.
const recoverers = 32

// volumeContent is what a volume was found to have.
type volumeContent struct {
	volume *volume
	held   []found // a chunk may be there twice
	lost   []dfs.ChunkID
}

// found is a chunk that was found.
type found struct {
	id dfs.ChunkID
	entry
}

// compare orders chunks by their IDs, and those of one ID by their volumes; on
// one volume the newest record comes first.
func (f found) compare(other found) int {
	return cmp.Or(cmp.Compare(f.id, other.id), cmp.Compare(f.volume, other.volume),
		cmp.Compare(other.segment, f.segment), cmp.Compare(other.at, f.at))
}

func fileEntry(info Info, file uint32, v *volume) entry {
	return entry{size: uint32(info.Size), crc: info.CRC32C, place: place{at: file}, volume: v.index}
}

// load reads the directories. It is what Loaded waits for.
func (s *Store) load(ctx context.Context) {
	defer close(s.loaded)
	var all []found
	contents, err := s.examineAll(ctx)
	if err == nil {
		all, err = s.settleDuplicates(ctx, contents)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ctx.Err() != nil: // Close has said what is to be said
	case err != nil:
		s.unready = err
	default:
		s.takeIn(all, contents)
		s.unready = nil
		s.Hurry()
	}
}

// examineAll examines all volumes at once. One that cannot be read, or hangs
// while another could be, is taken out of service; an error means that the
// process has no way on.
func (s *Store) examineAll(ctx context.Context) ([]volumeContent, error) {
	contents := make([]volumeContent, len(s.volumes))
	errs := make([]error, len(s.volumes))
	for i, v := range s.volumes {
		contents[i].volume = v
	}
	if err := s.awaitContents(ctx, contents, errs); err != nil {
		return nil, err
	}
	var failure error
	for i, v := range s.volumes {
		if isShortage(errs[i]) {
			return nil, errs[i] // of the process: the disk may be well
		}
		if errs[i] != nil {
			failure = errs[i]
		}
		if errs[i] != nil && len(s.volumes) > 1 {
			s.lose(v, errs[i])
			contents[i] = volumeContent{volume: v}
		}
	}
	for _, v := range s.volumes {
		if v.serves() && (failure == nil || len(s.volumes) > 1) {
			return contents, nil
		}
	}
	if failure == nil {
		failure = s.volumes[0].writable()
	}
	return nil, failure
}

// awaitContents fills in what each volume has, or why that cannot be told.
func (s *Store) awaitContents(ctx context.Context, contents []volumeContent, errs []error) error {
	type result struct {
		at      int
		content volumeContent
		err     error
	}
	results := make(chan result, len(s.volumes))
	waiting := make(map[int]*task)
	for i, v := range s.volumes {
		t := newTask(v, "read the directory", false)
		read := func(t *task) error {
			content, err := v.examineAll(ctx, t.moved)
			results <- result{i, content, err}
			return nil
		}
		if v.serves() && t.begin(read, nil) {
			waiting[i] = t
		}
	}
	ticker := time.NewTicker(loadTimeout)
	defer ticker.Stop()
	before := make(map[int]int64) // signs of life
	for others := false; len(waiting) > 0; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-results:
			if _, awaited := waiting[r.at]; awaited {
				delete(waiting, r.at)
				contents[r.at], errs[r.at] = r.content, r.err
				others = others || r.err == nil
			}
		case <-ticker.C:
			for i, t := range waiting {
				moves := t.moves.Load()
				if others && moves == before[i] {
					delete(waiting, i)
					errs[i] = t.giveUp()
				}
				before[i] = moves
			}
		}
	}
	return ctx.Err()
}

// takeIn is called under the lock.
func (s *Store) takeIn(all []found, contents []volumeContent) {
	for _, f := range all {
		if !s.volumes[f.volume].serves() {
			continue
		}
		if !f.packed() {
			s.files++
			f.at = s.files
		}
		s.ledger.load(f.id, f.entry)
	}
	s.ledger.begin()
	for _, content := range contents {
		for _, id := range content.lost {
			if _, held := s.ledger.held.Get(id); !held { // it is nowhere else
				s.ledger.lost(id)
			}
		}
		if v := content.volume; v.serves() {
			held := s.ledger.on[v.index]
			v.log.Info("the data directory is open", "chunks", held.count, "bytes", held.used, "quarantined", len(content.lost))
		}
	}
}

func (v *volume) emptyTemp() error {
	entries, err := os.ReadDir(v.tempDir())
	if err != nil {
		return unreadable(v.dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(v.tempDir(), e.Name())
		if e.IsDir() {
			v.log.Warn("this is not a temporary chunk and is left alone", "path", path)
			continue
		}
		if err := v.disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unreadable(v.dir, err)
		}
	}
	return nil
}

// examineAll builds the index of a volume from the files' names and footers.
// Their data is not read: that would take hours.
func (v *volume) examineAll(ctx context.Context, moved func()) (volumeContent, error) {
	content := volumeContent{volume: v}
	if err := v.findTrash(); err != nil {
		return content, err
	}
	if err := v.segments.examine(ctx, &content, moved); err != nil {
		return content, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(recoverers)
	shards := make([]shardContent, shardCount)
	for shard := range shardCount {
		group.Go(func() (err error) {
			shards[shard], err = v.examineShard(ctx, shard, moved)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return content, err
	}
	held := 0
	for _, shard := range shards {
		held += len(shard.held)
	}
	content.held = slices.Grow(content.held, held) // there may be millions
	for i, shard := range shards {
		for _, info := range shard.held {
			content.held = append(content.held, found{info.ID, fileEntry(info, 0, v)})
		}
		content.lost = append(content.lost, shard.lost...)
		shards[i] = shardContent{}
	}
	return content, nil
}

type shardContent struct {
	held []Info
	lost []dfs.ChunkID
}

func (v *volume) examineShard(ctx context.Context, shard int, moved func()) (shardContent, error) {
	var content shardContent
	moved()
	entries, err := os.ReadDir(v.shardDir(shard))
	if err != nil {
		return content, unreadable(v.dir, err)
	}
	if len(entries) > 0 {
		// The last process may have died between a rename and its fsync. Such a
		// chunk would be reported, and a repeated PUT of it acknowledged.
		if err := v.disk.syncDir(v.shardDir(shard)); err != nil {
			return content, unreadable(v.dir, err)
		}
	}
	content.held = make([]Info, 0, len(entries))
	for _, e := range entries {
		if ctx.Err() != nil {
			return content, ctx.Err()
		}
		id, err := dfs.ParseChunkID(e.Name())
		if err != nil || shardOf(id) != shard || !e.Type().IsRegular() {
			v.log.Warn("this is not a chunk and is left alone", "path", filepath.Join(v.shardDir(shard), e.Name()))
			continue
		}
		moved()
		info, err := v.examine(id)
		if err == nil {
			content.held = append(content.held, info)
			continue
		}
		damaged, err := v.judge(id, err)
		if err != nil {
			return content, err
		}
		if damaged {
			content.lost = append(content.lost, id)
		}
	}
	return content, nil
}

// judge deals with a file that could not be examined. Only what its content
// says condemns it, and an error means that the volume cannot be used now.
func (v *volume) judge(id dfs.ChunkID, why error) (damaged bool, err error) {
	var bad damage
	switch {
	case errors.As(why, &bad):
		v.log.Error("a damaged chunk goes into quarantine", "chunk", id, "why", why)
		return true, v.moveAway(id, entry{})
	case errors.Is(why, errNewer):
		return false, dfs.Errorf(dfs.Conflict, "the chunk file %s %w; start that version", v.path(id), why)
	case IsUnreadable(why):
		v.log.Error("a chunk cannot be read from the disk and is not offered; its file stays where it is", "chunk", id, "path", v.path(id), "error", why)
		return false, nil
	}
	return false, unreadable(v.dir, why)
}

func (v *volume) examine(id dfs.ChunkID) (Info, error) {
	f, err := v.disk.open(v.path(id))
	if err != nil {
		return Info{}, err
	}
	defer f.Close() // only read from
	foot, err := v.readFooter(f)
	if err != nil {
		return Info{}, err
	}
	if foot.id != id {
		return Info{}, damage("the footer is that of chunk " + foot.id.String())
	}
	return Info{ID: id, Size: foot.size, CRC32C: foot.crc}, nil
}
