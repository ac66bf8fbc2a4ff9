//go:build linux

package faultbed

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestProcesses(t *testing.T) {
	Duration(t)
	b := New(t, Options{NameNodes: 1, DataNodes: 1})
	b.Pause("dn1")
	if !b.Running("dn1") || !isStopped(b.PID("dn1")) {
		t.Error("a paused node runs no further, and is there")
	}
	b.Continue("dn1")
	first := b.PID("dn1")
	b.Restart("dn1")
	if b.PID("dn1") == first {
		t.Error("a restarted node is the same process")
	}
	b.WaitReady() // it would be killed by the signal that it does not expect yet
	b.Stop("dn1")
	if b.Running("dn1") {
		t.Error("a stopped node runs")
	}
	if err := syscall.Kill(b.PID("nn1"), syscall.SIGKILL); err != nil { // behind the bed's back
		t.Fatal(err)
	}
	b.WaitUntil("its end is noticed", func() bool { return !b.Running("nn1") })
	b.StartAll()
	b.WaitReady()
	if leader := b.Leader(); leader != "nn1" {
		t.Errorf("%q leads", leader)
	}
}

// TestPowerCutLosesWhatWasNotSynced: a power cut that loses nothing would prove
// nothing.
func TestPowerCutLosesWhatWasNotSynced(t *testing.T) {
	Duration(t)
	b := New(t, Options{NameNodes: 1, NameNodeDisk: Disk{Kind: Ext4, Size: 64 << 20}})
	write := func(name string, syncFile, syncDir bool) {
		t.Helper()
		f, err := os.Create(filepath.Join(b.Dir("nn1"), name+".tmp"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("content")
		if syncFile {
			err = errors.Join(err, f.Sync())
		}
		if err := errors.Join(err, f.Close(), os.Rename(f.Name(), strings.TrimSuffix(f.Name(), ".tmp"))); err != nil {
			t.Fatal(err)
		}
		if syncDir {
			dir, err := os.Open(b.Dir("nn1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.Pause("nn1") // so that it syncs nothing
	write("safe", true, true)
	write("nameless", true, false)
	write("lost", false, false)
	b.PowerCut()
	is := func(name string) string {
		data, err := os.ReadFile(filepath.Join(b.Dir("nn1"), name))
		if err != nil {
			return "absent"
		}
		return string(data)
	}
	for name, want := range map[string]string{"safe": "content", "nameless": "absent", "nameless.tmp": "content", "lost": "absent", "lost.tmp": "absent"} {
		if got := is(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	b.StartAll()
	b.WaitReady()
}

func TestFullDisk(t *testing.T) {
	Duration(t)
	for _, kind := range []DiskKind{Ext4, Tmpfs} {
		b := New(t, Options{NameNodes: 1, NameNodeDisk: Disk{Kind: kind, Size: 32 << 20}})
		name := filepath.Join(b.Dir("nn1"), "more")
		content := make([]byte, 1<<20)
		empty := b.Fill("nn1")
		if err := os.WriteFile(name, content, 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("writing to a full disk: %v", err)
		}
		empty()
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Errorf("writing when there is space again: %v", err)
		}
	}
}

func TestFreeze(t *testing.T) {
	Duration(t)
	b := New(t, Options{NameNodes: 1, NameNodeDisk: Disk{Kind: Ext4, Size: 64 << 20}})
	b.Freeze("nn1")
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(filepath.Join(b.Dir("nn1"), "x"), []byte("x"), 0o600) }()
	b.WaitUntil("the write hangs", func() bool { return hangs(t) })
	select {
	case err := <-written:
		t.Errorf("a frozen disk took a write: %v", err)
	default:
	}
	b.Thaw("nn1")
	if err := <-written; err != nil {
		t.Errorf("after the thaw: %v", err)
	}
}

// hangs tells whether a thread of this process waits for a frozen file system.
func hangs(t *testing.T) bool {
	t.Helper()
	stacks, err := filepath.Glob("/proc/self/task/*/stack")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stacks {
		stack, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(stack), "percpu_rwsem_wait") {
			return true
		}
	}
	return false
}

// TestLinks looks at who reaches whom.
func TestLinks(t *testing.T) {
	Duration(t)
	b := New(t, Options{NameNodes: 3, Network: Namespaces})
	reaches := func(from, to string) bool {
		n := b.node(to)
		line := []string{"timeout", "1", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", n.address, httpPort)}
		if from != Client {
			line = append([]string{"nsenter", "--net=/run/netns/" + b.node(from).netns, "--"}, line...)
		}
		return exec.Command(line[0], line[1:]...).Run() == nil
	}
	expect := func(when, from, to string, want bool) {
		t.Helper()
		if !want && reaches(from, to) {
			t.Errorf("%s: %s reaches %s", when, from, to)
		}
		if want {
			b.WaitUntil(when+": "+from+" reaches "+to, func() bool { return reaches(from, to) })
		}
	}
	expect("at first", "nn1", "nn2", true)
	expect("at first", Client, "nn1", true)
	b.Cut("nn1", "nn2")
	expect("cut", "nn1", "nn2", false)
	expect("cut", "nn2", "nn1", false)
	expect("cut", "nn1", "nn3", true)
	expect("cut", Client, "nn1", true)
	b.Heal("nn1", "nn2")
	expect("healed", "nn1", "nn2", true)
	expect("healed", "nn2", "nn1", true)
	b.CutOneWay("nn3", Client)
	expect("answers are lost", Client, "nn3", false)
	expect("answers are lost", Client, "nn1", true)
	b.HealOneWay("nn3", Client)
	expect("healed", Client, "nn3", true)
	b.Unplug("nn2")
	expect("unplugged", Client, "nn2", false)
	expect("unplugged", "nn1", "nn2", false)
	b.Plug("nn2")
	expect("plugged in", Client, "nn2", true)
	b.Limit("nn1", 10_000_000)
	expect("slow", Client, "nn1", true)
	b.Unlimit("nn1")
	b.WaitReady()
}

func TestDelay(t *testing.T) {
	Duration(t)
	b := New(t, Options{NameNodes: 1, Network: Namespaces})
	b.Delay("nn1", 20, 5)
	b.WaitReady()
	b.Unlimit("nn1")
}

func TestCPUQuota(t *testing.T) {
	Duration(t)
	if os.Getuid() != 0 {
		t.Skip("CPU quotas need root")
	}
	b := New(t, Options{NameNodes: 1, DataNodes: 1})
	b.CPUQuota("nn1", 20)
	b.Restart("nn1")
	b.WaitReady()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.PID("nn1")))
	if err != nil || !strings.Contains(string(groups), b.stake.of(b.node("nn1"))) {
		t.Errorf("the node is not in its group: %v\n%s", err, groups)
	}
	b.CPUQuota("nn1", 400)
}

// abandon is set in the environment of a process that is to be killed with a bed.
const abandon = "DFS_FAULTBED_ABANDON"

// TestSweep kills a test process in the middle of its work, and finds nothing of
// it afterwards.
func TestSweep(t *testing.T) {
	Duration(t)
	requireMounts(t)
	requireNamespaces(t)
	victim := exec.Command(os.Args[0], "-test.run", "^TestAbandon$", "-test.v")
	victim.Env = append(os.Environ(), abandon+"=1", BinaryVariable+"="+product.path(t))
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var name, pid string
	for lines := bufio.NewScanner(out); name == "" && lines.Scan(); {
		if _, rest, ok := strings.Cut(lines.Text(), "abandoned: "); ok {
			name, pid, _ = strings.Cut(rest, " ")
		}
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	if name == "" {
		t.Fatal("the victim made no bed")
	}
	waitGone(t, "/proc/"+pid)
	if err := sweepAll(); err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{imagesRoot + "/" + name, mountsRoot + "/" + name, "/run/netns/" + name + "-*",
		"/sys/class/net/" + name + "*", cpuHierarchy + "/" + name + "-*", fmt.Sprintf("%s/%s%d-*", os.TempDir(), tempPrefix, victim.Process.Pid)} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
}

func waitGone(t *testing.T, path string) {
	t.Helper()
	b := &Bed{t: t}
	b.WaitUntil(path+" is gone", func() bool {
		_, err := os.Stat(path)
		return err != nil
	})
}

// TestAbandon is the victim of TestSweep.
func TestAbandon(t *testing.T) {
	if os.Getenv(abandon) == "" {
		t.Skip("TestSweep runs it")
	}
	b := New(t, Options{NameNodes: 1, Network: Namespaces, NameNodeDisk: Disk{Kind: Ext4, Size: 64 << 20}})
	b.CPUQuota("nn1", 90)
	b.Freeze("nn1")
	b.Pause("nn1")
	fmt.Printf("abandoned: %s %d\n", b.stake.name(), b.PID("nn1"))
	_ = unix.Pause() // until the signal that kills it
	t.Fatal("nobody killed it")
}

// TestPulledDisk: what is on a disk is not there while it is pulled, and is there
// again when it is back. A broken one gives nothing.
func TestPulledDisk(t *testing.T) {
	Duration(t)
	b := New(t, Options{NameNodes: 1, DataNodes: 1, DataDirs: 2, DataNodeDisk: Disk{Kind: Ext4, Size: 32 << 20}})
	dirs := b.Dirs("dn1")
	name := filepath.Join(dirs[1], "identity.json")
	b.PullDisk("dn1")
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file on a disk that was pulled: %v", err)
	}
	b.Kill("dn1")
	b.PutBackDisk("dn1")
	if _, err := os.Stat(name); err != nil {
		t.Errorf("a file on a disk that was put back: %v", err)
	}
	b.BreakDisk("dn1")
	if _, err := os.ReadFile(name); !errors.Is(err, syscall.EIO) {
		t.Errorf("a file on a broken disk: %v", err)
	}
	if _, err := os.ReadFile(filepath.Join(dirs[0], "identity.json")); err != nil {
		t.Errorf("the other disk: %v", err)
	}
	b.PutBackDisk("dn1")
}
