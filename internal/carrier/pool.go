package carrier

import (
	"sync"
	"time"
)

// pool keeps connections between requests. No goroutine waits for any of them:
// whether one is still open is looked at when it is wanted again, and one timer
// closes those that nobody has wanted for long.
type pool struct {
	timeout time.Duration
	perHost int

	mu     sync.Mutex
	byHost map[string][]*conn // the one used last at the end; guarded by mu
	timer  *time.Timer        // nil while there is no connection; guarded by mu
}

// take returns the connection that was used last, nil when there is none. It may
// be closed already.
func (p *pool) take(address string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.byHost[address]
	if len(kept) == 0 {
		return nil
	}
	last := len(kept) - 1
	c := kept[last]
	kept[last] = nil
	p.byHost[address] = kept[:last]
	return c
}

// put keeps a connection that is in order, or closes it when there are enough.
func (p *pool) put(c *conn) {
	if !p.keep(c) {
		c.close()
	}
}

func (p *pool) keep(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byHost[c.address]) >= p.perHost {
		return false
	}
	if p.byHost == nil {
		p.byHost = make(map[string][]*conn)
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(p.timeout, p.sweep)
	}
	c.since = time.Now()
	p.byHost[c.address] = append(p.byHost[c.address], c)
	return true
}

// sweep closes what has not been used for long, and comes again as long as
// something is kept.
func (p *pool) sweep() {
	for _, c := range p.expired(time.Now()) {
		c.close()
	}
}

func (p *pool) expired(now time.Time) (old []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.timeout
	for address, kept := range p.byHost {
		fresh := 0
		for fresh < len(kept) && now.Sub(kept[fresh].since) >= p.timeout {
			fresh++
		}
		old = append(old, kept[:fresh]...)
		if fresh == len(kept) {
			delete(p.byHost, address)
			continue
		}
		// Copied, so that the array does not go on holding what is closed.
		p.byHost[address] = append([]*conn(nil), kept[fresh:]...)
		next = min(next, p.timeout-now.Sub(kept[fresh].since))
	}
	if len(p.byHost) == 0 {
		p.timer = nil
		return old
	}
	if p.timer != nil {
		p.timer.Reset(next)
	}
	return old
}

func (p *pool) closeAll() {
	p.mu.Lock()
	all := p.byHost
	p.byHost = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, kept := range all {
		for _, c := range kept {
			c.close()
		}
	}
}
