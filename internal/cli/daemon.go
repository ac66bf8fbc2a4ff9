package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// stopTimeout is how long a daemon may take to stop in good order.
	stopTimeout = 30 * time.Second
	// faultTimeout is how long one may take that cannot go on: what it waits for
	// may be what is broken, and the others wait for its place to be free.
	faultTimeout = 3 * time.Second
)

// daemon is what a NameNode and a DataNode have in common.
type daemon interface {
	Open(ctx context.Context) error
	Wait() error // nil after Close, or the fault that ended it
	Close(ctx context.Context) error
}

// ballast is how many bytes of memory are reserved, but never touched, so that
// the garbage collector runs when there is some garbage, not each time a small
// heap has doubled.
const ballast = 32 << 20

// serve runs a daemon until ctx ends or it cannot go on.
func serve(ctx context.Context, d daemon, logger hclog.Logger) error {
	reserved := make([]byte, ballast)
	defer runtime.KeepAlive(reserved)
	if err := d.Open(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Wait() }() // Close ends it
	select {
	case <-ctx.Done():
	case fault := <-ended:
		if fault != nil {
			logger.Error("this process cannot go on and ends", "error", fault)
			abandon(d, faultTimeout)
			return fault
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := d.Close(closing); err != nil {
		return fmt.Errorf("it did not stop in good order: %w", err)
	}
	return nil
}

// abandon closes what can be closed of a daemon with a fault. It does not wait
// for the rest: a write to a disk that hangs never ends.
func abandon(d daemon, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	closed := make(chan struct{})
	go func() { // ends with the process, if not before
		defer close(closed)
		_ = d.Close(ctx) // the fault is what counts
	}()
	select {
	case <-closed:
	case <-time.After(2 * patience): // it does not keep to its time
	}
}

// daemonFlags are the flags that both daemons have, in the classic form with
// one dash.
type daemonFlags struct {
	*flag.FlagSet
	logLevel string
	synopsis string
}

func newDaemonFlags(name, synopsis string) *daemonFlags {
	f := &daemonFlags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), synopsis: synopsis}
	f.SetOutput(io.Discard) // parse tells what is wrong
	f.StringVar(&f.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	return f
}

// parse reads the flags. It returns flag.ErrHelp after it has printed the help.
func (f *daemonFlags) parse(args []string, stdout io.Writer) error {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, "%s\n\nFlags:\n", strings.TrimSpace(f.synopsis))
		f.SetOutput(stdout)
		f.PrintDefaults()
		return err
	case err != nil:
		return usageErrorf("%s; -help lists the flags", plainFlagError(err))
	case f.NArg() > 0:
		return usageErrorf("%q is not a flag; -help lists the flags", f.Arg(0))
	case hclog.LevelFromString(f.logLevel) == hclog.NoLevel:
		return usageErrorf("-log-level cannot be %q: choose trace, debug, info, warn or error", f.logLevel)
	}
	return nil
}

func (f *daemonFlags) logger(id string, stderr io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: id, Level: hclog.LevelFromString(f.logLevel), Output: stderr})
}
