package chunkstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	identityFile    = "identity.json"
	identityFormat  = 1
	maxIdentitySize = 64 << 10 // bytes
)

// Identity says whose directory it is. It lives and dies with the directory,
// so that a copied, emptied or exchanged disk is noticed.
type Identity struct {
	Format      int           `json:"format"`      // 1
	Instance    string        `json:"instance"`    // random, 32 hexadecimal digits
	NodeID      dfs.NodeID    `json:"node_id"`     // the DataNode that the directory belongs to
	ClusterID   dfs.ClusterID `json:"cluster_id"`  // "" until the first NameNode answered
	Incarnation uint64        `json:"incarnation"` // how often the directory was opened
	Term        uint64        `json:"term"`        // the highest under which a NameNode was believed
}

// Identity returns the identity, with the incarnation that this Open began.
func (s *Store) Identity() Identity {
	s.identityMu.Lock()
	defer s.identityMu.Unlock()
	return s.identity
}

// SetClusterID binds the directory to a cluster, durably, the first time. From
// then on any other cluster is refused as WrongCluster.
func (s *Store) SetClusterID(id dfs.ClusterID) error {
	s.identityMu.Lock()
	defer s.identityMu.Unlock()
	switch s.identity.ClusterID {
	case id:
		return nil
	case "":
	default:
		return dfs.Errorf(dfs.WrongCluster, "the data directory %s belongs to cluster %s, the NameNode to cluster %s; correct the NameNode addresses, or use an empty directory",
			s.dir, s.identity.ClusterID, id)
	}
	if _, err := dfs.ParseClusterID(string(id)); err != nil {
		return err
	}
	bound := s.identity
	bound.ClusterID = id
	if err := s.saveIdentity(bound); err != nil {
		return err
	}
	s.identity = bound
	return nil
}

// RaiseTerm notes, durably, that a NameNode was believed under term, so that
// orders of earlier terms are refused also after a restart. It writes only when
// the term is new. It fails with Conflict for a term that a later one has
// replaced, and with Internal when the disk fails.
func (s *Store) RaiseTerm(term uint64) error {
	s.identityMu.Lock()
	defer s.identityMu.Unlock()
	switch {
	case term == s.identity.Term:
		return nil
	case term < s.identity.Term:
		return dfs.Errorf(dfs.Conflict, "term %d is over: DataNode %s has heard from a leader of term %d", term, s.identity.NodeID, s.identity.Term)
	}
	raised := s.identity
	raised.Term = term
	if err := s.saveIdentity(raised); err != nil {
		return err
	}
	s.identity = raised
	return nil
}

func (s *Store) saveIdentity(identity Identity) error {
	content, err := json.MarshalIndent(identity, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	if err := s.disk.writeFile(filepath.Join(s.dir, identityFile), append(content, '\n')); err != nil {
		return dfs.Errorf(dfs.Internal, "%s in %s could not be written: %w", identityFile, s.dir, reason(err))
	}
	return nil
}

// claimDirectory reads or makes the identity and begins a new incarnation.
func (s *Store) claimDirectory(node dfs.NodeID) error {
	identity, err := readIdentity(filepath.Join(s.dir, identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.checkUnused(); err != nil {
			return err
		}
		identity = Identity{Format: identityFormat, Instance: dfs.RandomHex(), NodeID: node}
	case err != nil:
		return err
	case identity.NodeID != node:
		return dfs.Errorf(dfs.Conflict, "the data directory %s belongs to %s, not to %s; start this DataNode with its own directory, or with -id=%s",
			s.dir, identity.NodeID, node, identity.NodeID)
	}
	identity.Incarnation++
	if err := s.saveIdentity(identity); err != nil {
		return err
	}
	s.identity = identity
	return nil
}

// checkUnused refuses a directory that has chunks but has lost its identity:
// under a new one they would be taken for another node's.
func (s *Store) checkUnused() error {
	for shard := range shardCount {
		entries, err := os.ReadDir(s.shardDir(shard))
		if err != nil {
			return unreadable(s.dir, err)
		}
		if len(entries) > 0 {
			return dfs.Errorf(dfs.Invalid, "the data directory %s has chunks but no %s; restore that file, or use an empty directory", s.dir, identityFile)
		}
	}
	return nil
}

func readIdentity(path string) (Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Identity{}, err
		}
		return Identity{}, unreadable(filepath.Dir(path), err)
	}
	defer f.Close() // only read from
	content, err := io.ReadAll(io.LimitReader(f, maxIdentitySize))
	if err != nil {
		return Identity{}, unreadable(filepath.Dir(path), err)
	}
	identity, err := decodeIdentity(content)
	if err != nil {
		return Identity{}, dfs.Errorf(dfs.Corrupt, "%s is damaged (%w); restore it, or use an empty data directory", path, err)
	}
	return identity, nil
}

func decodeIdentity(content []byte) (Identity, error) {
	var identity Identity
	if err := json.Unmarshal(content, &identity); err != nil {
		return Identity{}, err
	}
	if identity.Format != identityFormat {
		return Identity{}, fmt.Errorf("format %d is not known", identity.Format)
	}
	if _, err := dfs.ParseNodeID(string(identity.NodeID)); err != nil {
		return Identity{}, err
	}
	if _, err := dfs.ParseClusterID(identity.Instance); err != nil { // the same form
		return Identity{}, errors.New("the instance is not 32 hexadecimal digits")
	}
	if identity.ClusterID != "" {
		if _, err := dfs.ParseClusterID(string(identity.ClusterID)); err != nil {
			return Identity{}, err
		}
	}
	return identity, nil
}

// unreadable says why a directory cannot be opened.
func unreadable(dir string, err error) error {
	if isShortage(err) {
		return dfs.Errorf(dfs.Internal, "the data directory %s cannot be opened now: %w; raise the limit of open files, or free memory, and start again", dir, reason(err))
	}
	return dfs.Errorf(dfs.Invalid, "the data directory %s cannot be used: %w; give this user the right to read and write it, or choose another with -data-dir", dir, reason(err))
}
