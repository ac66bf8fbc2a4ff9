package chunkstore

import (
	"context"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// hangTimeout is how long a disk may take for a small task before it is no
// longer written to.
const hangTimeout = 10 * time.Second

// outcome is what came of a task on one volume.
type outcome struct {
	volume *volume
	err    error // Internal when the disk does not answer
}

// onEach does a task on each volume that answers, on all at the same time, and
// waits for them, but not for ever: a volume that takes longer than
// hangTimeout is stalled until its task has come to an end. So the others go on
// whatever becomes of one disk, and a disk that hangs has one task of each kind
// at most. Close waits for what is left.
func (s *Store) onEach(what string, task func(*volume) error) []outcome {
	ctx, cancel := context.WithTimeout(context.Background(), hangTimeout)
	defer cancel()
	var begun []*taskOn
	for _, v := range s.volumes {
		if !v.answers() {
			continue
		}
		t := &taskOn{volume: v, what: what, done: make(chan struct{})}
		begun = append(begun, t)
		s.background.Go(func() {
			err := task(v)
			t.end(err)
		})
	}
	outcomes := make([]outcome, 0, len(begun))
	for _, t := range begun {
		select {
		case <-t.done:
		case <-ctx.Done():
		}
		outcomes = append(outcomes, outcome{t.volume, t.outcome()})
	}
	return outcomes
}

type taskOn struct {
	volume *volume
	what   string
	done   chan struct{} // closed by end

	ended   bool  // guarded by volume.mu
	overdue bool  // likewise
	err     error // likewise
}

func (t *taskOn) end(err error) {
	v := t.volume
	v.mu.Lock()
	t.ended, t.err = true, err
	if t.overdue {
		v.overdue--
		v.log.Warn("the disk answers again", "task", t.what)
	}
	v.mu.Unlock()
	close(t.done)
}

// outcome counts a task that has not ended as overdue.
func (t *taskOn) outcome() error {
	v := t.volume
	v.mu.Lock()
	defer v.mu.Unlock()
	if t.ended {
		return t.err
	}
	t.overdue = true
	v.overdue++
	v.log.Error("the disk does not answer; no chunk is written to it until it does", "task", t.what, "waited", hangTimeout)
	return dfs.Errorf(dfs.Internal, "the disk does not answer (%s)", t.what)
}
