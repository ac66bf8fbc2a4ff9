package chunkstore

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// restoreFile lists removed chunks that people want back, one ID a line.
	restoreFile    = "restore"
	maxRestoreFile = 16 << 20 // bytes
)

// wanted reads which removed chunks are to be brought back: nil when nobody
// has said.
func (g *segments) wanted() (map[dfs.ChunkID]struct{}, error) {
	f, err := os.Open(filepath.Join(g.dir(), restoreFile))
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if stat.Size() > maxRestoreFile {
		return nil, dfs.Errorf(dfs.Invalid, "the list %s has more than %d bytes; bring back some of the chunks at a time", f.Name(), maxRestoreFile)
	}
	wanted := make(map[dfs.ChunkID]struct{})
	lines := bufio.NewScanner(io.LimitReader(f, maxRestoreFile))
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		id, err := dfs.ParseChunkID(string(line))
		if err != nil {
			g.volume.log.Warn("a line of the list of chunks to bring back is not an ID", "line", string(line[:min(len(line), 40)]))
			continue
		}
		wanted[id] = struct{}{}
	}
	return wanted, lines.Err()
}

// bringBack makes a chunk file of a removed record, as if it had been put there
// by hand. The shards are read afterwards.
func (l *loading) bringBack(seg *segment, r record) error {
	v := l.g.volume
	l.mu.Lock()
	delete(l.missing, r.id)
	l.mu.Unlock()
	data, err := v.readPacked(r.id, r.entry(seg.number, v.index))
	var bad damage
	if errors.As(err, &bad) || IsUnreadable(err) { // no reason not to serve the rest
		v.log.Error("a removed chunk cannot be brought back", "chunk", r.id, "error", err)
		return nil
	}
	if err != nil {
		return unreadable(v.dir, err)
	}
	temp := filepath.Join(v.tempDir(), v.newName(r.id))
	err = v.writeChunkFile(temp, Info{ID: r.id, Size: int64(r.size), CRC32C: r.crc}, data)
	if err == nil {
		err = v.disk.replace(temp, v.path(r.id))
	}
	if isFull(err) {
		v.log.Error("a removed chunk cannot be brought back now, and the list stays for the next start", "chunk", r.id, "error", err)
		l.mu.Lock()
		l.full = true
		l.mu.Unlock()
		return nil
	}
	if err != nil {
		return unreadable(v.dir, err)
	}
	l.mu.Lock()
	l.back[shardOf(r.id)] = true
	l.mu.Unlock()
	v.log.Warn("a removed chunk has been brought back", "chunk", r.id)
	return nil
}

// endRestoring removes the list when what it names is durable: until then it is
// all that tells of it.
func (l *loading) endRestoring() error {
	v := l.g.volume
	if l.restore == nil || l.full {
		return nil
	}
	if n := len(l.missing); n > 0 {
		v.log.Warn("chunks of the list of those to bring back are not among the removed ones of this directory", "count", n, "one of them", first(l.missing))
	}
	for shard, back := range l.back {
		if !back {
			continue
		}
		if err := v.disk.syncDir(v.shardDir(shard)); err != nil {
			return unreadable(v.dir, err)
		}
	}
	if err := v.disk.remove(filepath.Join(l.g.dir(), restoreFile)); err != nil {
		return unreadable(v.dir, err)
	}
	return nil
}

// first returns the lowest ID.
func first(set map[dfs.ChunkID]struct{}) (lowest dfs.ChunkID) {
	for id := range set {
		if lowest == 0 || id < lowest {
			lowest = id
		}
	}
	return lowest
}
