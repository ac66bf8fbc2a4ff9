package namenode

import (
	"slices"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	stockBatch = 512            // chunks reserved by one entry
	stockLow   = stockBatch / 2 // chunks left when the next are reserved
)

// stock is the chunks that a leader has reserved for small files and may hand
// out without a log entry. It is the leader's alone and goes with it, so nobody
// else hands out the same; what has been handed out stays good.
//
// Its mutex may be taken while the state is read, and never the other way round.
type stock struct {
	life   time.Duration // for which chunks are handed out after they were reserved
	wanted chan struct{} // holds a token when the stock may be low

	mu    sync.Mutex
	spans []span                      // to be handed out, in order; guarded by mu
	out   map[dfs.ChunkID]destination // handed out, and in no file when last looked at; guarded by mu
}

// span is chunks of a pool in a row.
type span struct {
	pool        dfs.UploadID
	first, last dfs.ChunkID
	until       time.Time // after that its clients would have too little time
}

// destination is where a chunk is to be stored.
type destination struct {
	targets   []fsm.NodeNum
	chunkSize int64  // bytes
	since     uint64 // log index of the state in which the chunk was handed out
}

func newStock(life time.Duration) *stock {
	return &stock{life: life, wanted: make(chan struct{}, 1), out: make(map[dfs.ChunkID]destination)}
}

// take hands out a chunk of a pool that is open in s, and that no node holds.
// When there is none, the caller has to do without.
func (k *stock) take(s *fsm.State, targets []fsm.NodeNum, chunkSize int64) (pool dfs.UploadID, id dfs.ChunkID, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	k.spans = slices.DeleteFunc(k.spans, func(sp span) bool { return now.After(sp.until) || !s.PoolOpen(sp.pool) })
	if k.low() {
		select {
		case k.wanted <- struct{}{}:
		default: // somebody has said so already
		}
	}
	for len(k.spans) > 0 {
		sp := &k.spans[0]
		pool, id = sp.pool, sp.first
		if sp.first++; sp.first > sp.last {
			k.spans = k.spans[1:]
		}
		if s.Untouched(id) {
			k.out[id] = destination{targets, chunkSize, s.AppliedIndex()}
			return pool, id, true
		}
	}
	return 0, 0, false
}

// low tells whether more should be reserved. The caller holds mu.
func (k *stock) low() bool {
	left := dfs.ChunkID(0)
	for _, sp := range k.spans {
		left += sp.last - sp.first + 1
	}
	return left <= stockLow
}

func (k *stock) add(pool dfs.UploadID, first dfs.ChunkID, count int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spans = append(k.spans, span{pool, first, first + dfs.ChunkID(count) - 1, time.Now().Add(k.life)})
}

// needed is low for callers without the mutex.
func (k *stock) needed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.low()
}

// inFlight calls fn with each chunk that was handed out and is in no file yet,
// and each of its targets that does not hold it. Those that never will be are
// forgotten.
func (k *stock) inFlight(s *fsm.State, fn func(target fsm.NodeNum, chunkSize int64)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, to := range k.out {
		held, open := s.InPool(id)
		if !open && s.AppliedIndex() >= to.since { // an older state may not know the chunk yet
			delete(k.out, id)
			continue
		}
		for _, num := range to.targets {
			if !open || !held(num) {
				fn(num, to.chunkSize)
			}
		}
	}
}

// keepStock reserves chunks when there is demand, until the leadership ends.
func (l *leadership) keepStock() error {
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-l.stock.wanted:
		}
		if !l.stock.needed() {
			continue
		}
		if result, ok := l.try("reserving chunks", &fsm.ReserveChunks{Count: stockBatch}); ok {
			l.stock.add(result.Upload, result.First, result.Count)
		}
	}
}
