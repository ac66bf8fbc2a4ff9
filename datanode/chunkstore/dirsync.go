package chunkstore

import "sync"

// syncGroup lets concurrent writers of one directory share its fsync. Whoever
// comes first leads a round; everyone who comes before the round's fsync begins
// has renamed before it, and is served by it.
type syncGroup struct {
	mu      sync.Mutex
	running *syncRound // the latest that has begun; guarded by mu
	next    *syncRound // has not begun; guarded by mu
}

type syncRound struct {
	done chan struct{}
	err  error // set before done is closed
}

// do returns after an fsync that began after the call.
func (g *syncGroup) do(fsync func() error) error {
	g.mu.Lock()
	round, before := g.next, g.running
	leads := round == nil
	if leads {
		round = &syncRound{done: make(chan struct{})}
		g.next = round
	}
	g.mu.Unlock()
	if leads {
		g.lead(round, before, fsync)
	}
	<-round.done
	return round.err
}

func (g *syncGroup) lead(round, before *syncRound, fsync func() error) {
	if before != nil {
		<-before.done
	}
	g.mu.Lock()
	g.running, g.next = round, nil // later callers may have renamed too late for this fsync
	g.mu.Unlock()
	round.err = fsync()
	close(round.done)
}
