package namenode

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// metaFormat is raised when an older version could not read the meta-dir.
const metaFormat = 1

// identity is meta-dir/identity.json: whose directory this is.
type identity struct {
	Format    int           `json:"format"`
	NodeID    dfs.NodeID    `json:"node_id"`
	Instance  string        `json:"instance"`   // random, lives and dies with the directory
	ClusterID dfs.ClusterID `json:"cluster_id"` // "" until known
	Removed   bool          `json:"removed,omitempty"`
}

// metaDir is the directory of one NameNode, held by a lock.
type metaDir struct {
	path string
	lock *os.File

	mu       sync.Mutex
	identity identity
}

const identityFile = "identity.json"

// openMetaDir makes, locks and identifies the directory.
func openMetaDir(path string, id dfs.NodeID) (*metaDir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, dfs.Errorf(dfs.Invalid, "the meta-dir cannot be made: %w", err)
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	if err != nil {
		return nil, err
	}
	m := &metaDir{path: path, lock: lock}
	if err := m.identify(id); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return m, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, dfs.Errorf(dfs.Invalid, "the meta-dir cannot be used: %w; it must be readable and writable for this user", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(dfs.Errorf(dfs.Conflict, "another process uses the meta-dir %s; stop it or choose another -meta-dir", filepath.Dir(path)), f.Close())
	}
	return f, nil
}

func (m *metaDir) identify(id dfs.NodeID) error {
	file := filepath.Join(m.path, identityFile)
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m.update(func(i *identity) {
			*i = identity{Format: metaFormat, NodeID: id, Instance: dfs.RandomHex()}
		})
	case err != nil:
		return dfs.Errorf(dfs.Invalid, "the meta-dir cannot be read: %w", err)
	}
	if err := json.Unmarshal(data, &m.identity); err != nil || !m.identity.whole() {
		return dfs.Errorf(dfs.Corrupt, "%s is damaged; remove this NameNode from the group, empty its meta-dir and let it join again", file)
	}
	switch {
	case m.identity.Format != metaFormat:
		return dfs.Errorf(dfs.Invalid, "the meta-dir has format %d and this version knows %d; upgrade this NameNode", m.identity.Format, metaFormat)
	case m.identity.NodeID != id:
		return dfs.Errorf(dfs.Conflict, "the meta-dir %s belongs to NameNode %s, not %s; pass -id %s or another -meta-dir", m.path, m.identity.NodeID, id, m.identity.NodeID)
	case m.identity.Removed:
		return dfs.Errorf(dfs.Conflict, "NameNode %s was removed from its group; to let it join again, empty %s and start it with -join", id, m.path)
	}
	return nil
}

// whole tells whether what identifies the NameNode is as it was written.
func (i *identity) whole() bool {
	return dfs.IsRandomHex(i.Instance) && (i.ClusterID == "" || dfs.IsRandomHex(string(i.ClusterID)))
}

func (m *metaDir) current() identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.identity
}

// setClusterID takes note of the cluster's ID; a directory never changes
// clusters.
func (m *metaDir) setClusterID(id dfs.ClusterID) error {
	switch known := m.current().ClusterID; {
	case id == "" || id == known:
		return nil
	case known != "":
		return dfs.Errorf(dfs.WrongCluster, "the meta-dir %s belongs to cluster %s, but the log is of cluster %s", m.path, known, id)
	}
	return m.update(func(i *identity) { i.ClusterID = id })
}

func (m *metaDir) setRemoved() error {
	return m.update(func(i *identity) { i.Removed = true })
}

func (m *metaDir) update(change func(*identity)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.identity
	change(&changed)
	data, err := json.MarshalIndent(changed, "", "  ")
	if err != nil {
		return dfs.Errorf(dfs.Internal, "encode identity: %w", err)
	}
	if err := replaceFile(filepath.Join(m.path, identityFile), append(data, '\n')); err != nil {
		return dfs.Errorf(dfs.Invalid, "the meta-dir cannot be written: %w", err)
	}
	m.identity = changed
	return nil
}

func (m *metaDir) close() error { return m.lock.Close() }

// replaceFile puts data in the place of file so that a power cut leaves the old
// or the new content.
func replaceFile(file string, data []byte) error {
	temporary := file + ".tmp"
	f, err := os.Create(temporary)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
