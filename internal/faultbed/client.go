//go:build linux

package faultbed

import (
	"context"
	"net/http"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	patience     = 90 * time.Second // for whatever a cluster is expected to do by itself
	pollInterval = 20 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// Client returns a client of the cluster, which is closed with the test.
func (b *Bed) Client() *client.Client {
	b.t.Helper()
	return b.ClientOf(b.nameNodeURLs()...)
}

func (b *Bed) nameNodeURLs() (urls []string) {
	for _, n := range b.nodes {
		if !n.isDataNode() {
			urls = append(urls, n.url())
		}
	}
	return urls
}

// ClientOf returns a client that knows only these base URLs to begin with.
func (b *Bed) ClientOf(urls ...string) *client.Client {
	b.t.Helper()
	c := b.newClient(urls...)
	b.t.Cleanup(c.Close)
	return c
}

func (b *Bed) newClient(urls ...string) *client.Client {
	b.t.Helper()
	c, err := client.New(client.Config{NameNodes: urls, Patience: b.options.Patience})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// WaitReady waits until every running node calls itself ready, someone leads,
// and the leader takes all running DataNodes for up.
func (b *Bed) WaitReady() {
	b.t.Helper()
	probe := &http.Client{Timeout: probeTimeout}
	defer probe.CloseIdleConnections()
	running := make(map[string]bool)
	for _, n := range b.nodes {
		if n.running == nil {
			continue
		}
		running[n.id] = n.isDataNode()
		b.WaitUntil(n.id+" is ready", func() bool {
			if n.running.hasEnded() {
				b.t.Fatalf("%s has ended by itself: %v", n.id, n.running.err)
			}
			response, err := probe.Get(n.url() + protocol.Ready.Pattern)
			if err != nil {
				return false
			}
			_ = response.Body.Close() // only the status counts
			return response.StatusCode == http.StatusOK
		})
	}
	b.WaitUntil("all running DataNodes are up", func() bool { return b.allUp(running) })
}

func (b *Bed) allUp(running map[string]bool) bool {
	ctx, cancel := context.WithTimeout(b.t.Context(), probeTimeout)
	defer cancel()
	c := b.newClient(b.nameNodeURLs()...)
	defer c.Close()
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return false
	}
	up := make(map[string]bool)
	for _, node := range nodes {
		up[string(node.ID)] = node.State == "up"
	}
	for id, isDataNode := range running {
		if isDataNode && !up[id] {
			return false
		}
	}
	return true
}

// WaitUntil fails the test when something is not so within 90 seconds.
func (b *Bed) WaitUntil(what string, done func() bool) {
	b.t.Helper()
	b.waitFor(patience, pollInterval, what, done)
}

func (b *Bed) waitFor(limit, interval time.Duration, what string, done func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			b.t.Fatalf("gave up waiting until %s, after %s", what, limit)
		}
		time.Sleep(interval)
	}
}

// Leader waits until a running NameNode leads, and returns its ID. Its view of
// the group is that of a NameNode that answered, so a paused leader can be named
// until the others have elected.
func (b *Bed) Leader() (id string) {
	b.t.Helper()
	c := b.newClient(b.nameNodeURLs()...)
	defer c.Close()
	b.WaitUntil("someone leads", func() bool {
		ctx, cancel := context.WithTimeout(b.t.Context(), probeTimeout)
		defer cancel()
		reply, err := c.Leader(ctx)
		if err != nil || reply.Leader == nil || !b.Running(string(reply.Leader.ID)) {
			return false
		}
		id = string(reply.Leader.ID)
		return true
	})
	return id
}

// LeaderAmong waits until all of these NameNodes agree on one of them as leader.
func (b *Bed) LeaderAmong(ids ...string) (leader string) {
	b.t.Helper()
	b.WaitUntil("the rest has a leader", func() bool {
		leader = ""
		for i, id := range ids {
			named := b.leaderAt(id)
			if named == "" || i > 0 && named != leader {
				return false
			}
			leader = named
		}
		for _, id := range ids {
			if id == leader {
				return true
			}
		}
		return false
	})
	return leader
}

// leaderAt asks one NameNode whom it takes for the leader; "" when nobody.
func (b *Bed) leaderAt(id string) string {
	c := b.newClient(b.URL(id))
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), probeTimeout)
	defer cancel()
	reply, err := c.Leader(ctx)
	if err != nil || reply.Leader == nil || string(reply.NodeID) != id {
		return ""
	}
	return string(reply.Leader.ID)
}
