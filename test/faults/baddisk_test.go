//go:build linux

package faults

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// newDisks is a cluster whose DataNodes have two data directories each, on disks
// that can be harmed.
func newDisks(t *testing.T) *healing {
	t.Helper()
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.DataDirs, o.DataNodeDisk = 2, faultbed.Disk{Kind: faultbed.Ext4, Size: 64 << 20}
		o.DataNodeFlags = append(o.DataNodeFlags, "-reserve", "1MiB")
	})
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	return h
}

// out returns how many data directories of a node are out of service.
func (h *healing) out(id string) int {
	h.t.Helper()
	out := 0
	for _, dir := range h.b.Dirs(id) {
		out += int(h.metric(id, `dfs_datanode_volume_gone{dir="`+dir+`"}`))
	}
	return out
}

// TestFailingDisk: one of the two disks of DataNodes fails in one way or another
// under load. It is taken out of service, the rest of the node serves on, all
// chunks get their replicas again, and nobody notices. Repaired and started
// again, it is as before.
func TestFailingDisk(t *testing.T) {
	h := newDisks(t)
	stop := h.traffic()
	h.b.BreakDisk("dn1")
	h.b.WaitUntil("dn1 knows that its disk is broken", func() bool { return h.out("dn1") == 1 })
	h.b.PullDisk("dn2")
	h.b.WaitUntil("dn2 knows that its disk is not there", func() bool { return h.out("dn2") == 1 })
	for _, id := range []string{"dn1", "dn2"} {
		if state := h.node(id).State; state != protocol.StateUp {
			t.Errorf("%s has one good disk, and is %s", id, state)
		}
	}
	h.heartbeats(2, "dn1", "dn2")
	h.waitFsck("all chunks have their replicas again", func(r protocol.FsckReply) bool { return r.Healthy })
	h.b.Kill("dn3") // what is there must not rest on it
	stop()
	h.readAll()
	h.b.Kill("dn1", "dn2")
	h.b.PutBackDisk("dn1")
	h.b.PutBackDisk("dn2")
	h.b.StartAll()
	h.b.WaitReady()
	for _, id := range []string{"dn1", "dn2"} {
		h.b.WaitUntil("all of "+id+" is in service", func() bool { return h.out(id) == 0 })
	}
	h.waitFsck("nothing is left over", clean)
	h.readAll()
}

// TestMissingMount: a DataNode is started while one of its disks is not mounted.
// It serves what is there, writes nothing to the mount point, and what was on the
// disk is replaced. Mounted at the next start, it is in use again.
func TestMissingMount(t *testing.T) {
	h := newDisks(t)
	h.b.Kill("dn1")
	h.b.PullDisk("dn1")
	h.b.Start("dn1")
	h.b.WaitReady()
	if out := h.out("dn1"); out != 1 {
		t.Errorf("%d directories of dn1 are out of service, and one should be", out)
	}
	h.heartbeats(2, "dn1")
	h.waitFsck("all chunks have their replicas again", whole)
	h.readAll()
	dirs := h.b.Dirs("dn1")
	if found, err := os.ReadDir(filepath.Dir(dirs[len(dirs)-1])); err != nil || len(found) > 0 {
		t.Errorf("the mount point was written to: %v %v", found, err)
	}
	h.b.Kill("dn1")
	h.b.PutBackDisk("dn1")
	h.b.Start("dn1")
	h.b.WaitReady()
	if out := h.out("dn1"); out != 0 {
		t.Errorf("%d directories of dn1 are out of service, and none should be", out)
	}
	h.waitFsck("nothing is left over", clean)
	h.readAll()
}

// TestFailingFsync lets each fsync of a DataNode fail, under load. What it cannot
// make durable it does not acknowledge; uploads go on elsewhere.
func TestFailingFsync(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("without strace no system call can be made to fail")
	}
	h := newHealing(t, 4, nil)
	h.fill(9)
	var said bytes.Buffer
	harm := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
		"-e", "inject=fsync,fdatasync:error=EIO", "-p", strconv.Itoa(h.b.PID("dn1")))
	harm.Stderr = &said
	harm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := harm.Start(); err != nil {
		t.Skipf("strace does not start: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- harm.Wait() }()
	stop := h.traffic()
	h.b.WaitUntil("the disk is known to be broken", func() bool {
		select {
		case err := <-ended:
			stop()
			t.Skipf("strace cannot be used here: %v: %s", err, strings.TrimSpace(said.String()))
		default:
		}
		return !h.node("dn1").Writable
	})
	for range 5 {
		h.fill(h.chunks + 3)
	}
	stop()
	h.readAll()
	_ = harm.Process.Kill() // its end is waited for
	<-ended
	h.b.Restart("dn1")
	h.b.WaitReady()
	h.b.WaitUntil("it takes chunks again", func() bool { return h.node("dn1").Writable })
	h.waitFsck("nothing is left over", clean)
	h.readAll()
}
