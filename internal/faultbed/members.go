//go:build linux

package faultbed

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// maxNameNodes is how many numbers there are for NameNodes.
const maxNameNodes = 89

// AddNameNode starts one more NameNode with an empty directory, which waits to be
// let into the group that the NameNode via belongs to, and returns its ID. IDs
// are never given twice.
func (b *Bed) AddNameNode(via string) (id string) {
	b.t.Helper()
	number := 1
	for _, known := range slices.Concat(b.nodes, b.retired) {
		if !known.isDataNode() {
			number++
		}
	}
	if number > maxNameNodes {
		b.t.Fatalf("a bed has at most %d NameNodes", maxNameNodes)
	}
	n := b.newNode("nn", number)
	b.layLink(n)
	n.dir, n.disk = b.addDisk(n, n.id)
	// Its disk and its link are undone before those that New made, and before
	// what ends the other processes.
	b.t.Cleanup(func() {
		if err := kill([]*node{n}); err != nil {
			b.t.Error(err)
		}
	})
	b.nodes = append(b.nodes, n)
	b.joinFlags(n, via)
	b.start(n)
	return n.id
}

// joinFlags makes n wait to be let in instead of forming a group with peers.
func (b *Bed) joinFlags(n *node, via string) {
	addr := strings.TrimPrefix(n.url(), "http://")
	n.flags = append([]string{"namenode", "-id", n.id, "-addr", addr, "-raft-addr", n.raftAddress(),
		"-advertise", n.url(), "-join", b.node(via).url()}, b.options.NameNodeFlags...)
}

// StartAnew starts a NameNode that does not run with an empty directory, so that
// it waits to be let into the group of the NameNode via.
func (b *Bed) StartAnew(id, via string) {
	b.t.Helper()
	n := b.node(id)
	b.Wipe(id)
	b.joinFlags(n, via)
	b.start(n)
}

// Wipe empties the directory of a node that does not run.
func (b *Bed) Wipe(id string) {
	b.t.Helper()
	if b.Running(id) {
		b.t.Fatalf("%s runs, so that its directory cannot be emptied", id)
	}
	left, err := filepath.Glob(filepath.Join(b.Dir(id), "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Retire kills a node and takes it out of the bed, for good.
func (b *Bed) Retire(id string) {
	b.t.Helper()
	n := b.node(id)
	b.Kill(id)
	b.nodes = slices.DeleteFunc(b.nodes, func(other *node) bool { return other == n })
	b.retired = append(b.retired, n)
}

// Member returns what a NameNode is to be let into the group as.
func (b *Bed) Member(id string) protocol.JoinRequest {
	b.t.Helper()
	n := b.node(id)
	return protocol.JoinRequest{ID: dfs.NodeID(id), RaftAddr: n.raftAddress(), URL: n.url()}
}

// SetEnv sets a variable ("NAME=value") for the next start of a node.
func (b *Bed) SetEnv(id, variable string) {
	b.t.Helper()
	n := b.node(id)
	n.env = append(n.env, variable)
}

// Log returns what a node has logged in all its runs.
func (b *Bed) Log(id string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.logPath(b.node(id)))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// WaitEnded waits until a node has ended by itself, and takes it for one that was
// stopped.
func (b *Bed) WaitEnded(id string) {
	b.t.Helper()
	n := b.node(id)
	if n.running == nil {
		return
	}
	b.WaitUntil(id+" has ended by itself", n.running.hasEnded)
	n.running = nil
}
