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
	maxIdentitySize = 1 << 20 // bytes: MaxDirs of the longest paths fit
)

// Identity says whose directories they are. It lives and dies with them, so
// that a copied, emptied or exchanged disk is noticed.
type Identity struct {
	Format      int           `json:"format"`      // 1
	Instance    string        `json:"instance"`    // random, 32 hexadecimal digits
	NodeID      dfs.NodeID    `json:"node_id"`     // the DataNode that the directories belong to
	ClusterID   dfs.ClusterID `json:"cluster_id"`  // "" until the first NameNode answered
	Incarnation uint64        `json:"incarnation"` // how often the node was started
	Term        uint64        `json:"term"`        // the highest under which a NameNode was believed
}

// document is identity.json: the identity, which all directories of a node
// share, and which of them this one is.
type document struct {
	Identity
	Volume  string         `json:"volume,omitempty"`  // random, 32 hexadecimal digits; "" from an earlier version
	Volumes []volumeRecord `json:"volumes,omitempty"` // all directories of the node at its last start
}

// volumeRecord is a directory that the node has used.
type volumeRecord struct {
	ID  string `json:"id"`
	Dir string `json:"dir"` // absolute
}

// Identity returns the identity, with the incarnation that this Open began. It
// never waits for a disk.
func (s *Store) Identity() Identity { return *s.identity.Load() }

// SetClusterID binds the directories to a cluster, durably, the first time.
// From then on any other cluster is refused as WrongCluster.
func (s *Store) SetClusterID(id dfs.ClusterID) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	bound := s.Identity()
	switch bound.ClusterID {
	case id:
		return nil
	case "":
	default:
		return dfs.Errorf(dfs.WrongCluster, "the data directory %s belongs to cluster %s, the NameNode to cluster %s; correct the NameNode addresses, or use an empty directory",
			s.volumes[0].dir, bound.ClusterID, id)
	}
	if _, err := dfs.ParseClusterID(string(id)); err != nil {
		return err
	}
	bound.ClusterID = id
	return s.changeIdentity(bound)
}

// RaiseTerm notes, durably, that a NameNode was believed under term, so that
// orders of earlier terms are refused also after a restart. It writes only when
// the term is new. It fails with Conflict for a term that a later one has
// replaced, and with Internal when no disk takes it.
func (s *Store) RaiseTerm(term uint64) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	raised := s.Identity()
	switch {
	case term == raised.Term:
		return nil
	case term < raised.Term:
		return dfs.Errorf(dfs.Conflict, "term %d is over: DataNode %s has heard from a leader of term %d", term, raised.NodeID, raised.Term)
	}
	raised.Term = term
	return s.changeIdentity(raised)
}

// changeIdentity is done when one directory has it: the highest counts at the
// next start. One that does not take it gets it from a later probe.
func (s *Store) changeIdentity(next Identity) error {
	failure := dfs.Errorf(dfs.Internal, "%s cannot be written: no data directory is in service", identityFile)
	written := false
	for _, r := range s.onEach("write "+identityFile, func(v *volume) error { return v.writeIdentity(next, s.records) }) {
		if r.err != nil {
			failure = r.err
			continue
		}
		written = true
	}
	if !written {
		return failure
	}
	s.identity.Store(&next)
	return nil
}

func (v *volume) saveIdentity(identity Identity, records []volumeRecord) error {
	return named(v, v.within(loadTimeout, "write "+identityFile, func() error { return v.writeIdentity(identity, records) }))
}

func (v *volume) writeIdentity(identity Identity, records []volumeRecord) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	return v.replaceIdentity(identity, records)
}

// catchUp writes what this directory missed while its disk hung or was full:
// it may be the only one that is left at the next start.
func (s *Store) catchUp(v *volume) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	now := s.Identity()
	if v.saved.Term >= now.Term && (v.saved.ClusterID != "" || now.ClusterID == "") {
		return nil
	}
	return v.replaceIdentity(now, s.records)
}

// replaceIdentity is called with saving held.
func (v *volume) replaceIdentity(identity Identity, records []volumeRecord) error {
	content, err := json.MarshalIndent(document{identity, v.id, records}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity: %w", err)
	}
	if err := v.disk.writeFile(v.identityPath(), append(content, '\n')); err != nil {
		return dfs.Errorf(dfs.Internal, "%s in %s could not be written: %w", identityFile, v.dir, reason(err))
	}
	v.saved = identity
	return nil
}

// checkUnused refuses a directory that has chunks but has lost its identity:
// under a new one they would be taken for another node's.
func (v *volume) checkUnused() error {
	if _, err := os.Stat(v.identityPath()); !errors.Is(err, fs.ErrNotExist) {
		return dfs.Errorf(dfs.Conflict, "the data directory %s is being made ready by another process; stop that DataNode, or give this one its own directory", v.dir)
	}
	dirs := []string{v.segments.dir()}
	for shard := range shardCount {
		dirs = append(dirs, v.shardDir(shard))
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return unreadable(v.dir, err)
		}
		if len(entries) > 0 {
			return dfs.Errorf(dfs.Invalid, "the data directory %s has chunks but no %s; restore that file, or use an empty directory", v.dir, identityFile)
		}
	}
	return nil
}

func readIdentity(path string) (document, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return document{}, err
		}
		return document{}, unreadable(filepath.Dir(path), err)
	}
	defer f.Close() // only read from
	content, err := io.ReadAll(io.LimitReader(f, maxIdentitySize))
	if err != nil {
		return document{}, unreadable(filepath.Dir(path), err)
	}
	found, err := decodeIdentity(content)
	if err != nil {
		return document{}, dfs.Errorf(dfs.Corrupt, "%s is damaged (%w); restore it, or use an empty data directory", path, err)
	}
	return found, nil
}

func decodeIdentity(content []byte) (document, error) {
	var found document
	if err := json.Unmarshal(content, &found); err != nil {
		return document{}, err
	}
	if found.Format != identityFormat {
		return document{}, fmt.Errorf("format %d is not known", found.Format)
	}
	if _, err := dfs.ParseNodeID(string(found.NodeID)); err != nil {
		return document{}, err
	}
	if !dfs.IsRandomHex(found.Instance) {
		return document{}, errors.New("the instance is not 32 hexadecimal digits")
	}
	if found.ClusterID != "" {
		if _, err := dfs.ParseClusterID(string(found.ClusterID)); err != nil {
			return document{}, err
		}
	}
	if found.Volume != "" && !dfs.IsRandomHex(found.Volume) {
		return document{}, errors.New("the volume is not 32 hexadecimal digits")
	}
	if len(found.Volumes) > MaxDirs {
		return document{}, fmt.Errorf("it lists %d volumes, more than %d", len(found.Volumes), MaxDirs)
	}
	for _, record := range found.Volumes {
		if !dfs.IsRandomHex(record.ID) || !filepath.IsAbs(record.Dir) {
			return document{}, errors.New("a volume in the list makes no sense")
		}
	}
	return found, nil
}

// unreadable says why a directory cannot be opened.
func unreadable(dir string, err error) error {
	if isShortage(err) {
		return dfs.Errorf(dfs.Internal, "the data directory %s cannot be opened now: %w; raise the limit of open files, or free memory, and start again", dir, reason(err))
	}
	return dfs.Errorf(dfs.Invalid, "the data directory %s cannot be used: %w; give this user the right to read and write it, or choose another with -data-dir", dir, reason(err))
}
