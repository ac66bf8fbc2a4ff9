package chunkstore

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// settleDuplicates leaves each chunk in one place, and returns all of them in
// order. A directory that was out of service may come back with chunks that were
// copied to another meanwhile, and a segment that was being compacted has some
// that are in another already. The first volume keeps the chunk, and the newest
// record on it, unless they differ: then the one does that is good. The others
// go into quarantine, except for what compacting has left.
func (s *Store) settleDuplicates(ctx context.Context, contents []volumeContent) ([]found, error) {
	var all []found
	for i := range contents {
		if all == nil {
			all = contents[i].held // no copy if there is only one
		} else {
			all = append(all, contents[i].held...)
		}
		contents[i].held = nil
	}
	slices.SortFunc(all, found.compare)
	kept := all[:0]
	for i := 0; i < len(all); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		keeper, held := all[i], true
		for i++; i < len(all) && all[i].id == keeper.id; i++ {
			if !held {
				keeper, held = all[i], true
				continue
			}
			var err error
			if keeper, held, err = s.settleDuplicate(contents, keeper, all[i]); err != nil {
				return nil, err
			}
		}
		if held {
			kept = append(kept, keeper)
		}
	}
	return kept, nil
}

// settleDuplicate returns which of two is to be kept, if one is: not when both
// are damaged.
func (s *Store) settleDuplicate(contents []volumeContent, first, second found) (keeper found, held bool, err error) {
	good, spare := first, second
	if first.entry.info(first.id) != second.entry.info(second.id) {
		damagedFirst, err := s.damaged(first)
		if err != nil {
			return found{}, false, err
		}
		damagedSecond, err := s.damaged(second)
		if err != nil {
			return found{}, false, err
		}
		if damagedFirst {
			good, spare = second, first
		}
		if damagedFirst && damagedSecond {
			content := &contents[first.volume]
			content.lost = append(content.lost, first.id)
			s.drop(first, "it is damaged, and so is another that is here")
			s.drop(second, "it is damaged, and so is another that is here")
			return found{}, false, nil
		}
	} else if first.packed() && second.packed() && first.volume == second.volume {
		v := s.volumes[spare.volume]
		err := v.settling("remove what compacting has left", func() error { return v.segments.throwAway(spare.entry, 0) })
		if err != nil {
			v.segments.count(spare.segment, -recordSize(int64(spare.size)), 0) // nobody needs it all the same
			v.log.Warn("what is left of compacting a segment stays until it is compacted again", "chunk", spare.id, "error", err)
		}
		return good, true, nil
	}
	s.drop(spare, "it is here as well: "+s.volumes[good.volume].dir)
	return good, true, nil
}

// drop moves a chunk away, or leaves it alone when that is not possible: it is
// not in the index then, and the next start finds it again.
func (s *Store) drop(f found, why string) {
	v := s.volumes[f.volume]
	v.log.Warn("one of several files of a chunk goes into quarantine", "chunk", f.id, "why", why)
	err := v.settling("put a chunk into quarantine", func() error { return v.moveAway(f.id, f.entry) })
	if err != nil {
		v.log.Error("it could not be put there and stays where it is", "chunk", f.id, "error", err)
	}
}

// settling does something to a chunk that is not held. A disk that does not
// answer costs the start its patience once: what is not done stays as it is.
func (v *volume) settling(what string, do func() error) error {
	if !v.answers() {
		return &noAnswer{what}
	}
	return v.within(loadTimeout, what, do)
}

// damaged reads a chunk wholly. One that the disk does not let be read is no
// better than a damaged one here: there is another.
func (s *Store) damaged(which found) (bool, error) {
	v := s.volumes[which.volume]
	err := v.attempt(newTask(v, "read a chunk", true), loadTimeout, func(t *task) error {
		if which.packed() {
			_, err := v.readPacked(which.id, which.entry)
			return err
		}
		f, err := v.disk.open(v.path(which.id))
		if err != nil {
			return err
		}
		defer f.Close() // only read from
		foot, err := v.readFooter(f)
		if err != nil {
			return err
		}
		return v.checkBlocks(f, foot, t.moved)
	}, nil)
	return err != nil, shortage(v.dir, err)
}

// shortage is err if that is of the process, not of the file.
func shortage(dir string, err error) error {
	if isShortage(err) {
		return unreadable(dir, err)
	}
	return nil
}

// checkBlocks reads all data of a file and compares it with its footer. It
// fails with a damage, or with the error of the disk.
func (v *volume) checkBlocks(f *os.File, foot footer, moved func()) error {
	buffer := make([]byte, min(foot.size, dfs.BlockSize))
	var whole dfs.Checksum
	for i, want := range foot.blocks {
		offset := int64(i) * dfs.BlockSize
		block := buffer[:min(dfs.BlockSize, foot.size-offset)]
		switch err := v.disk.readAt(f, block, offset); {
		case errors.Is(err, io.EOF):
			return damage("the file has become shorter")
		case err != nil:
			return err
		case dfs.ChecksumOf(block) != want:
			return damagef("the block at byte %d is not what was written", offset)
		}
		whole = whole.Update(block)
		moved()
	}
	if whole != foot.crc {
		return damage("the checksum of the whole is wrong")
	}
	return nil
}
