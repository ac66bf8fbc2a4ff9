package cluster

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/dfs-go/dfs-go/cluster/wal"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const journalName = "raft.journal"

// journalKey is the key in raft.db that says which journal belongs to it. It is
// there before the journal gets its first entry.
var journalKey = []byte("dfs-journal")

// openJournal opens the journal in front of bolt, and makes it when raft.db has
// none yet, because it is new or of an earlier version.
func openJournal(path string, bolt *raftboltdb.BoltStore, guard wal.Guard) (*wal.Log, error) {
	var log *wal.Log
	err := func() (err error) {
		defer damageAsError(&err)() // entries of bolt are read
		id, err := journalID(path, bolt)
		if err == nil {
			log, err = wal.Open(path, id, bolt, guard)
		}
		return err
	}()
	if err != nil {
		return nil, openFailure(path, err)
	}
	return log, nil
}

func journalID(path string, bolt *raftboltdb.BoltStore) (wal.ID, error) {
	var id wal.ID
	known, err := bolt.Get(journalKey)
	if err == nil {
		if copy(id[:], known) < len(id) || len(known) > len(id) {
			return id, dfs.Errorf(dfs.Corrupt, "raft.db names it by %d bytes", len(known))
		}
		return id, nil
	}
	if !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return id, err
	}
	// What a crash has left here in the middle of this was never appended to.
	switch empty, err := wal.Empty(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return id, err
	case !empty:
		return id, dfs.Errorf(dfs.Corrupt, "it holds entries, but raft.db is of a time before it")
	}
	if _, err := rand.Read(id[:]); err != nil {
		return id, err
	}
	if err := wal.Create(path, id); err != nil {
		return id, err
	}
	return id, bolt.Set(journalKey, id[:])
}

// refuseJournalAlone keeps a member that has lost raft.db, with its votes and most
// of its entries, from beginning anew beside its journal.
func refuseJournalAlone(dir string) error {
	path := filepath.Join(dir, journalName)
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = dfs.Errorf(dfs.Corrupt, "the Raft log is gone: there is no %s beside it", storeName)
	}
	return openFailure(path, err)
}
