//go:build linux

package faultbed

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	logTail     = 4000 // bytes of each log that a failed test prints
	deathWait   = 30 * time.Second
	stopWait    = 40 * time.Second // a little more than a daemon takes at most
	pauseWait   = 10 * time.Second
	pollingWait = 2 * time.Millisecond
)

// process is one run of a node.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // set before ended is closed
}

// StartAll starts the nodes that do not run.
func (b *Bed) StartAll() {
	b.t.Helper()
	for _, n := range b.nodes {
		b.start(n)
	}
}

// Start starts nodes. One that runs is left alone.
func (b *Bed) Start(ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		b.start(b.node(id))
	}
}

func (b *Bed) start(n *node) {
	b.t.Helper()
	if n.running != nil {
		if !n.running.hasEnded() {
			return
		}
		b.t.Logf("%s had ended by itself: %v", n.id, n.running.err)
		n.running = nil
	}
	log, err := os.OpenFile(b.logPath(n), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close() // the process has its own descriptor
	line := n.command(b.binary)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), n.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.t.Fatalf("start %s: %v", n.id, err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() { // ends with the process, which endProcesses waits for
		p.err = cmd.Wait()
		close(p.ended)
	}()
	n.running = p
	b.enterGroup(n)
}

func (b *Bed) logPath(n *node) string { return filepath.Join(b.dir, n.id+".log") }

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) wait(limit time.Duration) error {
	select {
	case <-p.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("process %d has not ended for %s", p.cmd.Process.Pid, limit)
	}
}

// Running tells whether a node's process is there; a paused one is.
func (b *Bed) Running(id string) bool {
	n := b.node(id)
	return n.running != nil && !n.running.hasEnded()
}

// PID returns the process of a running node.
func (b *Bed) PID(id string) int {
	b.t.Helper()
	if !b.Running(id) {
		b.t.Fatalf("%s is not running", id)
	}
	return b.node(id).running.cmd.Process.Pid
}

// Kill ends nodes, or all, with SIGKILL.
func (b *Bed) Kill(ids ...string) {
	b.t.Helper()
	if err := kill(b.some(ids)); err != nil {
		b.t.Fatal(err)
	}
}

func kill(nodes []*node) error {
	for _, n := range nodes {
		if n.running != nil {
			_ = n.running.cmd.Process.Kill() // fails when it has ended, which is the aim
		}
	}
	for _, n := range nodes {
		if n.running == nil {
			continue
		}
		if err := n.running.wait(deathWait); err != nil {
			return fmt.Errorf("kill %s: %w", n.id, err)
		}
		n.running = nil
	}
	return nil
}

// Stop ends nodes in good order, with SIGTERM.
func (b *Bed) Stop(ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		b.signal(b.node(id), syscall.SIGTERM)
	}
	for _, id := range ids {
		n := b.node(id)
		if err := n.running.wait(stopWait); err != nil {
			b.t.Fatalf("stop %s: %v", id, err)
		}
		if n.running.err != nil {
			b.t.Errorf("%s did not stop in good order: %v", id, n.running.err)
		}
		n.running = nil
	}
}

// Restart kills nodes and starts them again.
func (b *Bed) Restart(ids ...string) {
	b.t.Helper()
	b.Kill(ids...)
	b.Start(ids...)
}

// Pause stops nodes with SIGSTOP and returns when they do nothing any more.
func (b *Bed) Pause(ids ...string) {
	b.t.Helper()
	for _, n := range b.some(ids) {
		b.signal(n, syscall.SIGSTOP)
	}
	for _, n := range b.some(ids) {
		b.waitFor(pauseWait, pollingWait, n.id+" is stopped", func() bool { return isStopped(n.running.cmd.Process.Pid) })
	}
}

// isStopped tells whether every thread is stopped, or waits for a disk and will
// be stopped when that is over.
func isStopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if rest == "" || !strings.ContainsRune("TtD", rune(rest[0])) {
			return false
		}
	}
	return true
}

// Continue lets paused nodes, or all, go on.
func (b *Bed) Continue(ids ...string) {
	b.t.Helper()
	for _, n := range b.some(ids) {
		b.signal(n, syscall.SIGCONT)
	}
}

func (b *Bed) signal(n *node, signal syscall.Signal) {
	b.t.Helper()
	if n.running == nil || n.running.hasEnded() {
		b.t.Fatalf("%s is not running", n.id)
	}
	if err := n.running.cmd.Process.Signal(signal); err != nil {
		b.t.Fatalf("signal %s: %v", n.id, err)
	}
}

// endProcesses is the clean-up: it kills what runs, looks for signs of trouble
// in the logs, and shows their ends when the test has failed.
func (b *Bed) endProcesses() {
	if err := kill(b.nodes); err != nil {
		b.t.Error(err)
	}
	for _, n := range slices.Concat(b.nodes, b.retired) {
		data, err := os.ReadFile(b.logPath(n))
		if err != nil {
			continue // it was never started
		}
		for _, sign := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
			if at := bytes.Index(data, []byte(sign)); at >= 0 {
				b.t.Errorf("the log of %s tells of trouble:\n%s", n.id, data[at:min(at+logTail, len(data))])
			}
		}
	}
	if b.t.Failed() {
		b.t.Log(b.tails())
	}
}

func (b *Bed) tails() string {
	var text strings.Builder
	for _, n := range slices.Concat(b.nodes, b.retired) {
		data, err := os.ReadFile(b.logPath(n))
		if err != nil {
			fmt.Fprintf(&text, "no log of %s: %v\n", n.id, err)
			continue
		}
		fmt.Fprintf(&text, "the end of the log of %s:\n%s\n", n.id, data[max(0, len(data)-logTail):])
	}
	return text.String()
}
