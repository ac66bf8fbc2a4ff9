package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// references are what we are held against. Those that are not installed are nil,
// and their rows have no ratio.
type references struct {
	disk disk
	web  *web
	etcd *etcd
}

// runner carries experiments out, one after the other.
type runner struct {
	s          settings
	references references
	ours       *dfsCluster
	previous   *dfsCluster // nil: not asked for
}

func newRunner(s settings) (*runner, error) {
	r := &runner{
		s: s, references: references{disk: disk{filepath.Join(s.Home, "raw")}},
		ours: &dfsCluster{root: s.Root, home: filepath.Join(s.Home, "dfs"), port: s.Port},
	}
	if s.Previous != "" {
		r.previous = &dfsCluster{root: s.Previous, home: filepath.Join(s.Home, "previous"), port: s.Port + 100}
	}
	for _, dir := range []string{r.references.disk.dir, filepath.Join(s.Home, "results"), r.ours.home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *runner) clusters() []*dfsCluster {
	if r.previous == nil {
		return []*dfsCluster{r.ours}
	}
	return []*dfsCluster{r.ours, r.previous}
}

// build makes the programs, also for what needs no cluster.
func (r *runner) build(ctx context.Context) error {
	for _, c := range r.clusters() {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", c.program(), "./cmd/dfs")
		cmd.Dir, cmd.Stderr = c.root, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", c.root, err)
		}
	}
	return nil
}

// close ends and removes all that was started, however the run has ended.
func (r *runner) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	err := r.stopReferences()
	for _, c := range r.clusters() {
		err = errors.Join(err, c.clear(ctx))
	}
	for _, large := range []string{"raw", "nginx/www", "etcd/e0", "etcd/e1", "etcd/e2"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(r.s.Home, large)))
	}
	return err
}

// keepLogs saves what the daemons said of a failure from being removed with
// their data.
func (r *runner) keepLogs(id string) error {
	folder := filepath.Join(r.s.Home, "failed-"+id)
	err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755))
	logs, globbing := filepath.Glob(filepath.Join(r.ours.home, "*.log"))
	err = errors.Join(err, globbing)
	for _, log := range logs {
		err = errors.Join(err, os.Rename(log, filepath.Join(folder, filepath.Base(log))))
	}
	return err
}

// runAll measures everything and prints the table.
func runAll(ctx context.Context, s settings) (err error) {
	s.fit()
	r, err := newRunner(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	if err := r.build(ctx); err != nil {
		return err
	}
	report := newReport(ctx, s)
	failed := 0
	for _, e := range experiments(s, &r.references) {
		if !s.wants(e.id) {
			continue
		}
		began := time.Now()
		fmt.Fprintf(os.Stderr, "%s %-9s", began.Format(time.TimeOnly), e.id)
		m := r.measure(ctx, e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Fprintf(os.Stderr, " %4.0f s  %s\n", since(began), m.Failure)
		if m.Failure != "" {
			failed++
			if err := r.keepLogs(e.id); err != nil {
				return err
			}
		}
		report.Measurements = append(report.Measurements, m)
		if err := report.save(filepath.Join(s.Home, "results")); err != nil { // what is there survives an interruption
			return err
		}
	}
	fmt.Printf("\n%s\n%s\n", report.text(), filepath.Join(s.Home, "results", report.file()))
	if failed > 0 {
		return fmt.Errorf("%d experiments failed", failed)
	}
	return nil
}

// measure takes turns, and the order changes from run to run.
func (r *runner) measure(ctx context.Context, e experiment) measurement {
	m := measurement{ID: e.id, Figures: e.figures}
	if err := r.prepare(ctx, e); err != nil {
		m.Failure = err.Error()
		return m
	}
	type turn struct {
		into *[]sample
		take func() (sample, error)
	}
	ours := func(c *dfsCluster) (sample, error) {
		if e.anew {
			if err := c.fresh(ctx, e.dataNodes); err != nil {
				return sample{}, err
			}
		}
		return e.ours(ctx, c)
	}
	turns := []turn{{&m.Ours, func() (sample, error) { return ours(r.ours) }}}
	if e.reference != nil && (e.partly || r.has(e.needs)) {
		turns = append(turns, turn{&m.Reference, func() (sample, error) { return e.reference(ctx) }})
	}
	if r.previous != nil {
		turns = append(turns, turn{&m.Previous, func() (sample, error) { return ours(r.previous) }})
	}
	runs := r.s.Runs
	if e.once {
		runs = 1
	}
	lame := make(map[*[]sample]bool) // an earlier revision that cannot measure this is left out
	for run := range runs {
		for i := range turns {
			if run%2 == 1 && e.id != "recover" { // there the reference copies what was lost
				i = len(turns) - 1 - i
			}
			t := turns[i]
			if lame[t.into] {
				continue
			}
			s, err := t.take()
			switch {
			case err == nil:
				*t.into = append(*t.into, s)
			case t.into == &m.Previous:
				lame[t.into] = true
			default:
				m.Failure = err.Error()
				return m
			}
			fmt.Fprint(os.Stderr, ".")
		}
	}
	return m
}

// prepare starts what an experiment needs: an empty cluster, and the reference.
func (r *runner) prepare(ctx context.Context, e experiment) error {
	for _, c := range r.clusters() {
		err := c.clear(ctx)
		if err == nil && e.dataNodes > 0 {
			err = c.fresh(ctx, e.dataNodes)
		}
		if err != nil {
			return err
		}
	}
	if err := r.stopReferences(); err != nil {
		return err
	}
	var err error
	switch program := find(e.needs); {
	case program == "":
	case e.needs == nginx:
		r.references.web, err = startWeb(ctx, program, r.s.Home, r.s.Port+200)
	case e.needs == etcdName:
		r.references.etcd, err = startEtcd(ctx, program, r.s.Home, r.s.Port+220)
	}
	return err
}

// has tells whether a reference is there. The raw disk always is.
func (r *runner) has(needs string) bool {
	switch needs {
	case nginx:
		return r.references.web != nil
	case etcdName:
		return r.references.etcd != nil
	}
	return true
}

func (r *runner) stopReferences() (err error) {
	if r.references.web != nil {
		err = r.references.web.stop()
	}
	if r.references.etcd != nil {
		err = errors.Join(err, r.references.etcd.stop())
	}
	r.references.web, r.references.etcd = nil, nil
	return err
}

// find returns a program, "" when it is not installed. On Debian nginx is not in
// everybody's path.
func find(name string) string {
	if name == "" {
		return ""
	}
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	return ""
}
