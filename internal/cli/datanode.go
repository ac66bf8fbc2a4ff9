package cli

import (
	"context"
	"errors"
	"flag"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const dataNodeSynopsis = `
Run a DataNode. It keeps chunks in -data-dir and reports to the NameNodes. With
several directories it goes on when the disk of one fails.

SIGTERM or SIGINT stops it in good order; a second one ends it at once.`

func (a *app) dataNode() *cobra.Command {
	return &cobra.Command{
		Use:                "datanode [-flags]",
		Short:              "Run a DataNode",
		Example:            `  dfs datanode -id=dn1 -addr=":9000" -namenode=http://localhost:8000 -data-dir=./data1`,
		DisableFlagParsing: true,
		RunE:               func(command *cobra.Command, args []string) error { return a.runDataNode(command.Context(), args) },
	}
}

func (a *app) runDataNode(ctx context.Context, args []string) error {
	config, err := a.dataNodeConfig(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := datanode.New(config)
	if err != nil {
		return usageErrorf("%s", err)
	}
	return serve(ctx, d, config.Logger)
}

func (a *app) dataNodeConfig(args []string) (datanode.Config, error) {
	var config datanode.Config
	var id, nameNodes, dataDirs string
	var reserve sizeFlag
	scrubRate := sizeFlag(datanode.DefaultScrubRate)
	f := newDaemonFlags("datanode", dataNodeSynopsis)
	f.StringVar(&id, "id", "dn1", "`ID` in the cluster; stays with the data directory")
	f.StringVar(&config.Addr, "addr", ":9000", "`address` to serve HTTP on")
	f.StringVar(&config.Self, "self", "", "base `URL` that others reach -addr by (default http://localhost:PORT)")
	f.StringVar(&nameNodes, "namenode", envOr(nameNodesVariable, defaultNameNodes), "base `URLs` of NameNodes, comma separated; $"+nameNodesVariable)
	f.StringVar(&dataDirs, "data-dir", "./data", "`directories` for the chunks, comma separated: one on each disk")
	f.DurationVar(&config.TrashKeep, "trash-keep", datanode.DefaultTrashKeep, "how long removed chunks stay in trash/ of their directory, unless the room is needed; 0 removes them at once")
	f.StringVar(&config.Rack, "rack", "", "`name` of what it shares with other DataNodes that may fail together")
	f.Var(&reserve, "reserve", "`size` of each disk to leave free, like 10GiB (default: 128 MiB or 1 % of it, whichever is more)")
	f.DurationVar(&config.HeartbeatInterval, "heartbeat", 2*time.Second, "how often to report, until a NameNode asks for another interval")
	f.Var(&scrubRate, "scrub-rate", "`size` per second to read chunks again with, to find what the disk has damaged; 0 turns it off")
	f.DurationVar(&config.ScrubInterval, "scrub-interval", 24*time.Hour, "least time between the beginnings of two passes over all chunks")
	if err := f.parse(args, a.stdout); err != nil {
		return config, err
	}
	config.ID = dfs.NodeID(id)
	config.NameNodes = splitList(nameNodes)
	config.DataDirs = splitList(dataDirs)
	for _, text := range config.NameNodes {
		if strings.Contains(text, ":") && !strings.Contains(text, "://") {
			return config, usageErrorf("-namenode: http:// is missing in %q", text)
		}
	}
	config.Reserve = int64(reserve)
	config.ScrubRate = int64(scrubRate)
	config.Logger = f.logger(id, a.stderr)
	return config, nil
}
