package namenode

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	momentInterval = 100 * time.Millisecond
	maxMoments     = 4096
	requestDelay   = 2 * time.Second // that a request may be on its way here
)

// recollection is since when this NameNode remembers the answers to all requests.
// The state knows that by log indexes, a client that asks again by the clock: so
// it is noted from time to time how far the log had been applied. An entry is
// applied here after it was anywhere proposed, so what this says is never too
// early, also on a NameNode that lags behind or has just started.
type recollection struct {
	mu      sync.Mutex
	moments []moment // the oldest first
}

// moment says that nothing beyond index had been applied at a time.
type moment struct {
	index uint64
	at    time.Time
}

// note adds a moment, and drops those that say nothing any more.
func (r *recollection) note(now moment, oldest uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.moments); n > 0 && r.moments[n-1].index == now.index {
		return
	}
	r.moments = append(slices.DeleteFunc(r.moments, func(m moment) bool { return m.index < oldest }), now)
	if len(r.moments) > maxMoments { // every other one will do
		for i := range len(r.moments) / 2 {
			r.moments[i] = r.moments[2*i]
		}
		r.moments = r.moments[:len(r.moments)/2]
	}
}

// since returns a time such that all entries applied later come after the one at
// oldest, or false when it knows none.
func (r *recollection) since(oldest uint64) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.moments, oldest, func(m moment, index uint64) int {
		if m.index < index {
			return -1
		}
		return 1
	})
	if i == len(r.moments) {
		return time.Time{}, false
	}
	return r.moments[i].at, true
}

// recollect keeps the recollection, until the NameNode ends.
func (n *NameNode) recollect() {
	ticker := time.NewTicker(momentInterval)
	defer ticker.Stop()
	for {
		n.noteMoment()
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (n *NameNode) noteMoment() {
	var oldest uint64
	var now moment
	n.machine.Read(func(s *fsm.State) {
		oldest, _ = s.Memory()
		now = moment{s.AppliedIndex(), time.Now()}
	})
	n.recollection.note(now, oldest)
}

// checkAge refuses to carry out a request that may have been carried out before,
// when so much has happened since that it would be forgotten.
func (n *NameNode) checkAge(c *call) error {
	text := c.Header.Get(protocol.HeaderRequestAge)
	if text == "" || c.requestID == "" {
		return nil
	}
	age, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return dfs.Errorf(dfs.Invalid, "%.40q is not the age of a request: milliseconds are needed", text)
	}
	begun := time.Now().Add(-time.Duration(age)*time.Millisecond - requestDelay)
	var oldest uint64
	var fine bool
	n.machine.Read(func(s *fsm.State) {
		oldest, fine = s.Memory()
		fine = fine || s.Remembers(c.requestID)
	})
	if since, known := n.recollection.since(oldest); fine || known && since.Before(begun) {
		return nil
	}
	return final{dfs.Errorf(dfs.UnknownOutcome,
		"it was first asked for %g s ago, and so much was changed since that it is not known any more whether it was done: look before you try again",
		float64(age)/1000)}
}
