package fsm

import (
	"fmt"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func (r *rig) applyGroup(entries ...[]byte) ([]Outcome, error) {
	r.index++
	return r.m.ApplyGroup(r.index, EncodeGroup(entries))
}

// A group does what its commands would do one after the other, and one that is
// refused concerns nobody else.
func TestGroup(t *testing.T) {
	type ask struct {
		request dfs.RequestID
		command Command
	}
	asks := func(r *rig) []ask {
		return []ask{
			{"a", &Mkdir{Path: r.path("/new")}},
			{"b", &Mkdir{Path: r.path("/new")}}, // there by now
			{"a", &Mkdir{Path: r.path("/new")}}, // a retry
			{"", &Delete{Path: r.path("/nothing")}},
			{"a", &Delete{Path: r.path("/new")}}, // another call under the same ID
			{"c", &Mkdir{Path: r.path("/new/deep/er"), Parents: true}},
			{"d", &Rename{From: r.path("/new/deep"), To: r.path("/deep")}},
			{"", begin(r.path("/new/file"), 2)},
		}
	}
	grouped, single := newRig(t), newRig(t)
	var entries [][]byte
	var want []answer
	for i, a := range asks(grouped) {
		entry := Encode(a.command, a.request, epoch.Add(time.Duration(i)*time.Second))
		entries = append(entries, entry)
		want = append(want, answersOf(single.m.ApplyGroup(1, entry))...)
	}
	got := answersOf(grouped.applyGroup(entries...))
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the group answers\n%+v; one by one it is\n%+v", got, want)
	}
	var codes []dfs.Code
	for _, a := range got {
		codes = append(codes, a.code)
	}
	if fmt.Sprint(codes) != "[ exists  not_found invalid   conflict]" {
		t.Fatalf("codes %q", codes)
	}
	grouped.check()
	compare(t, grouped.m.Freeze(), single.m.Freeze())
	compare(t, grouped.m.Freeze(), restored(t, grouped.m).Freeze())

	// The whole group again, as after a lost answer, in another order.
	again := answersOf(grouped.applyGroup(entries[5], entries[1], entries[0]))
	if !reflect.DeepEqual(again, []answer{want[5], want[1], want[0]}) {
		t.Fatalf("a retry got %+v", again)
	}
}

func TestGroupOfOneIsAPlainEntry(t *testing.T) {
	entry := Encode(&Mkdir{Path: dfs.Root}, "x", epoch)
	if got := EncodeGroup([][]byte{entry}); string(got) != string(entry) {
		t.Fatalf("%q became %q", entry, got)
	}
}

// A group as it lies on disk: this must be readable for ever.
func TestGroupGolden(t *testing.T) {
	one := "\x01\x02\xaa\xb4\xde\x75\x03abc\x04/a/b\x01"
	two := "\x01\x08\xaa\xb4\xde\x75\x00\x04/a/b\x00"
	got := EncodeGroup([][]byte{
		Encode(&Mkdir{Path: path(t, "/a/b"), Parents: true}, "abc", time.UnixMilli(123456789)),
		Encode(&Delete{Path: path(t, "/a/b")}, "", time.UnixMilli(123456789)),
	})
	if want := "\x02\x02\x10" + one + "\x0d" + two; string(got) != want {
		t.Errorf("the group is\n%x; want\n%x", got, want)
	}
}

func TestGroupOverhead(t *testing.T) {
	for _, length := range []int{1, 127, 128, 70_000, 256 << 10} {
		part := make([]byte, length)
		for _, count := range []int{2, MaxGroup} {
			parts := make([][]byte, count)
			for i := range parts {
				parts[i] = part
			}
			if got, most := len(EncodeGroup(parts)), count*(length+GroupOverhead); got > most {
				t.Errorf("%d entries of %d bytes take %d; at most %d were announced", count, length, got, most)
			}
		}
	}
}

// A group that is damaged anywhere does nothing at all, and is not the end.
func TestMalformedGroups(t *testing.T) {
	good := Encode(&Mkdir{Path: path(t, "/a")}, "", epoch)
	bad := Encode(&Purge{Limit: maxPurge + 1}, "", epoch)
	whole := EncodeGroup([][]byte{good, good})
	crowd := make([][]byte, MaxGroup+1)
	for i := range crowd {
		crowd[i] = good
	}
	groups := [][]byte{
		{groupFormat, 0},
		EncodeGroup(crowd),
		EncodeGroup([][]byte{good, bad}),
		EncodeGroup([][]byte{good, {}}),
		EncodeGroup([][]byte{good, whole}), // nested
		EncodeGroup([][]byte{good, {groupFormat}}),
		append(whole[:len(whole):len(whole)], 0),
		{groupFormat, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 1},
	}
	for cut := 1; cut < len(whole); cut++ {
		groups = append(groups, whole[:cut])
	}
	r := newRig(t)
	before := content(t, r.m.Freeze())
	for _, group := range groups {
		r.index++
		if _, err := r.m.ApplyGroup(r.index, group); dfs.CodeOf(err) != dfs.Invalid {
			t.Fatalf("group %q gave %v", group, err)
		}
	}
	if r.m.Freeze().AppliedIndex() != r.index || string(before) != string(content(t, r.m.Freeze())) {
		t.Fatal("a damaged group changed the state, or was not counted as applied")
	}
	r.mkdir("/b")
}

// A small group that claims to hold much must not take much memory.
func TestLyingGroups(t *testing.T) {
	group := append([]byte{groupFormat, 0xff, 1}, make([]byte, 300)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := decodeEntries(group)
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; err == nil || allocated > 100_000 {
		t.Errorf("%v, %d bytes of memory", err, allocated)
	}
}
