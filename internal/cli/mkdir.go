package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (a *app) mkdir() *cobra.Command {
	var parents bool
	command := &cobra.Command{
		Use:   "mkdir PATH...",
		Short: "Make directories",
		Long:  "Make directories. With -p, missing parents are made as well, and a directory that exists is fine.",
		Example: `  dfs mkdir /backup
  dfs mkdir -p /backup/2026/11`,
		Args: cobra.MinimumNArgs(1),
	}
	command.Flags().BoolVarP(&parents, "parents", "p", false, "make missing parents; a directory that exists is fine")
	command.RunE = a.with(func(ctx context.Context, c *client.Client, args []string) error {
		mkdir := c.Mkdir
		if parents {
			mkdir = c.MkdirAll
		}
		return a.each(ctx, args, func(arg string) error {
			path, err := remotePath(arg)
			if err != nil {
				return err
			}
			if err := mkdir(ctx, path); err != nil {
				return err
			}
			return a.printPath(path)
		})
	})
	return command
}

// printPath answers for a mutation, which says nothing to people.
func (a *app) printPath(path dfs.Path) error {
	if !a.json {
		return nil
	}
	return a.printJSON(protocol.PathReply{Path: path.String()})
}
