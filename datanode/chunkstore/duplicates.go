package chunkstore

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// settleDuplicates leaves each chunk on one volume. A directory that was out of
// service may come back with chunks that were copied to another meanwhile. The
// first volume keeps the chunk, unless the files differ: then the one does
// that is good. The other file goes into quarantine.
func (s *Store) settleDuplicates(ctx context.Context, contents []volumeContent) error {
	if len(contents) == 1 {
		return nil
	}
	keeper := make(map[dfs.ChunkID]int)
	for i := range contents {
		for id := range contents[i].held {
			if err := ctx.Err(); err != nil {
				return err
			}
			first, twice := keeper[id]
			if !twice {
				keeper[id] = i
				continue
			}
			kept, err := settleDuplicate(id, &contents[first], &contents[i])
			if err != nil {
				return err
			}
			if kept == nil {
				delete(keeper, id)
			} else if kept == &contents[i] {
				keeper[id] = i
			}
		}
	}
	return nil
}

// settleDuplicate returns who keeps the chunk: nobody when both files are
// damaged.
func settleDuplicate(id dfs.ChunkID, first, second *volumeContent) (*volumeContent, error) {
	good, spare := first, second
	if first.held[id] != second.held[id] {
		damagedFirst, err := first.volume.damaged(id)
		if err != nil {
			return nil, err
		}
		damagedSecond, err := second.volume.damaged(id)
		if err != nil {
			return nil, err
		}
		if damagedFirst {
			good, spare = second, first
		}
		if damagedFirst && damagedSecond {
			first.lost = append(first.lost, id)
			first.drop(id, "it is damaged, here and in another data directory")
			second.drop(id, "it is damaged, here and in another data directory")
			return nil, nil
		}
	}
	spare.drop(id, "it is in another data directory as well: "+good.volume.dir)
	return good, nil
}

// drop moves a file away, or leaves it alone when that is not possible: it is
// not in the index then, and the next start finds it again.
func (c *volumeContent) drop(id dfs.ChunkID, why string) {
	delete(c.held, id)
	c.volume.log.Warn("the file of a chunk goes into quarantine", "chunk", id, "why", why)
	if err := c.volume.moveAway(id); err != nil {
		c.volume.log.Error("it could not be put there and stays where it is", "chunk", id, "error", err)
	}
}

// damaged reads a chunk wholly. One that the disk does not let be read is no
// better than a damaged one here: there is another.
func (v *volume) damaged(id dfs.ChunkID) (bool, error) {
	err := v.attempt(newTask(v, "read a chunk", true), loadTimeout, func(t *task) error {
		f, err := v.disk.open(v.path(id))
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
