package namenode

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// stateMachine gives the pure machine to Raft. Snapshots are spooled as the
// plain documents in the meta-dir: a tar needs the sizes first, and operators
// want to read them with jq.
type stateMachine struct {
	machine *fsm.Machine
	dir     string
	onState func(dfs.ClusterID) // told when the cluster's ID is first seen
	cluster dfs.ClusterID
}

var _ raft.BatchingFSM = (*stateMachine)(nil)

// Apply answers with the outcome of each command of the entry, or with an error
// when the entry as a whole was refused.
func (s *stateMachine) Apply(l *raft.Log) any {
	if l.Type != raft.LogCommand {
		return nil
	}
	outcomes, err := s.machine.ApplyGroup(l.Index, l.Data)
	s.noteCluster()
	if err != nil {
		return err
	}
	return outcomes
}

// ApplyBatch applies entries in order. Barriers and configurations are mixed in.
func (s *stateMachine) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	for i, l := range logs {
		answers[i] = s.Apply(l)
	}
	return answers
}

func (s *stateMachine) noteCluster() {
	if s.cluster != "" {
		return
	}
	s.machine.Read(func(state *fsm.State) { s.cluster = state.ClusterID() })
	if s.cluster != "" {
		s.onState(s.cluster)
	}
}

// Restore replaces the state by a snapshot's, or leaves it as it was.
func (s *stateMachine) Restore(r io.ReadCloser) error {
	state, err := fsm.ReadSnapshot(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	s.machine.Replace(state)
	s.noteCluster()
	return nil
}

// Snapshot takes an O(1) copy; Persist writes it while entries are applied. A
// machine that has halted lags behind the index that Raft would give it.
func (s *stateMachine) Snapshot() (raft.FSMSnapshot, error) {
	if err := s.machine.Halted(); err != nil {
		return nil, err
	}
	return &frozenState{state: s.machine.Freeze(), dir: s.dir}, nil
}

type frozenState struct {
	state *fsm.State
	dir   string
}

// Release has nothing to do: the copy is garbage collected.
func (f *frozenState) Release() {}

// Persist writes the snapshot to sink and, when that is safe, puts the same
// documents in the place of those in the meta-dir. When it fails, it gives back
// the room that it took: it may have failed for want of it.
func (f *frozenState) Persist(sink raft.SnapshotSink) error {
	err := f.persist(sink)
	if err != nil {
		return errors.Join(err, sink.Cancel(), f.discard())
	}
	if err = sink.Close(); err == nil {
		err = f.publish()
	}
	if err != nil {
		return errors.Join(err, f.discard())
	}
	return nil
}

func (f *frozenState) documents() []struct {
	name  string
	write func(io.Writer) error
} {
	return []struct {
		name  string
		write func(io.Writer) error
	}{
		{fsm.FilesDocument, f.state.WriteFiles},
		{fsm.NodesDocument, f.state.WriteNodes},
	}
}

func (f *frozenState) spool(name string) string { return filepath.Join(f.dir, name+".tmp") }

func (f *frozenState) persist(sink io.Writer) error {
	archive := tar.NewWriter(sink)
	for _, document := range f.documents() {
		if err := writeFile(f.spool(document.name), document.write); err != nil {
			return err
		}
		if err := addFile(archive, document.name, f.spool(document.name)); err != nil {
			return err
		}
	}
	return archive.Close()
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Sync(), file.Close())
}

func addFile(archive *tar.Writer, name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		err = archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size()})
	}
	if err == nil {
		_, err = io.Copy(archive, file)
	}
	return errors.Join(err, file.Close())
}

// discard removes what was spooled, if anything.
func (f *frozenState) discard() (err error) {
	for _, document := range f.documents() {
		if failed := os.Remove(f.spool(document.name)); !errors.Is(failed, os.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// publish makes the spooled documents the newest plain pair.
func (f *frozenState) publish() error {
	for _, document := range f.documents() {
		if err := os.Rename(f.spool(document.name), filepath.Join(f.dir, document.name)); err != nil {
			return err
		}
	}
	return syncDir(f.dir)
}
