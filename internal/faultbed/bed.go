//go:build linux

package faultbed

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Ports that every node has on an address of its own, so that nobody else uses
// them and a restarted node finds its port free.
const (
	httpPort = 7188
	raftPort = 7288
)

// keptSuffix tells the directory of a failed test from those to be swept.
const keptSuffix = ".kept"

// Network says how the nodes of a bed reach one another.
type Network int

const (
	Loopback   Network = iota // addresses of 127.0.0.0/8; links cannot be cut
	Namespaces                // a network namespace for each node, on a bridge; needs root
)

// Options say what a bed consists of.
type Options struct {
	NameNodes, DataNodes         int // nn1, nn2, ... and dn1, dn2, ...
	Network                      Network
	NameNodeDisk, DataNodeDisk   Disk     // of each node; the zero Disk is a plain directory
	NameNodeFlags, DataNodeFlags []string // more of the command line

	DataDirs      int               // of each DataNode, each on a DataNodeDisk of its own; 0 means 1
	Fronts        map[string]string // base URLs that DataNodes give as their own: of proxies before them
	MoreNameNodes []string          // base URLs that DataNodes ask, too, after those of the bed
	Patience      time.Duration     // of clients, with a chunk that nobody can give; 0 means that of the product
}

// Bed is a running cluster of real processes. Its methods are for one goroutine
// at a time, that of the test: they fail the test when something goes wrong.
type Bed struct {
	t       testing.TB
	options Options
	stake   *stake
	dir     string // of logs and plain directories
	binary  string
	nodes   []*node // in the order in which they were added
	retired []*node // that the bed has no use for any more
	started time.Time
}

// node is one machine of the bed.
type node struct {
	id      string
	address string // IP
	flags   []string
	env     []string // in addition to that of the test
	dir     string   // -meta-dir or -data-dir
	disk    *disk    // nil when dir is a plain directory
	more    []place  // the other data directories
	netns   string   // "" on loopback
	cgroup  string   // directory; "" without a quota
	running *process
}

func (n *node) isDataNode() bool { return strings.HasPrefix(n.id, "dn") }

func (n *node) url() string { return fmt.Sprintf("http://%s:%d", n.address, httpPort) }

func (n *node) raftAddress() string { return fmt.Sprintf("%s:%d", n.address, raftPort) }

// New starts a cluster and waits until it is ready. The test's end takes it down.
// The test is skipped when this machine cannot do what the options ask for.
func New(t testing.TB, options Options) *Bed {
	t.Helper()
	require(t, options)
	b := &Bed{t: t, options: options, binary: product.path(t), stake: claim(t), started: time.Now()}
	b.makeDir()
	b.addNodes()
	b.layNetwork()
	for _, n := range b.nodes {
		n.dir, n.disk = b.addDisk(n, n.id)
		b.addPlaces(n)
	}
	t.Cleanup(b.endProcesses)
	b.StartAll()
	b.WaitReady()
	return b
}

func require(t testing.TB, options Options) {
	t.Helper()
	for _, d := range []Disk{options.NameNodeDisk, options.DataNodeDisk} {
		if d.Kind != Plain {
			requireMounts(t)
		}
	}
	if options.Network == Namespaces {
		requireNamespaces(t)
	}
}

func (b *Bed) makeDir() {
	dir, err := makeTemp("bed")
	if err != nil {
		b.t.Fatal(err)
	}
	b.dir = dir
	b.t.Cleanup(func() {
		if b.t.Failed() {
			kept := dir
			if err := os.Rename(dir, dir+keptSuffix); err == nil {
				kept += keptSuffix
			}
			b.t.Logf("logs and disks are kept in %s", kept)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			b.t.Errorf("clean up: %v", err)
		}
	})
}

func (b *Bed) addNodes() {
	for i := range b.options.NameNodes {
		b.nodes = append(b.nodes, b.newNode("nn", i+1))
	}
	for i := range b.options.DataNodes {
		b.nodes = append(b.nodes, b.newNode("dn", i+1))
	}
	var peers, urls []string
	for _, n := range b.nodes[:b.options.NameNodes] {
		peers = append(peers, fmt.Sprintf("%s=%s@%s", n.id, n.raftAddress(), n.url()))
		urls = append(urls, n.url())
	}
	for _, n := range b.nodes {
		addr := fmt.Sprintf("%s:%d", n.address, httpPort)
		if n.isDataNode() {
			n.flags = append([]string{"datanode", "-id", n.id, "-addr", addr, "-self", cmp.Or(b.options.Fronts[n.id], n.url()),
				"-namenode", strings.Join(append(urls, b.options.MoreNameNodes...), ",")}, b.options.DataNodeFlags...)
			continue
		}
		n.flags = append([]string{"namenode", "-id", n.id, "-addr", addr, "-raft-addr", n.raftAddress(),
			"-peers", strings.Join(peers, ",")}, b.options.NameNodeFlags...)
	}
}

// newNode numbers a node, from 1; its address follows from that.
func (b *Bed) newNode(kind string, number int) *node {
	prefix, first := "127.88", 9
	if b.options.Network == Namespaces {
		prefix = "10.88"
	}
	if kind == "dn" {
		first = 99
	}
	id := fmt.Sprintf("%s%d", kind, number)
	return &node{id: id, address: fmt.Sprintf("%s.%d.%d", prefix, b.stake.number, first+number), dir: filepath.Join(b.dir, id)}
}

// command is the command line of a node. Its directory may have moved since the
// node was added.
func (n *node) command(binary string) []string {
	flag := "-meta-dir"
	if n.isDataNode() {
		flag = "-data-dir"
	}
	line := append([]string{binary}, n.flags...)
	line = append(line, flag, strings.Join(n.dirs(), ","))
	if n.netns != "" {
		// Not 'ip netns exec': that makes a mount namespace, too, which would keep
		// the disks of others mounted.
		line = append([]string{"nsenter", "--net=/run/netns/" + n.netns, "--"}, line...)
	}
	return line
}

func (b *Bed) node(id string) *node {
	b.t.Helper()
	for _, n := range b.nodes {
		if n.id == id {
			return n
		}
	}
	b.t.Fatalf("the bed has no node %q", id)
	return nil
}

// some returns the nodes with these IDs, or all when there is none.
func (b *Bed) some(ids []string) []*node {
	b.t.Helper()
	if len(ids) == 0 {
		return b.nodes
	}
	var nodes []*node
	for _, id := range ids {
		nodes = append(nodes, b.node(id))
	}
	return nodes
}

// NameNodes returns the IDs of all NameNodes, running or not.
func (b *Bed) NameNodes() []string { return b.ids(false) }

// DataNodes returns the IDs of all DataNodes, running or not.
func (b *Bed) DataNodes() []string { return b.ids(true) }

func (b *Bed) ids(dataNodes bool) []string {
	var ids []string
	for _, n := range b.nodes {
		if n.isDataNode() == dataNodes {
			ids = append(ids, n.id)
		}
	}
	return ids
}

// Others returns the NameNodes except those with these IDs.
func (b *Bed) Others(ids ...string) []string {
	return slices.DeleteFunc(b.NameNodes(), func(id string) bool { return slices.Contains(ids, id) })
}

// URL returns the base URL of a node.
func (b *Bed) URL(id string) string { return b.node(id).url() }

// Dir returns the meta-dir or data-dir of a node.
func (b *Bed) Dir(id string) string { return b.node(id).dir }

// Path returns the name of a file in the bed's own directory, which stays when
// the test fails.
func (b *Bed) Path(name string) string { return filepath.Join(b.dir, name) }
