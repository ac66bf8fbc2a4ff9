package history

import (
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Recorder writes down the calls of one world. It may be used by several
// goroutines at once.
type Recorder struct {
	mu       sync.Mutex
	began    time.Time
	calls    []porcupine.Operation
	finished []time.Duration // since began, of the calls with a known outcome
}

// NewRecorder returns a recorder without calls.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Do makes a call and writes it down. A read that gets no answer is left out:
// do says so with Unknown.
func (r *Recorder) Do(client int, call Call, do func() Answer) Answer {
	from := time.Since(r.began)
	answer := do()
	to := time.Since(r.began)
	r.mu.Lock()
	defer r.mu.Unlock()
	end := int64(to)
	if answer.Unknown {
		if !call.Kind.Mutates() {
			return answer
		}
		end = math.MaxInt64 // it may still happen
	} else {
		r.finished = append(r.finished, to)
	}
	r.calls = append(r.calls, porcupine.Operation{ClientId: client, Input: call, Call: int64(from), Output: answer, Return: end})
	return answer
}

// Counts returns how many calls there were, and how many of them have an
// unknown outcome.
func (r *Recorder) Counts() (all, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls), len(r.calls) - len(r.finished)
}

// Finished returns when calls got their answers, in no order.
func (r *Recorder) Finished() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	times := make([]time.Time, len(r.finished))
	for i, after := range r.finished {
		times[i] = r.began.Add(after)
	}
	return times
}

// Check returns nil when the calls are linearizable. When they are not, or when
// that could not be found out within patience, it says so, and writes a picture
// of the history to the file at picture, if not "".
func (r *Recorder) Check(patience time.Duration, picture string) error {
	r.mu.Lock()
	calls := append([]porcupine.Operation(nil), r.calls...)
	r.mu.Unlock()
	result, info := porcupine.CheckOperationsVerbose(model(), calls, patience)
	if result == porcupine.Ok {
		return nil
	}
	seen := "the history is not linearizable"
	if result == porcupine.Unknown {
		seen = fmt.Sprintf("whether the history is linearizable could not be found out within %s", patience)
	}
	if picture == "" {
		return fmt.Errorf("%s (%d calls)", seen, len(calls))
	}
	f, err := os.Create(picture)
	if err == nil {
		err = porcupine.Visualize(model(), info, f)
		if closing := f.Close(); err == nil {
			err = closing
		}
	}
	if err != nil {
		return fmt.Errorf("%s (%d calls); a picture of it could not be written: %w", seen, len(calls), err)
	}
	return fmt.Errorf("%s (%d calls); see %s", seen, len(calls), picture)
}
