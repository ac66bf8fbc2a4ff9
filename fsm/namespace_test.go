package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestMkdir(t *testing.T) {
	tests := []struct {
		path    string
		parents bool
		code    dfs.Code // "" when it is made
	}{
		{"/new", false, ""},
		{"/new", true, ""},
		{"/a/b/new", false, ""},
		{"/a/x/y/z", true, ""},
		{"/a/x/y", false, dfs.NotFound},
		{"/a/b", false, dfs.Exists},
		{"/a/b", true, ""},
		{"/", false, dfs.Exists},
		{"/", true, ""},
		{"/file", false, dfs.Exists},
		{"/file", true, dfs.Exists},
		{"/file/x", false, dfs.NotDirectory},
		{"/file/x/y", true, dfs.NotDirectory},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s parents=%t", test.path, test.parents), func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.mkdir("/a/b")
			r.write("/file", 1)
			c := &Mkdir{Path: r.path(test.path), Parents: test.parents}
			if test.code != "" {
				r.refused(test.code, c)
				return
			}
			r.must(c)
			entry, err := r.m.Freeze().Stat(c.Path)
			if err != nil || !entry.Directory || entry.Path != test.path {
				t.Fatalf("%+v, %v", entry, err)
			}
		})
	}
}

// The sentence names the component that is in the way, not the whole path.
func TestNotDirectoryNamesTheFile(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	r.write("/d/file", 1)
	for _, c := range []Command{
		&Mkdir{Path: r.path("/d/file/x/y"), Parents: true},
		&Delete{Path: r.path("/d/file/x/y")},
		begin(r.path("/d/file/x/y"), 1),
		&Rename{From: r.path("/d"), To: r.path("/d/file/x/y")},
		&Rename{From: r.path("/d/file"), To: r.path("/d/file/x")},
	} {
		_, err := r.apply(c)
		if err == nil || strings.Contains(err.Error(), "/x/y is a file") {
			t.Errorf("%T: %v", c, err)
		}
	}
	_, err := r.apply(&Mkdir{Path: r.path("/d/file/x/y")})
	if want := "/d/file is a file, not a directory"; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

func TestDelete(t *testing.T) {
	tests := []struct {
		path      string
		recursive bool
		code      dfs.Code
		left      []string
	}{
		{"/", false, dfs.Invalid, nil},
		{"/", true, dfs.Invalid, nil},
		{"/x", false, dfs.NotFound, nil},
		{"/x/y", true, dfs.NotFound, nil},
		{"/d/f/x", true, dfs.NotDirectory, nil},
		{"/d", false, dfs.NotEmpty, nil},
		{"/d", true, "", []string{"/empty"}},
		{"/d/f", false, "", []string{"/d", "/d/g", "/empty"}},
		{"/d/f", true, "", []string{"/d", "/d/g", "/empty"}},
		{"/empty", false, "", []string{"/d", "/d/f", "/d/g"}},
		{"/empty", true, "", []string{"/d", "/d/f", "/d/g"}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s recursive=%t", test.path, test.recursive), func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.mkdir("/empty")
			r.write("/d/f", 1)
			r.write("/d/g", 1)
			c := &Delete{Path: r.path(test.path), Recursive: test.recursive}
			if test.code != "" {
				r.refused(test.code, c)
				return
			}
			r.must(c)
			r.wantTree(test.left...)
			r.refused(dfs.NotFound, c)
		})
	}
}

// A deleted tree is gone at once; its chunks are let go in steps of bounded
// work, whatever its shape.
func TestDeleteBigTree(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	deep := "/top"
	for i := range 100 {
		deep += fmt.Sprintf("/%d", i)
	}
	r.write(deep+"/file", 2)
	for i := range 50 {
		r.write(fmt.Sprintf("/top/wide/%d", i), 1)
		r.mkdir(fmt.Sprintf("/top/wide/dir%d", i))
	}
	kept := r.write("/kept", 1)
	inodes, _, _ := r.m.Freeze().Counts()
	r.must(&Delete{Path: r.path("/top"), Recursive: true})
	r.wantTree("/kept")
	r.write("/top/wide/0", 1) // the names are free again

	const limit = 7
	steps := 0
	for r.m.Freeze().Trashed() {
		steps++
		before, _, _ := r.m.Freeze().Counts()
		result := r.must(&Purge{Limit: limit})
		after, _, _ := r.m.Freeze().Counts()
		if before-after > limit {
			t.Fatalf("one step removed %d names; the limit is %d", before-after, limit)
		}
		if result.More != r.m.Freeze().Trashed() {
			t.Fatal("More does not say whether there is more")
		}
		if steps > inodes {
			t.Fatal("purging does not end")
		}
	}
	if steps < inodes/limit {
		t.Fatalf("%d names were purged in %d steps of %d", inodes, steps, limit)
	}
	r.wantTree("/kept", "/top", "/top/wide", "/top/wide/0")
	if r.replicas(kept[0]) == nil {
		t.Fatal("a chunk of another file was forgotten")
	}
}

func TestDeleteBigFile(t *testing.T) {
	for _, count := range []int{maxDirectRelease, maxDirectRelease + 1} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			ids := r.write("/f", count)
			r.must(&Delete{Path: r.path("/f")})
			r.absent("/f")
			if big := count > maxDirectRelease; r.m.Freeze().Trashed() != big {
				t.Fatalf("in the trash: %t; want %t", !big, big)
			}
			for left := count; r.m.Freeze().Trashed(); left -= 500 {
				if left < 0 {
					t.Fatal("purging does not end")
				}
				r.must(&Purge{Limit: 500})
			}
			for _, id := range ids {
				if c, ok := r.m.Freeze().chunks.Get(id); !ok || c.refs != 0 {
					t.Fatalf("chunk %s: %+v; it should be garbage that two nodes hold", id, c)
				}
			}
		})
	}
}

func TestPurgeOfNothing(t *testing.T) {
	r := newRig(t)
	if result := r.must(&Purge{Limit: 10}); result.More {
		t.Fatal("there is more of nothing")
	}
	r.nodes(2)
	r.write("/d/f", 1)
	r.must(&Delete{Path: r.path("/d"), Recursive: true})
	if result := r.must(&Purge{Limit: 0}); !result.More {
		t.Fatal("a purge of nothing says that it has finished")
	}
}

func TestRename(t *testing.T) {
	tests := []struct {
		from, to string
		code     dfs.Code
		want     []string
	}{
		{"/", "/x", dfs.Invalid, nil},
		{"/d", "/", dfs.Invalid, nil},
		{"/x", "/y", dfs.NotFound, nil},
		{"/x", "/x", dfs.NotFound, nil},
		{"/d", "/d/e/x", dfs.Invalid, nil},
		{"/d", "/d/x", dfs.Invalid, nil},
		{"/d", "/other", dfs.Exists, nil},
		{"/d", "/d/e", dfs.Invalid, nil},
		{"/d/f", "/d/e", dfs.Exists, nil},
		{"/other", "/d/f", dfs.Exists, nil},
		{"/d", "/none/x", dfs.NotFound, nil},
		{"/other", "/d/f/x", dfs.NotDirectory, nil},
		{"/d/f", "/d/f/x", dfs.Invalid, nil},
		{"/d", "/d", "", []string{"/d", "/d/e", "/d/f", "/other"}},
		{"/d", "/dd", "", []string{"/dd", "/dd/e", "/dd/f", "/other"}},
		{"/d", "/other/d", "", []string{"/other", "/other/d", "/other/d/e", "/other/d/f"}},
		{"/d/f", "/f", "", []string{"/d", "/d/e", "/f", "/other"}},
	}
	for _, test := range tests {
		t.Run(test.from+" to "+test.to, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.mkdir("/d/e")
			r.mkdir("/other")
			r.write("/d/f", 1)
			c := &Rename{From: r.path(test.from), To: r.path(test.to)}
			if test.code != "" {
				r.refused(test.code, c)
				return
			}
			before, err := r.m.Freeze().Stat(c.From)
			if err != nil {
				t.Fatal(err)
			}
			r.must(c)
			r.wantTree(test.want...)
			after, err := r.m.Freeze().Stat(c.To)
			if err != nil || after.Inode != before.Inode {
				t.Fatalf("inode %d became %d, %v", before.Inode, after.Inode, err)
			}
		})
	}
}

func TestSetReplication(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/d/f", 1)
	r.refused(dfs.NotFound, &SetReplication{Path: r.path("/x"), Replication: 2})
	r.refused(dfs.IsDirectory, &SetReplication{Path: r.path("/d"), Replication: 2})
	for _, bad := range []int{-1, 0, dfs.MaxReplication + 1} {
		r.refused(dfs.Invalid, &SetReplication{Path: r.path("/d/f"), Replication: bad})
	}
	before := r.file("/d/f")
	r.must(&SetReplication{Path: r.path("/d/f"), Replication: 5})
	after := r.file("/d/f")
	if after.Replication != 5 || after.Inode != before.Inode || after.Contents[0].ID != ids[0] {
		t.Fatalf("%+v became %+v", before, after)
	}
}

func TestList(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	r.mkdir("/d/b/below")
	r.write("/d/a", 1)
	r.write("/d/c", 1)
	r.mkdir("/e")
	tests := []struct {
		path, after string
		limit       int
		want        []string
		more        bool
	}{
		{"/d", "", 10, []string{"/d/a", "/d/b", "/d/c"}, false},
		{"/d", "", 3, []string{"/d/a", "/d/b", "/d/c"}, false},
		{"/d", "", 2, []string{"/d/a", "/d/b"}, true},
		{"/d", "b", 2, []string{"/d/c"}, false},
		{"/d", "a0", 1, []string{"/d/b"}, true},
		{"/d", "c", 1, nil, false},
		{"/", "", 10, []string{"/d", "/e"}, false},
		{"/e", "", 10, nil, false},
	}
	for _, test := range tests {
		entries, more, err := r.m.Freeze().List(r.path(test.path), test.after, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Path)
			if !strings.HasSuffix(e.Path, "/"+e.Name) {
				t.Errorf("%+v", e)
			}
		}
		if !slices.Equal(got, test.want) || more != test.more {
			t.Errorf("%+v: got %q, more: %t", test, got, more)
		}
	}
	for text, want := range map[string]dfs.Code{"/d/a": dfs.NotDirectory, "/none": dfs.NotFound} {
		if _, _, err := r.m.Freeze().List(r.path(text), "", 1); dfs.CodeOf(err) != want {
			t.Errorf("list %s: %v; want %s", text, err, want)
		}
	}
}

func TestFileAndStat(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/d/f", 2)
	r.must(u.commit())
	file := r.file("/d/f")
	want := stored(u.chunks...)
	if file.Size != want[0].Size+want[1].Size || file.Chunks != 2 || file.ChunkSize != testChunkSize || file.Replication != 2 {
		t.Fatalf("%+v", file)
	}
	if !file.MTime.Equal(r.now) || !r.m.Freeze().Clock().Equal(r.now) {
		t.Fatalf("written at %s; the commit was stamped %s", file.MTime, r.now)
	}
	for i, c := range file.Contents {
		if c.ID != want[i].ID || c.Size != want[i].Size || c.Checksum != want[i].Checksum || !slices.Equal(c.Replicas, want[i].Nodes) {
			t.Errorf("chunk %d is %+v; want %+v", i, c, want[i])
		}
	}
	if _, err := r.m.Freeze().File(r.path("/d")); dfs.CodeOf(err) != dfs.IsDirectory {
		t.Errorf("a directory was read as a file: %v", err)
	}
	root, err := r.m.Freeze().Stat(dfs.Root)
	if err != nil || !root.Directory || root.Path != "/" || root.Inode != rootInode {
		t.Errorf("the root is %+v, %v", root, err)
	}
}

func TestClock(t *testing.T) {
	const step = maxClockStep * time.Millisecond
	tests := []struct {
		name         string
		first, stamp time.Time
		want         time.Time
	}{
		{"forward", epoch, epoch.Add(time.Second), epoch.Add(time.Second)},
		{"never back", epoch, epoch.Add(-time.Hour), epoch},
		{"as far as allowed", epoch, epoch.Add(step), epoch.Add(step)},
		{"a jump is bounded", epoch, epoch.Add(1000 * step), epoch.Add(step)},
		{"before 1970", time.UnixMilli(-5), time.UnixMilli(-3), time.UnixMilli(1)},
		{"beyond what JSON can tell", time.UnixMilli(1 << 62), time.UnixMilli(1<<62 + 1), time.UnixMilli(maxClock)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := New(nil)
			for i, stamp := range []time.Time{test.first, test.stamp} {
				if _, err := m.Apply(uint64(i+1), Encode(&Mkdir{Path: dfs.Root, Parents: true}, "", stamp)); err != nil {
					t.Fatal(err)
				}
			}
			clock := m.Freeze().Clock()
			if !clock.Equal(test.want) {
				t.Fatalf("the clock says %s; want %s", clock.UTC(), test.want.UTC())
			}
			if _, err := clock.MarshalJSON(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Walk shows every file that a path leads to, and nothing else.
func TestWalk(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	for _, path := range []string{"/a", "/d/b", "/d/e/c", "/gone/x", "/gone/y/z", "/single"} {
		r.write(path, 2)
	}
	r.mkdir("/empty")
	r.begin("/open", 1)
	r.must(&Rename{From: r.path("/d/e"), To: r.path("/moved")})
	r.must(&Delete{Path: r.path("/gone"), Recursive: true})
	r.must(&Delete{Path: r.path("/single")})
	r.must(&SetReplication{Path: r.path("/a"), Replication: 1})
	got := make(map[string]int)
	r.m.Freeze().Walk(func(f *File) bool {
		if len(f.Contents) != 2 || f.Contents[0].Refs != 1 || len(f.Contents[0].Replicas) != 2 {
			t.Errorf("%s: %+v", f.Path, f.Contents)
		}
		if want := r.file(f.Path); want.Inode != f.Inode || want.Contents[1].ID != f.Contents[1].ID {
			t.Errorf("%s: %+v, want %+v", f.Path, f, want)
		}
		got[f.Path] = f.Replication
		return true
	})
	if len(got) != 3 || got["/a"] != 1 || got["/d/b"] != 2 || got["/moved/c"] != 2 {
		t.Errorf("%v", got)
	}
	visited := 0
	r.m.Freeze().Walk(func(*File) bool { visited++; return visited < 2 })
	if visited != 2 {
		t.Errorf("%d files were visited after the walk was ended at 2", visited)
	}
}

// A walk over a frozen copy shows what was there when it was frozen.
func TestWalkOfFrozenState(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	r.write("/d/a", 1)
	frozen := r.m.Freeze()
	r.write("/d/b", 1)
	r.must(&Delete{Path: r.path("/d/a")})
	frozen.Walk(func(f *File) bool {
		if f.Path != "/d/a" {
			t.Errorf("%s came later", f.Path)
		}
		return true
	})
}

// TestDeepDirectory: renames make directories deeper than any path can say. To
// find out where one lies is part of a commit, for which all others wait, so
// that takes no more than the path is long, several times over.
func TestDeepDirectory(t *testing.T) {
	r := newRig(t)
	const depth, rounds = 200, 4
	part := strings.Repeat("/d", depth)
	r.nodes(3)
	r.must(&Mkdir{Path: r.path("/last" + part), Parents: true})
	u := r.begin("/last"+part+"/file", 1)
	for range rounds {
		r.must(&Mkdir{Path: r.path("/next" + part), Parents: true})
		r.must(&Rename{From: r.path("/last"), To: r.path("/next" + part + "/last")})
		r.must(&Rename{From: r.path("/next"), To: r.path("/last")})
	}
	before := memoryTaken()
	result, err := r.apply(u.commit())
	if cost, length := memoryTaken()-before, uint64(len(result.Path)); err != nil || length < 2*depth*rounds || cost > 50*length {
		t.Fatalf("the commit of a path of %d bytes took %d bytes of memory, %v", length, cost, err)
	}
}
