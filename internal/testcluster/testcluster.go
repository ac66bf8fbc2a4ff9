package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode"
)

const (
	pollInterval = 20 * time.Millisecond
	stopTimeout  = 20 * time.Second
)

// Config says what cluster to run.
type Config struct {
	NameNodes int
	DataNodes int
	Dir       string // each node gets a directory in it
	// First ports; node i listens on the port i above. 0 lets the system choose.
	HTTPPort, RaftPort, DataPort int
	// Change, when set, may change a NameNode's configuration before it starts.
	Change func(*namenode.Config)
	// ChangeDataNode is the same for DataNodes.
	ChangeDataNode func(*datanode.Config)
	Logger         hclog.Logger
}

// Cluster is a running cluster. Its methods are for one goroutine.
type Cluster struct {
	config    Config
	peers     []cluster.Peer
	nameNodes map[dfs.NodeID]*namenode.NameNode
	dataNodes map[dfs.NodeID]*datanode.DataNode
	addresses map[dfs.NodeID]string // HTTP listen address of each DataNode
}

// Start starts all nodes and waits until a leader is elected and all DataNodes
// are registered. On an error nothing is left running.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	c := &Cluster{
		config:    config,
		nameNodes: make(map[dfs.NodeID]*namenode.NameNode),
		dataNodes: make(map[dfs.NodeID]*datanode.DataNode),
		addresses: make(map[dfs.NodeID]string),
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.startNameNodes(ctx); err != nil {
		return err
	}
	for i := range c.config.DataNodes {
		if err := c.StartDataNode(ctx, nodeID("dn", i)); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

func nodeID(kind string, i int) dfs.NodeID { return dfs.NodeID(fmt.Sprintf("%s%d", kind, i+1)) }

func listen(port, i int) (net.Listener, error) {
	if port != 0 {
		port += i
	}
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
}

// startNameNodes binds all ports first, because every member must know the
// addresses of all.
func (c *Cluster) startNameNodes(ctx context.Context) error {
	var listeners []net.Listener
	for i := range c.config.NameNodes {
		for _, port := range []int{c.config.HTTPPort, c.config.RaftPort} {
			l, err := listen(port, i)
			if err != nil {
				return errors.Join(fmt.Errorf("open a port for %s: %w", nodeID("nn", i), err), closeAll(listeners))
			}
			listeners = append(listeners, l)
		}
		http, raft := listeners[2*i].Addr().String(), listeners[2*i+1].Addr().String()
		c.peers = append(c.peers, cluster.Peer{ID: nodeID("nn", i), RaftAddr: raft, URL: "http://" + http})
	}
	for i, peer := range c.peers {
		err := c.openNameNode(ctx, peer.ID, func(config *namenode.Config) {
			config.Listener, config.RaftListener = listeners[2*i], listeners[2*i+1]
		})
		if err != nil {
			return errors.Join(err, closeAll(listeners[2*i+2:]))
		}
	}
	return nil
}

func closeAll(listeners []net.Listener) (err error) {
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

func (c *Cluster) openNameNode(ctx context.Context, id dfs.NodeID, change func(*namenode.Config)) error {
	config := namenode.Config{
		ID: id, MetaDir: filepath.Join(c.config.Dir, string(id)), Logger: c.config.Logger.Named(string(id)),
	}
	if len(c.peers) > 1 {
		config.Peers = c.peers
	}
	if c.config.Change != nil {
		c.config.Change(&config)
	}
	change(&config)
	n, err := namenode.New(config)
	if err == nil {
		err = n.Open(ctx)
	}
	if err != nil {
		return fmt.Errorf("start NameNode %s: %w", id, err)
	}
	c.nameNodes[id] = n
	return nil
}

// StartNameNode starts a NameNode that was stopped, where it was.
func (c *Cluster) StartNameNode(ctx context.Context, id dfs.NodeID) error {
	for _, peer := range c.peers {
		if peer.ID == id {
			return c.openNameNode(ctx, id, func(config *namenode.Config) {
				config.Addr, config.RaftAddr = peer.URL[len("http://"):], peer.RaftAddr
			})
		}
	}
	return dfs.Errorf(dfs.NotFound, "there is no NameNode %s", id)
}

// StartJoiner starts a NameNode that waits to be let in.
func (c *Cluster) StartJoiner(ctx context.Context, id dfs.NodeID) (*namenode.NameNode, error) {
	err := c.openNameNode(ctx, id, func(config *namenode.Config) {
		config.Peers, config.Join = nil, c.peers[0].URL
		config.Addr, config.RaftAddr = "127.0.0.1:0", "127.0.0.1:0"
	})
	return c.nameNodes[id], err
}

// StartDataNode starts a DataNode, or one that was stopped, where it was.
func (c *Cluster) StartDataNode(ctx context.Context, id dfs.NodeID) error {
	address, known := c.addresses[id]
	if !known {
		port := 0
		if c.config.DataPort != 0 {
			port = c.config.DataPort + len(c.addresses)
		}
		address = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	}
	config := datanode.Config{
		ID: id, Addr: address, NameNodes: c.URLs(), DataDirs: []string{filepath.Join(c.config.Dir, string(id))},
		Logger: c.config.Logger.Named(string(id)),
	}
	if c.config.ChangeDataNode != nil {
		c.config.ChangeDataNode(&config)
	}
	d, err := datanode.New(config)
	if err == nil {
		err = d.Open(ctx)
	}
	if err != nil {
		return fmt.Errorf("start DataNode %s: %w", id, err)
	}
	c.dataNodes[id] = d
	c.addresses[id] = d.URL()[len("http://"):]
	return nil
}

// Stop ends one node gracefully.
func (c *Cluster) Stop(id dfs.NodeID) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if n, ok := c.nameNodes[id]; ok {
		delete(c.nameNodes, id)
		return n.Close(ctx)
	}
	if d, ok := c.dataNodes[id]; ok {
		delete(c.dataNodes, id)
		return d.Close(ctx)
	}
	return dfs.Errorf(dfs.NotFound, "%s is not running", id)
}

// URLs returns the base URLs of the NameNodes the cluster began with.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.peers))
	for i, peer := range c.peers {
		urls[i] = peer.URL
	}
	return urls
}

// Client returns a client that knows the NameNodes the cluster began with.
func (c *Cluster) Client() (*client.Client, error) {
	return client.New(client.Config{NameNodes: c.URLs(), Logger: c.config.Logger.Named("client")})
}

// WaitReady waits until a leader answers and says that all running DataNodes
// are up, and take chunks unless they are full.
func (c *Cluster) WaitReady(ctx context.Context) error {
	caller, err := c.Client()
	if err != nil {
		return err
	}
	defer caller.Close()
	for {
		nodes, err := caller.Nodes(ctx)
		up := 0
		for _, node := range nodes {
			takes := node.Writable || node.Free < dfs.DefaultChunkSize // a node that is still reading its directories has room
			if node.State == "up" && takes && c.dataNodes[node.ID] != nil {
				up++
			}
		}
		if err == nil && up == len(c.dataNodes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d DataNodes are up: %w", up, len(c.dataNodes), errors.Join(err, ctx.Err()))
		case <-time.After(pollInterval):
		}
	}
}

// Close ends all nodes, DataNodes first.
func (c *Cluster) Close() (err error) {
	for id := range c.dataNodes {
		err = errors.Join(err, c.Stop(id))
	}
	for id := range c.nameNodes {
		err = errors.Join(err, c.Stop(id))
	}
	return err
}
