package reclaim

import (
	"testing"
	"time"
)

func TestGrace(t *testing.T) {
	type step struct {
		at    time.Duration // since the beginning
		index uint64        // noted, 0 for none
		want  uint64        // the cutoff then
	}
	tests := []struct {
		name   string
		period time.Duration
		steps  []step
	}{
		{"a new leader knows nothing", time.Minute, []step{{0, 0, 0}, {time.Hour, 0, 0}}},
		{"not before the grace is over", time.Minute, []step{
			{0, 10, 0}, {30 * time.Second, 20, 0}, {59 * time.Second, 0, 0}, {60 * time.Second, 0, 10},
			{89 * time.Second, 30, 10}, {90 * time.Second, 0, 20}, {148 * time.Second, 0, 20}, {time.Hour, 0, 30},
		}},
		{"an index that stands still is as old as when it was first seen", time.Minute, []step{
			{0, 10, 0}, {50 * time.Second, 10, 0}, {60 * time.Second, 10, 10},
		}},
		{"samples too close to each other are left out", 128 * time.Second, []step{
			{0, 10, 0}, {999 * time.Millisecond, 20, 0}, {time.Second, 30, 0}, {128 * time.Second, 0, 10}, {128*time.Second + 999*time.Millisecond, 0, 10}, {129 * time.Second, 0, 30},
		}},
		{"none", 0, []step{{0, 0, 0}, {0, 10, 10}, {0, 11, 11}, {time.Second, 12, 12}}},
		{"a leader that slept", time.Minute, []step{{0, 10, 0}, {time.Hour, 500, 10}, {time.Hour + time.Minute, 0, 500}}},
	}
	began := time.Now()
	for _, test := range tests {
		g := NewGrace(test.period)
		for i, s := range test.steps {
			now := began.Add(s.at)
			if s.index > 0 {
				g.Note(now, s.index)
			}
			if got := g.Cutoff(now); got != s.want {
				t.Errorf("%s: step %d: %d; want %d", test.name, i, got, s.want)
			}
		}
	}
}

// However long the grace is and however often is looked, few samples are kept.
func TestGraceIsBounded(t *testing.T) {
	now := time.Now()
	g, none := NewGrace(24*time.Hour), NewGrace(0)
	for i := range 3 * 24 * 3600 {
		now = now.Add(time.Second)
		g.Note(now, uint64(i+1))
		none.Note(now, uint64(i+1))
	}
	if len(g.samples) > graceSamples+2 || len(none.samples) > 1 {
		t.Errorf("%d and %d samples", len(g.samples), len(none.samples))
	}
	if age := 3*24*3600 - g.Cutoff(now); age < 24*3600 || age > 25*3600 {
		t.Errorf("what is old enough is %d seconds old", age)
	}
}
