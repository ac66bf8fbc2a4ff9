package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// timerSlack is how late the kernel may end a short sleep of a thread, so that it
// need not wake up for each. The thread of Go's runtime that looks after the others
// (sysmon) sleeps for 20 us at a time while anything runs: with the usual slack of
// 50 us, a daemon that answers a thousand short calls a second spends a fifth of its
// time on waking it. Nothing here needs timers as exact as that.
const timerSlack = 200 * time.Microsecond

// relaxTimers sets the timer slack of all threads, which those that they start
// inherit. Where the kernel has no such thing, or does not let us, everything works
// as well, at a higher price.
func relaxTimers() {
	value := []byte(strconv.FormatInt(timerSlack.Nanoseconds(), 10))
	done := make(map[string]bool)
	for again := true; again; { // until no thread has come in between
		again = false
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return
		}
		for _, thread := range threads {
			id := filepath.Base(thread)
			if done[id] {
				continue
			}
			done[id], again = true, true
			if os.WriteFile(filepath.Join("/proc", id, "timerslack_ns"), value, 0) != nil {
				return
			}
		}
	}
}
