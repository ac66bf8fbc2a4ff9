package bundle

import "time"

// SetPatience is for tests that decide themselves when a flight lands.
func (t *Transport) SetPatience(d time.Duration) { t.patience = d }

// Queued returns how many requests wait for the next flight.
func (t *Transport) Queued(host string, changes bool) int {
	t.mu.Lock()
	l := t.lanes[destination{host, changes}]
	t.mu.Unlock()
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queued)
}

// Taken tells whether a lane is taken.
func (t *Transport) Taken(host string, changes bool) bool {
	t.mu.Lock()
	l := t.lanes[destination{host, changes}]
	t.mu.Unlock()
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken
}
