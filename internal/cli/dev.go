package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/internal/testcluster"
)

// devStart is how long the cluster may take to elect a leader and to register
// its DataNodes.
const devStart = time.Minute

type devFlags struct {
	dir                          string
	httpPort, raftPort, dataPort int
	nameNodes, dataNodes         int
}

func (a *app) dev() *cobra.Command {
	var flags devFlags
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster in this process, for a first look",
		Long: `Run a whole cluster in this process, for a first look: NameNodes that elect a
leader, and DataNodes, all on 127.0.0.1. Ctrl-C ends it. Without --dir it keeps
its data in a temporary directory, which is removed at the end.`,
		Example: `  dfs dev
  dfs dev --dir ./dev --http-port 18000 --raft-port 17000 --data-port 19000`,
		Args: cobra.NoArgs,
	}
	f := command.Flags()
	f.StringVar(&flags.dir, "dir", "", "directory for the data of all nodes (default: a temporary one)")
	f.IntVar(&flags.httpPort, "http-port", 8000, "port of the first NameNode")
	f.IntVar(&flags.raftPort, "raft-port", 7000, "Raft port of the first NameNode")
	f.IntVar(&flags.dataPort, "data-port", 9000, "port of the first DataNode")
	f.IntVar(&flags.nameNodes, "name-nodes", 3, "how many NameNodes")
	f.IntVar(&flags.dataNodes, "data-nodes", 3, "how many DataNodes")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if flags.nameNodes < 1 || flags.nameNodes > 9 || flags.dataNodes < 1 || flags.dataNodes > 99 {
			return usageErrorf("--name-nodes must be 1 to 9 and --data-nodes 1 to 99")
		}
		return a.runDev(command.Context(), flags)
	}
	return command
}

func (a *app) runDev(ctx context.Context, flags devFlags) (err error) {
	if flags.dir == "" {
		if flags.dir, err = os.MkdirTemp("", "dfs-dev-"); err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(flags.dir)) }()
	}
	logger := hclog.NewNullLogger() // the nodes of one process that ends tell each other off
	if a.verbose {
		logger = hclog.New(&hclog.LoggerOptions{Name: "dev", Level: hclog.Info, Output: a.stderr})
	}
	starting, cancel := context.WithTimeout(ctx, devStart)
	defer cancel()
	cluster, err := testcluster.Start(starting, testcluster.Config{
		NameNodes: flags.nameNodes, DataNodes: flags.dataNodes, Dir: flags.dir,
		HTTPPort: flags.httpPort, RaftPort: flags.raftPort, DataPort: flags.dataPort,
		Logger: logger,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, `%d NameNodes and %d DataNodes are running in %s. Ctrl-C ends them.

In another terminal:
  export DFS_NAMENODES=%s
  dfs upload README.md docs/readme.md
  dfs ls -l docs
  dfs admin members
  curl %s/nodes
`, flags.nameNodes, flags.dataNodes, flags.dir, strings.Join(cluster.URLs(), ","), cluster.URLs()[0])
	<-ctx.Done()
	return cluster.Close()
}
