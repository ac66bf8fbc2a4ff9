package cli

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/internal/bench"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// commandPatience is how long a command may take, and what it leaves running
// may keep its output open.
const (
	commandPatience = time.Minute
	outputPatience  = time.Second
)

// idMark stands for the node in a command of the user.
const idMark = "{id}"

func (a *app) benchFailover() *cobra.Command {
	var flags benchFlags
	command := &cobra.Command{
		Use:   "failover",
		Short: "Measure how long nothing is acknowledged when the leader is lost",
		Long: `Lose the leader again and again, and measure how long it takes until the next
write, and the next linearizable read, is acknowledged, while clients try as
fast as they can, each with one in flight. Counted is the longest time without
an acknowledgement from just before the loss until an operation that began after
it has succeeded.

A client cannot kill a NameNode: --kill says how, and --start how it is started
again, which is done before the next round. In both {id} stands for the NameNode.
Without --kill the leader is asked to hand its leadership over, which is milder:
the result says so.`,
		Example: "  dfs bench failover --count 20 --kill 'scripts/quorum.sh kill {id}' --start 'scripts/quorum.sh start-one {id}'\n" +
			"  dfs bench failover",
		Args: cobra.NoArgs,
		RunE: a.measure(&flags, func(ctx context.Context, m *measurement) error {
			if flags.start != "" && flags.kill == "" {
				return usageErrorf("--start is for what --kill has killed: say how to kill, too")
			}
			write, read, err := m.failoverLoad()
			if err != nil {
				return err
			}
			plan := bench.FailoverPlan{Count: int(flags.count), Duration: flags.duration, WarmUp: flags.warmUp, Concurrency: flags.concurrency}
			return m.faulted(ctx, func() ([]bench.Result, error) {
				return bench.Failover(ctx, m.c, plan, a.faults(&flags), write, read)
			})
		}),
	}
	flags.add(command, 0, 10, 1, 0)
	command.Flags().Lookup("count").Usage = "how often to lose the leader; 0 for as often as --duration lets"
	command.Flags().Lookup("concurrency").Usage = "writers, and as many readers, each with one operation in flight"
	command.Flags().Var(&flags.size, "size", "`size` of the files to write; 0 makes directories, which needs no DataNode")
	flags.addFaults(command)
	return command
}

// failoverLoad is what goes on while leaders are lost. Reads are of the
// directory that everything happens in.
func (m *measurement) failoverLoad() (write, read bench.Work, err error) {
	if m.flags.size > 0 {
		write = m.field.Put(int64(m.flags.size), nil)
	} else if write, err = m.field.Meta("mkdir", 0); err != nil {
		return nil, nil, err
	}
	read = func(ctx context.Context, _ int64) (int64, error) {
		_, err := m.c.Stat(ctx, m.field.Root())
		return 0, err
	}
	return write, read, nil
}

func (a *app) benchRecover() *cobra.Command {
	var flags benchFlags
	command := &cobra.Command{
		Use:   "recover",
		Short: "Measure how fast the replicas of a lost DataNode come back",
		Long: `Store files, kill a DataNode, and measure how long it takes until 'dfs fsck' is
healthy again: from its death, and from when it was taken for dead, which is when
copying begins. A light load goes on meanwhile, and what fails of it is counted.

--kill says how to kill, and --start how to start it again afterwards; --wipe, in
between, empties its disks. In all of them {id} stands for the DataNode. There must be one more
than replicas are wanted.`,
		Example: "  dfs bench recover --size 64MiB --count 64 --kill 'scripts/quorum.sh kill {id}' --start 'scripts/quorum.sh start-one {id}'",
		Args:    cobra.NoArgs,
		RunE: a.measure(&flags, func(ctx context.Context, m *measurement) error {
			if flags.kill == "" {
				return usageErrorf("--kill must say how to kill a DataNode, like --kill 'scripts/quorum.sh kill {id}'")
			}
			if flags.count == 0 || flags.size == 0 {
				return usageErrorf("--count and --size must say how many files to store, and how large; both must be above 0")
			}
			plan := bench.RecoverPlan{Files: flags.count, Size: int64(flags.size), Node: dfs.NodeID(flags.node), Concurrency: flags.concurrency}
			return m.faulted(ctx, func() ([]bench.Result, error) {
				return bench.Recover(ctx, m.c, m.field, plan, a.faults(&flags))
			})
		}),
	}
	f := command.Flags()
	flags.size = 64 << 20
	f.StringVar(&flags.dir, "dir", "/", "directory to work in")
	f.Var(&flags.size, "size", "`size` of each file")
	f.Int64Var(&flags.count, "count", 16, "files to store")
	f.IntVar(&flags.concurrency, "concurrency", 4, "files stored at once")
	f.StringVar(&flags.node, "node", "", "`ID` of the DataNode to kill (default: the one with the most chunks)")
	f.StringVar(&flags.wipe, "wipe", "", "`command` that empties the disks of {id}, before it is started again")
	flags.addFaults(command)
	return command
}

func (f *benchFlags) addFaults(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.kill, "kill", "", "`command` that kills {id} and returns when it is dead; run with sh -c")
	flags.StringVar(&f.start, "start", "", "`command` that starts {id} again")
}

// faulted measures around what restarts daemons.
func (m *measurement) faulted(ctx context.Context, measure func() ([]bench.Result, error)) error {
	names, data := bench.Servers(ctx, m.c)
	results, err := measure()
	if err != nil {
		return err
	}
	namesAfter, dataAfter := bench.Servers(ctx, m.c)
	for i := range results {
		results[i].NameNodes, results[i].DataNodes = namesAfter.Since(names), dataAfter.Since(data)
	}
	m.results = append(m.results, results...)
	return nil
}

func (a *app) faults(flags *benchFlags) bench.Faults {
	return bench.Faults{Kill: a.shell(flags.kill), Wipe: a.shell(flags.wipe), Start: a.shell(flags.start)}
}

// shell returns nil for no command.
func (a *app) shell(command string) func(context.Context, dfs.NodeID) error {
	if command == "" {
		return nil
	}
	return func(ctx context.Context, id dfs.NodeID) error {
		if _, err := dfs.ParseNodeID(string(id)); err != nil { // it came from another machine, and goes to a shell
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, commandPatience)
		defer cancel()
		line := strings.ReplaceAll(command, idMark, string(id))
		run := exec.CommandContext(ctx, "sh", "-c", line)
		run.Stdout, run.Stderr, run.WaitDelay = a.stderr, a.stderr, outputPatience
		if err := run.Run(); err != nil {
			return dfs.Errorf(dfs.Internal, "the command %q failed: %w", line, err)
		}
		return nil
	}
}

func repairSentence(r *bench.Repair) string {
	return fmt.Sprintf("%s had %d chunks, %s: %s from its death until all was healthy, of which %s until it was taken for dead and %s copying, at %s/s",
		r.Node, r.Chunks, humanSize(r.Bytes), shortTime(r.Total), shortTime(r.Down), shortTime(r.Copying), humanSize(int64(r.BytesPerSec)))
}
