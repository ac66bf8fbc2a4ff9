package bench

import (
	"context"
	"sync"
	"time"
)

// afterError is how long a pulse waits after an error, so that one that comes
// at once is not repeated as fast as the processor can.
const afterError = 10 * time.Millisecond

// pulse repeats an operation while something is done to the cluster, and knows
// for how long none was acknowledged. Its workers have one in flight each.
type pulse struct {
	work  Work
	every time.Duration // of each worker; 0: as fast as it can

	mu      sync.Mutex
	tally   tally
	latest  time.Time     // acknowledgement
	longest time.Duration // between two of them, since watch
	since   time.Time     // an operation begun after that ends the outage; zero while nothing happened
	over    chan struct{} // closed at that end
	next    int64

	cancel context.CancelFunc
	wg     sync.WaitGroup
	began  time.Time
}

// startPulse begins; stop ends it.
func startPulse(ctx context.Context, concurrency int, every time.Duration, work Work) *pulse {
	ctx, cancel := context.WithCancel(ctx)
	now := time.Now()
	p := &pulse{work: work, every: every, cancel: cancel, latest: now, began: now, over: make(chan struct{})}
	for range concurrency {
		p.wg.Go(func() { p.run(ctx) })
	}
	return p
}

// stop returns what has been measured in all. What is under way counts no more.
func (p *pulse) stop(name string, concurrency int) Result {
	p.cancel()
	p.wg.Wait()
	return p.tally.result(name, concurrency, time.Since(p.began).Seconds())
}

func (p *pulse) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		i := p.next
		p.next++
		p.mu.Unlock()
		began := time.Now()
		bytes, err := p.work(ctx, i)
		if ctx.Err() != nil {
			return
		}
		p.note(began, time.Now(), bytes, err)
		wait := p.every - time.Since(began)
		if err != nil {
			wait = max(wait, afterError)
		}
		if wait > 0 && pause(ctx, wait) != nil {
			return
		}
	}
}

func (p *pulse) note(began, ended time.Time, bytes int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tally.add(ended.Sub(began), bytes, err)
	if err != nil {
		return
	}
	p.longest = max(p.longest, ended.Sub(p.latest))
	p.latest = ended
	if !p.since.IsZero() && began.After(p.since) {
		p.since = time.Time{}
		close(p.over)
	}
}

// watch forgets how long earlier outages were.
func (p *pulse) watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest = 0
	p.over = make(chan struct{})
	p.since = time.Time{}
}

// happened says that the fault is complete: the outage is over when something
// that begins from now on is acknowledged.
func (p *pulse) happened() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Now()
}

// outage waits for its end, and returns the longest time since watch without
// an acknowledgement. The time in which the fault was brought about counts only
// as far as nothing was acknowledged.
func (p *pulse) outage(ctx context.Context) (time.Duration, error) {
	p.mu.Lock()
	over := p.over
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-over:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.longest, nil
}

// pause waits, or returns why not.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
