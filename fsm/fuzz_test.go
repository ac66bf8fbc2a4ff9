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
func FuzzDecodeEntry(f *testing.F) {
	for _, c := range everyCommand(f) {
		f.Add(Encode(c, "request", epoch))
	}
	f.Add([]byte{})
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
		entries, err := decodeEntries(data)
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
