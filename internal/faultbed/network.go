//go:build linux

package faultbed

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

const (
	// nowhere is a link-layer address that nobody has: frames to it get lost.
	nowhere = "02:00:00:00:00:99"
	// Client stands for the test process where a link is named by its ends.
	Client = "client"
)

// layNetwork makes a bridge, and for each node a namespace and a link to it.
// The test process reaches the nodes over the bridge's own address.
func (b *Bed) layNetwork() {
	b.t.Helper()
	if b.options.Network != Namespaces {
		return
	}
	bridge := b.stake.name()
	b.system("ip", "link", "add", bridge, "type", "bridge")
	b.t.Cleanup(func() { b.undo("ip", "link", "del", bridge) })
	b.system("ip", "addr", "add", b.clientAddress()+"/24", "dev", bridge)
	b.system("ip", "link", "set", bridge, "up")
	for _, n := range b.nodes {
		b.layLink(n)
	}
}

// layLink gives a node its namespace and the link to the bridge.
func (b *Bed) layLink(n *node) {
	b.t.Helper()
	if b.options.Network != Namespaces {
		return
	}
	name := b.stake.of(n) // of the namespace, and of the link's end on this side
	b.system("ip", "netns", "add", name)
	b.t.Cleanup(func() { b.undo("ip", "netns", "del", name) })
	n.netns = name
	b.system("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
	b.system("ip", "link", "set", name, "master", b.stake.name(), "up")
	b.system("ip", "-n", name, "addr", "add", n.address+"/24", "dev", "eth0")
	b.system("ip", "-n", name, "link", "set", "eth0", "up")
	b.system("ip", "-n", name, "link", "set", "lo", "up")
}

// system runs a command of the system, and the test ends when it fails.
func (b *Bed) system(name string, args ...string) {
	b.t.Helper()
	if err := run(name, args...); err != nil {
		b.t.Fatal(err)
	}
}

// undo is system for clean-ups: the others are to run, too.
func (b *Bed) undo(name string, args ...string) {
	if err := run(name, args...); err != nil {
		b.t.Errorf("clean up: %v", err)
	}
}

func (b *Bed) clientAddress() string { return fmt.Sprintf("10.88.%d.1", b.stake.number) }

// Unplug cuts nodes off from everybody, the test process included. Packets are
// lost without a word.
func (b *Bed) Unplug(ids ...string) { b.setLinks(ids, "down") }

// Plug undoes Unplug.
func (b *Bed) Plug(ids ...string) { b.setLinks(ids, "up") }

func (b *Bed) setLinks(ids []string, state string) {
	b.t.Helper()
	for _, id := range ids {
		b.system("ip", "link", "set", b.linked(id).netns, state)
	}
}

// linked returns a node that has a network of its own.
func (b *Bed) linked(id string) *node {
	b.t.Helper()
	n := b.node(id)
	if n.netns == "" {
		b.t.Fatalf("%s has no link that could be cut: use Namespaces", id)
	}
	return n
}

// Cut loses all packets between two nodes, in both directions.
func (b *Bed) Cut(one, other string) {
	b.t.Helper()
	b.CutOneWay(one, other)
	b.CutOneWay(other, one)
}

// Heal undoes Cut and CutOneWay.
func (b *Bed) Heal(one, other string) {
	b.t.Helper()
	b.HealOneWay(one, other)
	b.HealOneWay(other, one)
}

// CutOneWay loses all packets from one node to another; those that go back
// arrive. Either may be Client.
func (b *Bed) CutOneWay(from, to string) {
	b.t.Helper()
	// On a wrong link-layer address, for want of a packet filter.
	where, device := b.side(from)
	b.system("ip", append(where, "neigh", "replace", b.addressOf(to), "lladdr", nowhere, "dev", device, "nud", "permanent")...)
}

// HealOneWay undoes CutOneWay.
func (b *Bed) HealOneWay(from, to string) {
	b.t.Helper()
	where, device := b.side(from)
	if err := run("ip", append(where, "neigh", "del", b.addressOf(to), "dev", device)...); err != nil && !strings.Contains(err.Error(), "No such file") {
		b.t.Fatal(err)
	}
}

// side returns the arguments of ip for what the end of a link sees, and its
// device there.
func (b *Bed) side(id string) (args []string, device string) {
	b.t.Helper()
	if id == Client {
		return nil, b.stake.name()
	}
	return []string{"-n", b.linked(id).netns}, "eth0"
}

func (b *Bed) addressOf(id string) string {
	b.t.Helper()
	if id == Client {
		return b.clientAddress()
	}
	return b.linked(id).address
}

// Limit lets a node send and receive no more than this many bits per second.
func (b *Bed) Limit(id string, bits int) {
	b.t.Helper()
	for _, where := range b.ends(id) {
		b.system("tc", append(where, "root", "tbf", "rate", fmt.Sprintf("%dbit", bits), "burst", "32kb", "latency", "400ms")...)
	}
}

// Delay adds this to the way of each packet to and from a node, in milliseconds,
// and loses a share of them, in percent. The test is skipped when the kernel has
// no netem.
func (b *Bed) Delay(id string, milliseconds, loss int) {
	b.t.Helper()
	for _, where := range b.ends(id) {
		err := run("tc", append(where, "root", "netem", "delay", fmt.Sprintf("%dms", milliseconds), "loss", fmt.Sprintf("%d%%", loss))...)
		if err != nil && strings.Contains(err.Error(), "qdisc kind is unknown") {
			b.t.Skip("this kernel has no netem, so that links cannot be made to delay")
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// Unlimit undoes Limit and Delay.
func (b *Bed) Unlimit(id string) {
	b.t.Helper()
	n := b.linked(id)
	b.system("tc", "qdisc", "del", "dev", n.netns, "root")
	b.system("tc", "-n", n.netns, "qdisc", "del", "dev", "eth0", "root")
}

// ends returns the arguments of tc for both ends of a node's link.
func (b *Bed) ends(id string) [][]string {
	b.t.Helper()
	n := b.linked(id)
	return [][]string{
		{"qdisc", "replace", "dev", n.netns},
		{"-n", n.netns, "qdisc", "replace", "dev", "eth0"},
	}
}

// namespacesWork finds out, once, whether this process may make namespaces.
var namespacesWork = sync.OnceValue(tryNamespace)

func requireNamespaces(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if err := namespacesWork(); err != nil {
		t.Skipf("this machine cannot make network namespaces and bridges: %v", err)
	}
}

func tryNamespace() (err error) {
	name := fmt.Sprintf("dfsbt%d", os.Getpid())
	if err := run("ip", "netns", "add", name); err != nil {
		return err
	}
	defer func() {
		if failed := run("ip", "netns", "del", name); err == nil {
			err = failed
		}
	}()
	if err := run("nsenter", "--net=/run/netns/"+name, "--", "true"); err != nil {
		return err
	}
	if err := run("ip", "-n", name, "link", "add", "br0", "type", "bridge"); err != nil {
		return err
	}
	return run("ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other")
}
