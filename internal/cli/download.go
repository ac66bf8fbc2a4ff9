package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (a *app) download() *cobra.Command {
	var chunks int
	var noProgress bool
	command := &cobra.Command{
		Use:     "download SRC [DST]",
		Aliases: []string{"get"},
		Short:   "Fetch a file",
		Long: `Fetch a file. DST is a local file or directory; without it the file goes into
the working directory under its own name. DST "-" is standard output.

Every byte is verified before it is written. DST is replaced when all of it
has arrived, and left alone when something fails.`,
		Example: `  dfs download /backup/big.bin restored.bin
  dfs get /logs/app.log .
  dfs download /backup/dir.tar - | tar x`,
		Args: cobra.RangeArgs(1, 2),
	}
	f := command.Flags()
	f.IntVar(&chunks, "parallel", 0, "chunks fetched at once (default 4)")
	f.BoolVar(&noProgress, "no-progress", false, "show no progress bar")
	command.RunE = func(command *cobra.Command, args []string) error {
		c, err := a.client(parallel(chunks))
		if err != nil {
			return err
		}
		defer c.Close()
		path, err := remotePath(args[0])
		if err != nil {
			return err
		}
		file, err := a.fetch(command.Context(), c, path, localTarget(path, args[1:]), !noProgress)
		if err == nil && a.json && !isStdout(args) {
			err = a.printJSON(file)
		}
		return err
	}
	return command
}

func isStdout(args []string) bool { return len(args) == 2 && args[1] == "-" }

// localTarget returns where a file goes: "-", or a local file. A file that is
// called "-" in the end does not become standard output by that.
func localTarget(path dfs.Path, rest []string) string {
	directory := "."
	if len(rest) > 0 {
		if info, err := os.Stat(rest[0]); rest[0] == "-" || err != nil || !info.IsDir() {
			return rest[0]
		}
		directory = rest[0]
	}
	local := filepath.Join(directory, path.Name())
	if local == "-" {
		return "./-"
	}
	return local
}

func (a *app) fetch(ctx context.Context, c *client.Client, path dfs.Path, local string, bars bool) (file protocol.File, err error) {
	if path.IsRoot() {
		return file, dfs.Errorf(dfs.IsDirectory, "/ is a directory; name a file")
	}
	var bar *progress
	defer func() { bar.end(err) }()
	options := client.DownloadOptions{Progress: func(n int64) { bar.add(n) }}
	if bars && (local != "-" || !isTerminal(a.stdout)) {
		options.Start = func(size int64) { bar = a.newProgress(ctx, path.Name(), size) }
	}
	if local == "-" {
		return c.Download(ctx, path, a.stdout, options)
	}
	return c.DownloadFile(ctx, path, local, options)
}
