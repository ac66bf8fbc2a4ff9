package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// roomReserve is the part of the disk, in bytes, that belongs to the log
	// before it needs it.
	roomReserve    = 16 << 20
	roomLeft       = 8 << 20 // bytes that must be free besides, for snapshots and whatever else
	roomInterval   = time.Second
	handoverPeriod = 30 * time.Second // from letting another member lead to doing it again
	handoverRetry  = 2 * time.Second  // after an attempt that failed
)

// room keeps blocks of the disk for the log file, beyond what it uses, so that
// a disk which others fill up is noticed while terms and votes can still be
// written. A member without room hands the leadership to another.
type room struct {
	path    string // of the log file
	reserve int64  // bytes
	take    func(path string, length int64) error
	free    func(dir string) (int64, error) // bytes

	taken atomic.Int64 // how far, in bytes from its beginning, the file has its blocks
	full  atomic.Bool
	alone atomic.Bool // full, and nobody else could be found to lead
}

// look takes what is missing, and tells whether the disk is full.
func (r *room) look() bool {
	full := r.short()
	r.full.Store(full)
	if !full {
		r.alone.Store(false)
	}
	return full
}

func (r *room) short() bool {
	info, err := os.Stat(r.path)
	if err != nil {
		return r.full.Load() // the store itself will notice
	}
	if wanted := info.Size() + r.reserve; wanted > r.taken.Load() {
		switch err := r.take(r.path, wanted); {
		case isFull(err):
			return true
		case err != nil && !errors.Is(err, errors.ErrUnsupported):
			return r.full.Load() // says nothing of the room
		}
		r.taken.Store(wanted)
	}
	free, err := r.free(filepath.Dir(r.path))
	return err == nil && free < roomLeft
}

// admit refuses new entries when the log file has grown beyond what was taken for
// it, or will when it gets the pending bytes that are still in the journal: what
// is left is for terms and votes, without which raft ends with a panic.
func (r *room) admit(pending int64) error {
	if !r.full.Load() {
		return nil
	}
	info, err := os.Stat(r.path)
	if err != nil || info.Size()+pending <= r.taken.Load() {
		return nil
	}
	return dfs.Errorf(dfs.NoSpace, "the disk is full")
}

// isFull tells whether err is of a full disk.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// notWritten tells whether err is of a write that did not take place because
// the disk is full. An fsync that fails so is not meant: what it has lost is
// unknown.
func notWritten(err error) bool {
	var path *fs.PathError
	return isFull(err) && errors.As(err, &path) && (path.Op == "write" || path.Op == "truncate")
}

// Room returns nil while this member has room for more log. Otherwise it says
// what to do: Unavailable while another member is about to take over the
// leadership, NoSpace when there is no other.
func (g *Group) Room() error {
	r := g.store.room
	switch {
	case !r.full.Load():
		return nil
	case r.alone.Load():
		return dfs.Errorf(dfs.NoSpace, "the disk of NameNode %s is full, and no other can lead: free some space on the disk of its meta-dir", g.cfg.ID)
	}
	return dfs.Errorf(dfs.Unavailable, "the disk of NameNode %s is full; another will lead in a moment", g.cfg.ID)
}

// watchRoom looks after the room until the group is closed.
func (g *Group) watchRoom() {
	var next time.Time // attempt to hand over, at the earliest
	for sleep(g.ctx, roomInterval) {
		r := g.store.room
		before := r.full.Load()
		switch now := r.look(); {
		case now && !before:
			g.logger.Error("the disk of the meta-dir is full; free some space")
		case before && !now:
			g.logger.Info("the disk of the meta-dir has room again")
			next = time.Time{} // a disk that fills up anew is another matter
		}
		if !r.full.Load() || !g.IsLeader() {
			continue
		}
		// Handed to another that is full, it would only come back.
		if !g.othersHaveRoom() {
			r.alone.Store(true)
			continue
		}
		r.alone.Store(false)
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(handoverPeriod)
		if err := g.handOver(); err != nil {
			next = time.Now().Add(handoverRetry)
			g.logger.Warn("the leadership could not be handed over for want of room; trying again", "error", err)
		}
	}
}

// handOver lets whoever is fit for it lead.
func (g *Group) handOver() error {
	if g.cfg.beforeHandOver != nil {
		if err := g.cfg.beforeHandOver(); err != nil {
			return err
		}
	}
	return g.Transfer(g.ctx, "")
}

// othersHaveRoom tells whether another voter that can be reached has room.
func (g *Group) othersHaveRoom() bool {
	for _, answer := range g.probeAll(g.ctx, g.otherVoters("")) {
		if answer.err == nil && !answer.info.Full {
			return true
		}
	}
	return false
}
