package fsm

import "github.com/dfs-go/dfs-go/internal/dfs"

// pool is chunks that were reserved for files of one chunk each, before it is
// known what these are. Those that no file has got yet have the pool as their
// upload.
type pool struct {
	first    dfs.ChunkID
	reserved int   // chunks, from first on
	left     int   // of those, that no file has got
	touched  int64 // clock when they were reserved; a pool that is in use must end, too, or what was handed out in vain would stay
}

func (c *ReserveChunks) apply(s *State) (Result, error) {
	if c.Count < 1 || c.Count > dfs.MaxChunksPerAllocation {
		return Result{}, dfs.Errorf(dfs.Invalid, "%d chunks cannot be reserved at once: ask for 1 to %d", c.Count, dfs.MaxChunksPerAllocation)
	}
	id := s.nextUpload
	s.nextUpload++
	first := s.unclaimed(c.Count)
	for i := range c.Count {
		s.chunks.Set(first+dfs.ChunkID(i), chunk{upload: id})
	}
	s.nextChunk = first + dfs.ChunkID(c.Count)
	s.pools.Set(id, &pool{first: first, reserved: c.Count, left: c.Count, touched: s.clock})
	return Result{Upload: id, First: first, Count: c.Count}, nil
}

// A small file is an upload that begins and ends in one step.
func (c *PutFile) apply(s *State) (Result, error) {
	if err := checkFile(c.Path, c.Replication, c.ChunkSize); err != nil {
		return Result{}, err
	}
	at, err := s.placeOf(c.Path, c.Overwrite)
	if err != nil {
		return Result{}, err
	}
	if c.Pool != 0 {
		if err := c.checkChunk(s, at.base); err != nil {
			return Result{}, err
		}
	}
	u := s.newUpload(c.Path, at, c.Overwrite, c.Replication, c.ChunkSize)
	if c.Pool != 0 {
		s.takeOut(c.Pool, c.Chunk.ID)
		s.seal(u, &c.Chunk)
	}
	return s.finish(u), nil
}

// checkChunk makes sure that the chunk can become the file, where base stands.
func (c *PutFile) checkChunk(s *State, base uint64) error {
	known, ok := s.chunks.Get(c.Chunk.ID)
	if _, open := s.pools.Get(c.Pool); !open || !ok || known.upload != c.Pool {
		return dfs.Errorf(dfs.Conflict, "chunk %s is not reserved any more: a file has it, or the reservation has expired; upload the file again", c.Chunk.ID)
	}
	if base != c.Base {
		return dfs.Errorf(dfs.Conflict, "%s was changed by someone else during the upload; look at it, then upload again", c.Path)
	}
	return s.checkStored(&c.Chunk, c.Replication, c.ChunkSize)
}

// takeOut takes a chunk out of its pool for good: once its file is deleted,
// nothing refers to it any more.
func (s *State) takeOut(id dfs.UploadID, chunk dfs.ChunkID) {
	taken, _ := s.chunks.Get(chunk) // checkChunk has seen it
	taken.upload = 0
	s.chunks.Set(chunk, taken)
	p, _ := s.pools.Get(id)
	rest := *p
	rest.left--
	if rest.left == 0 {
		s.pools.Delete(id)
		return
	}
	s.pools.Set(id, &rest)
}

// giveUpPool ends a pool. What is left of it is garbage where it was stored.
func (s *State) giveUpPool(id dfs.UploadID, p *pool) {
	s.pools.Delete(id)
	for i := range p.reserved {
		chunk := p.first + dfs.ChunkID(i)
		if known, ok := s.chunks.Get(chunk); ok && known.upload == id {
			s.settle(chunk, &known)
		}
	}
}
