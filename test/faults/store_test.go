//go:build linux

package faults

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	pageSize = 4096
	advice   = "remove this NameNode from the group" // in each refusal to start
)

// damage is something that happened to the directory of a NameNode.
type damage struct {
	name    string
	do      func(t *testing.T, dir string, random *rand.Rand) // dir holds raft.db, raft.journal and snapshots/
	refused bool                                              // it must not start; otherwise it must not, or be as the others are
}

// TestDamagedStore damages what a NameNode keeps while it is down. It starts and
// has the state of the others, or it does not start and says what to do, which
// then works; the others go on all the while.
func TestDamagedStore(t *testing.T) {
	faultbed.Duration(t)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", 1)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, NameNodeFlags: []string{"-snapshot-threshold", "60", "-snapshot-interval", "1s", "-trailing-logs", "2000"},
	})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, random, "damage", 4, 0)
	work.step = (*worker).makeAndRemove
	work.start(t.Context())
	goOn := func() {
		before := l.count()
		b.WaitUntil("the others go on", func() bool { return l.count() >= before+50 })
	}
	for round := range rounds {
		for _, d := range damages() {
			follower := b.Others(b.LeaderAmong(b.NameNodes()...))[round%2]
			b.WaitUntil("there are two snapshots", func() bool { return len(snapshotsOf(t, b, follower)) >= 2 })
			b.Kill(follower)
			d.do(t, filepath.Join(b.Dir(follower), "raft"), random)
			logged := len(b.Log(follower))
			b.Start(follower)
			started := startsOrEnds(t, b, follower)
			goOn()
			if started && d.refused {
				t.Errorf("%s: %s starts all the same", d.name, follower)
			}
			if !started {
				said := strings.TrimSpace(b.Log(follower)[logged:])
				t.Logf("%s: %s", d.name, said[strings.LastIndexByte(said, '\n')+1:])
				if !strings.Contains(said, advice) {
					t.Errorf("%s: %s does not say what to do: %s", d.name, follower, said)
				}
				replaceMember(t, b, follower)
			}
			work.quit()
			sameState(t, b, c)
			if t.Failed() {
				return
			}
			work.start(t.Context())
		}
	}
	work.quit()
	l.checkRefusals(t)
	l.check(t, readBack(t, c, "/"))
}

func damages() []damage {
	flip := func(t *testing.T, path string, at func(size int) int) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[at(len(data))] ^= 0x10
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inLog := func(t *testing.T, dir string, change func(f *os.File, size int64) error) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, "raft.db"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // the change has failed or not
		info, err := f.Stat()
		if err == nil {
			err = change(f, info.Size())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	zero := func(from, to func(pages int) int) func(*testing.T, string, *rand.Rand) {
		return func(t *testing.T, dir string, random *rand.Rand) {
			inLog(t, dir, func(f *os.File, size int64) error {
				pages := int(size / pageSize)
				first, last := from(pages), to(pages)
				page := first + random.IntN(max(1, last-first))
				t.Logf("page %d of %d becomes zeros", page, pages)
				_, err := f.WriteAt(make([]byte, pageSize), int64(page)*pageSize)
				return err
			})
		}
	}
	number := func(n int) func(int) int { return func(int) int { return n } }
	return []damage{
		{"a byte of the newest snapshot", func(t *testing.T, dir string, random *rand.Rand) {
			flip(t, filepath.Join(newestIn(t, dir), "state.bin"), random.IntN)
		}, false},
		{"the log is cut off", func(t *testing.T, dir string, _ *rand.Rand) {
			used := usedOf(t, filepath.Join(dir, "raft.db")) // a kill can leave pages behind it that nobody misses
			inLog(t, dir, func(f *os.File, _ int64) error { return f.Truncate(used / 2) })
		}, true},
		{"the log is gone", remove("raft.db"), true},
		{"the log and its journal are gone", func(t *testing.T, dir string, random *rand.Rand) {
			remove("raft.db")(t, dir, random)
			remove("raft.journal")(t, dir, random)
		}, true},
		{"the log is of zeros", zeroAll("raft.db"), true},
		{"the journal is gone", remove("raft.journal"), true},
		{"the journal is of zeros", zeroAll("raft.journal"), true},
		{"the journal is cut off", func(t *testing.T, dir string, _ *rand.Rand) {
			path := filepath.Join(dir, "raft.journal")
			info, err := os.Stat(path)
			if err == nil {
				err = os.Truncate(path, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, true},
		{"a byte of the journal", func(t *testing.T, dir string, random *rand.Rand) {
			flip(t, filepath.Join(dir, "raft.journal"), func(int) int { return pageSize + random.IntN(64<<10) })
		}, false},
		{"a byte of the first record of the journal", func(t *testing.T, dir string, random *rand.Rand) {
			flip(t, filepath.Join(dir, "raft.journal"), func(int) int { return pageSize + random.IntN(64) })
		}, false},
		{"a sector of the journal is zeros", func(t *testing.T, dir string, random *rand.Rand) {
			path := filepath.Join(dir, "raft.journal")
			data, err := os.ReadFile(path)
			if err == nil {
				const sector = 512
				clear(data[pageSize+sector*random.IntN(128):][:sector])
				err = os.WriteFile(path, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, false},
		{"one of the first pages of the log is zeros", zero(number(0), number(2)), false},
		{"a page of the log is zeros", zero(number(2), func(pages int) int { return pages }), false},
	}
}

// usedOf returns how many bytes of a bbolt file its newest transaction knows of.
func usedOf(t *testing.T, path string) (size int64) {
	t.Helper()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return size
}

func zeroAll(name string) func(*testing.T, string, *rand.Rand) {
	return func(t *testing.T, dir string, _ *rand.Rand) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil {
			err = os.WriteFile(path, make([]byte, info.Size()), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string, *rand.Rand) {
	return func(t *testing.T, dir string, _ *rand.Rand) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func newestIn(t *testing.T, dir string) string {
	t.Helper()
	newest, index := "", uint64(0)
	err := filepath.WalkDir(filepath.Join(dir, "snapshots"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "meta.json" {
			if at := snapshotIndex(t, filepath.Dir(path)); at > index {
				newest, index = filepath.Dir(path), at
			}
		}
		return err
	})
	if err != nil || newest == "" {
		t.Fatalf("no snapshot in %s: %v", dir, err)
	}
	return newest
}

// startsOrEnds waits until a NameNode takes part in the group, or has ended.
func startsOrEnds(t *testing.T, b *faultbed.Bed, id string) (started bool) {
	a := newAsker(t, isolatedTimeout)
	b.WaitUntil(id+" is ready or has ended", func() bool {
		status, _ := a.ask(http.MethodGet, b.URL(id)+protocol.Ready.Pattern, "")
		started = status == http.StatusOK
		return started || !b.Running(id)
	})
	if !started {
		b.WaitEnded(id)
	}
	return started
}

// replaceMember removes a NameNode that is down, and lets it in again with an
// empty directory.
func replaceMember(t *testing.T, b *faultbed.Bed, id string) {
	t.Helper()
	rest := b.Others(id)
	c := b.ClientOf(b.URL(rest[0]), b.URL(rest[1]))
	if err := c.RemoveMember(t.Context(), b.Member(id).ID); err != nil {
		t.Fatalf("remove %s: %v", id, err)
	}
	b.StartAnew(id, rest[0])
	letIn(t, b, id, rest...)
}

// letIn lets a NameNode that waits for it into the group, and waits until it
// votes.
func letIn(t *testing.T, b *faultbed.Bed, id string, known ...string) {
	t.Helper()
	var urls []string
	for _, other := range known {
		urls = append(urls, b.URL(other))
	}
	c := b.ClientOf(urls...)
	var last error
	b.WaitUntil(id+" is let in", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		defer cancel()
		err := c.Join(ctx, b.Member(id))
		if err != nil && (last == nil || err.Error() != last.Error()) {
			t.Logf("let %s in: %v", id, err) // it may not listen yet
		}
		last = err
		return err == nil
	})
	b.WaitUntil(id+" votes", func() bool {
		role := roles(t, c)[id]
		return role == protocol.RoleVoter || role == protocol.RoleLeader
	})
}

// roles returns the members and what they are, as the group knows them.
func roles(t *testing.T, c *client.Client) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	roles := make(map[string]string)
	group, _, err := c.Members(ctx)
	if err != nil {
		return roles
	}
	for _, m := range group.Members {
		roles[string(m.ID)] = m.Role
	}
	return roles
}
