package namenode

import (
	"context"
	"fmt"
	"sync"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxEntriesInFlight is how many log entries are on their way at once: while a
// majority writes one, the leader can already write the next.
const maxEntriesInFlight = 2

// proposals lets commands that are proposed at the same time share a log entry.
// Nobody waits for company: as long as fewer entries than the limit are in
// flight, a command goes off at once. What comes while they are is gathered,
// and goes off together as soon as one of them is done, first come, first
// served.
type proposals struct {
	apply func(ctx context.Context, entry []byte) (any, error)
	ctx   context.Context // that entries are applied under; no caller's, since several wait

	mu      sync.Mutex
	closed  bool        // guarded by mu
	waiting []*proposal // guarded by mu
	senders int         // goroutines in send; guarded by mu
	running sync.WaitGroup
}

// proposal is an entry of one command, and whoever waits for its outcome.
type proposal struct {
	entry []byte
	sent  bool             // guarded by the mutex of the proposals
	done  chan fsm.Outcome // buffered
}

// propose puts an entry of one command into the log, alone or with others, and
// returns its outcome. Errors of the log are those of cluster.Group.Apply.
func (p *proposals) propose(ctx context.Context, entry []byte) (fsm.Result, error) {
	if ctx.Err() != nil {
		return fsm.Result{}, notBegun(ctx)
	}
	w := &proposal{entry: entry, done: make(chan fsm.Outcome, 1)}
	if !p.enlist(w) {
		return fsm.Result{}, dfs.Errorf(dfs.NotLeader, "this NameNode is shutting down")
	}
	select {
	case outcome := <-w.done:
		return outcome.Result, outcome.Err
	case <-ctx.Done():
	}
	if p.withdraw(w) {
		return fsm.Result{}, notBegun(ctx)
	}
	select { // it may have come at the same moment
	case outcome := <-w.done:
		return outcome.Result, outcome.Err
	default:
		return fsm.Result{}, dfs.Errorf(dfs.UnknownOutcome, "it is not known whether the change was made (%w); ask again with the same request ID", ctx.Err())
	}
}

func notBegun(ctx context.Context) error {
	return dfs.Errorf(dfs.Timeout, "the request ran out of time before it was begun: %w", ctx.Err())
}

// enlist puts a proposal into the queue, and begins to send when there is room
// for an entry in flight. It returns false after close.
func (p *proposals) enlist(w *proposal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.waiting = append(p.waiting, w)
	if p.senders < maxEntriesInFlight {
		p.senders++
		p.running.Go(p.send)
	}
	return true
}

// withdraw takes a proposal out of the queue, and tells whether it was there
// still.
func (p *proposals) withdraw(w *proposal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.sent {
		return false
	}
	for i := range p.waiting {
		if p.waiting[i] == w {
			p.waiting = append(p.waiting[:i:i], p.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// send applies what waits, entry by entry, until nothing does.
func (p *proposals) send() {
	for {
		group := p.take()
		if len(group) == 0 {
			return
		}
		entries := make([][]byte, len(group))
		for i := range group {
			entries[i] = group[i].entry
		}
		answer, err := p.apply(p.ctx, fsm.EncodeGroup(entries))
		outcomes, _ := answer.([]fsm.Outcome)
		if err == nil && len(outcomes) != len(group) {
			err = fmt.Errorf("the state machine answered %d commands with %T", len(group), answer)
		}
		for i := range group {
			outcome := fsm.Outcome{Err: err}
			if err == nil {
				outcome = outcomes[i]
			}
			group[i].done <- outcome
		}
	}
}

// take returns the longest waiting proposals that fit into an entry. When there
// is none, the sender that asks is no more.
func (p *proposals) take() []*proposal {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := fitting(p.waiting)
	if count == 0 {
		p.senders--
		return nil
	}
	group := make([]*proposal, count)
	copy(group, p.waiting)
	rest := copy(p.waiting, p.waiting[count:])
	clear(p.waiting[rest:])
	p.waiting = p.waiting[:rest]
	for _, w := range group {
		w.sent = true
	}
	return group
}

// fitting returns how many proposals, from the first on, fit into an entry: at
// least one, which may itself turn out to be too long.
func fitting(waiting []*proposal) int {
	size := 0
	for i, w := range waiting {
		size += len(w.entry) + fsm.GroupOverhead
		if i > 0 && size > cluster.MaxEntrySize || i == fsm.MaxGroup {
			return i
		}
	}
	return len(waiting)
}

// close lets what is under way end, which must not be long then, and refuses
// all else.
func (p *proposals) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
}
