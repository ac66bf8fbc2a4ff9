//go:build linux

package faults

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// content is what lies at a path: a file by its SHA-256, a directory, or nothing.
type content string

const (
	nothing   content = "nothing"
	directory content = "directory"
)

func contentOf(data []byte) content {
	sum := sha256.Sum256(data)
	return content(hex.EncodeToString(sum[:]))
}

// ledger knows what each path may hold: the one content that was acknowledged
// last, or, as long as the outcome of a change is not known, that and what the
// change was to make of it. Nobody else changes a path while a change is open.
type ledger struct {
	mu      sync.Mutex
	may     map[string][]content // the last one is what was tried last
	moves   map[move]bool        // open renames
	acks    []time.Time
	refused []refusal
	file    *os.File // every acknowledgement, for people
}

type move struct{ from, to string }

// refusal is a change that ended with an error.
type refusal struct {
	change change
	err    error
}

// change is one operation: what it makes of each path.
type change map[string]content

func newLedger(t *testing.T, b *faultbed.Bed) *ledger {
	t.Helper()
	file, err := os.Create(b.Path("ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() }) // for people only
	return &ledger{may: make(map[string][]content), moves: make(map[move]bool), file: file}
}

// try notes what is about to be asked for. It returns what to call with the
// outcome; when that is never called, the outcome is unknown.
func (l *ledger) try(c change, m *move) (outcome func(context.Context, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for path, after := range c {
		if l.may[path] == nil {
			l.may[path] = []content{nothing}
		}
		l.may[path] = append(l.may[path], after)
	}
	if m != nil {
		l.moves[*m] = true
	}
	return func(ctx context.Context, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil && ctx.Err() != nil {
			return // the client gave up, as one does that dies
		}
		if err != nil {
			l.refused = append(l.refused, refusal{c, err})
			return
		}
		l.acks = append(l.acks, time.Now())
		for path, after := range c {
			l.may[path] = []content{after}
			fmt.Fprintf(l.file, "%d %s %s\n", len(l.acks), path, after)
		}
		if m != nil {
			delete(l.moves, *m)
		}
	}
}

// settled returns what is known to lie at a path.
func (l *ledger) settled(path string) content {
	l.mu.Lock()
	defer l.mu.Unlock()
	may := l.may[path]
	return may[len(may)-1]
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// gaps returns the longest time without an acknowledgement after each of the
// given moments, until the next of them.
func (l *ledger) gaps(moments []time.Time) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	gaps := make([]time.Duration, len(moments))
	for i := 1; i < len(l.acks); i++ {
		for m, moment := range moments {
			beforeNext := m == len(moments)-1 || l.acks[i].Before(moments[m+1])
			if l.acks[i].After(moment) && beforeNext {
				gaps[m] = max(gaps[m], l.acks[i].Sub(l.acks[i-1]))
			}
		}
	}
	return gaps
}

// check compares what is there with what may be.
func (l *ledger) check(t *testing.T, found map[string]content) {
	t.Helper()
	for _, fault := range l.faults(found) {
		t.Error(fault)
	}
}

// faults says in which ways what is there cannot be, and takes it for settled:
// what turned out not to have happened must not happen later.
func (l *ledger) faults(found map[string]content) (faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	at := func(path string) content {
		if c, ok := found[path]; ok {
			return c
		}
		return nothing
	}
	for m := range l.moves {
		if (at(m.from) == nothing) == (at(m.to) == nothing) {
			fault("a rename from %s to %s was half done: %s and %s", m.from, m.to, at(m.from), at(m.to))
		}
	}
	for path := range found {
		if l.may[path] == nil {
			fault("%s is there and nobody made it", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(l.may)) {
		is, may := at(path), l.may[path]
		switch {
		case slices.Contains(may, is):
		case len(may) == 1 && is == nothing:
			fault("%s was acknowledged and is gone; it was %s", path, may[0])
		case len(may) == 1 && may[0] == nothing:
			fault("%s was acknowledged as deleted and is there: %s", path, is)
		default:
			fault("%s holds %s and may only hold one of %v", path, is, may)
		}
		l.may[path] = []content{is}
	}
	clear(l.moves)
	return faults
}

// checkRefusals finds errors that no fault excuses: nobody else touched the paths.
func (l *ledger) checkRefusals(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.refused {
		switch code := dfs.CodeOf(r.err); code {
		case dfs.Unavailable, dfs.UnknownOutcome, dfs.Timeout, dfs.NotLeader:
		default:
			t.Errorf("%v was refused with %s: %v", r.change, code, r.err)
		}
	}
	l.refused = nil
}

// TestLedgerBites makes sure that the ledger finds what it is there for.
func TestLedgerBites(t *testing.T) {
	acked := func(l *ledger, c change) { l.try(c, nil)(t.Context(), nil) }
	tests := []struct {
		name  string
		do    func(*ledger)
		found map[string]content
		fine  bool
	}{
		{"kept", func(l *ledger) { acked(l, change{"/a": "1"}) }, map[string]content{"/a": "1"}, true},
		{"gone", func(l *ledger) { acked(l, change{"/a": "1"}) }, nil, false},
		{"other content", func(l *ledger) { acked(l, change{"/a": "1"}) }, map[string]content{"/a": "2"}, false},
		{"from nowhere", func(*ledger) {}, map[string]content{"/a": "1"}, false},
		{"open, not done", func(l *ledger) { l.try(change{"/a": "1"}, nil) }, nil, true},
		{"open, done", func(l *ledger) { l.try(change{"/a": "1"}, nil) }, map[string]content{"/a": "1"}, true},
		{"open, half done", func(l *ledger) { l.try(change{"/a": "1"}, nil) }, map[string]content{"/a": "half"}, false},
		{"overwrite not done", func(l *ledger) { acked(l, change{"/a": "1"}); l.try(change{"/a": "2"}, nil) }, map[string]content{"/a": "1"}, true},
		{"overwrite lost both", func(l *ledger) { acked(l, change{"/a": "1"}); l.try(change{"/a": "2"}, nil) }, nil, false},
		{"deleted is back", func(l *ledger) { acked(l, change{"/a": "1"}); acked(l, change{"/a": nothing}) }, map[string]content{"/a": "1"}, false},
		{"half a rename", func(l *ledger) {
			acked(l, change{"/a": "1"})
			l.try(change{"/a": nothing, "/b": "1"}, &move{"/a", "/b"})
		}, map[string]content{"/a": "1", "/b": "1"}, false},
		{"a rename not done", func(l *ledger) {
			acked(l, change{"/a": "1"})
			l.try(change{"/a": nothing, "/b": "1"}, &move{"/a", "/b"})
		}, map[string]content{"/a": "1"}, true},
	}
	for _, test := range tests {
		file, err := os.Create(t.TempDir() + "/ledger")
		if err != nil {
			t.Fatal(err)
		}
		l := &ledger{may: make(map[string][]content), moves: make(map[move]bool), file: file}
		test.do(l)
		if faults := l.faults(test.found); (len(faults) == 0) != test.fine {
			t.Errorf("%s: %q", test.name, faults)
		}
		_ = file.Close() // nothing is read from it
	}
}
