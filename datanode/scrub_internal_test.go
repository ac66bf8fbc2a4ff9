package datanode

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// scrubbed is a disk that remembers which chunks were opened, and when.
type scrubbed struct {
	bad string // chunks that cannot be read
	why error  // EIO if nil

	mu    sync.Mutex // opening a store reads in parallel
	began time.Time
	ids   []string
	at    []time.Duration
	saves int
}

func (s *scrubbed) hook(op chunkstore.Op, path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case op == chunkstore.OpOpen && filepath.Base(filepath.Dir(path)) != "tmp":
		s.ids = append(s.ids, filepath.Base(path)[15:])
		s.at = append(s.at, time.Since(s.began))
	case op == chunkstore.OpRead && strings.Contains(s.bad, filepath.Base(path)[15:]):
		return cmp.Or(s.why, error(syscall.EIO))
	case op == chunkstore.OpRename && filepath.Base(path) == "scrub.json":
		s.saves++
	}
	return nil
}

// start forgets what was.
func (s *scrubbed) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began, s.ids, s.at, s.saves = time.Now(), nil, nil, 0
}

func (s *scrubbed) check(t *testing.T, ids string, at ...time.Duration) {
	t.Helper()
	got := ""
	for _, id := range s.ids {
		got += id
	}
	if got != ids || len(s.at) != len(at) {
		t.Errorf("read %s at %v; want %s at %v", got, s.at, ids, at)
		return
	}
	for i := range at {
		if s.at[i] != at[i] {
			t.Errorf("read %s at %v; want %v", got, s.at, at)
		}
	}
}

// scrubFor runs a scrubber that reads a test chunk, of 4 bytes, in 4 seconds.
func scrubFor(t *testing.T, st *chunkstore.Store, d time.Duration) *scrubber {
	t.Helper()
	s := newScrubber(Config{ScrubRate: 1, ScrubInterval: time.Hour}, st, newMetrics(st), hclog.NewNullLogger())
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s.run(ctx)
	return s
}

func TestScrubIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &scrubbed{}
		dir := t.TempDir()
		st := openAt(t, dir, disk.hook)
		store(t, st, 1, 2, 3, 4)
		disk.start()
		scrubFor(t, st, 10*time.Second)
		disk.check(t, "123", 0, 4*time.Second, 8*time.Second)
		if disk.saves != 1 {
			t.Errorf("saved %d times", disk.saves)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}

		st = openAt(t, dir, disk.hook) // a restart goes on where it stopped
		disk.start()
		scrubFor(t, st, 90*time.Minute)
		rest := time.Hour - 10*time.Second // the first pass began that long before
		disk.check(t, "41234", 0, rest, rest+4*time.Second, rest+8*time.Second, rest+12*time.Second)
		if state, err := st.LoadScrub(); err != nil || !state.Done || state.Chunks != 4 || state.Bytes != 16 || state.After != 4 {
			t.Errorf("%+v, %v", state, err)
		}

		disk.start() // a pass was done: the next has its time
		scrubFor(t, st, time.Second)
		disk.check(t, "")
		time.Sleep(time.Hour) // of the bubble's clock
		disk.start()
		scrubFor(t, st, time.Second)
		disk.check(t, "1", 0)
	})
}

func TestScrubSavesOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &scrubbed{}
		st := openAt(t, t.TempDir(), disk.hook)
		for id := range dfs.ChunkID(100) {
			store(t, st, id+1)
		}
		disk.start()
		scrubFor(t, st, 399*time.Second) // 100 chunks in 396 s
		if len(disk.ids) != 100 || disk.saves != 7 {
			t.Errorf("%d chunks read, %d times saved", len(disk.ids), disk.saves)
		}
	})
}

// What the scrubber remembers may be nonsense: it must neither stop nor race.
func TestScrubResumes(t *testing.T) {
	for name, c := range map[string]struct {
		state func(now time.Time) chunkstore.ScrubState
		want  string
		at    []time.Duration
	}{
		"never begun":         {func(time.Time) chunkstore.ScrubState { return chunkstore.ScrubState{} }, "12", []time.Duration{0, 4 * time.Second}},
		"in the middle":       {func(now time.Time) chunkstore.ScrubState { return chunkstore.ScrubState{Started: now, After: 1} }, "2", []time.Duration{0}},
		"behind the end":      {func(now time.Time) chunkstore.ScrubState { return chunkstore.ScrubState{Started: now, After: 99} }, "", nil},
		"done without a time": {func(time.Time) chunkstore.ScrubState { return chunkstore.ScrubState{Done: true} }, "12", []time.Duration{0, 4 * time.Second}},
		"done long ago": {func(now time.Time) chunkstore.ScrubState {
			return chunkstore.ScrubState{Done: true, Started: now.Add(-240 * time.Hour)}
		}, "12", []time.Duration{0, 4 * time.Second}},
		"done in the future": {func(now time.Time) chunkstore.ScrubState {
			return chunkstore.ScrubState{Done: true, Started: now.Add(240 * time.Hour)}
		}, "12", []time.Duration{time.Hour, time.Hour + 4*time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &scrubbed{}
				st := openAt(t, t.TempDir(), disk.hook)
				store(t, st, 1, 2)
				if err := st.SaveScrub(c.state(time.Now())); err != nil {
					t.Fatal(err)
				}
				disk.start()
				horizon := 10 * time.Second
				if name == "done in the future" {
					horizon += time.Hour
				}
				scrubFor(t, st, horizon)
				disk.check(t, c.want, c.at...)
			})
		})
	}
}

// Sectors that cannot be read are damage, unless it was only this time. A disk
// that reads nothing at all may have a loose cable: it is taken out of service
// as a whole, and no file is moved.
func TestScrubUnreadable(t *testing.T) {
	for name, c := range map[string]struct {
		passes []string // what cannot be read in each
		held   int64    // in the end, of 3 chunks
		lines  []string
	}{
		"once":            {[]string{"2"}, 3, []string{"scrub_unreadable_total 1", "scrub_damaged_total 0"}},
		"twice":           {[]string{"2", "2"}, 2, []string{"scrub_unreadable_total 2", "scrub_damaged_total 1", "scrub_passes_total 2"}},
		"now and then":    {[]string{"2", "", "2", "1"}, 3, []string{"scrub_unreadable_total 3", "scrub_damaged_total 0"}},
		"one after other": {[]string{"12", "23", "3"}, 1, []string{"scrub_unreadable_total 5", "scrub_damaged_total 2"}},
		"all of them":     {[]string{"123", "123", "123"}, 0, []string{"scrub_unreadable_total 3", "scrub_damaged_total 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &scrubbed{}
				st := openAt(t, t.TempDir(), disk.hook)
				store(t, st, 1, 2, 3)
				s := newScrubber(Config{ScrubRate: 1, ScrubInterval: time.Hour}, st, newMetrics(st), hclog.NewNullLogger())
				for _, bad := range c.passes {
					disk.bad = bad
					s.state = chunkstore.ScrubState{}
					if !s.pass(t.Context()) {
						t.Fatal("the pass was broken off")
					}
				}
				if held := st.Totals().Count; held != c.held {
					t.Errorf("%d chunks are held", held)
				}
				for _, line := range c.lines {
					checkMetric(t, s.metrics, "dfs_datanode_"+line)
				}
			})
		})
	}
}

// Want of a permission or of descriptors is no damage, however often it is met.
func TestScrubIsRefused(t *testing.T) {
	for _, why := range []error{syscall.EACCES, syscall.EMFILE, syscall.ENOMEM} {
		synctest.Test(t, func(t *testing.T) {
			disk := &scrubbed{why: why}
			st := openAt(t, t.TempDir(), disk.hook)
			store(t, st, 1, 2, 3)
			disk.bad = "12"
			s := newScrubber(Config{ScrubRate: 1, ScrubInterval: time.Hour}, st, newMetrics(st), hclog.NewNullLogger())
			for range 3 {
				s.state = chunkstore.ScrubState{}
				if !s.pass(t.Context()) {
					t.Fatal("the pass was broken off")
				}
			}
			if held := st.Totals().Count; held != 3 {
				t.Errorf("%s: %d chunks are held", why, held)
			}
			checkMetric(t, s.metrics, "dfs_datanode_scrub_unreadable_total 6")
			checkMetric(t, s.metrics, "dfs_datanode_scrub_damaged_total 0")
		})
	}
}

func TestScrubWithoutAPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := errors.New("no")
		refuse := false
		st := openAt(t, t.TempDir(), func(_ chunkstore.Op, path string) error {
			if refuse && filepath.Base(path) == "scrub.json.tmp" {
				return fault
			}
			return nil
		})
		store(t, st, 1, 2)
		refuse = true
		if s := scrubFor(t, st, 10*time.Second); !s.state.Done || s.state.Chunks != 2 {
			t.Errorf("%+v", s.state)
		}
		if state, err := st.LoadScrub(); err != nil || !state.Started.IsZero() {
			t.Errorf("%+v, %v", state, err)
		}
	})
}
