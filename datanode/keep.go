package datanode

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	// promiseLifetime is how long a node keeps a replica at least that it has
	// confirmed. It is three times as long as the asker may act on the answer.
	promiseLifetime = 3 * trimBound

	// maxPromises bounds what is promised at a time. Beyond it nothing is
	// confirmed, which costs a trim, and no data.
	maxPromises = 4096

	confirmationsAtATime = 2
)

// keeps is which replicas this node is about to give up, and which it has
// promised to keep, so that two nodes never give theirs up trusting each other.
//
// Whoever trims first marks its replica as going, then asks the keepers, and
// unmarks it when it has given the replica up or decided to keep it. Whoever is
// asked looks for the mark first, and reads its replica then. That order alone
// makes trimming safe, however slow messages and nodes are: take of all that
// ever trim a chunk, and were confirmed, the one that marked last. Each of its
// keepers was asked after that moment. If one of them were a trimmer, it had
// marked before; so when it was asked it was still marked, and refused, or had
// given its replica up, and found nothing to confirm (what a disk has not yet
// finished to remove is not held any more, either). So none of them is a
// trimmer: as many replicas as the order wants are read, found good, and stay.
//
// The promise is a second wall: whoever has confirmed does not even begin to
// give up its own replica while the asker may be counting on it. That one rests
// on clocks, but each only on its own and on none being set: the asker acts
// within trimBound of the moment before it asked, the promise is made after
// that moment, and holds for three times as long. If it runs out all the same,
// because the asker was stopped in between, the first wall stands: the asker's
// mark is there as long as it may act, and it confirms nothing to anyone.
//
// Nothing of this needs to survive a restart: a node that was restarted does not
// act on answers that it got before.
type keeps struct {
	mu       sync.Mutex
	going    map[dfs.ChunkID]struct{} // guarded by mu
	promised map[dfs.ChunkID]promise  // guarded by mu
}

// promise is made before the replica is read, and ends with the lifetime after
// that, or at once if the replica was not good.
type promise struct {
	reading int // answers being found
	until   time.Time
}

func (p promise) holds(now time.Time) bool { return p.reading > 0 || now.Before(p.until) }

func newKeeps() *keeps {
	return &keeps{going: make(map[dfs.ChunkID]struct{}), promised: make(map[dfs.ChunkID]promise)}
}

// mark notes that a replica is about to be given up. It fails with Conflict when
// that is so already, or when it has been promised. Who marks must unmark.
func (k *keeps) mark(id dfs.ChunkID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, going := k.going[id]; going {
		return dfs.Errorf(dfs.Conflict, "chunk %s is about to be given up already", id)
	}
	if k.promised[id].holds(time.Now()) {
		return dfs.Errorf(dfs.Conflict, "another DataNode counts on chunk %s here", id)
	}
	k.going[id] = struct{}{}
	return nil
}

func (k *keeps) unmark(id dfs.ChunkID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.going, id)
}

// promise promises to keep a replica, unless it is about to be given up. The
// caller reads the replica then, and says whether it is good.
func (k *keeps) promise(id dfs.ChunkID) (settle func(good bool), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, going := k.going[id]; going {
		return nil, false
	}
	p, known := k.promised[id]
	if !known && !k.hasRoom() {
		return nil, false
	}
	p.reading++
	k.promised[id] = p
	return func(good bool) { k.settle(id, good) }, true
}

func (k *keeps) settle(id dfs.ChunkID, good bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	p := k.promised[id]
	p.reading--
	if good {
		p.until = now.Add(promiseLifetime)
	}
	if k.promised[id] = p; !p.holds(now) {
		delete(k.promised, id)
	}
}

// hasRoom forgets what is over only when it must. It is called with mu held.
func (k *keeps) hasRoom() bool {
	if len(k.promised) < maxPromises {
		return true
	}
	now := time.Now()
	for id, p := range k.promised {
		if !p.holds(now) {
			delete(k.promised, id)
		}
	}
	return len(k.promised) < maxPromises
}

// confirmChunks answers a node that is about to give replicas up: it tells which
// of the asked chunks are held, have just been read again and found good, and
// will stay. Confirmations have slots of their own and wait for nobody who
// trims, so nodes that ask each other never wait in a circle.
func (s *server) confirmChunks(w http.ResponseWriter, r *http.Request, ids []dfs.ChunkID) error {
	if len(ids) > protocol.MaxVerifiedChunks {
		return dfs.Errorf(dfs.TooLarge, "%d chunks are too many to be verified for one question: ask for at most %d", len(ids), protocol.MaxVerifiedChunks)
	}
	if err := s.mayConfirm(); err != nil {
		return err
	}
	release, err := s.confirmations.take(r.Context(), w)
	if err != nil {
		return err
	}
	defer release()
	reply := protocol.StatChunksReply{Chunks: []protocol.ChunkInfo{}}
	for _, id := range ids {
		info, ok, err := s.confirm(r.Context(), id)
		if err != nil {
			return err
		}
		result := "refused"
		if ok {
			result = "confirmed"
			reply.Chunks = append(reply.Chunks, info)
		}
		s.metrics.confirmations.WithLabelValues(result).Inc()
	}
	protocol.WriteJSON(w, http.StatusOK, reply)
	return nil
}

// mayConfirm tells why nobody should count on this node: a copy of a data
// directory must not stand in for the original, and disks that have failed to
// write may be about to fail altogether. If others are well, confirm looks at
// the one that the chunk is on.
func (s *server) mayConfirm() error {
	if err := s.standing.check(); err != nil {
		return err
	}
	if err := s.store.Writable(); err != nil && dfs.CodeOf(err) != dfs.NoSpace {
		return err
	}
	return nil
}

// confirm fails only when the caller has gone.
func (s *server) confirm(ctx context.Context, id dfs.ChunkID) (info protocol.ChunkInfo, ok bool, err error) {
	if ctx.Err() != nil {
		return info, false, dfs.Errorf(dfs.Unavailable, "the caller has gone while its chunks were being verified")
	}
	settle, ok := s.keeps.promise(id)
	if !ok {
		return info, false, nil
	}
	defer func() { settle(ok) }()
	held, ok := s.store.Stat(id)
	if !ok {
		return info, false, nil
	}
	if err := s.store.Steady(id); err != nil {
		return info, false, nil
	}
	if err := s.store.Verify(id); err != nil {
		if code := dfs.CodeOf(err); code != dfs.Corrupt && code != dfs.NotFound { // logged by the store; removed meanwhile
			s.log.Error("a replica could not be read again to confirm it", "chunk", id, "error", err)
		}
		return info, false, nil
	}
	if now, there := s.store.Stat(id); !there || now != held { // removed while it was being read
		return info, false, nil
	}
	return protocol.ChunkInfo{ID: id, Size: held.Size, CRC32C: held.CRC32C}, true, nil
}
