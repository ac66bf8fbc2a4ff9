package wal

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// recorded is bolt with a memory of what its file was before the last transaction.
type recorded struct {
	*raftboltdb.BoltStore
	t       *testing.T
	path    string
	before  []byte
	changed func() // after each transaction
}

func (r *recorded) StoreLogs(entries []*raft.Log) error {
	return r.change(func() error { return r.BoltStore.StoreLogs(entries) })
}

func (r *recorded) DeleteRange(first, last uint64) error {
	return r.change(func() error { return r.BoltStore.DeleteRange(first, last) })
}

func (r *recorded) change(f func() error) error {
	r.before = r.image()
	if err := f(); err != nil {
		return err
	}
	r.changed()
	return nil
}

func (r *recorded) image() []byte {
	r.t.Helper()
	image, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	return image
}

// torn returns the file as a power failure in the middle of the last transaction may
// leave it: bolt writes and fsyncs all pages before it touches one of the first two,
// which say where the others are.
func (r *recorded) torn(rng *rand.Rand, share int) []byte {
	image := r.image()
	if share > 4 {
		return image // the very end of it
	}
	metas := 2 * os.Getpagesize()
	for at := 0; at < len(r.before); at += sector {
		if at < metas || rng.IntN(4) >= share {
			copy(image[at:at+sector], r.before[at:])
		}
	}
	return image
}

// TestPowerFailureInBolt lets the power fail in the middle of each transaction of
// bolt, by the carrier or when entries are deleted.
func TestPowerFailureInBolt(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	p := newPlatter(testSize)
	base := &recorded{t: t, path: filepath.Join(t.TempDir(), "bolt")}
	var err error
	if base.BoltStore, err = raftboltdb.New(raftboltdb.Options{Path: base.path}); err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	want := make(model) // acknowledged
	next := step{store: []*raft.Log{}}
	transactions := 0
	base.changed = func() {
		transactions++
		for _, share := range []int{0, 2, 4, 5} {
			was := &platter{durable: slices.Clone(p.durable), now: slices.Clone(p.durable)}
			startTorn(t, base.torn(rng, share), was, want, next)
		}
	}
	l := p.log(t, base)
	for i := range 60 {
		next = anyStep(rng, want, uint64(i))
		if err := next.do(l); err != nil {
			t.Fatal(err)
		}
		want = next.in(want)
		next = step{store: []*raft.Log{}} // nothing is under way
		if i%3 == 0 {
			if err := l.turn(); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d transactions", transactions)
}

// startTorn starts from what a power failure has left.
func startTorn(t *testing.T, file []byte, p *platter, want model, underway step) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bolt")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := open("", testID, bolt, unguarded, p.quiet())
	if err != nil {
		t.Errorf("it does not start: %v", errors.Join(err, bolt.Close()))
		return
	}
	if d := want.differs(l); d != "" && underway.in(want).differs(l) != "" {
		t.Errorf("after the power failure: %s", d)
	}
	if err := errors.Join(l.Stop(), bolt.Close(), os.Remove(path)); err != nil {
		t.Error(err)
	}
}
