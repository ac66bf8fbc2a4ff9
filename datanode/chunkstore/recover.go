package chunkstore

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// recoverers is how many directories are examined at once: enough to keep a
// disk busy, few enough for a small machine.
const recoverers = 8

// recover builds the index from the files' names and footers. Their data is
// not read: that would take hours.
func (s *Store) recover() error {
	if err := s.emptyTemp(); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(recoverers)
	shards := make([]shardContent, shardCount)
	for shard := range shardCount {
		group.Go(func() (err error) {
			shards[shard], err = s.examineShard(shard)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := 0
	for _, content := range shards {
		for _, info := range content.held {
			s.generation++
			s.ledger.add(info.ID, entry{size: info.Size, crc: info.CRC32C, generation: s.generation})
		}
		lost += len(content.lost)
	}
	s.ledger.begin()
	for _, content := range shards {
		for _, id := range content.lost {
			s.ledger.lost(id)
		}
	}
	s.log.Info("the data directory is open", "dir", s.dir, "chunks", s.ledger.held.Len(), "bytes", s.ledger.used, "quarantined", lost)
	return nil
}

func (s *Store) emptyTemp() error {
	entries, err := os.ReadDir(s.tempDir())
	if err != nil {
		return unreadable(s.dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(s.tempDir(), e.Name())
		if e.IsDir() {
			s.log.Warn("this is not a temporary chunk and is left alone", "path", path)
			continue
		}
		if err := s.disk.remove(path); err != nil {
			return unreadable(s.dir, err)
		}
	}
	return nil
}

type shardContent struct {
	held []Info
	lost []dfs.ChunkID
}

func (s *Store) examineShard(shard int) (shardContent, error) {
	var content shardContent
	entries, err := os.ReadDir(s.shardDir(shard))
	if err != nil {
		return content, unreadable(s.dir, err)
	}
	if len(entries) > 0 {
		// The last process may have died between a rename and its fsync. Such a
		// chunk would be reported, and a repeated PUT of it acknowledged.
		if err := s.disk.syncDir(s.shardDir(shard)); err != nil {
			return content, unreadable(s.dir, err)
		}
	}
	for _, e := range entries {
		id, err := dfs.ParseChunkID(e.Name())
		if err != nil || shardOf(id) != shard || !e.Type().IsRegular() {
			s.log.Warn("this is not a chunk and is left alone", "path", filepath.Join(s.shardDir(shard), e.Name()))
			continue
		}
		info, err := s.examine(id)
		if err == nil {
			content.held = append(content.held, info)
			continue
		}
		damaged, err := s.judge(id, err)
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
// says condemns it, and an error means that the store cannot be opened now.
func (s *Store) judge(id dfs.ChunkID, why error) (damaged bool, err error) {
	var bad damage
	switch {
	case errors.As(why, &bad):
		return true, s.moveAway(id, why.Error())
	case errors.Is(why, errNewer):
		return false, dfs.Errorf(dfs.Conflict, "the chunk file %s %w; start that version", s.path(id), why)
	case isUnreadable(why):
		s.log.Error("a chunk cannot be read from the disk and is not offered; its file stays where it is", "chunk", id, "path", s.path(id), "error", why)
		return false, nil
	}
	return false, unreadable(s.dir, why)
}

func (s *Store) examine(id dfs.ChunkID) (Info, error) {
	f, err := s.disk.open(s.path(id))
	if err != nil {
		return Info{}, err
	}
	defer f.Close() // only read from
	foot, err := s.readFooter(f)
	if err != nil {
		return Info{}, err
	}
	if foot.id != id {
		return Info{}, damage("the footer is that of chunk " + foot.id.String())
	}
	return Info{ID: id, Size: foot.size, CRC32C: foot.crc}, nil
}
