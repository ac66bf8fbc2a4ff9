package fsm

import (
	"bytes"
	"fmt"
	"reflect"
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
	for range 60 {
		f.Add(driver.entry())
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
		e, _ := decodeEntry(data)
		_, err = m.Apply(state.AppliedIndex()+1, data)
		if invariant := checkInvariants(m.Freeze()); invariant != nil {
			t.Fatalf("%+v: %v", e.command, invariant)
		}
		remembered := e.request != "" && e.command != nil
		if err != nil && !remembered && !bytes.Equal(before, content(t, m.Freeze())) {
			t.Fatalf("%+v was refused (%v) and changed the state", e.command, err)
		}
		compare(t, m.Freeze(), restored(t, m).Freeze())
	})
}

// FuzzDecodeEntry: what can be decoded can be encoded, and comes back the same.
func FuzzDecodeEntry(f *testing.F) {
	for _, c := range everyCommand(f) {
		f.Add(Encode(c, "request", epoch))
	}
	f.Add([]byte{})
	f.Add([]byte{entryFormat})
	f.Add([]byte{entryFormat + 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(data)
		if err != nil {
			return
		}
		again, err := decodeEntry(Encode(e.command, e.request, time.UnixMilli(e.stamp)))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v came back as %+v, %v", e, again, err)
		}
	})
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
