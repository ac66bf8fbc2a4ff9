package chunkstore

import (
	"math/rand/v2"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// spareWriters is how many chunks more than twice those of all other volumes
// may be under way on one volume. What exceeds that has a disk that is slow or
// hangs, and must not take all the writes that a node can have at once.
const spareWriters = 4

// choose says on which volumes to try to put a file of so many bytes, one
// after the other. The first is drawn by lot, one with twice the room twice as
// often as another; those that seem to be full, or to hang, come last.
func (s *Store) choose(size int64) []*volume {
	if len(s.volumes) == 1 {
		if s.volumes[0].writable() != nil {
			return nil
		}
		return s.volumes
	}
	type candidate struct {
		volume *volume
		weight float64 // 0 for the last
	}
	var candidates []candidate
	sum, all := 0.0, 0
	loads := make([]load, len(s.volumes))
	for i, v := range s.volumes {
		loads[i] = v.load()
		all += loads[i].writers
	}
	for i, v := range s.volumes {
		if !loads[i].writable {
			continue
		}
		weight := 0.0
		others := all - loads[i].writers
		if loads[i].room >= size && (len(s.volumes) == 1 || loads[i].writers <= 2*others+spareWriters) {
			weight = float64(max(1, loads[i].room-loads[i].writing))
		}
		candidates = append(candidates, candidate{v, weight})
		sum += weight
	}
	order := make([]*volume, 0, len(candidates))
	for len(candidates) > 0 {
		at := 0
		for lot := rand.Float64() * sum; at < len(candidates)-1 && lot >= candidates[at].weight; at++ {
			lot -= candidates[at].weight
		}
		order = append(order, candidates[at].volume)
		sum -= candidates[at].weight
		candidates = append(candidates[:at], candidates[at+1:]...)
	}
	return order
}

// load is what choose needs to know of a volume. Sizes are in bytes.
type load struct {
	writable bool
	room     int64
	writers  int
	writing  int64
}

func (v *volume) load() load {
	v.mu.Lock()
	defer v.mu.Unlock()
	return load{writable: v.blocked() == nil, room: v.free(), writers: v.writers, writing: v.writing}
}

// expect counts a chunk that is to be written, of so many bytes with its
// footer; a negative number counts one that is not any more.
func (v *volume) expect(size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writing += size
	if size > 0 {
		v.writers++
	} else {
		v.writers--
	}
}

// hasRoom is makeRoom for those who do not allocate yet.
func (v *volume) hasRoom(id dfs.ChunkID, size int64) error {
	v.allocation.Lock()
	defer v.allocation.Unlock()
	return v.makeRoom(id, size)
}

// makeRoom makes sure that a file of so many bytes fits beside the reserve, and
// empties the trash as far as that is needed. The caller has the right to
// allocate.
func (v *volume) makeRoom(id dfs.ChunkID, size int64) error {
	for {
		if err := v.measure(); err != nil {
			return dfs.Errorf(dfs.Internal, "the free space for chunk %s cannot be told: %w", id, reason(err))
		}
		v.mu.Lock()
		available := v.figures.available
		v.mu.Unlock()
		if available >= size {
			return nil
		}
		if !v.removeOldest(time.Now()) {
			return dfs.Errorf(dfs.NoSpace, "the disk is full: chunk %s needs %d bytes and %d are free beyond the reserve; delete files or add a DataNode",
				id, size, max(0, available))
		}
	}
}
