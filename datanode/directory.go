package datanode

import (
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	askTimeout  = 2 * time.Second // for one question to the NameNodes
	askInterval = 2 * time.Second // between questions: unknown names must not become a load
)

// caller is the part of leader.Caller that is needed here.
type caller interface {
	Do(ctx context.Context, route protocol.Route, call leader.Call) error
}

// directory knows the addresses of the other DataNodes. They come from the
// NameNodes only.
type directory struct {
	caller caller

	mu   sync.Mutex
	urls map[dfs.NodeID]string // guarded by mu

	asking sync.Mutex
	asked  time.Time // guarded by asking
}

func newDirectory(caller caller) *directory {
	return &directory{caller: caller, urls: make(map[dfs.NodeID]string)}
}

// learn takes over the list of a heartbeat's answer.
func (d *directory) learn(nodes []protocol.Target) {
	urls := make(map[dfs.NodeID]string, len(nodes))
	for _, node := range nodes {
		if baseURL, err := dfs.ParseBaseURL(node.URL); err == nil {
			urls[node.ID] = baseURL
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.urls = urls
}

func (d *directory) known(id dfs.NodeID) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	baseURL, ok := d.urls[id]
	return baseURL, ok
}

// lookup returns the base URL of a node. One that is not known may be new, so
// the NameNodes are asked, if they have not just been. It fails with NotFound
// or Unavailable.
func (d *directory) lookup(ctx context.Context, id dfs.NodeID) (string, error) {
	if baseURL, ok := d.known(id); ok {
		return baseURL, nil
	}
	if err := d.refresh(ctx, id); err != nil {
		return "", err
	}
	if baseURL, ok := d.known(id); ok {
		return baseURL, nil
	}
	return "", dfs.Errorf(dfs.NotFound, "the NameNodes know no DataNode %s", id)
}

func (d *directory) refresh(ctx context.Context, id dfs.NodeID) error {
	d.asking.Lock()
	defer d.asking.Unlock()
	if time.Since(d.asked) < askInterval {
		return nil // somebody has asked while we waited, or shortly before
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var reply protocol.NodesReply
	err := d.caller.Do(ctx, protocol.ListNodes, leader.Call{
		Query: url.Values{protocol.QueryConsistency: {protocol.Stale}}, Out: &reply,
	})
	d.asked = time.Now()
	if err != nil {
		return dfs.Errorf(dfs.Unavailable, "the address of DataNode %s is not known, and no NameNode tells it: %w", id, err)
	}
	nodes := make([]protocol.Target, len(reply.Nodes))
	for i, node := range reply.Nodes {
		nodes[i] = protocol.Target{ID: node.ID, URL: node.URL}
	}
	d.learn(nodes)
	return nil
}
