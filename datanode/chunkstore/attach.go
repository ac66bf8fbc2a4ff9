package chunkstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// attachment is what Open finds out about the directories before it changes
// anything in them.
type attachment struct {
	known  map[*volume]document // that have an identity
	blank  []*volume            // that have none: new, or a disk that is not mounted
	faults map[*volume]error    // of which it cannot be told
}

// open finds out which directories are this node's, makes the new ones ready,
// and begins a new incarnation in all that serve.
func (s *Store) open(node dfs.NodeID) error {
	found, err := s.lookAt()
	if err != nil {
		return err
	}
	identity := Identity{Format: identityFormat, Instance: dfs.RandomHex(), NodeID: node}
	var before []volumeRecord
	if len(found.known) > 0 {
		if identity, before, err = s.agree(node, found.known); err != nil {
			return err
		}
	}
	if err := s.setAside(found, before); err != nil {
		return err
	}
	identity.Incarnation++
	return s.begin(identity, found)
}

// lookAt locks and reads what has an identity. A directory without one is not
// touched: a lock file in an unmounted directory would be litter.
func (s *Store) lookAt() (attachment, error) {
	found := attachment{known: make(map[*volume]document), faults: make(map[*volume]error)}
	for _, v := range s.volumes {
		var doc document
		err := v.within(loadTimeout, "look at the directory", func() (err error) {
			doc, err = v.lookAt()
			return err
		})
		err = named(v, err)
		switch {
		case err == nil:
			found.known[v] = doc
		case errors.Is(err, fs.ErrNotExist):
			found.blank = append(found.blank, v)
		case dfs.CodeOf(err) == dfs.Conflict, isShortage(err), len(s.volumes) == 1:
			return found, err
		default:
			found.faults[v] = err
		}
	}
	return found, nil
}

// named says of which directory a disk does not answer.
func named(v *volume, err error) error {
	if errors.As(err, new(*noAnswer)) {
		return dfs.Errorf(dfs.Internal, "the data directory %s cannot be used: %w; repair or exchange the disk, and start this DataNode again", v.dir, err)
	}
	return err
}

func (v *volume) lookAt() (document, error) {
	if _, err := os.Stat(v.identityPath()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return document{}, err
		}
		return document{}, unreadable(v.dir, err)
	}
	if err := v.takeLock(); err != nil {
		return document{}, err
	}
	return readIdentity(v.identityPath())
}

// agree makes sure that all directories are of this node, and of one life of
// it. It returns what they say together, and which volumes there were at the
// last start.
func (s *Store) agree(node dfs.NodeID, known map[*volume]document) (Identity, []volumeRecord, error) {
	var identity Identity
	var records []volumeRecord
	ids := make(map[string]*volume)
	var first *volume
	for _, v := range s.volumes {
		doc, ok := known[v]
		if !ok {
			continue
		}
		if doc.NodeID != node {
			return identity, nil, dfs.Errorf(dfs.Conflict, "the data directory %s belongs to %s, not to %s; start this DataNode with its own directory, or with -id=%s",
				v.dir, doc.NodeID, node, doc.NodeID)
		}
		if twin := ids[doc.Volume]; twin != nil {
			return identity, nil, dfs.Errorf(dfs.Conflict, "the data directories %s and %s are copies of one; leave one of them out", twin.dir, v.dir)
		}
		ids[doc.Volume] = v
		if first == nil {
			first, identity, records = v, doc.Identity, doc.Volumes
			v.id = doc.Volume
			continue
		}
		if doc.Instance != identity.Instance {
			return identity, nil, dfs.Errorf(dfs.Conflict, "the data directories %s and %s were not made for the same DataNode, though both were for one called %s; leave one of them out", first.dir, v.dir, node)
		}
		if doc.ClusterID != "" && identity.ClusterID != "" && doc.ClusterID != identity.ClusterID {
			return identity, nil, dfs.Errorf(dfs.Conflict, "the data directory %s belongs to cluster %s, %s to cluster %s; leave one of them out", first.dir, identity.ClusterID, v.dir, doc.ClusterID)
		}
		if doc.Incarnation > identity.Incarnation {
			records = doc.Volumes
		}
		identity.ClusterID = max(identity.ClusterID, doc.ClusterID) // one of them may be empty
		identity.Incarnation = max(identity.Incarnation, doc.Incarnation)
		identity.Term = max(identity.Term, doc.Term)
		v.id = doc.Volume
	}
	return identity, records, nil
}

// setAside leaves out of service what was this node's and is not there, so
// that no new directory is made where a disk should be mounted. What remains in
// found.blank is new.
func (s *Store) setAside(found attachment, before []volumeRecord) error {
	unseen := make(map[string]string) // IDs by directory
	for _, record := range before {
		here := func(v *volume) bool { _, ok := found.known[v]; return ok && v.id == record.ID }
		if !slices.ContainsFunc(s.volumes, here) {
			unseen[record.Dir] = record.ID
		}
	}
	for _, v := range s.volumes {
		if _, ok := found.known[v]; ok {
			continue
		}
		path, err := filepath.Abs(v.dir)
		if err != nil {
			return unreadable(v.dir, err)
		}
		fault, id := found.faults[v], unseen[path]
		delete(unseen, path)
		switch {
		case id == "" && fault != nil:
			return fault
		case id == "":
			continue // it is new
		case fault == nil:
			fault = dfs.Errorf(dfs.Internal, "the data directory %s has lost its %s: the disk may not be mounted; mount it and start this DataNode again, or start it once without this directory to give it up", v.dir, identityFile)
		}
		v.id = id
		v.leave(fault)
		v.log.Error("a data directory is out of service", "error", fault)
	}
	for dir, id := range unseen {
		s.log.Warn("a data directory of the last start is not configured any more; its chunks are not held", "dir", dir, "volume", id)
	}
	return nil
}

// begin makes the directories ready and writes the identity, to new ones
// first: were another to list one that has none, it would be taken for a disk
// that is not mounted.
func (s *Store) begin(identity Identity, found attachment) error {
	var failure error
	var fresh, old []*volume
	for _, v := range s.volumes {
		if !v.serves() {
			failure = v.writable()
			continue
		}
		_, known := found.known[v]
		err := v.within(loadTimeout, "make the directory ready", func() error { return v.prepare(!known) })
		err = named(v, err)
		if err == nil && v.id == "" {
			v.id = dfs.RandomHex()
		}
		if err != nil {
			if !known || len(s.volumes) == 1 || isShortage(err) {
				return err
			}
			failure = err
			v.leave(err)
			v.log.Error("a data directory is out of service", "error", err)
			continue
		}
		if known {
			old = append(old, v)
		} else {
			fresh = append(fresh, v)
		}
	}
	if err := s.record(identity.Incarnation); err != nil {
		return err
	}
	if len(fresh) > 1 {
		if err := s.introduce(identity, fresh); err != nil {
			return err
		}
	}
	written := false
	for _, v := range append(fresh, old...) {
		if err := v.saveIdentity(identity, s.records); err != nil {
			if _, known := found.known[v]; !known {
				return err
			}
			failure = err
			v.fail("write "+identityFile, err)
			continue
		}
		written = true
	}
	if !written {
		return failure
	}
	s.identity.Store(&identity)
	return nil
}

// introduce gives several new directories an identity, one after the other.
// None is in the list of another before it has its own.
func (s *Store) introduce(identity Identity, fresh []*volume) error {
	for i := range fresh {
		later := func(r volumeRecord) bool {
			return slices.ContainsFunc(fresh[i+1:], func(v *volume) bool { return v.id == r.ID })
		}
		known := slices.DeleteFunc(slices.Clone(s.records), later)
		if err := fresh[i].saveIdentity(identity, known); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes a directory usable that this process has, or is to have.
func (v *volume) prepare(isNew bool) error {
	if isNew {
		if err := v.makeDataDir(); err != nil {
			return unreadable(v.dir, err)
		}
		if err := v.takeLock(); err != nil {
			return err
		}
	}
	if err := v.makeDirectories(isNew); err != nil {
		return err
	}
	if isNew {
		if err := v.checkUnused(); err != nil {
			return err
		}
	}
	if err := v.emptyTemp(); err != nil {
		return err
	}
	if err := v.measure(); err != nil {
		return unreadable(v.dir, err)
	}
	return nil
}

// record lists all volumes, those out of service included, so that they are
// looked for at the next start.
func (s *Store) record(incarnation uint64) error {
	for _, v := range s.volumes {
		v.incarnation = incarnation
		path, err := filepath.Abs(v.dir)
		if err != nil {
			return unreadable(v.dir, err)
		}
		if v.id != "" {
			s.records = append(s.records, volumeRecord{ID: v.id, Dir: path})
		}
	}
	return nil
}
