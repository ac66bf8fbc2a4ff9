package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// hangingDaemon cannot go on, and waits for what never ends when it is closed.
type hangingDaemon struct {
	closing chan struct{} // closed by Close
	release chan struct{}
}

func (d *hangingDaemon) Open(context.Context) error { return nil }

func (d *hangingDaemon) Wait() error { return errors.New("the disk hangs") }

func (d *hangingDaemon) Close(context.Context) error {
	close(d.closing)
	<-d.release
	return nil
}

// TestFaultIsLoggedAtOnce: why a daemon ends is in its log before it tries to
// close anything, which may take long or fail.
func TestFaultIsLoggedAtOnce(t *testing.T) {
	d := &hangingDaemon{closing: make(chan struct{}), release: make(chan struct{})}
	var log bytes.Buffer
	served := make(chan error, 1)
	go func() { served <- serve(t.Context(), d, hclog.New(&hclog.LoggerOptions{Output: &log})) }()
	<-d.closing
	if text := log.String(); !strings.Contains(text, "the disk hangs") {
		t.Errorf("the log when it closes: %q", text)
	}
	close(d.release)
	if err := <-served; err == nil || err.Error() != "the disk hangs" {
		t.Errorf("the fault: %v", err)
	}
}

// TestAbandonDoesNotWait for a daemon that ignores how long it may take.
func TestAbandonDoesNotWait(t *testing.T) {
	d := &hangingDaemon{closing: make(chan struct{}), release: make(chan struct{})}
	defer close(d.release)
	abandon(d, time.Millisecond)
	<-d.closing
}

func TestShiftedClock(t *testing.T) {
	a := &app{stderr: io.Discard}
	if config, err := a.nameNodeConfig(nil); err != nil || config.Now != nil {
		t.Errorf("without the variable: %v, a clock of its own: %t", err, config.Now != nil)
	}
	var log bytes.Buffer
	a.stderr = &log
	t.Setenv(clockVariable, "-87600h")
	config, err := a.nameNodeConfig(nil)
	if err != nil || config.Now().After(time.Now().Add(-87599*time.Hour)) {
		t.Errorf("the clock: %v", err)
	}
	if !strings.Contains(log.String(), "[WARN]") || !strings.Contains(log.String(), clockVariable) {
		t.Errorf("no warning: %q", log.String())
	}
	t.Setenv(clockVariable, "tomorrow")
	if _, err := a.nameNodeConfig(nil); err == nil || !strings.Contains(err.Error(), clockVariable) {
		t.Errorf("not a duration: %v", err)
	}
}
