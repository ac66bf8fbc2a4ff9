package datanode

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// scrubSaveInterval is how often the position is saved at most. What a crash
// loses is read twice, which harms nothing.
const scrubSaveInterval = time.Minute

// scrubber reads every chunk again, in the order of the IDs, to find those that
// the disk has changed before all replicas of a chunk are bad. All of it
// belongs to one goroutine.
type scrubber struct {
	store    *chunkstore.Store
	rate     int64         // bytes per second
	interval time.Duration // between the beginnings of two passes
	metrics  *metrics
	log      hclog.Logger

	state chunkstore.ScrubState
	saved time.Time
	due   time.Time // when the rate allows the next chunk

	// Chunks that the disk would not read, in this pass and in the one before.
	unreadable, unreadableBefore map[dfs.ChunkID]struct{}
}

func newScrubber(config Config, store *chunkstore.Store, metrics *metrics, log hclog.Logger) *scrubber {
	return &scrubber{
		store: store, rate: config.ScrubRate, interval: config.ScrubInterval, metrics: metrics, log: log.Named("scrub"),
		unreadable: make(map[dfs.ChunkID]struct{}),
	}
}

// run scrubs until ctx ends, pass after pass, from where the last run stopped.
func (s *scrubber) run(ctx context.Context) {
	s.resume()
	for {
		if s.state.Done {
			if !sleepUntil(ctx, s.state.Started.Add(s.interval)) {
				return
			}
			s.state = chunkstore.ScrubState{}
		}
		if !s.pass(ctx) {
			s.save()
			return
		}
	}
}

// resume takes up the saved position.
func (s *scrubber) resume() {
	var err error
	if s.state, err = s.store.LoadScrub(); err != nil {
		s.log.Warn("the position of the scrubber is lost; it begins anew", "error", err)
	}
	s.saved = time.Now()
	if s.state.Started.After(s.saved) { // the clock was wrong then or is now
		s.state.Started = s.saved
	}
}

// pass reads what is left of a pass, and tells whether it came to the end.
func (s *scrubber) pass(ctx context.Context) bool {
	if s.state.Started.IsZero() {
		s.state.Started = time.Now()
	}
	for {
		next := s.store.List(s.state.After, 1)
		if len(next) == 0 {
			break
		}
		if !sleepUntil(ctx, s.due) {
			return false
		}
		s.check(next[0])
		if time.Since(s.saved) >= scrubSaveInterval {
			s.save()
		}
	}
	s.condemnUnreadable()
	s.state.Done = true
	s.metrics.scrubPasses.Inc()
	s.log.Info("all chunks have been read again", "chunks", s.state.Chunks, "bytes", s.state.Bytes, "damaged", s.state.Damaged, "since", s.state.Started)
	s.save()
	return true
}

// check reads one chunk, and says when the next may be read: time that was not
// used is not saved up for a burst.
func (s *scrubber) check(chunk chunkstore.Info) {
	began := time.Now()
	err := s.store.Verify(chunk.ID)
	s.due = began.Add(time.Duration(float64(chunk.Size) / float64(s.rate) * float64(time.Second)))
	s.state.After = chunk.ID
	switch dfs.CodeOf(err) {
	case dfs.NotFound: // removed meanwhile
		return
	case dfs.Corrupt: // quarantined and logged by the store
		s.state.Damaged++
		s.metrics.scrubDamaged.Inc()
	case dfs.Unavailable: // its disk does not answer, or the store is being closed: it was not read
		return
	case dfs.Internal:
		if chunkstore.IsUnreadable(err) { // and not a want of memory or of a permission, which says nothing of it
			s.unreadable[chunk.ID] = struct{}{}
		}
		s.metrics.scrubUnreadable.Inc()
		s.log.Error("a chunk could not be read again", "chunk", chunk.ID, "error", err)
	}
	s.state.Chunks++
	s.state.Bytes += chunk.Size
	s.metrics.scrubbedChunks.Inc()
	s.metrics.scrubbedBytes.Add(float64(chunk.Size))
}

// condemnUnreadable gives up the chunks that the disk refused to read in two
// passes on end though it read others: their sectors are bad, and not a cable
// or the whole disk, which may come back.
func (s *scrubber) condemnUnreadable() {
	for id := range s.unreadable {
		_, twice := s.unreadableBefore[id]
		if !twice || int64(len(s.unreadable)) >= s.state.Chunks {
			continue
		}
		err := s.store.Quarantine(id, "the disk could not read it in two passes of the scrubber")
		if err != nil && dfs.CodeOf(err) != dfs.NotFound { // removed meanwhile
			s.log.Error("an unreadable chunk could not be put into quarantine", "chunk", id, "error", err)
		}
		s.state.Damaged++
		s.metrics.scrubDamaged.Inc()
	}
	s.unreadable, s.unreadableBefore = make(map[dfs.ChunkID]struct{}), s.unreadable
}

func (s *scrubber) save() {
	s.saved = time.Now()
	if err := s.store.SaveScrub(s.state); err != nil {
		s.log.Warn("the position of the scrubber could not be saved; a restart will read some chunks twice", "error", err)
	}
}

// sleepUntil waits for a moment, and tells whether it has come before the end
// of ctx.
func sleepUntil(ctx context.Context, moment time.Time) bool {
	if ctx.Err() != nil {
		return false
	}
	wait := time.Until(moment)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
