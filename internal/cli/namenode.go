package cli

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

const nameNodeSynopsis = `
Run a NameNode.

Without -peers and -join it is a group of its own. Three form a group when they
are started with the same -peers:
  -id nn1 -peers nn1=host1:7000@http://host1:8000,nn2=host2:7000@http://host2:8000,nn3=...

SIGTERM or SIGINT stops it in good order; a second one ends it at once.`

func (a *app) nameNode() *cobra.Command {
	return &cobra.Command{
		Use:                "namenode [-flags]",
		Short:              "Run a NameNode",
		Example:            `  dfs namenode -addr=":8000" -meta-dir=./meta`,
		DisableFlagParsing: true,
		RunE:               func(command *cobra.Command, args []string) error { return a.runNameNode(command.Context(), args) },
	}
}

func (a *app) runNameNode(ctx context.Context, args []string) error {
	config, err := a.nameNodeConfig(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := namenode.New(config)
	if err != nil {
		return usageErrorf("%s", err)
	}
	return serve(ctx, n, config.Logger)
}

func (a *app) nameNodeConfig(args []string) (namenode.Config, error) {
	var config namenode.Config
	var id, peers string
	timing := cluster.DefaultTiming()
	f := newDaemonFlags("namenode", nameNodeSynopsis)
	f.StringVar(&id, "id", "nn1", "`ID` in the group; stays with the meta-dir")
	f.StringVar(&config.Addr, "addr", ":8000", "`address` to serve HTTP on")
	f.StringVar(&config.MetaDir, "meta-dir", "./meta", "`directory` for the namespace, the log and the snapshots")
	f.StringVar(&config.RaftAddr, "raft-addr", "", "`address` for the other NameNodes (default :7000; 127.0.0.1:7000 when alone)")
	f.StringVar(&config.RaftAdvertise, "raft-advertise", "", "`host:port` that the other NameNodes reach -raft-addr by (default: from -peers, or -raft-addr)")
	f.StringVar(&config.Advertise, "advertise", "", "base `URL` that others reach -addr by (default: from -peers, or http://localhost:PORT)")
	f.StringVar(&peers, "peers", "", "first members of a new group, the same on all: `id=raft_host:port@http_url,...`")
	f.StringVar(&config.Join, "join", "", "`URL` of a NameNode of the group to wait for being let into, by `dfs admin join`")
	f.DurationVar(&timing.HeartbeatTimeout, "heartbeat-timeout", timing.HeartbeatTimeout, "silence of the leader after which another is looked for")
	f.DurationVar(&timing.ElectionTimeout, "election-timeout", timing.ElectionTimeout, "how long a candidate waits for votes")
	f.Uint64Var(&config.SnapshotThreshold, "snapshot-threshold", 8192, "log entries between two snapshots")
	f.DurationVar(&config.SnapshotInterval, "snapshot-interval", 30*time.Second, "how often to look whether a snapshot is due")
	f.Uint64Var(&config.TrailingLogs, "trailing-logs", 0, "log entries kept behind a snapshot (default: 10240, or 5/4 of -snapshot-threshold)")
	f.DurationVar(&config.DiskTimeout, "disk-timeout", 10*time.Second, "a disk that takes longer for a write ends the NameNode")
	f.DurationVar(&config.HeartbeatInterval, "heartbeat", 2*time.Second, "how often DataNodes are to report")
	f.DurationVar(&config.SuspectAfter, "suspect-after", 6*time.Second, "silence of a DataNode after which it gets no new chunks")
	f.DurationVar(&config.DownAfter, "down-after", 20*time.Second, "silence of a DataNode after which it counts as lost")
	f.DurationVar(&config.UploadExpiry, "upload-expiry", time.Hour, "how long an upload without a sign of life is kept")
	f.DurationVar(&config.ReclaimGrace, "reclaim-grace", time.Minute, "how long chunks of deleted files stay for those who still read them; 0 for not at all")
	f.DurationVar(&config.TrimDelay, "trim-delay", protocol.OrderLifetime, "how long a replica must have been too many, and no DataNode have come or gone, before it is removed")
	balance := f.Bool("balance", true, "move chunks from fuller DataNodes to emptier ones")
	if err := f.parse(args, a.stdout); err != nil {
		return config, err
	}
	if config.TrimDelay <= 0 {
		return config, usageErrorf("-trim-delay must be above zero, like 10s")
	}
	if config.ReclaimGrace == 0 {
		config.ReclaimGrace = namenode.AtOnce
	}
	if peers != "" {
		var err error
		if config.Peers, err = cluster.ParsePeers(peers); err != nil {
			return config, usageErrorf("-peers: %s", err)
		}
	}
	timing.LeaderLease = timing.HeartbeatTimeout / 2
	config.ID = dfs.NodeID(id)
	config.Timing = timing
	config.NoBalance = !*balance
	config.Logger = f.logger(id, a.stderr)
	return config, setClock(&config)
}

// clockVariable shifts the clock that a NameNode stamps changes with, so that
// tests see what a wrong clock does. It is not for anything else.
const clockVariable = "DFS_TEST_CLOCK_OFFSET"

func setClock(config *namenode.Config) error {
	text := os.Getenv(clockVariable)
	if text == "" {
		return nil
	}
	offset, err := time.ParseDuration(text)
	if err != nil {
		return usageErrorf("%s is %q and should be a duration, like -1h; it is for tests only, so unset it", clockVariable, text)
	}
	config.Now = func() time.Time { return time.Now().Add(offset) }
	config.Logger.Warn("THE CLOCK IS SHIFTED, which is for tests only", "variable", clockVariable, "offset", offset)
	return nil
}
