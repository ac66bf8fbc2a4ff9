//go:build linux

package faultbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const (
	cpuHierarchy = "/sys/fs/cgroup/cpu" // of version 1, where there is one
	allHierarchy = "/sys/fs/cgroup"     // of version 2
	quotaPeriod  = 100_000              // microseconds
)

// CPUQuota lets a node have this share of one CPU, in percent, also after it has
// been started again. Needs root.
func (b *Bed) CPUQuota(id string, percent int) {
	b.t.Helper()
	n := b.node(id)
	if n.cgroup == "" {
		b.makeGroup(n)
	}
	quota := percent * quotaPeriod / 100
	file, value := "cpu.max", fmt.Sprintf("%d %d", quota, quotaPeriod)
	if filepath.Dir(n.cgroup) == cpuHierarchy {
		file, value = "cpu.cfs_quota_us", strconv.Itoa(quota)
	}
	if err := writeControl(filepath.Join(n.cgroup, file), value); err != nil {
		b.t.Skipf("this machine cannot limit CPU time: %v", err)
	}
	b.enterGroup(n)
}

func (b *Bed) makeGroup(n *node) {
	b.t.Helper()
	root := cpuHierarchy
	if _, err := os.Stat(filepath.Join(root, "cpu.cfs_quota_us")); err != nil {
		root = allHierarchy
		// Without the controller, the quota cannot be written, and the test is skipped.
		_ = writeControl(filepath.Join(root, "cgroup.subtree_control"), "+cpu")
	}
	dir := filepath.Join(root, b.stake.of(n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Skipf("this machine cannot make control groups: %v", err)
	}
	n.cgroup = dir
	b.t.Cleanup(func() {
		n.cgroup = ""
		if n.running != nil { // a group with a process cannot be removed
			if err := writeControl(filepath.Join(root, "cgroup.procs"), strconv.Itoa(n.running.cmd.Process.Pid)); err != nil {
				b.t.Errorf("clean up: %v", err)
			}
		}
		if err := os.Remove(dir); err != nil {
			b.t.Errorf("clean up: %v", err)
		}
	})
}

// enterGroup puts the process of a node into its control group, if it has one.
func (b *Bed) enterGroup(n *node) {
	b.t.Helper()
	if n.cgroup == "" || n.running == nil {
		return
	}
	if err := writeControl(filepath.Join(n.cgroup, "cgroup.procs"), strconv.Itoa(n.running.cmd.Process.Pid)); err != nil {
		b.t.Fatalf("put %s into its control group: %v", n.id, err)
	}
}

func writeControl(path, value string) error { return os.WriteFile(path, []byte(value), 0o644) }
