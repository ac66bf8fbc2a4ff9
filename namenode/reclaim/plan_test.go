package reclaim

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

type orders = map[fsm.NodeNum][]dfs.ChunkID

func wantPlan(t *testing.T, got, want orders) {
	t.Helper()
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("planned %v; want %v", got, want)
	}
}

// TestPlan has a case for each trap: what must not be deleted, and why it
// could be taken for garbage.
func TestPlan(t *testing.T) {
	tests := map[string]func(*world) orders{
		"a deleted file": func(w *world) orders {
			ids := w.write("/f", 3)
			w.write("/kept", 3)
			w.remove("/f")
			return orders{1: ids, 2: ids}
		},
		"a file in use": func(w *world) orders {
			w.write("/f", 3)
			return nil
		},
		"a renamed file": func(w *world) orders {
			w.write("/f", 1)
			w.apply(&fsm.Rename{From: w.path("/f"), To: w.path("/g")})
			return nil
		},
		"an upload in flight, its chunks reported": func(w *world) orders {
			_, ids := w.begin("/f", 3)
			w.report(1, ids, nil)
			return nil
		},
		"an upload half committed": func(w *world) orders {
			upload, ids := w.begin("/f", 3)
			w.report(1, ids, nil)
			w.apply(&fsm.Commit{Upload: upload, Chunks: []fsm.StoredChunk{{ID: ids[0], Size: 1, Nodes: []fsm.NodeNum{1, 2}}}})
			return nil
		},
		"an upload given up": func(w *world) orders {
			upload, ids := w.begin("/f", 3)
			w.report(1, ids[:2], nil)
			w.apply(&fsm.AbortUpload{Upload: upload})
			return orders{1: ids[:2]}
		},
		"a chunk that arrives after its upload was given up": func(w *world) orders {
			upload, ids := w.begin("/f", 3)
			w.apply(&fsm.AbortUpload{Upload: upload})
			w.report(2, ids[1:], nil)
			return orders{2: ids[1:]}
		},
		"an unconfirmed replica, which may still be on its way": func(w *world) orders {
			upload, ids := w.begin("/f", 2)
			w.report(1, ids, nil)
			w.commit(upload, ids)
			w.remove("/f")
			return orders{1: ids}
		},
		"a replica that is there no more": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.report(1, nil, ids)
			return orders{2: ids}
		},
		"a returning node before its inventory": func(w *world) orders {
			ids := w.write("/f", 1)
			w.report(1, []dfs.ChunkID{50}, nil)
			w.remove("/f")
			w.restart(1)
			return orders{2: ids}
		},
		"a returning node after its inventory": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.restart(1)
			w.report(1, nil, nil) // its digest proves it
			return orders{1: ids, 2: ids}
		},
		"a node whose reports do not add up": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.disks[1].chunks[77] = true // which it has not reported
			w.report(1, nil, nil)
			return orders{2: ids}
		},
		"a suspect node": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.liveness(1, fsm.Suspect)
			return orders{2: ids}
		},
		"a node that is down": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.liveness(1, fsm.Down)
			return orders{2: ids}
		},
		"a node that knows the short heartbeat only": func(w *world) orders {
			upload, ids := w.begin("/f", 1)
			w.apply(&fsm.AbortUpload{Upload: upload})
			num := w.apply(&fsm.RegisterNode{ID: "short", Instance: "x"}).Node
			w.disks[num] = &disk{registration: fsm.RegisterNode{ID: "short"}, chunks: make(map[dfs.ChunkID]bool)}
			w.report(num, ids, nil)
			return nil
		},
		"a draining node": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.apply(&fsm.SetService{Node: 1, Service: fsm.Draining})
			return orders{1: ids, 2: ids}
		},
		"an ID never handed out": func(w *world) orders {
			w.write("/f", 1)
			w.report(1, []dfs.ChunkID{2, 1000}, nil)
			return nil
		},
		"an ID never handed out, which the counter has passed": func(w *world) orders {
			w.report(1, []dfs.ChunkID{2}, nil)
			w.write("/f", 5)
			return nil
		},
		"a chunk forgotten, which comes back": func(w *world) orders {
			ids := w.write("/f", 1)
			w.remove("/f")
			w.report(1, nil, ids)
			w.report(2, nil, ids)
			w.report(1, ids, nil)
			return orders{1: ids}
		},
	}
	for name, build := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			want := build(w)
			wantPlan(t, w.plan(), want)
			if got := Plan(w.state(), 0, NewLedger(time.Minute), wide(), new(Cursor)); len(got) != 0 {
				t.Errorf("planned before anything was old enough: %v", got)
			}
		})
	}
}

// Exactly what was garbage at the cutoff is old enough, whatever the clocks of
// the leaders said: the next entry may carry the same time, or an earlier one.
func TestCutoffIsExact(t *testing.T) {
	w := newWorld(t, 2)
	first, second := w.write("/f", 1), w.write("/g", 1)
	upload, third := w.begin("/h", 1)
	w.apply(&fsm.AbortUpload{Upload: upload})
	w.remove("/f")
	deleted := w.index
	w.remove("/g") // the clock has not moved
	w.clock = w.clock.AddDate(0, 1, 0)
	w.report(1, third, nil) // an orphan
	arrived := w.index
	w.clock = w.clock.AddDate(0, -2, 0)
	w.report(2, nil, nil)
	for cutoff, want := range map[uint64]orders{
		deleted - 1: nil,
		deleted:     {1: first, 2: first},
		deleted + 1: {1: slices.Concat(first, second), 2: slices.Concat(first, second)},
		arrived:     {1: slices.Concat(first, second, third), 2: slices.Concat(first, second)},
	} {
		wantPlan(t, byNode(Plan(w.state(), cutoff, NewLedger(time.Minute), wide(), new(Cursor))), want)
	}
}

// What was ordered is not planned again before its deadline, and counts as
// under way.
func TestPlanBesidesTheLedger(t *testing.T) {
	w := newWorld(t, 2)
	ids := w.write("/f", 5)
	w.remove("/f")
	now := time.Now()
	ledger := NewLedger(30 * time.Second)
	limits := Limits{Look: 100, PerNode: 3}
	plan := func() orders { return byNode(Plan(w.state(), w.index, ledger, limits, new(Cursor))) }
	round := func() orders {
		orders := Plan(w.state(), w.index, ledger, limits, new(Cursor))
		ledger.Add(orders, now)
		return byNode(orders)
	}
	wantPlan(t, round(), orders{1: ids[:3], 2: ids[:3]})
	wantPlan(t, plan(), nil)
	if got := ledger.Take(w.state(), 1, 100); !slices.Equal(got, ids[:3]) {
		t.Errorf("took %v", got)
	}
	w.report(1, nil, ids[:2])
	if overdue := ledger.Settle(now.Add(29*time.Second), w.state()); overdue != 0 {
		t.Errorf("%d are overdue", overdue)
	}
	wantPlan(t, plan(), orders{1: ids[3:]})
	if overdue := ledger.Settle(now.Add(30*time.Second), w.state()); overdue != 1 { // the others were never told
		t.Errorf("%d are overdue", overdue)
	}
	if !ledger.Empty() {
		t.Error("the ledger is not empty")
	}
	wantPlan(t, plan(), orders{1: ids[2:], 2: ids[:3]})
}

// A round looks at so much and no more; the next one goes on from there, and
// garbage and orphans do not keep each other waiting.
func TestRoundsGoOnWhereTheLastOneStopped(t *testing.T) {
	w := newWorld(t, 3)
	upload, late := w.begin("/late", 6)
	w.apply(&fsm.AbortUpload{Upload: upload})
	w.report(1, late[:2], nil)
	w.report(3, late[2:], nil)
	ids := w.write("/f", 5)
	w.remove("/f")
	var cursor Cursor
	ledger := NewLedger(time.Minute)
	want := []orders{
		{1: {ids[0], ids[1], late[0], late[1]}, 2: ids[:2]},
		{1: ids[2:4], 2: ids[2:4], 3: late[2:4]},
		{1: ids[4:], 2: ids[4:], 3: late[4:]},
		nil,
	}
	for i := range want {
		plan := Plan(w.state(), w.index, ledger, Limits{Look: 2, PerNode: 100}, &cursor)
		wantPlan(t, byNode(plan), want[i])
		ledger.Add(plan, time.Now())
	}
	// Again from the beginning, within few rounds, when nothing came of it.
	again := make(map[fsm.NodeNum]int)
	for range 8 {
		for _, o := range Plan(w.state(), w.index, NewLedger(time.Minute), Limits{Look: 2, PerNode: 100}, &cursor) {
			again[o.Node] += len(o.Chunks)
		}
	}
	if again[1] < 7 || again[2] < 5 || again[3] < 4 {
		t.Errorf("planned again: %v", again)
	}
}

// A node that has all it can have does not keep the others waiting, nor is it
// left out when it has room again.
func TestFullNode(t *testing.T) {
	w := newWorld(t, 3)
	upload, late := w.begin("/late", 9)
	w.apply(&fsm.AbortUpload{Upload: upload})
	for num := range w.disks {
		w.report(num, late[:3*num], nil)
	}
	var cursor Cursor
	left := map[fsm.NodeNum]int{1: 3, 2: 6, 3: 9}
	for round := 0; len(left) > 0; round++ {
		if round == 20 {
			t.Fatalf("left: %v", left)
		}
		for _, o := range Plan(w.state(), w.index, NewLedger(time.Minute), Limits{Look: 100, PerNode: 2}, &cursor) {
			if len(o.Chunks) > 2 {
				t.Fatalf("%d chunks for node %d", len(o.Chunks), o.Node)
			}
			if left[o.Node] -= len(o.Chunks); left[o.Node] == 0 {
				delete(left, o.Node)
			}
			w.report(o.Node, nil, o.Chunks)
		}
	}
}

// TestRandomReclaim lets files, uploads and nodes come and go while plans are
// carried out late, and makes sure of what must never happen.
func TestRandomReclaim(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, 2)
	ledger, cursor, now := NewLedger(30*time.Second), new(Cursor), time.Now()
	type open struct {
		id  dfs.UploadID
		ids []dfs.ChunkID
	}
	var uploads []open
	var late []Order // what a node was told and has not carried out
	unreported := make(map[fsm.NodeNum][]dfs.ChunkID)
	names := []string{"/a", "/b", "/c", "/d"}
	deleted := 0
	for range 2000 {
		now = now.Add(time.Duration(random.IntN(5000)) * time.Millisecond)
		num := fsm.NodeNum(1 + random.IntN(2))
		switch random.IntN(9) {
		case 0:
			name := names[random.IntN(len(names))]
			if _, err := w.state().Stat(w.path(name)); err == nil {
				w.remove(name)
			}
			id, ids := w.begin(name, 1+random.IntN(4))
			uploads = append(uploads, open{id, ids})
		case 1, 2:
			if len(uploads) == 0 {
				continue
			}
			u := uploads[0]
			uploads = uploads[1:]
			upload, err := w.state().Upload(u.id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.state().Stat(w.path(upload.Path)); err == nil || random.IntN(3) == 0 {
				w.apply(&fsm.AbortUpload{Upload: u.id})
			} else {
				w.commit(u.id, u.ids[:1+random.IntN(len(u.ids))])
			}
			w.report(num, u.ids, nil) // also what was given up or left out
			unreported[3-num] = append(unreported[3-num], u.ids...)
		case 3:
			if len(uploads) > 0 {
				w.report(num, uploads[0].ids, nil)
			}
		case 4:
			w.restart(num)
		case 5:
			w.report(num, unreported[num], nil)
			unreported[num] = nil
		case 6, 7:
			ledger.Settle(now, w.state())
			ledger.Add(Plan(w.state(), max(w.index, 20)-uint64(random.IntN(20)), ledger, Limits{Look: 10, PerNode: 4}, cursor), now)
			if ids := ledger.Take(w.state(), num, 3); len(ids) > 0 {
				late = append(late, Order{num, ids})
			}
		case 8:
			if len(late) == 0 {
				continue
			}
			at := random.IntN(len(late))
			o := late[at]
			late = slices.Delete(late, at, at+1)
			w.report(o.Node, nil, o.Chunks)
			deleted += len(o.Chunks)
			w.checkFiles()
		}
		if t.Failed() {
			return
		}
	}
	if deleted < 20 {
		t.Errorf("only %d replicas were deleted", deleted)
	}
	for _, u := range uploads {
		w.apply(&fsm.AbortUpload{Upload: u.id})
	}
	for num, ids := range unreported {
		w.report(num, ids, nil)
	}
	for round := 0; ; round++ {
		garbage, orphans := w.state().Reclaimable()
		if garbage+orphans == 0 {
			return
		}
		if round == 1000 {
			t.Fatalf("%d chunks and %d orphans are never deleted", garbage, orphans)
		}
		now = now.Add(time.Minute)
		ledger.Settle(now, w.state())
		ledger.Add(Plan(w.state(), w.index, ledger, Limits{Look: 10, PerNode: 4}, cursor), now)
		for num := range w.disks {
			w.report(num, nil, ledger.Take(w.state(), num, 3))
		}
		w.checkFiles()
	}
}

// checkFiles makes sure that every file has the replicas that it was committed
// with, on the disks as well as in the state: only orders take any away.
func (w *world) checkFiles() {
	w.t.Helper()
	w.state().Walk(func(f *fsm.File) bool {
		for _, c := range f.Contents {
			if len(c.Replicas) != 2 {
				w.t.Fatalf("%s: chunk %s is on %v", f.Path, c.ID, c.Replicas)
			}
			for _, num := range c.Replicas {
				if w.state().Reported(num, c.ID) && !w.disks[num].chunks[c.ID] {
					w.t.Fatalf("%s: chunk %s was deleted on %d", f.Path, c.ID, num)
				}
			}
		}
		return true
	})
}
