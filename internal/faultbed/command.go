//go:build linux

package faultbed

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Command returns a run of dfs with these arguments, as a user of the cluster
// would start it. It ends with the test at the latest.
func (b *Bed) Command(args ...string) *exec.Cmd {
	return b.CommandAt(strings.Join(b.nameNodeURLs(), ","), args...)
}

// CommandAt is Command for somebody who knows only these NameNodes.
func (b *Bed) CommandAt(nameNodes string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.t.Context(), b.binary, args...)
	cmd.Env = append(os.Environ(), "DFS_NAMENODES="+nameNodes)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// PauseProcess stops a process that is no node, and returns when it does nothing
// any more.
func (b *Bed) PauseProcess(pid int) {
	b.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		b.t.Fatalf("stop process %d: %v", pid, err)
	}
	b.waitFor(pauseWait, pollingWait, "the process is stopped", func() bool { return isStopped(pid) })
}

// ContinueProcess undoes PauseProcess.
func (b *Bed) ContinueProcess(pid int) {
	b.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		b.t.Fatalf("continue process %d: %v", pid, err)
	}
}
