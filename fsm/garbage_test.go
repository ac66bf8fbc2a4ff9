package fsm

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// garbage lists all garbage, and the log index since when each is.
func (r *rig) garbage() map[dfs.ChunkID]uint64 {
	found := make(map[dfs.ChunkID]uint64)
	r.m.Freeze().GarbageAfter(0, func(g Garbage) bool {
		found[g.ID] = g.Since
		return true
	})
	return found
}

func (r *rig) wantGarbage(since uint64, ids ...dfs.ChunkID) {
	r.t.Helper()
	want := make(map[dfs.ChunkID]uint64)
	for _, id := range ids {
		want[id] = since
	}
	if got := r.garbage(); !maps.Equal(got, want) {
		r.t.Fatalf("garbage since: %v; want %v", got, want)
	}
}

func (r *rig) orphans(num NodeNum) (orphans []Orphan) {
	r.m.Freeze().OrphansAfter(num, 0, func(o Orphan) bool {
		orphans = append(orphans, o)
		return true
	})
	return orphans
}

// TestBecomesGarbage goes each way on which a chunk can lose the last that uses
// it. The last step is the one that makes the chunks it returns garbage.
func TestBecomesGarbage(t *testing.T) {
	tests := map[string]func(*rig) []dfs.ChunkID{
		"deleted": func(r *rig) []dfs.ChunkID {
			ids := r.write("/f", 2)
			r.write("/kept", 1)
			r.must(&Delete{Path: r.path("/f")})
			return ids
		},
		"deleted with its directory": func(r *rig) []dfs.ChunkID {
			ids := r.write("/d/f", 2)
			r.must(&Delete{Path: r.path("/d"), Recursive: true})
			r.wantGarbage(0) // it is still in the trash
			r.must(&Purge{Limit: maxPurge})
			return ids
		},
		"a part of a large file that is purged": func(r *rig) []dfs.ChunkID {
			ids := r.write("/f", maxDirectRelease+10)
			r.must(&Delete{Path: r.path("/f")})
			r.wantGarbage(0)
			r.must(&Purge{Limit: 7})
			return ids[len(ids)-7:]
		},
		"overwritten": func(r *rig) []dfs.ChunkID {
			ids := r.write("/f", 2)
			over := r.beginOver("/f", 1)
			r.wantGarbage(0)
			r.must(over.commit())
			return ids
		},
		"aborted": func(r *rig) []dfs.ChunkID {
			u := r.begin("/f", 3)
			r.beat(newDisk(1).report(u.chunks[:2], nil))
			r.wantGarbage(0)
			r.must(&AbortUpload{Upload: u.id})
			return u.chunks[:2] // no node has the third
		},
		"expired": func(r *rig) []dfs.ChunkID {
			u := r.begin("/f", 2)
			r.beat(newDisk(1).report(u.chunks, nil))
			r.must(&ExpireUploads{Uploads: []ExpiredUpload{{u.id, r.m.Freeze().clock}}})
			return u.chunks
		},
		"not named by the commit": func(r *rig) []dfs.ChunkID {
			u := r.begin("/f", 3)
			r.beat(newDisk(1).report(u.chunks, nil))
			r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks[1]), Final: true})
			return []dfs.ChunkID{u.chunks[0], u.chunks[2]}
		},
		"half committed, then aborted": func(r *rig) []dfs.ChunkID {
			u := r.begin("/f", 3)
			r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks[:2]...)})
			r.wantGarbage(0)
			r.must(&AbortUpload{Upload: u.id})
			return u.chunks[:2]
		},
		"half committed, then committed without": func(r *rig) []dfs.ChunkID {
			u := r.begin("/f", 3)
			r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks[:2]...)})
			r.must(&Commit{Upload: u.id, Chunks: stored(u.chunks[2])}) // unseals the others
			r.wantGarbage(0)
			r.must(&Commit{Upload: u.id, Position: 1, Final: true})
			return u.chunks[:2]
		},
		"one of several replicas dropped": func(r *rig) []dfs.ChunkID {
			ids := r.write("/f", 1)
			d := newDisk(1)
			r.beat(d.report(ids, nil))
			r.beat(d.report(nil, ids))
			r.wantGarbage(0)
			r.must(&Delete{Path: r.path("/f")})
			return ids
		},
		"damaged on one node": func(r *rig) []dfs.ChunkID {
			ids := r.write("/f", 1)
			d := newDisk(1)
			r.beat(d.report(ids, nil))
			report := d.report(nil, ids)
			report.Removed, report.Corrupt = nil, ids
			r.beat(report)
			r.must(&Delete{Path: r.path("/f")})
			return ids
		},
	}
	for name, lead := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			ids := lead(r)
			at := r.index
			r.wantGarbage(at, ids...)
			r.m = restored(t, r.m)
			r.mkdir("/later")
			r.wantGarbage(at, ids...)
			// It is forgotten when the last node has given it up, not before.
			d1, d2 := newDisk(1), newDisk(2)
			r.beat(d1.report(ids, nil), d2.report(ids, nil))
			r.beat(d1.report(nil, ids))
			r.wantGarbage(at, ids...)
			r.beat(d2.report(nil, ids))
			r.wantGarbage(0)
			if garbage, orphans := r.m.Freeze().Reclaimable(); garbage != 0 || orphans != 0 {
				t.Errorf("%d chunks and %d orphans are left", garbage, orphans)
			}
		})
	}
}

// What arrives when all is over: on a node beside others the chunk stays garbage
// since when it was; alone it is an orphan.
func TestLateReports(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/f", 2)
	first, second := u.chunks[0], u.chunks[1]
	d1, d2 := newDisk(1), newDisk(2)
	r.beat(d1.report([]dfs.ChunkID{first}, nil))
	r.must(&AbortUpload{Upload: u.id})
	at := r.index
	r.beat(d2.report(u.chunks, nil))
	r.wantGarbage(at, first)
	if got := r.replicas(first); !slices.Equal(got, []NodeNum{1, 2}) {
		t.Errorf("the garbage is on %v", got)
	}
	if got := r.orphans(2); !slices.Equal(got, []Orphan{{second, r.index, true}}) {
		t.Errorf("orphans %+v", got)
	}
	since := r.index
	r.beat(d2.report(u.chunks, nil)) // again
	if got := r.orphans(2); !slices.Equal(got, []Orphan{{second, since, true}}) {
		t.Errorf("reported again: %+v", got)
	}
}

// The index at which something became garbage does not depend on clocks: not
// on one that jumps, nor on one that stands still.
func TestGarbageDoesNotKnowTheClock(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	first, second := r.write("/f", 1), r.write("/g", 1)
	r.now = r.now.AddDate(1, 0, 0)
	r.must(&Delete{Path: r.path("/f")})
	at := r.index
	r.now = epoch
	r.must(&Delete{Path: r.path("/g")})
	if got := r.garbage(); got[first[0]] != at || got[second[0]] != at+1 {
		t.Errorf("garbage since %v; want %d and %d", got, at, at+1)
	}
}

// TestAllocationKeepsClearOfOrphans: after the namespace was set back, nodes
// hold chunks under IDs that it would hand out next. They are never given to an
// upload, and never taken for something that was handed out.
func TestAllocationKeepsClearOfOrphans(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	d1, d2 := newDisk(1), newDisk(2)
	r.beat(d1.report([]dfs.ChunkID{1, 4, 5, 9, ^dfs.ChunkID(0)}, nil))
	if u := r.begin("/a", 2); !slices.Equal(u.chunks, []dfs.ChunkID{2, 3}) {
		t.Errorf("the first upload got %v", u.chunks)
	}
	if u := r.begin("/none", 0); len(u.chunks) != 0 {
		t.Errorf("an upload without chunks got %v", u.chunks)
	}
	r.m = restored(t, r.m)
	if u := r.begin("/b", 4); !slices.Equal(u.chunks, []dfs.ChunkID{10, 11, 12, 13}) {
		t.Errorf("the second upload got %v", u.chunks)
	}
	r.m = restored(t, r.m)
	r.beat(d2.report([]dfs.ChunkID{4, 6, 14}, nil)) // 6 comes after the counter has passed it
	issued := func(num NodeNum) map[dfs.ChunkID]bool {
		found := make(map[dfs.ChunkID]bool)
		for _, o := range r.orphans(num) {
			found[o.ID] = o.Issued
		}
		return found
	}
	if got := issued(1); !maps.Equal(got, map[dfs.ChunkID]bool{1: false, 4: false, 5: false, 9: false, ^dfs.ChunkID(0): false}) {
		t.Errorf("on the first node: %v", got)
	}
	if got := issued(2); !maps.Equal(got, map[dfs.ChunkID]bool{4: false, 6: true, 14: false}) {
		t.Errorf("on the second node: %v", got)
	}
	r.beat(d1.report(nil, []dfs.ChunkID{4}))
	if got := issued(2); got[4] {
		t.Error("it is on one node still, and taken for one that was handed out")
	}
	r.beat(d2.report(nil, []dfs.ChunkID{4, 14}))
	if u := r.begin("/c", 1); !slices.Equal(u.chunks, []dfs.ChunkID{14}) {
		t.Errorf("an ID that nobody claims any more was passed over: %v", u.chunks)
	}
}

func TestGarbagePages(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/f", 5)
	r.must(&Delete{Path: r.path("/f")})
	r.beat(newDisk(1).report(nil, nil), newDisk(2).report([]dfs.ChunkID{100, 200}, nil))
	s := r.m.Freeze()
	page := func(after dfs.ChunkID, count int) (found []dfs.ChunkID) {
		s.GarbageAfter(after, func(g Garbage) bool {
			found = append(found, g.ID)
			return len(found) < count
		})
		return found
	}
	for _, test := range []struct {
		after dfs.ChunkID
		count int
		want  []dfs.ChunkID
	}{{0, 2, ids[:2]}, {ids[1], 9, ids[2:]}, {ids[4], 9, nil}, {^dfs.ChunkID(0), 9, nil}} {
		if got := page(test.after, test.count); !slices.Equal(got, test.want) {
			t.Errorf("%d after %s: %v; want %v", test.count, test.after, got, test.want)
		}
	}
	for _, test := range []struct {
		num   NodeNum
		after dfs.ChunkID
		want  int
	}{{1, 0, 0}, {2, 0, 2}, {2, 100, 1}, {2, 200, 0}, {2, ^dfs.ChunkID(0), 0}} {
		count := 0
		s.OrphansAfter(test.num, test.after, func(Orphan) bool { count++; return true })
		if count != test.want {
			t.Errorf("on %d after %s: %d orphans; want %d", test.num, test.after, count, test.want)
		}
	}
}

// A snapshot of a version that did not mark garbage: all of it is garbage since
// then, as far as this NameNode can tell.
func TestSnapshotWithoutGarbage(t *testing.T) {
	s := busyRig(t).m.Freeze()
	files, nodes := documents(t, s)
	mark := regexp.MustCompile(`,"garbage_since":\d+`)
	since := regexp.MustCompile(`"since":\d+(,"unissued":true)?`)
	if !mark.Match(files) || !since.Match(nodes) {
		t.Fatal("there is nothing to leave out")
	}
	files, nodes = mark.ReplaceAll(files, nil), since.ReplaceAll(nodes, []byte(`"since_ms":1893456000005`))
	old, err := ReadSnapshot(bytes.NewReader(archiveOf(t, tarMember{FilesDocument, resealed(files)}, tarMember{NodesDocument, resealed(nodes)})))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkInvariants(old); err != nil {
		t.Fatal(err)
	}
	count := 0
	old.GarbageAfter(0, func(g Garbage) bool {
		if count++; g.Since != s.applied {
			t.Errorf("chunk %s is garbage since %d; want %d", g.ID, g.Since, s.applied)
		}
		return true
	})
	if want, _ := s.Reclaimable(); count != want {
		t.Errorf("%d chunks are garbage; want %d", count, want)
	}
	old.OrphansAfter(1, 0, func(o Orphan) bool {
		if o.Since != s.applied || o.Issued {
			t.Errorf("orphan %+v", o)
		}
		return true
	})
}

// TestGarbageForEver is why an old order to delete is safe: nothing that was
// garbage, or unknown, is ever used again.
func TestGarbageForEver(t *testing.T) {
	m := New(nil)
	d := newDriver(t, m)
	before, most := m.Freeze(), 0
	for i := range *stepsFlag {
		index := uint64(i + 1)
		_, _ = m.Apply(index, d.next()) // refusals are fine
		s := m.Freeze()
		s.GarbageAfter(0, func(g Garbage) bool {
			if since, was := before.garbage.Get(g.ID); was && since != g.Since || !was && g.Since != index {
				t.Errorf("entry %d: chunk %s is garbage since %d; it was since %d", index, g.ID, g.Since, since)
			}
			return true
		})
		before.GarbageAfter(0, func(g Garbage) bool {
			if c, known := s.Chunk(g.ID); known && !has(s, g.ID) {
				t.Errorf("entry %d: chunk %s was garbage and is in use: %+v", index, g.ID, c)
			}
			return true
		})
		for id := dfs.ChunkID(1); id < before.nextChunk; id++ {
			_, known := before.Chunk(id)
			if c, again := s.Chunk(id); again && !known {
				t.Errorf("entry %d: chunk %s was not known any more and is again: %+v", index, id, c)
			}
		}
		if t.Failed() {
			return
		}
		most = max(most, s.garbage.Len())
		before = s
	}
	if most < 5 {
		t.Errorf("there were never more than %d chunks garbage", most)
	}
}

func has(s *State, id dfs.ChunkID) bool {
	_, garbage := s.garbage.Get(id)
	return garbage
}
