package chaos

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
)

const patience = 90 * time.Second

// bed is a cluster of real processes.
type bed struct {
	t         *testing.T
	dir       string
	binary    string
	args      map[string][]string // by node
	processes map[string]*exec.Cmd
	nameNodes []string // IDs
	dataNodes []string
	urls      []string
}

// duration returns how long the faults go on, and skips the test when it was
// not asked for.
func duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("DFS_CHAOS")
	if text == "" {
		t.Skip("faults against real processes run with 'make chaos'")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("DFS_CHAOS: %v", err)
	}
	return d
}

// newBed builds the binary and starts a cluster; the test's end kills it.
func newBed(t *testing.T, nameNodes, dataNodes int) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir(), args: make(map[string][]string), processes: make(map[string]*exec.Cmd)}
	b.binary = filepath.Join(b.dir, "dfs")
	build := exec.Command("go", "build", "-o", b.binary, "github.com/dfs-go/dfs-go/cmd/dfs")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ports := freePorts(t, 2*nameNodes+dataNodes)
	var peers []string
	for i := range nameNodes {
		id := fmt.Sprintf("nn%d", i+1)
		b.nameNodes = append(b.nameNodes, id)
		b.urls = append(b.urls, "http://"+ports[2*i])
		peers = append(peers, fmt.Sprintf("%s=%s@http://%s", id, ports[2*i+1], ports[2*i]))
	}
	for i, id := range b.nameNodes {
		b.args[id] = []string{"namenode", "-id", id, "-addr", ports[2*i], "-raft-addr", ports[2*i+1],
			"-meta-dir", filepath.Join(b.dir, id), "-peers", strings.Join(peers, ","),
			"-snapshot-threshold", "500", "-snapshot-interval", "2s", "-trailing-logs", "600"}
	}
	for i := range dataNodes {
		id := fmt.Sprintf("dn%d", i+1)
		b.dataNodes = append(b.dataNodes, id)
		b.args[id] = []string{"datanode", "-id", id, "-addr", ports[2*nameNodes+i],
			"-self", "http://" + ports[2*nameNodes+i], "-namenode", strings.Join(b.urls, ","),
			"-data-dir", filepath.Join(b.dir, id)}
	}
	t.Cleanup(b.end)
	b.startAll()
	b.waitReady()
	return b
}

// freePorts finds addresses that nobody listens on. Another process may take
// one before it is used; the node then says so and the test fails plainly.
func freePorts(t *testing.T, count int) []string {
	t.Helper()
	var addresses []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only at the end, so that all are different
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func (b *bed) all() []string { return append(append([]string(nil), b.nameNodes...), b.dataNodes...) }

func (b *bed) startAll() {
	for _, id := range b.all() {
		b.start(id)
	}
}

// start runs a node that is not running; its output goes into a log file.
func (b *bed) start(id string) {
	b.t.Helper()
	if b.processes[id] != nil {
		return
	}
	log, err := os.OpenFile(filepath.Join(b.dir, id+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close() // the process has its own descriptor
	cmd := exec.Command(b.binary, b.args[id]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.t.Fatalf("start %s: %v", id, err)
	}
	b.processes[id] = cmd
}

// kill ends a node with SIGKILL.
func (b *bed) kill(id string) {
	b.t.Helper()
	if cmd := b.processes[id]; cmd != nil {
		b.signal(id, syscall.SIGKILL)
		_ = cmd.Wait() // says that it was killed
		delete(b.processes, id)
	}
}

func (b *bed) signal(id string, signal syscall.Signal) {
	b.t.Helper()
	if err := b.processes[id].Process.Signal(signal); err != nil {
		b.t.Fatalf("signal %s: %v", id, err)
	}
}

// end kills what runs, and shows the logs when the test has failed.
func (b *bed) end() {
	for id := range b.processes {
		b.kill(id)
	}
	if !b.t.Failed() {
		return
	}
	for _, id := range b.all() {
		data, err := os.ReadFile(filepath.Join(b.dir, id+".log"))
		if err != nil {
			b.t.Log(err)
			continue
		}
		b.t.Logf("the end of the log of %s:\n%s", id, data[max(0, len(data)-4000):])
	}
}

func (b *bed) client() *client.Client {
	b.t.Helper()
	c, err := client.New(client.Config{NameNodes: b.urls})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bed) waitReady() {
	b.t.Helper()
	c := b.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	b.waitUntil("all DataNodes are up", func() bool {
		nodes, err := c.Nodes(ctx)
		up := 0
		for _, node := range nodes {
			if node.State == "up" {
				up++
			}
		}
		return err == nil && up == len(b.dataNodes)
	})
}

func (b *bed) waitUntil(what string, done func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			b.t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leader waits until someone leads.
func (b *bed) leader(c *client.Client) (id string) {
	b.t.Helper()
	b.waitUntil("someone leads", func() bool {
		ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Second)
		defer cancel()
		reply, err := c.Leader(ctx)
		if err != nil || reply.Leader == nil || b.processes[string(reply.Leader.ID)] == nil {
			return false
		}
		id = string(reply.Leader.ID)
		return true
	})
	return id
}
