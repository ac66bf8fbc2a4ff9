package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
)

func (a *app) cat() *cobra.Command {
	var offset, length sizeFlag
	command := &cobra.Command{
		Use:   "cat PATH...",
		Short: "Print files, or a part of each",
		Long: `Print files to standard output, one after the other. Every byte is verified
before it is printed.

With --offset and --length, a part of each file is printed: less where the file
ends before. An offset beyond the end of a file is an error. Only what is around
that part is fetched.`,
		Example: `  dfs cat /logs/app.log | grep error
  dfs cat --offset 512 --length 16 /disk.img | xxd
  dfs cat --offset 4GiB /backup/big.bin > rest`,
		Args: cobra.MinimumNArgs(1),
	}
	f := command.Flags()
	f.Var(&offset, "offset", "where to begin, in bytes, or like 4MiB")
	f.Var(&length, "length", "how much to print (default: up to the end)")
	command.RunE = a.with(func(ctx context.Context, c *client.Client, args []string) error {
		count := int64(length)
		if !f.Changed("length") {
			count = client.ToTheEnd
		}
		return a.each(ctx, args, func(arg string) error {
			path, err := remotePath(arg)
			if err != nil {
				return err
			}
			_, err = c.ReadRange(ctx, path, a.stdout, int64(offset), count)
			return err
		})
	})
	return command
}
