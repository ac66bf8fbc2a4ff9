package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

type uploadFlags struct {
	replication int
	chunkSize   sizeFlag
	force       bool
	parallel    int
	noProgress  bool
}

func (a *app) upload() *cobra.Command {
	var flags uploadFlags
	command := &cobra.Command{
		Use:     "upload SRC... DST",
		Aliases: []string{"put"},
		Short:   "Store local files",
		Long: `Store local files. SRC "-" is standard input.

DST is the path to store under, or a directory to store into: one that exists,
or any path that ends in "/". Missing parent directories are made. The file
appears when all of it is safe; what it replaces stays readable until then.`,
		Example: `  dfs upload big.bin /backup/big.bin
  dfs put --replication 2 *.log /logs/
  tar c dir | dfs upload - /backup/dir.tar`,
		Args: cobra.MinimumNArgs(2),
	}
	f := command.Flags()
	f.IntVar(&flags.replication, "replication", 0, fmt.Sprintf("replicas of each chunk, 1 to %d (default: the cluster's)", dfs.MaxReplication))
	f.Var(&flags.chunkSize, "chunk-size", "like 4MiB, 512k (default: the cluster's)")
	f.BoolVarP(&flags.force, "force", "f", false, "replace a file that exists")
	f.IntVar(&flags.parallel, "parallel", 0, "chunks in flight at once (default 4)")
	f.BoolVar(&flags.noProgress, "no-progress", false, "show no progress bar")
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := flags.check(command); err != nil {
			return err
		}
		c, err := a.client(parallel(flags.parallel))
		if err != nil {
			return err
		}
		defer c.Close()
		return a.uploadAll(command.Context(), c, args[:len(args)-1], args[len(args)-1], flags)
	}
	return command
}

// check refuses values that the zero value of the options would hide.
func (f uploadFlags) check(command *cobra.Command) error {
	if command.Flags().Changed("replication") {
		if err := dfs.CheckReplication(f.replication); err != nil {
			return usageErrorf("--replication: %s", err)
		}
	}
	if command.Flags().Changed("chunk-size") {
		if err := dfs.CheckChunkSize(int64(f.chunkSize)); err != nil {
			return usageErrorf("--chunk-size: %s", err)
		}
	}
	return nil
}

func parallel(n int) func(*client.Config) {
	return func(config *client.Config) { config.Parallelism = n }
}

func (a *app) uploadAll(ctx context.Context, c *client.Client, sources []string, target string, flags uploadFlags) error {
	place, err := destination(ctx, c, target, len(sources) > 1)
	if err != nil {
		return err
	}
	return a.each(ctx, sources, func(source string) error {
		path, err := place.of(source)
		if err != nil {
			return err
		}
		result, err := a.uploadOne(ctx, c, source, path, flags)
		if err != nil {
			return err
		}
		if result.UnderReplicated > 0 {
			a.notice(path.String() + " is " + shortfall(result))
		}
		if a.json {
			return a.printJSON(result)
		}
		return nil
	})
}

// shortfall says what is missing of a file that is stored all the same.
func shortfall(r client.UploadResult) string {
	replicas := fmt.Sprintf("%d of %d replicas", r.LeastReplicas, r.Replication)
	if r.LeastReplicas+1 < r.Replication {
		replicas = fmt.Sprintf("at least %d, but fewer than %d replicas", r.LeastReplicas, r.Replication)
	}
	return fmt.Sprintf("stored, but %d of %d chunks have %s", r.UnderReplicated, r.Chunks, replicas)
}

// remotePlace is where things are put: as a path, or into a directory.
type remotePlace struct {
	path      dfs.Path
	directory bool
}

// destination finds out what a DST means. Several sources need a directory.
func destination(ctx context.Context, c *client.Client, text string, several bool) (remotePlace, error) {
	path, err := remotePath(text)
	if err != nil {
		return remotePlace{}, err
	}
	directory := several || strings.HasSuffix(text, "/")
	entry, err := c.Stat(ctx, path)
	switch {
	case err != nil && dfs.CodeOf(err) != dfs.NotFound:
		return remotePlace{}, err
	case err == nil && directory && entry.Type != protocol.TypeDirectory:
		return remotePlace{}, dfs.Errorf(dfs.NotDirectory, "%s is a file, not a directory to put something into", path)
	}
	return remotePlace{path, directory || entry.Type == protocol.TypeDirectory}, nil
}

// of returns the path for one local source.
func (p remotePlace) of(source string) (dfs.Path, error) {
	if !p.directory {
		return p.path, nil
	}
	if source == "-" {
		return dfs.Path{}, dfs.Errorf(dfs.Invalid, "standard input has no name: give the whole path to store it under, not a directory")
	}
	return p.path.Join(filepath.Base(source))
}

func (a *app) uploadOne(ctx context.Context, c *client.Client, source string, path dfs.Path, flags uploadFlags) (result client.UploadResult, err error) {
	r, size, err := a.openSource(ctx, source)
	if err != nil {
		return result, err
	}
	defer r.Close()
	var bar *progress
	if !flags.noProgress {
		bar = a.newProgress(ctx, path.Name(), size)
		defer func() { bar.end(err) }()
	}
	options := client.UploadOptions{Size: size, ChunkSize: int64(flags.chunkSize), Overwrite: flags.force, Progress: bar.add}
	if flags.replication != 0 {
		options.Replication = &flags.replication
	}
	result, err = c.Upload(ctx, path, r, options)
	if dfs.CodeOf(err) == dfs.Exists {
		err = &dfs.Error{Code: dfs.Exists, Message: path.String() + " exists; --force replaces a file", Cause: err}
	}
	return result, err
}

// openSource opens a local file. The size is -1 when it is not known.
func (a *app) openSource(ctx context.Context, source string) (io.ReadCloser, int64, error) {
	if source == "-" {
		return io.NopCloser(a.stdin), -1, nil
	}
	f, err := client.OpenLocal(ctx, source, os.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = dfs.Errorf(dfs.Invalid, "%s is a directory; name the files in it to upload them", source)
	}
	if err != nil {
		return nil, 0, closing(f, err)
	}
	if !info.Mode().IsRegular() {
		return f, -1, nil
	}
	return f, info.Size(), nil
}

// closing closes f on the way out with err.
func closing(f io.Closer, err error) error {
	if closeErr := f.Close(); err == nil {
		return closeErr
	}
	return err
}
