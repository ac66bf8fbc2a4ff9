package namenode

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/carrier"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// NameNode is one NameNode of a group.
type NameNode struct {
	config    Config
	logger    hclog.Logger
	machine   *fsm.Machine
	metrics   *metrics
	slots     chan struct{} // one for each call of a client being served
	nodeSlots chan struct{} // one for each call of a node
	proposals *batcher[[]byte, fsm.Outcome]
	questions questions
	commits   commitLocks
	surveys   chan struct{} // one for the caller of fsck being served

	recollection recollection

	meta      *metaDir
	group     *cluster.Group
	opened    chan struct{} // closed when group can be used
	url       string
	server    *http.Server
	dataNodes http.RoundTripper // for asking DataNodes what they hold
	hangUp    func()            // closes idle connections to them

	lead atomic.Pointer[leadership] // nil while another NameNode leads

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	background sync.WaitGroup
	workers    workers // of proposals and questions

	failOnce sync.Once
	failed   chan struct{}
	failure  error // set before failed is closed
}

// New checks the configuration; nothing is opened or started yet.
func New(config Config) (*NameNode, error) {
	config.setDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	n := &NameNode{
		config:    config,
		logger:    config.Logger.Named("namenode"),
		slots:     make(chan struct{}, maxCalls),
		nodeSlots: make(chan struct{}, maxNodeCalls),
		opened:    make(chan struct{}),
		failed:    make(chan struct{}),
		surveys:   make(chan struct{}, 1),
	}
	transport := carrier.New(carrier.Config{
		DialTimeout: time.Second,
		IdleTimeout: 30 * time.Second, // less than the DataNodes' 60 s, so that they never hang up first
		IdlePerHost: 32,
	})
	n.dataNodes, n.hangUp = transport, transport.CloseIdleConnections
	n.machine = fsm.New(n.fatal)
	n.metrics = newMetrics(n)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.proposals = n.newProposals()
	n.questions.start, n.questions.ask = n.workers.start, n.statChunks
	return n, nil
}

// Open takes the meta-dir and the ports, starts Raft, and then serves. It
// returns when the server answers; there may be no leader yet. On an error
// nothing is left open.
func (n *NameNode) Open(ctx context.Context) (err error) {
	var cleanup []func() error
	defer func() {
		if err == nil {
			return
		}
		n.cancel()
		for i := len(cleanup) - 1; i >= 0; i-- {
			err = errors.Join(err, cleanup[i]())
		}
	}()
	if n.meta, err = openMetaDir(n.config.MetaDir, n.config.ID); err != nil {
		return err
	}
	cleanup = append(cleanup, n.meta.close)
	listener, err := n.listen()
	if err != nil {
		return err
	}
	cleanup = append(cleanup, listener.Close)
	n.url = n.config.advertised(listener.Addr())
	if n.group, err = n.openGroup(ctx); err != nil {
		return err
	}
	close(n.opened)
	n.serveHTTP(listener)
	n.background.Go(n.watchMembership)
	n.background.Go(n.recollect)
	n.logger.Info("NameNode started", "id", n.config.ID, "url", n.url, "raft", n.group.RaftAddr(), "meta_dir", n.config.MetaDir)
	return nil
}

func (n *NameNode) listen() (net.Listener, error) {
	if n.config.Listener != nil {
		return n.config.Listener, nil
	}
	listener, err := net.Listen("tcp", n.config.Addr)
	if err != nil {
		return nil, dfs.Errorf(dfs.Conflict, "the HTTP port cannot be opened: %w; choose another -addr or stop what uses it", err)
	}
	return listener, nil
}

func (n *NameNode) openGroup(ctx context.Context) (*cluster.Group, error) {
	return cluster.Open(ctx, cluster.Config{
		ID:                n.config.ID,
		Instance:          n.meta.current().Instance,
		Dir:               filepath.Join(n.config.MetaDir, "raft"),
		RaftAddr:          n.config.RaftAddr,
		Advertise:         n.config.RaftAdvertise,
		Listener:          n.config.RaftListener,
		Peers:             n.config.Peers,
		Join:              n.config.Join != "",
		FSM:               &stateMachine{machine: n.machine, dir: n.config.MetaDir, onState: n.learnCluster},
		ClusterID:         n.clusterID,
		Admit:             n.askForAdmission,
		Lead:              n.leadGroup,
		Timing:            n.config.Timing,
		SnapshotThreshold: n.config.SnapshotThreshold,
		SnapshotInterval:  n.config.SnapshotInterval,
		TrailingLogs:      n.config.TrailingLogs,
		DiskTimeout:       n.config.DiskTimeout,
		Fatal:             n.fatal,
		Logger:            n.config.Logger,
	})
}

// learnCluster is called by the state machine when it first sees the ID.
func (n *NameNode) learnCluster(id dfs.ClusterID) {
	if err := n.meta.setClusterID(id); err != nil {
		n.fatal(err)
	}
}

func (n *NameNode) serveHTTP(listener net.Listener) {
	n.server = &http.Server{
		Handler:           n.routes(),
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return n.ctx },
		ErrorLog:          n.logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	n.background.Go(func() {
		if err := n.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			n.fatal(dfs.Errorf(dfs.Internal, "the HTTP server ended: %w", err))
		}
	})
}

// URL returns the base URL that others reach this NameNode by.
func (n *NameNode) URL() string { return n.url }

// RaftAddr returns the address that peers reach this NameNode by.
func (n *NameNode) RaftAddr() string { return n.group.RaftAddr() }

// MetaDir returns the directory that holds everything this NameNode knows.
func (n *NameNode) MetaDir() string { return n.config.MetaDir }

// ID returns the NameNode's ID.
func (n *NameNode) ID() dfs.NodeID { return n.config.ID }

// fatal takes note of the first reason why the process must end.
func (n *NameNode) fatal(err error) {
	n.failOnce.Do(func() {
		n.failure = err
		close(n.failed)
	})
}

// Failed is closed when something happened after which the process must end.
func (n *NameNode) Failed() <-chan struct{} { return n.failed }

// Wait returns when the NameNode cannot go on, with the reason; nil after Close.
func (n *NameNode) Wait() error {
	select {
	case <-n.failed:
		return n.failure
	case <-n.ctx.Done():
		return nil
	}
}

// Close hands leadership over, ends Raft, then the server, and lets go of the
// meta-dir. Calls under way are answered or sent to the new leader; ctx bounds
// how long that may take.
func (n *NameNode) Close(ctx context.Context) error {
	err := n.group.Close(ctx)
	if shutdown := n.server.Shutdown(ctx); shutdown != nil {
		err = errors.Join(err, n.server.Close())
	}
	n.cancel()
	n.workers.close()
	n.background.Wait()
	n.hangUp()
	return errors.Join(err, n.meta.close())
}

// leader returns who leads, as far as this NameNode knows.
func (n *NameNode) leader() (protocol.Target, bool) {
	id, _, ok := n.group.Leader()
	if !ok {
		return protocol.Target{}, false
	}
	return protocol.Target{ID: id, URL: n.urlOf(id)}, true
}

// urlOf returns a member's base URL: as announced, or as given at the start.
func (n *NameNode) urlOf(id dfs.NodeID) (url string) {
	if id == n.config.ID {
		return n.url
	}
	n.machine.Read(func(s *fsm.State) {
		if m, ok := s.Member(id); ok && !m.Removed {
			url = m.URL
		}
	})
	for _, peer := range n.config.Peers {
		if url == "" && peer.ID == id {
			url = peer.URL
		}
	}
	return url
}
