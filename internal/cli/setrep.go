package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (a *app) setrep() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:   "setrep N PATH...",
		Short: "Set how many replicas files should have",
		Long: `Set how many replicas files should have; with -R, all files in directories.

The leader has missing replicas made and surplus ones removed afterwards; see
dfs fsck.`,
		Example: `  dfs setrep 2 /logs/app.log
  dfs setrep -R 3 /backup`,
		Args: cobra.MinimumNArgs(2),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "R", false, "all files in directories, and in those below them")
	command.RunE = func(command *cobra.Command, args []string) error {
		replication, err := strconv.Atoi(args[0])
		if err == nil {
			err = dfs.CheckReplication(replication)
		}
		if err != nil {
			return usageErrorf("%.40q is no number of replicas: 1 to %d are possible; see `dfs setrep --help`", args[0], dfs.MaxReplication)
		}
		set := a.setReplication
		if recursive {
			set = a.setReplicationBelow
		}
		return a.with(func(ctx context.Context, c *client.Client, paths []string) error {
			return a.each(ctx, paths, func(arg string) error {
				path, err := remotePath(arg)
				if err != nil {
					return err
				}
				return set(ctx, c, path, replication)
			})
		})(command, args[1:])
	}
	return command
}

func (a *app) setReplication(ctx context.Context, c *client.Client, path dfs.Path, replication int) error {
	err := c.SetReplication(ctx, path, replication)
	if dfs.CodeOf(err) == dfs.IsDirectory {
		return dfs.Errorf(dfs.IsDirectory, "%w (-R sets it for all files in it)", err)
	}
	if err != nil {
		return err
	}
	return a.printPath(path)
}

// setReplicationBelow goes through a directory tree. A file that disappears
// meanwhile is passed over.
func (a *app) setReplicationBelow(ctx context.Context, c *client.Client, path dfs.Path, replication int) error {
	entry, err := c.Stat(ctx, path)
	if err != nil {
		return err
	}
	if entry.Type == protocol.TypeFile {
		return a.setReplication(ctx, c, path, replication)
	}
	open := []dfs.Path{path}
	for len(open) > 0 {
		dir := open[len(open)-1]
		open = open[:len(open)-1]
		for entry, err := range c.List(ctx, dir) {
			if gone := dfs.CodeOf(err) == dfs.NotFound && dir != path; gone {
				break
			}
			if err != nil {
				return err
			}
			child, err := dfs.ParsePath(entry.Path)
			if err != nil {
				return err
			}
			if entry.Type == protocol.TypeDirectory {
				open = append(open, child)
				continue
			}
			if err := a.setReplication(ctx, c, child, replication); err != nil && dfs.CodeOf(err) != dfs.NotFound {
				return err
			}
		}
	}
	return nil
}
