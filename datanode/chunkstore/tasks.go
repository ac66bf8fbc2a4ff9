package chunkstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// hangTimeout is how long a disk may take for a small task before it is no
	// longer written to.
	hangTimeout = 10 * time.Second

	// writeTimeout is how long it may take for a step of writing a chunk: an
	// fsync waits for what others write, too.
	writeTimeout = time.Minute

	// loadTimeout is how long it may take at the start for one step, or for the
	// next file while a directory is being read: disks that were asleep need time.
	loadTimeout = 30 * time.Second
)

// task is something done on one volume that must not hold up others when the
// disk hangs. Whoever began it waits for a while, and goes on without it: the
// volume is stalled until the task has come to an end after all.
type task struct {
	volume  *volume
	what    string
	reading bool          // when it hangs, nobody should wait for another
	moves   atomic.Int64  // signs of life
	done    chan struct{} // closed by end

	ended   bool  // guarded by volume.mu
	overdue bool  // likewise
	err     error // likewise
}

func newTask(v *volume, what string, reading bool) *task {
	return &task{volume: v, what: what, reading: reading, done: make(chan struct{})}
}

// moved tells that the disk has answered, in a task of many steps.
func (t *task) moved() { t.moves.Add(1) }

// begin lets do run in the background, unless the volume is being closed. Late,
// if not nil, follows when nobody waits any more.
func (t *task) begin(do func(*task) error, late func()) bool {
	if !t.volume.enter() {
		return false
	}
	go func() { // Close waits for it, see volume.close
		defer t.volume.exit()
		if t.end(do(t)) && late != nil {
			late()
		}
	}()
	return true
}

// end tells whether the task was overdue.
func (t *task) end(err error) (late bool) {
	v := t.volume
	v.mu.Lock()
	defer v.mu.Unlock()
	t.ended, t.err = true, err
	if t.overdue {
		v.count(t, -1)
		v.log.Warn("the disk answers again", "task", t.what)
	}
	close(t.done)
	return t.overdue
}

// giveUp returns what has come of a task, and counts one that has not ended as
// overdue.
func (t *task) giveUp() error {
	v := t.volume
	v.mu.Lock()
	defer v.mu.Unlock()
	if t.ended {
		return t.err
	}
	if !t.overdue { // several may wait for one task
		t.overdue = true
		v.count(t, 1)
		if v.overdue == 1 {
			v.log.Error("the disk does not answer; no chunk is written to it until it does", "task", t.what)
		}
	}
	return &noAnswer{t.what}
}

// count is called under the lock.
func (v *volume) count(t *task, change int) {
	v.overdue += change
	if t.reading {
		v.unread += change
	}
}

// noAnswer is of a task that was given up, and still runs.
type noAnswer struct{ what string }

func (e *noAnswer) Error() string { return "the disk does not answer (" + e.what + ")" }

// attempt does a task and waits for it as long as it shows a sign of life within
// patience. It fails with noAnswer when it does not, and with Unavailable when
// the store is being closed; otherwise like the task.
func (v *volume) attempt(t *task, patience time.Duration, do func(*task) error, late func()) error {
	if !t.begin(do, late) {
		return errClosed()
	}
	return v.await(t, patience)
}

// await waits for a task that has begun, as attempt does.
func (v *volume) await(t *task, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for before := int64(0); ; {
		select {
		case <-t.done:
			return t.giveUp()
		case <-timer.C:
		}
		moves := t.moves.Load()
		if moves == before {
			return t.giveUp()
		}
		before = moves
		timer.Reset(patience)
	}
}

// within is attempt for a task that shows no signs of life and leaves nothing to
// clean up.
func (v *volume) within(patience time.Duration, what string, do func() error) error {
	return v.attempt(newTask(v, what, false), patience, func(*task) error { return do() }, nil)
}

// outcome is what came of a task on one volume.
type outcome struct {
	volume *volume
	err    error // noAnswer when the disk does not answer
}

// onEach does a task on each volume that answers, on all at the same time, and
// waits for them, but not for longer than hangTimeout. So the others go on
// whatever becomes of one disk, and a disk that hangs has one task of each kind
// at most.
func (s *Store) onEach(what string, do func(*volume) error) []outcome {
	ctx, cancel := context.WithTimeout(context.Background(), hangTimeout)
	defer cancel()
	var begun []*task
	for _, v := range s.volumes {
		t := newTask(v, what, false)
		if v.answers() && t.begin(func(*task) error { return do(v) }, nil) {
			begun = append(begun, t)
		}
	}
	outcomes := make([]outcome, 0, len(begun))
	for _, t := range begun {
		select {
		case <-t.done:
		case <-ctx.Done():
		}
		outcomes = append(outcomes, outcome{t.volume, t.giveUp()})
	}
	return outcomes
}

// enter tells whether a task may begin. Whoever got in must exit.
func (v *volume) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return false
	}
	v.busy++
	return true
}

func (v *volume) exit() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.busy--
	v.finish()
}

// close lets no task begin any more. The channel is closed when all have ended
// and the directory is free for other processes; until then nobody may have it.
func (v *volume) close() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.closed = true
		v.finish()
	}
	return v.idle
}

// finish is called under the lock.
func (v *volume) finish() {
	if v.closed && v.busy == 0 {
		v.unlocked = v.unlock()
		close(v.idle)
	}
}

// silent tells what to say to those who want to read: nil, or Unavailable while
// another waits for the disk in vain.
func (v *volume) silent(id dfs.ChunkID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.unread > 0 {
		return unanswered(id)
	}
	return nil
}

func unanswered(id dfs.ChunkID) error {
	return dfs.Errorf(dfs.Unavailable, "the disk of chunk %s does not answer; use another DataNode and look at the log of this one", id)
}
