package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
)

func (a *app) mv() *cobra.Command {
	return &cobra.Command{
		Use:   "mv SRC... DST",
		Short: "Rename or move files and directories",
		Long: `Rename or move files and directories. DST is the new path, which must not
exist, or a directory to move into: one that exists, or a path that ends in "/".`,
		Example: `  dfs mv /a.txt /b.txt
  dfs mv /a.txt /b.txt /archive/`,
		Args: cobra.MinimumNArgs(2),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			sources := args[:len(args)-1]
			place, err := destination(ctx, c, args[len(args)-1], len(sources) > 1)
			if err != nil {
				return err
			}
			return a.each(ctx, sources, func(source string) error {
				from, err := remotePath(source)
				if err != nil {
					return err
				}
				to := place.path
				if place.directory {
					if to, err = place.path.Join(from.Name()); err != nil {
						return err
					}
				}
				if err := c.Rename(ctx, from, to); err != nil {
					return err
				}
				return a.printPath(to)
			})
		}),
	}
}
