package cluster

import (
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// stateMachine stands between raft and Config.FSM. It learns the index of each
// committed configuration, which raft does not tell its users otherwise, and
// tells the log when a snapshot has taken its place.
type stateMachine struct {
	inner  raft.FSM
	log    *rebasedLog
	report func(error)

	configIndex atomic.Uint64 // of the last configuration committed
}

// Apply is part of raft.FSM; raft calls ApplyBatch instead.
func (m *stateMachine) Apply(entry *raft.Log) any {
	return m.ApplyBatch([]*raft.Log{entry})[0]
}

// ApplyBatch is part of raft.BatchingFSM. Only commands are passed on.
func (m *stateMachine) ApplyBatch(entries []*raft.Log) []any {
	answers := make([]any, len(entries))
	commands := make([]*raft.Log, 0, len(entries))
	places := make([]int, 0, len(entries))
	for i, entry := range entries {
		switch entry.Type {
		case raft.LogConfiguration:
			m.configIndex.Store(entry.Index)
		case raft.LogCommand:
			commands, places = append(commands, entry), append(places, i)
		}
	}
	for i, answer := range m.applyCommands(commands) {
		answers[places[i]] = answer
	}
	return answers
}

func (m *stateMachine) applyCommands(commands []*raft.Log) []any {
	if batching, ok := m.inner.(raft.BatchingFSM); ok && len(commands) > 0 {
		return batching.ApplyBatch(commands)
	}
	answers := make([]any, len(commands))
	for i, command := range commands {
		answers[i] = m.inner.Apply(command)
	}
	return answers
}

// Snapshot is part of raft.FSM.
func (m *stateMachine) Snapshot() (raft.FSMSnapshot, error) { return m.inner.Snapshot() }

// Restore is part of raft.FSM. A node that could not restore what its leader
// sent must not go on: it holds neither the old nor the new state for certain.
func (m *stateMachine) Restore(r io.ReadCloser) error {
	err := m.restore(r)
	if err != nil {
		m.report(dfs.Errorf(dfs.Corrupt, "cannot restore a snapshot: %w", err))
	}
	return err
}

func (m *stateMachine) restore(r io.ReadCloser) error {
	meta, err := metaOf(r)
	if err != nil {
		return err
	}
	if err := m.inner.Restore(r); err != nil {
		return err
	}
	if err := m.log.rebase(snapshotEnd{index: meta.Index, term: meta.Term}); err != nil {
		return err
	}
	m.configIndex.Store(meta.ConfigurationIndex)
	return nil
}

// snapshotStore hands out snapshots that know where they end.
type snapshotStore struct {
	raft.SnapshotStore
}

// Open is part of raft.SnapshotStore.
func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, &snapshotReader{ReadCloser: r, meta: meta}, nil
}

// last returns the index that the newest snapshot covers, 0 for none.
func (s snapshotStore) last() (uint64, error) {
	metas, err := s.List()
	if err != nil || len(metas) == 0 {
		return 0, err
	}
	return metas[0].Index, nil
}

type snapshotReader struct {
	io.ReadCloser
	meta *raft.SnapshotMeta
}

// metaOf unwraps what raft passes to Restore.
func metaOf(r io.ReadCloser) (*raft.SnapshotMeta, error) {
	for {
		switch v := r.(type) {
		case *snapshotReader:
			return v.meta, nil
		case raft.ReadCloserWrapper:
			r = v.WrappedReadCloser()
		default:
			return nil, dfs.Errorf(dfs.Internal, "a snapshot that says nothing of where it ends")
		}
	}
}
