package fsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// FuzzApply applies an arbitrary entry to a machine with some of everything:
// no panic, the invariants hold, and a refusal changes nothing.
func FuzzApply(f *testing.F) {
	for _, c := range everyCommand(f) {
		f.Add(Encode(c, "", epoch))
		f.Add(Encode(c, "request-0", epoch.Add(time.Hour)))
	}
	driver := newDriver(f, busyRig(f).m)
	for range 90 {
		f.Add(driver.next())
	}
	snapshot := snapshotOf(f, busyRig(f).m.Freeze())
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := ReadSnapshot(bytes.NewReader(snapshot))
		if err != nil {
			t.Fatal(err)
		}
		m := New(nil)
		m.Replace(state)
		before := content(t, m.Freeze())
		entries, _ := decodeEntries(data)
		outcomes, err := m.ApplyGroup(state.AppliedIndex()+1, data)
		if invariant := checkInvariants(m.Freeze()); invariant != nil {
			t.Fatalf("%+v: %v", entries, invariant)
		}
		if err == nil && len(outcomes) != len(entries) {
			t.Fatalf("%d commands have %d outcomes", len(entries), len(outcomes))
		}
		mayChange := false // a refusal is remembered, too
		for i := range outcomes {
			mayChange = mayChange || outcomes[i].Err == nil || entries[i].request != ""
		}
		if !mayChange && !bytes.Equal(before, content(t, m.Freeze())) {
			t.Fatalf("%+v were refused (%v, %+v) and changed the state", entries, err, outcomes)
		}
		compare(t, m.Freeze(), restored(t, m).Freeze())
	})
}

// FuzzDecodeEntry: what can be decoded can be encoded, and comes back the same.
// It costs no more memory than it is long, many times over, whatever lengths it
// speaks of.
func FuzzDecodeEntry(f *testing.F) {
	for _, c := range everyCommand(f) {
		f.Add(Encode(c, "request", epoch))
	}
	f.Add([]byte{})
	for _, c := range []Command{&Heartbeats{}, &ExpireUploads{}, &SetLiveness{}} { // that say they are long
		short := Encode(c, "", epoch)
		f.Add(binary.AppendUvarint(short[:len(short)-1], 1<<20))
	}
	f.Add([]byte{entryFormat})
	f.Add([]byte{groupFormat})
	f.Add([]byte{groupFormat + 1})
	var all [][]byte
	for _, c := range everyCommand(f) {
		all = append(all, Encode(c, "request", epoch))
	}
	f.Add(EncodeGroup(all))
	f.Add(EncodeGroup([][]byte{all[0], EncodeGroup(all[1:3])}))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := memoryTaken()
		entries, err := decodeEntries(data)
		if cost := memoryTaken() - before; cost > uint64(len(data))<<10+1<<20 {
			t.Fatalf("%d bytes cost %d", len(data), cost)
		}
		if err != nil {
			return
		}
		var encoded [][]byte
		for _, e := range entries {
			encoded = append(encoded, Encode(e.command, e.request, time.UnixMilli(e.stamp)))
		}
		again, err := decodeEntries(EncodeGroup(encoded))
		if err != nil || !reflect.DeepEqual(again, entries) {
			t.Fatalf("%+v came back as %+v, %v", entries, again, err)
		}
	})
}

func memoryTaken() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// FuzzReadSnapshot: an arbitrary stream is an error or a state.
func FuzzReadSnapshot(f *testing.F) {
	small, _ := smallSnapshot(f)
	f.Add(small)
	f.Add(small[:700])
	f.Add(snapshotOf(f, busyRig(f).m.Freeze()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) { readFuzzed(t, data) })
}

// FuzzReadDocuments gets behind the checksums: the two documents are sealed
// after they were changed.
func FuzzReadDocuments(f *testing.F) {
	_, small := smallSnapshot(f)
	for _, s := range []*State{newState(), small, busyRig(f).m.Freeze()} {
		files, nodes := documents(f, s)
		f.Add(files, nodes)
	}
	f.Fuzz(func(t *testing.T, files, nodes []byte) {
		readFuzzed(t, archiveOf(t, tarMember{FilesDocument, resealed(files)}, tarMember{NodesDocument, resealed(nodes)}))
	})
}

// readFuzzed: what was accepted can be written and read again, and goes on
// without a panic, whatever its sums are worth.
func readFuzzed(t *testing.T, data []byte) {
	s, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		if dfs.CodeOf(err) != dfs.Corrupt || s != nil {
			t.Fatalf("%v, state %p", err, s)
		}
		return
	}
	if err := s.validate(); err != nil {
		t.Fatalf("an invalid state was accepted: %v", err)
	}
	again, err := ReadSnapshot(bytes.NewReader(snapshotOf(t, s)))
	if err != nil {
		t.Fatalf("it was accepted, written and refused: %v", err)
	}
	if !bytes.Equal(bothDocuments(t, s), bothDocuments(t, again)) {
		t.Fatal("it was written and came back another")
	}
	m := New(nil)
	m.Replace(s)
	index := s.AppliedIndex()
	for _, c := range everyCommand(t) {
		index++
		_, _ = m.Apply(index, Encode(c, dfs.RequestID(fmt.Sprint(index)), epoch)) // it only must not panic
	}
	s.TouchedUploads(func(id dfs.UploadID, _ int64) { _, _ = s.Upload(id) })
	if err := bothWritten(m.Freeze()); err != nil {
		t.Fatal(err)
	}
}

func bothWritten(s *State) error {
	var sink bytes.Buffer
	if err := s.WriteFiles(&sink); err != nil {
		return err
	}
	return s.WriteNodes(&sink)
}

// FuzzApplySequence: many entries, one after the other, such as a leader would
// propose and such as none would; the input makes all choices. A machine that is
// restored from its own snapshot on the way answers as the one that is not, and
// ends as the same.
func FuzzApplySequence(f *testing.F) {
	for seed := range byte(8) {
		choices := make([]byte, 1<<10)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(choices) // never fails
		f.Add(seed%2 == 0, choices)
	}
	busy := snapshotOf(f, busyRig(f).m.Freeze())
	f.Fuzz(func(t *testing.T, fromBusy bool, choices []byte) {
		straight, broken := New(nil), New(nil)
		if fromBusy {
			for _, m := range []*Machine{straight, broken} {
				state, err := ReadSnapshot(bytes.NewReader(busy))
				if err != nil {
					t.Fatal(err)
				}
				m.Replace(state)
			}
		}
		source := &choiceSource{left: choices}
		d := &driver{t: t, rng: rand.New(source), m: straight, now: epoch, disks: make(map[NodeNum]*disk)}
		index := straight.Freeze().AppliedIndex()
		for range maxSequence {
			if len(source.left) == 0 {
				break
			}
			if d.chance(16) {
				broken = restored(t, broken)
			}
			index++
			entry := d.next()
			first, second := answerOf(straight.Apply(index, entry)), answerOf(broken.Apply(index, entry))
			if !reflect.DeepEqual(first, second) {
				t.Fatalf("entry %d, %q: one answers %+v and one %+v", index, entry, first, second)
			}
		}
		compare(t, straight.Freeze(), broken.Freeze())
		compare(t, straight.Freeze(), restored(t, straight).Freeze())
	})
}

const maxSequence = 200 // entries

// choiceSource turns each byte of an input into one choice; what is asked for
// beyond them is the same each time.
type choiceSource struct {
	left  []byte
	drawn uint64
}

func (c *choiceSource) Uint64() uint64 {
	c.drawn++
	low := c.drawn * 0x9e3779b97f4a7c15 // rand.Rand asks again when it does not like a number, so no two are alike
	if len(c.left) == 0 {
		return low
	}
	high := uint64(c.left[0]) << 56
	c.left = c.left[1:]
	return high | low>>8
}
