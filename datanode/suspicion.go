package datanode

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	// suspicionQueue is how many chunks may wait that readers suspect. What does
	// not fit is left to the scrubber.
	suspicionQueue = 64

	// suspicionRest is how long a chunk that was verified is not verified again,
	// and suspicionRate how many are verified in that time: anyone may suspect,
	// and must not keep the disk busy with it.
	suspicionRest = 10 * time.Second
	suspicionRate = 64
)

// suspicions verifies the chunks that readers found bad, one after the other.
// Readers are not believed: they can be wrong or malicious, and what they read
// can have been damaged on the way. Only what this node finds itself counts.
type suspicions struct {
	store   *chunkstore.Store
	metrics *metrics
	log     hclog.Logger
	lane    *lane[dfs.ChunkID, dfs.ChunkID]

	mu       sync.Mutex
	verified map[dfs.ChunkID]time.Time // recently; guarded by mu
}

func newSuspicions(store *chunkstore.Store, metrics *metrics, log hclog.Logger) *suspicions {
	return &suspicions{
		store: store, metrics: metrics, log: log.Named("suspicions"),
		lane: newLane[dfs.ChunkID, dfs.ChunkID](suspicionQueue, 1), verified: make(map[dfs.ChunkID]time.Time),
	}
}

// run looks into suspicions until ctx ends.
func (s *suspicions) run(ctx context.Context) { s.lane.run(ctx, s.verify) }

// raise notes that a chunk should be verified. It does not wait.
func (s *suspicions) raise(id dfs.ChunkID) {
	if !s.rested(id) || !s.lane.enter(id, id) {
		s.count("dropped")
	}
}

// rested tells whether the chunk may be verified again, and any chunk at all.
func (s *suspicions) rested(id dfs.ChunkID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, at := range s.verified {
		if time.Since(at) >= suspicionRest {
			delete(s.verified, other)
		}
	}
	_, recently := s.verified[id]
	return !recently && len(s.verified) < suspicionRate
}

func (s *suspicions) verify(ctx context.Context, id dfs.ChunkID) {
	if ctx.Err() != nil {
		return // the node is being closed
	}
	if !s.rested(id) { // others were before it in the queue
		s.count("dropped")
		return
	}
	switch err := s.store.Verify(id); dfs.CodeOf(err) {
	case "":
		s.count("unfounded")
		s.log.Debug("a reader found a replica bad, and it is good", "chunk", id)
	case dfs.Corrupt: // quarantined and logged by the store
		s.count("damaged")
	case dfs.NotFound: // removed meanwhile
	default:
		s.count("unreadable")
		s.log.Error("a replica that a reader found bad could not be read", "chunk", id, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[id] = time.Now()
}

func (s *suspicions) count(result string) { s.metrics.suspicions.WithLabelValues(result).Inc() }

// verifyChunk takes a reader's suspicion. The answer does not tell what becomes
// of it.
func (s *server) verifyChunk(w http.ResponseWriter, r *http.Request) error {
	id, err := dfs.ParseChunkID(r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.store.Ready(); err != nil {
		return err
	}
	if _, held := s.store.Stat(id); !held {
		return dfs.Errorf(dfs.NotFound, "chunk %s is not on this DataNode", id)
	}
	s.suspicions.raise(id)
	protocol.WriteJSON(w, http.StatusAccepted, protocol.Empty{})
	return nil
}
