// Command reference measures a cluster beside what could limit it: the raw disk,
// nginx and etcd on the same machine, in the same run, in turns. It is started
// by scripts/bench.sh, which installs and builds what is needed.
//
// Start reading at experiments.go, which has what is measured and the aims;
// runner.go carries it out, report.go has the figures, curves.go and plot.go the
// plots. cluster.go, raw.go, web.go and etcd.go are those that are measured.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `usage: reference run|curves|publish RESULTS.json [LATER.json...]`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	s, err := settingsFrom(os.Getenv)
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "run":
		return runAll(ctx, s)
	case len(args) == 1 && args[0] == "curves":
		return runCurves(ctx, s)
	case len(args) >= 2 && args[0] == "publish":
		return publish(args[1:], filepath.Join(s.Root, "docs", "performance.md"))
	}
	return errors.New(usage)
}
