package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/bench"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

type benchFlags struct {
	dir         string
	size        sizeFlag
	count       int64
	concurrency int
	duration    time.Duration
	warmUp      time.Duration
	replication int

	operations   []string // meta
	names        int64
	perDirectory int64

	kill, start, wipe string // failover and recover: commands
	node              string
}

func (a *app) bench() *cobra.Command {
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast the cluster is",
		Long: `Measure how fast the cluster is, as this client sees it. Everything happens in
a directory of its own, which is removed afterwards.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.benchPut(), a.benchGet(), a.benchSmall(), a.benchMeta(), a.benchFailover(), a.benchRecover())
	return command
}

func (f *benchFlags) add(command *cobra.Command, size int64, count int64, concurrency int, duration time.Duration) {
	f.size = sizeFlag(size)
	flags := command.Flags()
	flags.StringVar(&f.dir, "dir", "/", "directory to work in")
	if size > 0 {
		flags.Var(&f.size, "size", "`size` of each file")
		flags.IntVar(&f.replication, "replication", 0, "replicas of each chunk (default: the cluster's)")
	}
	flags.Int64Var(&f.count, "count", count, "operations to measure; 0 for as many as --duration lets")
	flags.IntVar(&f.concurrency, "concurrency", concurrency, "operations at once")
	flags.DurationVar(&f.duration, "duration", duration, "how long to measure; 0 until --count is reached")
	flags.DurationVar(&f.warmUp, "warm-up", 0, "time before that, which does not count")
}

func (f *benchFlags) plan() (bench.Plan, error) {
	switch {
	case f.concurrency < 1 || f.concurrency > 10_000:
		return bench.Plan{}, usageErrorf("--concurrency: choose 1 to 10000")
	case f.count < 0 || f.duration < 0 || f.warmUp < 0 || f.count == 0 && f.duration == 0:
		return bench.Plan{}, usageErrorf("--count or --duration must say when to stop, and none can be negative")
	}
	return bench.Plan{Concurrency: f.concurrency, Count: f.count, Duration: f.duration, WarmUp: f.warmUp}, nil
}

// measurement is one run of dfs bench.
type measurement struct {
	a       *app
	c       *client.Client
	field   *bench.Field
	plan    bench.Plan
	flags   *benchFlags
	results []bench.Result
}

// run measures one kind of work, and what it cost the servers.
func (m *measurement) run(ctx context.Context, name string, plan bench.Plan, work bench.Work) bench.Result {
	names, data := bench.Servers(ctx, m.c)
	result := bench.Run(ctx, name, plan, work)
	namesAfter, dataAfter := bench.Servers(ctx, m.c)
	result.NameNodes, result.DataNodes = namesAfter.Since(names), dataAfter.Since(data)
	m.results = append(m.results, result)
	return result
}

// put stores files as the flags say.
func (m *measurement) put() (bench.Work, error) {
	if m.flags.replication == 0 {
		return m.field.Put(int64(m.flags.size), nil), nil
	}
	if err := dfs.CheckReplication(m.flags.replication); err != nil {
		return nil, usageErrorf("--replication: %s", err)
	}
	return m.field.Put(int64(m.flags.size), &m.flags.replication), nil
}

// measure prepares a place, lets steps measure there, cleans up, and prints.
func (a *app) measure(flags *benchFlags, steps func(context.Context, *measurement) error) func(*cobra.Command, []string) error {
	return a.with(func(ctx context.Context, c *client.Client, _ []string) (err error) {
		plan, err := flags.plan()
		if err != nil {
			return err
		}
		parent, err := remotePath(flags.dir)
		if err != nil {
			return err
		}
		field, err := bench.NewField(ctx, c, parent)
		if err != nil {
			return err
		}
		defer func() {
			if removing := field.Remove(context.WithoutCancel(ctx)); err == nil {
				err = removing
			}
		}()
		m := &measurement{a: a, c: c, field: field, plan: plan, flags: flags}
		if err := steps(ctx, m); err != nil {
			return err
		}
		return m.print()
	})
}

func (a *app) benchPut() *cobra.Command {
	var flags benchFlags
	command := &cobra.Command{
		Use:     "put",
		Short:   "Measure uploads",
		Example: "  dfs bench put --size 1GiB\n  dfs bench put --size 1GiB --count 4 --concurrency 4",
		Args:    cobra.NoArgs,
		RunE: a.measure(&flags, func(ctx context.Context, m *measurement) error {
			put, err := m.put()
			if err != nil {
				return err
			}
			m.run(ctx, "put", m.plan, put)
			return nil
		}),
	}
	flags.add(command, 1<<30, 1, 1, 0)
	return command
}

func (a *app) benchGet() *cobra.Command {
	var flags benchFlags
	command := &cobra.Command{
		Use:   "get",
		Short: "Measure downloads",
		Long:  "Measure downloads of files that are stored before, one for each reader.",
		Example: "  dfs bench get --size 1GiB\n" +
			"  dfs bench get --size 256MiB --count 32 --concurrency 8",
		Args: cobra.NoArgs,
		RunE: a.measure(&flags, func(ctx context.Context, m *measurement) error {
			put, err := m.put()
			if err != nil {
				return err
			}
			stored := int64(m.plan.Concurrency)
			if err := prepared(bench.Run(ctx, "prepare", bench.Plan{Concurrency: 1, Count: stored}, put)); err != nil {
				return err
			}
			m.run(ctx, "get", m.plan, m.field.Get(stored))
			return nil
		}),
	}
	flags.add(command, 1<<30, 1, 1, 0)
	return command
}

func (a *app) benchSmall() *cobra.Command {
	var flags benchFlags
	command := &cobra.Command{
		Use:     "small",
		Short:   "Measure many small files: uploads, then downloads",
		Example: "  dfs bench small --size 4KiB --concurrency 16 --duration 10s",
		Args:    cobra.NoArgs,
		RunE: a.measure(&flags, func(ctx context.Context, m *measurement) error {
			put, err := m.put()
			if err != nil {
				return err
			}
			stored := m.run(ctx, "put small", m.plan, put)
			if stored.Operations == 0 {
				return prepared(stored)
			}
			// The files of the warm-up are there, too; those that failed are few.
			m.run(ctx, "get small", m.plan, m.field.Get(stored.Operations))
			return nil
		}),
	}
	flags.add(command, 4<<10, 0, 16, 10*time.Second)
	return command
}

func (a *app) benchMeta() *cobra.Command {
	var flags benchFlags
	command := &cobra.Command{
		Use:   "meta",
		Short: "Measure operations on the namespace",
		Long: `Measure operations on the namespace, one kind after the other: mkdir, create
(empty files), stat, list (of directories with up to --per-directory names), rename,
delete. An operation that needs files and is not preceded by create makes --names.`,
		Example: "  dfs bench meta --concurrency 128 --duration 5s\n  dfs bench meta --operations mkdir,stat\n" +
			"  dfs bench meta --operations list --names 100000 --per-directory 100000 --concurrency 1 --count 5",
		Args: cobra.NoArgs,
		RunE: a.measure(&flags, func(ctx context.Context, m *measurement) error {
			return m.meta(ctx)
		}),
	}
	flags.add(command, 0, 0, 128, 5*time.Second)
	command.Flags().StringSliceVar(&flags.operations, "operations", bench.MetaKinds(), "what to measure, each alone")
	command.Flags().Int64Var(&flags.names, "names", 2000, "files to make for operations that need some")
	command.Flags().Int64Var(&flags.perDirectory, "per-directory", bench.DefaultPerDirectory, "names in each directory")
	return command
}

func (m *measurement) meta(ctx context.Context) error {
	if m.flags.names < 1 || m.flags.perDirectory < 1 {
		return usageErrorf("--names and --per-directory must be above 0")
	}
	m.field.SetPerDirectory(m.flags.perDirectory)
	made := int64(0)
	for _, kind := range m.flags.operations {
		plan := m.plan
		work, err := m.field.Meta(kind, made)
		if err != nil {
			return usageErrorf("--operations: %s", err)
		}
		if kind != "mkdir" && kind != "create" && made == 0 {
			if made, err = m.makeNames(ctx); err != nil {
				return err
			}
			if work, err = m.field.Meta(kind, made); err != nil {
				return err
			}
		}
		if kind == "rename" || kind == "delete" { // each name only once
			plan.WarmUp = 0
			if plan.Count == 0 || plan.Count > made {
				plan.Count = made
			}
		}
		result := m.run(ctx, kind, plan, work)
		switch kind {
		case "create":
			made = result.Operations
		case "rename", "delete":
			m.field.Renew()
			made = 0
		}
	}
	return nil
}

// makeNames makes files for the operations that need some.
func (m *measurement) makeNames(ctx context.Context) (int64, error) {
	const atLeast = 32 // at once: it is not measured
	work, err := m.field.Meta("create", 0)
	if err != nil {
		return 0, err
	}
	result := bench.Run(ctx, "prepare", bench.Plan{Concurrency: max(m.plan.Concurrency, atLeast), Count: m.flags.names}, work)
	return result.Operations, prepared(result)
}

// prepared is why what a measurement needs is not there.
func prepared(r bench.Result) error {
	if r.Errors == 0 {
		return nil
	}
	return dfs.Errorf(dfs.Unavailable, "%d of %d operations failed before anything could be measured; the first: %s", r.Errors, r.Errors+r.Operations, r.FirstError)
}

func (m *measurement) print() error {
	if m.a.json {
		return m.a.printJSON(m.results)
	}
	t := newTable(m.a.stdout)
	t.row("WHAT", "AT ONCE", "OPS", "ERRORS", "OPS/S", "BYTES/S", "P50", "P99", "MAX", "CPU CLIENT", "NAMENODES", "DATANODES")
	for _, r := range m.results {
		t.row(r.Name, r.Concurrency, r.Operations, r.Errors, fmt.Sprintf("%.1f", r.PerSecond), humanSize(int64(r.BytesPerSec)),
			shortTime(r.P50), shortTime(r.P99), shortTime(r.Max), cpu(r.Client), cpu(r.NameNodes), cpu(r.DataNodes))
	}
	if err := t.flush(); err != nil {
		return err
	}
	var failures []string
	for _, r := range m.results {
		if r.How != "" && len(r.Samples) > 0 {
			fmt.Fprintf(m.a.stdout, "%s: %d times (%s), longest time without an acknowledgement %s\n", r.Name, r.Operations, r.How, shortTime(r.Max))
		}
		if r.Repair != nil {
			fmt.Fprintln(m.a.stdout, repairSentence(r.Repair))
		}
		if r.Errors > 0 {
			failures = append(failures, fmt.Sprintf("%s: %d failed, the first: %s", r.Name, r.Errors, r.FirstError))
		}
	}
	if len(failures) > 0 {
		return dfs.Errorf(dfs.Unavailable, "%s", strings.Join(failures, "; "))
	}
	return nil
}

func shortTime(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func cpu(u bench.Usage) string {
	return fmt.Sprintf("%.1fs %s", u.CPUSeconds, humanSize(u.Resident))
}
