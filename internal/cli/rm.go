package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func (a *app) rm() *cobra.Command {
	var recursive, force bool
	command := &cobra.Command{
		Use:   "rm PATH...",
		Short: "Delete files and directories",
		Long:  "Delete files and empty directories; with -r, directories with all that is in them.",
		Example: `  dfs rm /logs/app.log
  dfs rm -r /logs`,
		Args: cobra.MinimumNArgs(1),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "delete directories with all that is in them")
	command.Flags().BoolVarP(&force, "force", "f", false, "what does not exist is fine")
	command.RunE = a.with(func(ctx context.Context, c *client.Client, args []string) error {
		remove := c.Remove
		if recursive {
			remove = c.RemoveAll
		}
		return a.each(ctx, args, func(arg string) error {
			path, err := remotePath(arg)
			if err != nil {
				return err
			}
			if path.IsRoot() {
				return dfs.Errorf(dfs.Invalid, "/ cannot be deleted; name what is in it")
			}
			err = remove(ctx, path)
			switch code := dfs.CodeOf(err); {
			case code == dfs.NotFound && force:
				return nil
			case code == dfs.NotEmpty && !recursive:
				return &dfs.Error{Code: code, Message: path.String() + " is not empty; -r deletes it with all that is in it", Cause: err}
			case err != nil:
				return err
			}
			return a.printPath(path)
		})
	})
	return command
}
