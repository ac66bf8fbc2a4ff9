package datanode

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
)

const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 64 << 10

	// closePatience is how long a disk that hangs can hold up Close.
	closePatience = 15 * time.Second
)

// DataNode is one DataNode. Open it once, close it once.
type DataNode struct {
	config Config
	log    hclog.Logger

	self    string
	store   *chunkstore.Store
	caller  *leader.Caller
	http    *http.Server
	gate    *gate
	forward *forwarder

	stopDuties context.CancelFunc
	goroutines sync.WaitGroup
	done       chan struct{} // closed when the node has stopped, by itself or by Close
	end        sync.Once
	patience   time.Duration // of Close, with what a disk that hangs holds up
	fault      error         // set before done is closed
}

// New checks the configuration. It fails with Invalid and names everything that
// is wrong with it.
func New(config Config) (*DataNode, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	log := config.Logger.Named("datanode").With("id", config.ID)
	return &DataNode{config: config, log: log, gate: newGate(), done: make(chan struct{}), patience: closePatience}, nil
}

// Open takes the address and the data directories and begins to serve and to
// report; it waits neither for a NameNode nor until the directories have been
// read. Ctx is for the opening alone. It fails with Conflict when the address or
// a directory is another's, and like chunkstore.Open. After a failure nothing is
// left behind.
func (d *DataNode) Open(ctx context.Context) (err error) {
	listener, err := listen(ctx, d.config.Addr)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, listener.Close())
		}
	}()
	d.self = d.config.Self
	if d.self == "" {
		d.self = selfURL(d.config.Addr, listener.Addr())
	}
	d.store, err = chunkstore.Open(chunkstore.Config{
		Dirs: d.config.DataDirs, NodeID: d.config.ID, Reserve: d.config.Reserve,
		TrashKeep: d.config.TrashKeep, Unpacked: d.config.Unpacked, Hook: d.config.DiskHook, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.caller, err = leader.New(leader.Config{
		Endpoints: d.config.NameNodes, Setting: "-namenode", ClusterID: d.store.Identity().ClusterID, Logger: d.log,
	})
	if err != nil {
		return errors.Join(err, d.store.Close())
	}
	d.start(listener)
	return nil
}

// start sets the parts to work. From here on only Close ends them.
func (d *DataNode) start(listener net.Listener) {
	standing := &standing{}
	metrics := newMetrics(d.store)
	nodes := newDirectory(d.caller)
	d.forward = newForwarder(nodes, d.store, d.config.Limits.ForwardTimeout)
	keeps := newKeeps()
	suspicions := newSuspicions(d.store, metrics, d.log)
	server := newServer(d.config, d.store, d.gate, standing, d.forward, keeps, suspicions, metrics, d.log)
	d.http = &http.Server{
		Handler:           server.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       withCork,
		ErrorLog:          d.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	fetcher := newFetcher(d.config, d.store, d.forward.transport, metrics, d.log)
	trimmer := newTrimmer(d.config, d.store, keeps, d.forward.transport, metrics, d.log)
	orders := newOrders(d.config, d.store, fetcher, trimmer, suspicions, metrics, d.log)
	heartbeats := newHeartbeater(d.config, d.self, d.store, d.caller, nodes, standing, orders, metrics, d.log)
	ctx, cancel := context.WithCancel(context.Background())
	d.stopDuties = cancel
	d.goroutines.Go(func() { heartbeats.run(ctx) })
	d.goroutines.Go(func() { orders.run(ctx) })
	d.goroutines.Go(func() { keepStore(ctx, d.store) })
	d.goroutines.Go(func() { compactStore(ctx, d.store) })
	scrubber := newScrubber(d.config, d.store, metrics, d.log)
	d.goroutines.Go(func() {
		err := d.store.WaitLoaded(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			d.stopped(err) // without chunks there is nothing to serve
		default:
			debug.FreeOSMemory() // reading the directories took much more than what is left of it
			if d.config.ScrubRate > 0 {
				scrubber.run(ctx)
			}
		}
	})
	d.goroutines.Go(func() {
		if err := d.http.Serve(corkedListener{listener}); !errors.Is(err, http.ErrServerClosed) {
			d.stopped(dfs.Errorf(dfs.Internal, "DataNode %s cannot serve any more: %w", d.config.ID, err))
		}
	})
	d.log.Info("DataNode is serving", "url", d.self, "dirs", d.config.DataDirs)
}

// ID returns the ID of the node.
func (d *DataNode) ID() dfs.NodeID { return d.config.ID }

// URL returns the base URL that the node announces. It is known after Open.
func (d *DataNode) URL() string { return d.self }

// Wait returns when the node has stopped: with nil after Close, or with the
// fault that keeps it from serving. A refused identity is no such fault: it may
// be put right outside, and until then /health and /ready tell of it.
func (d *DataNode) Wait() error {
	<-d.done
	return d.fault
}

// Close refuses new requests, lets running ones finish until ctx ends, cuts off
// the rest, and waits for everything that Open has started. Only for a disk that
// hangs it does not wait for ever: what that holds up is left behind, and Close
// fails with Internal.
func (d *DataNode) Close(ctx context.Context) error {
	if d.http == nil {
		d.stopped(nil) // never opened
		return nil
	}
	select {
	case <-d.gate.close():
	case <-ctx.Done():
		d.log.Warn("some transfers are cut off")
	}
	closed := d.http.Close()
	d.stopDuties()
	left := d.awaitRest()
	d.forward.close()
	d.caller.Close()
	err := errors.Join(closed, left, d.store.Close())
	d.stopped(nil)
	return err
}

// awaitRest waits for the requests that were cut off, which still hold files,
// and for the duties.
func (d *DataNode) awaitRest() error {
	ended := make(chan struct{})
	go func() { // ends with what it waits for, which may be when the disk answers
		defer close(ended)
		<-d.gate.close()
		d.goroutines.Wait()
	}()
	patience := time.NewTimer(d.patience)
	defer patience.Stop()
	select {
	case <-ended:
		return nil
	case <-patience.C:
		return dfs.Errorf(dfs.Internal, "DataNode %s waits for a disk that does not answer; some requests are left behind", d.config.ID)
	}
}

func (d *DataNode) stopped(fault error) {
	d.end.Do(func() {
		d.fault = fault
		close(d.done)
	})
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, dfs.Errorf(dfs.Conflict, "the address %s is in use by another process; stop that, or choose another with -addr", addr)
	case err != nil:
		return nil, dfs.Errorf(dfs.Invalid, "the address %s cannot be listened on: %w", addr, err)
	}
	return listener, nil
}
