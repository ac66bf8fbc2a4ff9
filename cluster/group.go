package cluster

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	retainedSnapshots = 2
	notifyBuffer      = 16 // raft waits while it is full
)

// Group is one running member. All methods may be called concurrently.
type Group struct {
	cfg       Config
	logger    hclog.Logger
	address   string // advertised
	hadState  bool   // when it was opened
	store     *diskStore
	snapshots snapshotStore
	machine   *stateMachine
	stream    *stream
	transport *transport
	notify    chan bool
	contacts  chan dfs.ClusterID            // see form.go
	ready     atomic.Bool                   // takes part in raft
	learned   atomic.Pointer[dfs.ClusterID] // from peers, before the state machine knows it
	raft      *raft.Raft
	running   atomic.Pointer[raft.Raft] // raft, for those who may ask before it is set

	reign   atomic.Pointer[reign] // nil while not leading
	reads   readRounds
	changes chan struct{} // one token: changes of the membership come one by one

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup // the group's own goroutines

	fatalOnce sync.Once
	lost      chan struct{} // closed by fatal
	stopOnce  sync.Once
	stopped   raft.Future
	opened    atomic.Bool
	openFault atomic.Pointer[error] // what broke while opening

	mu        sync.Mutex
	closed    bool
	inflight  sync.WaitGroup // operations handed to raft
	closeOnce sync.Once
	closeErr  error
}

// Open starts a member of the group. It does not wait for peers: a member that
// still has to find them or to be admitted does so on its own. ctx only bounds
// Open itself.
func Open(ctx context.Context, cfg Config) (*Group, error) {
	cfg, err := cfg.prepared()
	if err != nil {
		return nil, err
	}
	g := &Group{
		cfg:      cfg,
		logger:   cfg.Logger,
		notify:   make(chan bool, notifyBuffer),
		contacts: make(chan dfs.ClusterID, 1),
		changes:  make(chan struct{}, 1),
		lost:     make(chan struct{}),
	}
	g.reads.check, g.reads.spawn = g.confirmLeadership, g.spawn
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.open(ctx); err != nil {
		g.cancel()
		return nil, err
	}
	return g, nil
}

func (g *Group) open(ctx context.Context) error {
	listener, err := g.listen(ctx)
	if err != nil {
		return err
	}
	if g.address, err = g.cfg.advertised(listener.Addr()); err != nil {
		listener.Close()
		return err
	}
	if g.store, err = openStore(g.cfg.Dir, g.cfg.DiskTimeout, g.fatal); err != nil {
		listener.Close()
		return err
	}
	if g.cfg.freeBytes != nil {
		g.store.room.free = g.cfg.freeBytes
	}
	g.stream = newStream(listener, g.address, g.logger)
	g.stream.self, g.stream.expect, g.stream.contact = g.identity, g.expectedAt, g.noteContact
	g.transport = newTransport(g.stream, quiet(g.logger.Named("transport")))
	if err := g.openRaft(); err != nil {
		g.transport.Close()
		g.stream.wait()
		g.store.close()
		return err
	}
	g.start()
	return nil
}

func (g *Group) listen(ctx context.Context) (net.Listener, error) {
	if g.cfg.Listener != nil {
		return g.cfg.Listener, nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", g.cfg.RaftAddr)
	if err != nil {
		return nil, dfs.Errorf(dfs.Unavailable, "cannot listen for other NameNodes on %q: %w", g.cfg.RaftAddr, err)
	}
	return listener, nil
}

// openRaft restores the newest good snapshot and reads the log behind it. All
// damage that stands in the way comes back as an error.
func (g *Group) openRaft() (err error) {
	defer damageAsError(&err)()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(g.cfg.Dir, retainedSnapshots, quiet(g.logger.Named("snapshots")))
	if err != nil {
		return dfs.Errorf(dfs.Internal, "cannot use %s: %w", filepath.Join(g.cfg.Dir, "snapshots"), err)
	}
	g.snapshots = snapshotStore{snapshots}
	cache, err := raft.NewLogCache(logCacheSize, g.store)
	if err != nil {
		return err
	}
	log := &rebasedLog{LogStore: cache}
	if err := log.rebaseAtStart(g.snapshots); err != nil {
		return err
	}
	g.machine = &stateMachine{inner: g.cfg.FSM, log: log, report: g.fatal}
	if g.hadState, err = hasState(log, g.store, g.snapshots); err != nil {
		return err
	}
	if err := checkMemory(g.store, g.snapshots); err != nil {
		return dfs.Errorf(dfs.Corrupt, "cannot continue from %s: %w: %s", g.cfg.Dir, err, rejoinAdvice)
	}
	g.store.leads = func() bool {
		r := g.running.Load()
		return r != nil && r.State() == raft.Leader
	}
	r, err := newRaft(g.cfg.raftConfig(g.notify), g.machine, log, g.store, g.snapshots, g.transport)
	if err == nil && g.store.broken.Load() {
		err = dfs.Errorf(dfs.Internal, "the Raft log failed while it was read")
		r.Shutdown()
	}
	if err != nil {
		if fault := g.openFault.Load(); fault != nil {
			err = *fault
		}
		return dfs.Errorf(dfs.Corrupt, "cannot continue from the Raft log in %s: %w", g.cfg.Dir, err)
	}
	g.raft = r
	g.running.Store(r)
	return nil
}

// newRaft is raft.NewRaft with its panics, on a log that does not fit the
// snapshot, turned into errors.
func newRaft(c *raft.Config, machine raft.FSM, log raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = dfs.Errorf(dfs.Corrupt, "log and snapshots do not fit together (%v): %s", p, rejoinAdvice)
		}
	}()
	return raft.NewRaft(c, machine, log, stable, snapshots, t)
}

// hasState tells whether a directory was ever used. It undoes a bootstrap that
// a crash has cut in half: term 1 without any entry comes from nothing else,
// because the first election is for term 2.
func hasState(log raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore) (bool, error) {
	has, err := raft.HasExistingState(log, stable, snapshots)
	if err != nil || !has {
		return has, err
	}
	last, err := log.LastIndex()
	if err != nil || last > 0 {
		return true, err
	}
	metas, err := snapshots.List()
	if err != nil || len(metas) > 0 {
		return true, err
	}
	key := []byte("CurrentTerm") // as raft calls it
	if term, err := stable.GetUint64(key); err != nil || term > 1 {
		return true, err
	}
	return false, stable.SetUint64(key, 0)
}

// checkMemory refuses snapshots without the log that they were made of. Raft
// would go on from there, as a member that has forgotten its votes and what it
// acknowledged since.
func checkMemory(stable raft.StableStore, snapshots raft.SnapshotStore) error {
	metas, err := snapshots.List()
	if err != nil || len(metas) == 0 {
		return err
	}
	term, err := stable.GetUint64([]byte("CurrentTerm"))
	switch {
	case err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound):
		return err
	case term < metas[0].Term:
		return dfs.Errorf(dfs.Corrupt, "there is a snapshot of term %d, but the Raft log is gone or too old (term %d)", metas[0].Term, term)
	}
	return nil
}

// start begins the work in the background.
func (g *Group) start() {
	g.opened.Store(true)
	if fault := g.openFault.Load(); fault != nil && g.store.broken.Load() { // since Open looked
		g.tasks.Go(func() { g.fatal(*fault) })
	}
	ended := make(chan raft.Observation, 1)
	g.raft.RegisterObserver(raft.NewObserver(ended, false, func(o *raft.Observation) bool {
		return o.Data == raft.Shutdown
	}))
	g.tasks.Go(func() { g.watchRaft(ended) })
	g.tasks.Go(g.watchLeadership)
	g.tasks.Go(g.watchRoom)
	g.stream.serve()
	g.tasks.Go(func() {
		if err := g.form(g.ctx); err != nil && g.ctx.Err() == nil {
			g.fatal(err)
		}
	})
}

// watchRaft notices that raft has stopped by itself: it does so when this node
// was removed while it led.
func (g *Group) watchRaft(ended <-chan raft.Observation) {
	select {
	case <-ended:
		if g.ctx.Err() == nil {
			g.fatal(dfs.Errorf(dfs.Unavailable, "raft has stopped: this NameNode was removed from the group"))
		}
	case <-g.ctx.Done():
	}
}

// fatal takes this node out of the group, so that the others notice at once,
// and reports why it cannot go on. Only the first call does anything.
func (g *Group) fatal(err error) {
	if !g.opened.Load() {
		g.openFault.CompareAndSwap(nil, &err) // Open decides whether it matters
		if !g.opened.Load() {
			return
		}
	}
	g.fatalOnce.Do(func() {
		g.store.broken.Store(true)
		close(g.lost)
		_ = g.transport.Close() // always nil
		g.stopRaft()
		g.cfg.Fatal(err)
	})
}

func (g *Group) isLost() bool {
	select {
	case <-g.lost:
		return true
	default:
		return false
	}
}

// stopRaft tells raft to stop and returns what to wait for. Raft itself only
// waits for those who come first.
func (g *Group) stopRaft() raft.Future {
	g.stopOnce.Do(func() { g.stopped = g.raft.Shutdown() })
	return g.stopped
}

// identity is what this node says of itself in a handshake.
func (g *Group) identity() identity {
	me := identity{PeerInfo: PeerInfo{
		ID: g.cfg.ID, Instance: g.cfg.Instance, ClusterID: g.cfg.ClusterID(),
		HasState: g.hadState, Full: g.store.room.full.Load(), peersDigest: peersDigest(g.cfg.Peers),
	}}
	if id := g.learned.Load(); id != nil && me.ClusterID == "" {
		// Or another empty peer could take this one for part of a new group.
		me.ClusterID = *id
	}
	if r := g.running.Load(); r != nil {
		me.Term, me.LastIndex, me.AppliedIndex = r.CurrentTerm(), r.LastIndex(), r.AppliedIndex()
		me.HasState = g.HasState()
		me.ready = g.ready.Load()
	}
	return me
}

// expectedAt tells which member the configuration has at addr.
func (g *Group) expectedAt(addr string) dfs.NodeID {
	r := g.running.Load()
	if r == nil {
		return ""
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if string(s.Address) == addr {
			return dfs.NodeID(s.ID)
		}
	}
	return ""
}

// RaftAddr returns the host:port that peers dial.
func (g *Group) RaftAddr() string { return g.address }

// HasState tells whether this node has ever been a member of a group from this
// directory.
func (g *Group) HasState() bool {
	return g.hadState || g.raft.LastIndex() > 0 || g.raft.CurrentTerm() > 0
}

// Term returns the current term of this node; it only grows.
func (g *Group) Term() uint64 { return g.raft.CurrentTerm() }

// AppliedIndex returns the index of the last entry that was handed to the state
// machine, which may still be working on it.
func (g *Group) AppliedIndex() uint64 { return g.raft.AppliedIndex() }

// CommitIndex returns the index of the last entry this node knows to be
// committed.
func (g *Group) CommitIndex() uint64 { return g.raft.CommitIndex() }

// Leader returns the leader this node knows of; ok is false when it knows none.
func (g *Group) Leader() (id dfs.NodeID, raftAddr string, ok bool) {
	addr, server := g.raft.LeaderWithID()
	return dfs.NodeID(server), string(addr), server != ""
}

// LastContact returns when this node last heard from the leader: now, when it
// leads itself, and the zero time when it never did.
func (g *Group) LastContact() time.Time {
	if g.raft.State() == raft.Leader {
		return time.Now()
	}
	return g.raft.LastContact()
}

// Snapshot makes a snapshot now and returns the index that the newest one
// covers. That nothing has happened since the last one is no error.
func (g *Group) Snapshot(ctx context.Context) (uint64, error) {
	err := g.await(ctx, func() raft.Future { return g.raft.Snapshot() })
	switch {
	case err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot):
	case ctx.Err() != nil:
		return 0, dfs.Errorf(dfs.Timeout, "the snapshot is not finished yet: %w", err)
	default:
		return 0, dfs.Errorf(dfs.Unavailable, "cannot make a snapshot: %w", err)
	}
	index, err := g.snapshots.last()
	if err != nil {
		return 0, dfs.Errorf(dfs.Internal, "cannot list the snapshots: %w", err)
	}
	return index, nil
}
