package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopPatience is how long a process has to end by itself.
const stopPatience = 20 * time.Second

// process is a server that was started here and ends with us.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan error
}

// startProcess runs a server with its output in dir/name.log.
func startProcess(dir, name, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that Ctrl-C reaches us alone; and it must not
	// outlive us, however we end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: cmd, ended: make(chan error, 1)}
	go func() { p.ended <- cmd.Wait() }() // ends with the process, which stop sees to
	return p, nil
}

// stop ends it, by force if it does not end.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopPatience):
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	<-p.ended
	return fmt.Errorf("%s did not end and was killed", p.name)
}

// waitFor asks until something works, or the process has ended.
func (p *process) waitFor(ctx context.Context, d time.Duration, works func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := works(ctx)
		if err == nil {
			return nil
		}
		select {
		case ended := <-p.ended:
			p.ended <- ended
			return fmt.Errorf("%s has ended (%v); see its log", p.name, ended)
		case <-ctx.Done():
			return fmt.Errorf("%s does not work: %w", p.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
