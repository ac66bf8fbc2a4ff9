package namenode

import (
	"errors"
	"os"
	"testing"
)

// fullSink is a raft.SnapshotSink on a disk that is full.
type fullSink struct {
	room      int
	cancelled bool
}

var errFull = errors.New("no space left")

func (s *fullSink) Write(p []byte) (int, error) {
	if s.room -= len(p); s.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func (*fullSink) ID() string   { return "1" }
func (*fullSink) Close() error { return nil }
func (s *fullSink) Cancel() error {
	s.cancelled = true
	return nil
}

// TestFailedSnapshotLeavesNothing: what was spooled for a snapshot that came to
// nothing does not stay, to fill the disk even more.
func TestFailedSnapshotLeavesNothing(t *testing.T) {
	source := machineWith(t, "/directory")
	for _, room := range []int{0, 1000, 3000} {
		dir := t.TempDir()
		frozen := &frozenState{state: source.Freeze(), dir: dir}
		sink := &fullSink{room: room}
		if err := frozen.Persist(sink); !errors.Is(err, errFull) || !sink.cancelled {
			t.Fatalf("room for %d bytes: %v; cancelled: %v", room, err, sink.cancelled)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("room for %d bytes: %v, %v are left", room, err, left)
		}
	}
}
