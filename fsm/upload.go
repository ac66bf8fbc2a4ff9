package fsm

import (
	"slices"
	"strings"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func (c *BeginUpload) apply(s *State) (Result, error) {
	if err := checkFile(c.Path, c.Replication, c.ChunkSize); err != nil {
		return Result{}, err
	}
	if err := s.checkTargets(c.Targets, 0); err != nil {
		return Result{}, err
	}
	at, err := s.placeOf(c.Path, c.Overwrite)
	if err != nil {
		return Result{}, err
	}
	u := s.newUpload(c.Path, at, c.Overwrite, c.Replication, c.ChunkSize)
	id := s.nextUpload
	s.nextUpload++
	first := s.allocate(u, id, c.Targets)
	s.uploads.Set(id, u)
	return Result{Upload: id, First: first, Count: len(c.Targets)}, nil
}

// checkFile judges what does not depend on the state.
func checkFile(path dfs.Path, replication int, chunkSize int64) error {
	if path.IsRoot() {
		return dfs.Errorf(dfs.IsDirectory, "/ is a directory; a file cannot take its place")
	}
	if err := dfs.CheckReplication(replication); err != nil {
		return err
	}
	return dfs.CheckChunkSize(chunkSize)
}

// place is where a file may appear.
type place struct {
	deepest *inode   // directory of those above it that exists
	missing []string // directories below that, which do not
	base    uint64   // inode that stands there now, 0 for none
}

// placeOf finds the place for a file at path, other than the root.
func (s *State) placeOf(path dfs.Path, overwrite bool) (place, error) {
	deepest, missing, err := s.missing(path.Parent())
	if err != nil {
		return place{}, err
	}
	at := place{deepest: deepest, missing: missing}
	if existing := s.child(deepest.id, path.Name()); existing != nil && len(missing) == 0 {
		switch {
		case existing.directory:
			return place{}, dfs.Errorf(dfs.IsDirectory, "%s is a directory; a file cannot take its place", path)
		case !overwrite:
			return place{}, dfs.Errorf(dfs.Exists, "%s exists; ask for overwrite to replace it", path)
		}
		at.base = existing.id
	}
	return at, nil
}

// newUpload makes the missing directories and an upload without chunks.
func (s *State) newUpload(path dfs.Path, at place, overwrite bool, replication int, chunkSize int64) *upload {
	return &upload{
		parent: s.makeDirectories(at.deepest, at.missing).id, name: strings.Clone(path.Name()), base: at.base, overwrite: overwrite,
		replication: replication, chunkSize: chunkSize, touched: s.clock,
	}
}

func (s *State) checkTargets(targets [][]NodeNum, already int) error {
	if len(targets) > dfs.MaxChunksPerAllocation {
		return dfs.Errorf(dfs.TooLarge, "%d chunks were asked for at once; at most %d are allowed", len(targets), dfs.MaxChunksPerAllocation)
	}
	// Chunks that went wrong are replaced by new ones, so an upload may use up
	// more than a file can have.
	if already+len(targets) > 2*dfs.MaxChunksPerFile {
		return dfs.Errorf(dfs.TooLarge, "the upload has used up %d chunks; a file has at most %d, so choose a larger chunk size", already, dfs.MaxChunksPerFile)
	}
	for _, nodes := range targets {
		if len(nodes) == 0 || len(nodes) > dfs.MaxReplication {
			return dfs.Errorf(dfs.Invalid, "a chunk was given %d DataNodes; 1 to %d are possible", len(nodes), dfs.MaxReplication)
		}
		if repeats(nodes) {
			return dfs.Errorf(dfs.Invalid, "a chunk was given the same DataNode twice")
		}
		for _, num := range nodes {
			if _, ok := s.nodes.Get(num); !ok {
				return dfs.Errorf(dfs.Conflict, "DataNode number %d is not known any more; try again", num)
			}
		}
	}
	return nil
}

// repeats tells whether a node is named twice. The list is a short one.
func repeats(nodes []NodeNum) bool {
	for i, num := range nodes {
		if slices.Contains(nodes[:i], num) {
			return true
		}
	}
	return false
}

// allocate gives u a new chunk for each list of targets and returns the first.
// Their IDs follow each other.
func (s *State) allocate(u *upload, id dfs.UploadID, targets [][]NodeNum) dfs.ChunkID {
	first := s.unclaimed(len(targets))
	for i, nodes := range targets {
		chunkID := first + dfs.ChunkID(i)
		s.chunks.Set(chunkID, chunk{upload: id})
		u.allocated = append(u.allocated, allocated{chunkID, nodes})
	}
	s.nextChunk = first + dfs.ChunkID(len(targets))
	return first
}

// unclaimed returns the first of count new IDs in a row. Those under which a
// node holds something already are passed over: two contents under one ID could
// not be told apart.
func (s *State) unclaimed(count int) dfs.ChunkID {
	first := s.nextChunk
	s.unissued.Ascend(first, func(claimed dfs.ChunkID, _ int) bool {
		if claimed-first >= dfs.ChunkID(count) {
			return false
		}
		first = claimed + 1
		return true
	})
	return first
}

func (s *State) openUpload(id dfs.UploadID) (*upload, error) {
	u, ok := s.uploads.Get(id)
	if !ok {
		return nil, dfs.Errorf(dfs.NotFound, "there is no upload %s: it was committed, given up or has expired; start the upload again", id)
	}
	return u, nil
}

func (c *AddChunks) apply(s *State) (Result, error) {
	u, err := s.openUpload(c.Upload)
	if err != nil {
		return Result{}, err
	}
	if err := s.checkTargets(c.Targets, len(u.allocated)); err != nil {
		return Result{}, err
	}
	changed := *u
	changed.touched = max(s.clock, u.touched+1) // a sign of life counts while the clock stands still
	first := s.allocate(&changed, c.Upload, c.Targets)
	s.uploads.Set(c.Upload, &changed)
	return Result{Upload: c.Upload, First: first, Count: len(c.Targets)}, nil
}

func (c *Commit) apply(s *State) (Result, error) {
	u, err := s.openUpload(c.Upload)
	if err != nil {
		return Result{}, err
	}
	if err := c.check(s, u); err != nil {
		return Result{}, err
	}
	if c.Final {
		if err := s.checkPlace(u); err != nil {
			return Result{}, err
		}
	}
	changed := *u
	changed.touched = max(s.clock, u.touched+1) // a sign of life counts while the clock stands still
	if c.Position == 0 {
		s.unseal(&changed)
	}
	for i := range c.Chunks {
		s.seal(&changed, &c.Chunks[i])
	}
	if !c.Final {
		s.uploads.Set(c.Upload, &changed)
		return Result{}, nil
	}
	result := s.finish(&changed)
	result.Upload = c.Upload
	s.uploads.Delete(c.Upload)
	if len(changed.allocated) > len(changed.sealed) {
		s.settleAllocated(&changed)
	}
	return result, nil
}

// check makes sure that every chunk can be part of u, before anything changes.
func (c *Commit) check(s *State, u *upload) error {
	if c.Position != 0 && c.Position != len(u.sealed) {
		return dfs.Errorf(dfs.Conflict, "upload %s is being committed by two callers at once; ask for the file to see the outcome", c.Upload)
	}
	if c.Position+len(c.Chunks) > dfs.MaxChunksPerFile {
		return dfs.Errorf(dfs.TooLarge, "a file has at most %d chunks; choose a larger chunk size", dfs.MaxChunksPerFile)
	}
	named := make(map[dfs.ChunkID]struct{}, len(c.Chunks))
	for i := range c.Chunks {
		stored := &c.Chunks[i]
		if _, twice := named[stored.ID]; twice {
			return dfs.Errorf(dfs.Invalid, "chunk %s is named twice", stored.ID)
		}
		named[stored.ID] = struct{}{}
		if err := c.checkChunk(s, u, stored); err != nil {
			return err
		}
	}
	return nil
}

func (c *Commit) checkChunk(s *State, u *upload, stored *StoredChunk) error {
	known, ok := s.chunks.Get(stored.ID)
	switch {
	case !ok || known.upload != c.Upload:
		return dfs.Errorf(dfs.Invalid, "chunk %s is not one of upload %s", stored.ID, c.Upload)
	case known.refs > 0 && c.Position > 0:
		return dfs.Errorf(dfs.Invalid, "chunk %s is named twice", stored.ID)
	}
	return s.checkStored(stored, u.replication, u.chunkSize)
}

// checkStored makes sure that the chunk is stored as one of a file must be.
func (s *State) checkStored(stored *StoredChunk, replication int, chunkSize int64) error {
	switch needed := dfs.MinReplicas(replication); {
	case stored.Size < 1 || stored.Size > chunkSize:
		return dfs.Errorf(dfs.Invalid, "chunk %s has %d bytes; 1 to %d, the chunk size, are possible", stored.ID, stored.Size, chunkSize)
	case len(stored.Nodes) < needed || len(stored.Nodes) > dfs.MaxReplication:
		return dfs.Errorf(dfs.Invalid, "chunk %s is stored on %d DataNodes; replication %d needs at least %d", stored.ID, len(stored.Nodes), replication, needed)
	case repeats(stored.Nodes):
		return dfs.Errorf(dfs.Invalid, "chunk %s names a DataNode twice", stored.ID)
	}
	for _, num := range stored.Nodes {
		if _, ok := s.nodes.Get(num); !ok {
			return dfs.Errorf(dfs.Invalid, "chunk %s is said to be on a DataNode that is not known", stored.ID)
		}
	}
	return nil
}

// checkPlace makes sure that the file can appear where the upload began: the
// directory still exists, and what stands there is what stood there.
func (s *State) checkPlace(u *upload) error {
	dir, ok := s.pathOf(u.parent)
	if !ok {
		return dfs.Errorf(dfs.NotFound, "the directory in which the upload of %q began was deleted", u.name)
	}
	current := s.child(u.parent, u.name)
	switch {
	case current == nil && u.base == 0, current != nil && current.id == u.base:
		return nil
	case current != nil && !u.overwrite:
		return dfs.Errorf(dfs.Exists, "%s/%s was created by someone else meanwhile", dir, u.name)
	}
	return dfs.Errorf(dfs.Conflict, "%s/%s was changed by someone else during the upload; look at it, then upload again", dir, u.name)
}

// unseal forgets what an earlier, unfinished commit had named.
func (s *State) unseal(u *upload) {
	for _, id := range u.sealed {
		if known, ok := s.chunks.Get(id); ok {
			known.refs = 0
			s.chunks.Set(id, known)
		}
	}
	u.sealed, u.size = nil, 0
}

// seal makes a stored chunk the next of the file.
func (s *State) seal(u *upload, stored *StoredChunk) {
	sealed, _ := s.chunks.Get(stored.ID) // check has seen it
	sealed.size, sealed.checksum, sealed.refs = int32(stored.Size), stored.Checksum, 1
	for _, num := range stored.Nodes {
		if sealed.addReplica(num) {
			s.unconfirmed.Set(replica{num, stored.ID, s.clock})
		}
	}
	s.chunks.Set(stored.ID, sealed)
	u.sealed = append(u.sealed, stored.ID)
	u.size += stored.Size
}

// finish makes the file of a sealed upload appear.
func (s *State) finish(u *upload) Result {
	if replaced := s.child(u.parent, u.name); replaced != nil {
		s.discard(replaced)
	}
	dir, _ := s.pathOf(u.parent) // checkPlace has seen it
	file := &inode{
		parent: u.parent, name: u.name, mtime: s.clock, size: u.size,
		replication: uint8(u.replication), chunkSize: int32(u.chunkSize),
	}
	if len(u.sealed) > 1 {
		u.sealed = slices.Clone(u.sealed) // without its room to grow
	}
	file.setChunks(u.sealed)
	s.link(file)
	return Result{Path: dir + "/" + u.name, Size: u.size}
}

// giveUp ends an upload without a file.
func (s *State) giveUp(id dfs.UploadID, u *upload) {
	s.uploads.Delete(id)
	ended := *u
	s.unseal(&ended)
	s.settleAllocated(&ended)
}

// settleAllocated settles the chunks of an upload that is over.
func (s *State) settleAllocated(u *upload) {
	for _, a := range u.allocated {
		if known, ok := s.chunks.Get(a.id); ok {
			s.settle(a.id, &known)
		}
	}
}

// release takes one reference from each chunk of a file that is gone.
func (s *State) release(ids []dfs.ChunkID) {
	for _, id := range ids {
		known, ok := s.chunks.Get(id)
		if !ok || known.refs == 0 {
			continue
		}
		known.refs--
		s.chunks.Set(id, known)
		s.settle(id, &known)
	}
}

// settle decides what becomes of a chunk. It has to be called whenever one loses
// a reference, its upload or a replica: what nothing uses is garbage from then
// on, and forgotten when no node holds it any more.
func (s *State) settle(id dfs.ChunkID, c *chunk) {
	switch _, garbage := s.garbage.Get(id); {
	case !s.unused(c):
	case c.replicaCount() == 0:
		s.garbage.Delete(id)
		s.chunks.Delete(id)
	case !garbage:
		s.garbage.Set(id, s.applied)
	}
}

// unused tells whether no file and no open upload or pool refers to c. Nothing
// will then: only an open one names its chunks, and none is opened twice.
func (s *State) unused(c *chunk) bool {
	if c.refs > 0 {
		return false
	}
	_, open := s.uploads.Get(c.upload)
	if !open {
		_, open = s.pools.Get(c.upload)
	}
	return !open
}

func (c *AbortUpload) apply(s *State) (Result, error) {
	u, err := s.openUpload(c.Upload)
	if err != nil {
		return Result{}, err
	}
	s.giveUp(c.Upload, u)
	return Result{}, nil
}

func (c *ExpireUploads) apply(s *State) (Result, error) {
	for _, expired := range c.Uploads {
		if u, ok := s.uploads.Get(expired.Upload); ok && u.touched <= expired.Touched {
			s.giveUp(expired.Upload, u)
		}
		if p, ok := s.pools.Get(expired.Upload); ok && p.touched <= expired.Touched {
			s.giveUpPool(expired.Upload, p)
		}
	}
	return Result{}, nil
}
