package chunkstore

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func volumesWith(rooms ...int64) *Store {
	s := &Store{}
	for _, room := range rooms {
		v := newVolume("x", Config{}, hclog.NewNullLogger())
		v.figures = figures{device: uint64(len(s.volumes)), capacity: 1000, available: room}
		s.volumes = append(s.volumes, v)
	}
	return s
}

// firsts counts how often each volume is tried first.
func firsts(s *Store, size int64, times int) []int {
	counts := make([]int, len(s.volumes))
	for range times {
		counts[slices.Index(s.volumes, s.choose(size)[0])]++
	}
	return counts
}

func TestChoose(t *testing.T) {
	s := volumesWith(3000, 1000, 10, 2000)
	const draws = 12_000
	for i, want := range []int{6000, 2000, 0, 4000} { // by room; one is too full
		if got := firsts(s, 100, draws)[i]; got < want-600 || got > want+600 {
			t.Errorf("volume %d was chosen %d times of %d, not about %d", i, got, draws, want)
		}
	}
	s.volumes[0].expect(2000) // what is being written counts
	if got := firsts(s, 100, draws)[0]; got < 2400 || got > 3600 {
		t.Errorf("chosen %d times of %d", got, draws)
	}
	s.volumes[1].fail("a test", errors.New("broken"))
	s.volumes[3].leave(errors.New("gone"))
	for range 100 {
		order := s.choose(100)
		if len(order) != 2 || order[0] != s.volumes[0] || order[1] != s.volumes[2] {
			t.Fatalf("%v", order)
		}
	}
	s.volumes[0].overdue = 1
	if order := s.choose(100); len(order) != 1 || order[0] != s.volumes[2] { // perhaps it is not that full
		t.Errorf("%v", order)
	}
	s.volumes[2].overdue = 1
	if order := s.choose(100); len(order) != 0 {
		t.Errorf("%v", order)
	}
}

// A disk that hangs must not collect all the writes that a node can have.
func TestChooseAvoidsWhatHangs(t *testing.T) {
	s := volumesWith(1<<40, 1<<30, 1<<30)
	stuck := 0
	for range 1000 { // all that is put on the first stays, what is put on the others does not
		if s.choose(100)[0] == s.volumes[0] {
			s.volumes[0].expect(100)
			stuck++
		}
	}
	if stuck != spareWriters+1 {
		t.Errorf("%d writes hang", stuck)
	}
	alone := volumesWith(1 << 40)
	for range 100 {
		alone.volumes[0].expect(100)
	}
	if len(alone.choose(100)) != 1 {
		t.Error("a single disk is avoided")
	}
}

func TestSpaceOfSeveral(t *testing.T) {
	s := volumesWith(300, 200, -50)
	s.unready = nil
	check := func(capacity, free int64) {
		t.Helper()
		if got, err := s.Space(); err != nil || got != (Space{capacity, free}) {
			t.Errorf("%+v, %v; want %d, %d", got, err, capacity, free)
		}
	}
	check(3000, 500)
	s.volumes[2].trash.bytes = 150
	check(3000, 600)
	s.volumes[2].figures.device = 0 // on the disk of the first: the careful figure counts
	check(2000, 300)
	s.volumes[2].figures.device = 2
	s.volumes[1].fail("a test", errors.New("broken"))
	check(3000, 400)
	s.volumes[0].leave(errors.New("gone"))
	check(2000, 100)
	s.volumes[1].leave(errors.New("gone"))
	s.volumes[2].leave(errors.New("gone"))
	if _, err := s.Space(); err == nil {
		t.Error("there is space although no disk serves")
	}
}

// What was remembered of a disk may be out of date: the next one is tried.
func TestAFullDiskIsPassedOver(t *testing.T) {
	top := t.TempDir()
	s := openTrash(t, nil, filepath.Join(top, "a"), filepath.Join(top, "b"))
	full := s.volumes[0]
	full.ask = func(string) (figures, error) { return figures{capacity: 1, available: 0}, nil }
	for id := range dfs.ChunkID(20) {
		full.figures.available = 1 << 60 // and so it comes first
		keepChunk(t, s, id+1, 10)
	}
	if got := s.Volumes()[1].Chunks; got != 20 {
		t.Errorf("%d chunks", got)
	}
}
