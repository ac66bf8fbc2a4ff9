package wal

import (
	"errors"
	"math"
	"slices"
	"time"
)

// run is the carrier: it brings what has gathered to the store behind.
func (l *Log) run() {
	defer close(l.ended)
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			return
		}
		timer := time.NewTimer(l.settings.interval)
		select {
		case <-timer.C:
		case <-l.hurry:
		case <-l.stop:
			timer.Stop()
			return
		}
		timer.Stop()
		if err := l.turn(); err != nil {
			// Who guards has told of it. A full disk may have room in a while.
			signal(l.wake)
		}
	}
}

// turn carries what is pending and empties the journal. Each is watched on its own,
// as it may have to wait for an append.
func (l *Log) turn() error {
	if err := l.guard("carrying log entries", l.carry); err != nil {
		return err
	}
	return l.guard("emptying the journal of the log", l.tidy)
}

// tidy empties the journal when nothing has come since it was carried, or when it
// is half full.
func (l *Log) tidy() error {
	l.changes.Lock()
	defer l.changes.Unlock()
	if l.Pending() > 0 && l.file.used() < l.file.capacity()/2 {
		return nil
	}
	return l.settle(l.last)
}

// carry brings what is pending now to the store behind, where it is durable then.
func (l *Log) carry() error {
	l.carrying.Lock()
	defer l.carrying.Unlock()
	l.mu.RLock()
	batch := slices.Clip(l.pending)
	l.mu.RUnlock()
	if len(batch) == 0 {
		return nil
	}
	if err := l.behind(func() error { return l.base.StoreLogs(batch) }); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = slices.Clone(l.pending[len(batch):]) // the old array would keep all of them
	l.bytes -= payload(batch)
	return nil
}

var errBehind = errors.New("the log behind the journal is not written to after a failure")

// behind changes base, unless that has failed before: what it takes after a failed
// fsync is no reason to empty the journal. A full disk is no failure. The caller
// holds carrying.
func (l *Log) behind(change func() error) error {
	if l.failed != nil {
		return l.failed
	}
	err := change()
	if err != nil && !isFull(err) {
		l.failed = errors.Join(errBehind, err)
	}
	return err
}

// settle carries everything and empties the journal. The caller holds changes.
func (l *Log) settle(limit uint64) error {
	if err := l.carry(); err != nil {
		return err
	}
	if !l.file.touched && l.file.head.limit == limit {
		return nil
	}
	return l.file.reset(limit)
}

// Close carries everything and closes the journal, not the store behind it, which
// may be used without a journal then. Only the first call of Close or Stop does
// anything.
func (l *Log) Close() error {
	return l.end(func() error {
		l.changes.Lock()
		defer l.changes.Unlock()
		return l.settle(math.MaxUint64)
	})
}

// Stop closes the journal as it is, after a failure. What it holds is carried when
// it is opened again.
func (l *Log) Stop() error { return l.end(func() error { return nil }) }

func (l *Log) end(finish func() error) error {
	l.closing.Do(func() {
		close(l.stop)
		<-l.ended
		l.closed = errors.Join(finish(), l.file.storage.Close())
	})
	return l.closed
}
