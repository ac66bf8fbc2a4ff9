package chunkstore

import (
	"cmp"
	"errors"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// ErrAlone is of a chunk that RemoveTogether leaves to Remove.
var ErrAlone = errors.New("the chunk is to be removed by itself")

// party is packed chunks of one volume that are removed together.
type party struct {
	volume   *volume
	claim    chan struct{} // of all of them; closed when it is let go
	removals []*removal    // by place
	task     *task
	begun    bool
}

// RemoveTogether is Remove for many chunks, of which those that are packed need one
// task, and one file to be opened for each segment. It says of each chunk what Remove
// would, or ErrAlone when the chunk has a file of its own, is being changed by somebody
// else, or lies on a disk that does not answer: it waits for nobody but the
// disk.
func (s *Store) RemoveTogether(ids []dfs.ChunkID) []error {
	errs := make([]error, len(ids))
	removals, parties := s.takeOut(ids, errs)
	for _, p := range parties {
		slices.SortFunc(p.removals, func(a, b *removal) int {
			return cmp.Or(cmp.Compare(a.entry.segment, b.entry.segment), cmp.Compare(a.entry.at, b.entry.at))
		})
		p.task = newTask(p.volume, "remove small chunks", false)
		p.begun = p.task.begin(func(t *task) error { return s.throwAway(p, t) }, nil)
	}
	outcomes := make(map[*volume]error, len(parties))
	for _, p := range parties {
		if p.begun {
			outcomes[p.volume] = p.volume.await(p.task, hangTimeout)
		} else {
			s.letGo(p)
			outcomes[p.volume] = errClosed()
		}
	}
	for i, r := range removals {
		if r == nil {
			continue
		}
		switch err := outcomes[s.volumes[r.entry.volume]]; {
		case err == nil:
			errs[i] = r.err
		case errors.As(err, new(*noAnswer)): // and the removal is the task's
			errs[i] = unanswered(r.id)
		default:
			errs[i] = err
		}
	}
	return errs
}

// takeOut claims what can be removed together, and takes it out of what is held. The
// removals are those of the IDs; where one is nil, its error is set.
func (s *Store) takeOut(ids []dfs.ChunkID, errs []error) ([]*removal, map[uint8]*party) {
	removals, parties := make([]*removal, len(ids)), make(map[uint8]*party)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range ids {
		e, held := s.ledger.held.Get(id)
		_, busy := s.claims[id]
		switch {
		case s.unready != nil:
			errs[i] = s.unready
			continue
		case busy, held && (!e.packed() || !s.volumes[e.volume].answers()):
			errs[i] = ErrAlone
			continue
		case !held:
			errs[i] = notHeld(id)
			continue
		}
		p := parties[e.volume]
		if p == nil {
			p = &party{volume: s.volumes[e.volume], claim: make(chan struct{})}
			parties[e.volume] = p
		}
		s.claims[id] = p.claim
		s.ledger.remove(id)
		removals[i] = &removal{id: id, entry: e}
		p.removals = append(p.removals, removals[i])
	}
	return removals, parties
}

// throwAway removes the records of a party, or has them held again.
func (s *Store) throwAway(p *party, t *task) error {
	defer s.letGo(p)
	p.volume.segments.throwAwayAll(p.removals, s.keep, t.moved)
	for _, r := range p.removals {
		r.err = s.removed(r.id, r.entry, r.err)
	}
	return nil
}

// letGo lets the claims of a party go.
func (s *Store) letGo(p *party) {
	s.mu.Lock()
	for _, r := range p.removals {
		delete(s.claims, r.id)
	}
	s.mu.Unlock()
	close(p.claim)
}
