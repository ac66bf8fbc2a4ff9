package namenode

import (
	"testing"
	"time"
)

func TestRecollection(t *testing.T) {
	begin := time.Now()
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	var r recollection
	want := func(oldest uint64, second int) {
		t.Helper()
		since, known := r.since(oldest)
		if known != (second >= 0) || known && !since.Equal(at(second)) {
			t.Errorf("all after entry %d since %s (%t), want %d s", oldest, since.Sub(begin), known, second)
		}
	}
	want(0, -1)
	for second, index := range []uint64{10, 10, 20, 30} {
		r.note(moment{index, at(second)}, 0)
	}
	want(0, 0)
	want(10, 0)
	want(11, 2)
	want(20, 2)
	want(30, 3)
	want(31, -1)
	r.note(moment{40, at(4)}, 20)
	want(20, 2)
	if len(r.moments) != 3 {
		t.Errorf("%d moments are kept, want 3", len(r.moments))
	}
	// However many there are, it stays bounded, and never claims too much.
	for i := range 10 * maxMoments {
		r.note(moment{uint64(41 + i), at(5 + i)}, 20)
		if len(r.moments) > maxMoments {
			t.Fatalf("%d moments", len(r.moments))
		}
	}
	for i := range 10 * maxMoments {
		if since, known := r.since(uint64(41 + i)); known && since.Before(at(5+i)) {
			t.Fatalf("all after entry %d since %s", 41+i, since.Sub(begin))
		}
	}
	want(41+10*maxMoments-1, 5+10*maxMoments-1)
}
