package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func (a *app) stat() *cobra.Command {
	var chunks bool
	command := &cobra.Command{
		Use:   "stat PATH...",
		Short: "Show what is known of a file or directory",
		Long:  "Show what is known of a file or directory. With --json, a file comes with its chunks.",
		Example: `  dfs stat /backup/big.bin
  dfs stat --chunks /backup/big.bin`,
		Args: cobra.MinimumNArgs(1),
	}
	command.Flags().BoolVar(&chunks, "chunks", false, "show the chunks and where they lie")
	command.RunE = a.with(func(ctx context.Context, c *client.Client, args []string) error {
		return a.each(ctx, args, func(arg string) error {
			path, err := remotePath(arg)
			if err != nil {
				return err
			}
			return a.statOne(ctx, c, path, chunks)
		})
	})
	return command
}

func (a *app) statOne(ctx context.Context, c *client.Client, path dfs.Path, chunks bool) error {
	entry, err := c.Stat(ctx, path)
	if err != nil {
		return err
	}
	isFile := entry.Type == protocol.TypeFile
	var file protocol.File
	if isFile && (chunks || a.json) {
		if file, err = c.File(ctx, path); err != nil {
			return err
		}
	}
	switch {
	case a.json && isFile:
		return a.printJSON(file)
	case a.json:
		return a.printJSON(entry)
	}
	t := newTable(a.stdout)
	t.row("path", path)
	t.row("type", entry.Type)
	t.row("changed", humanTime(entry.MTime))
	t.row("inode", entry.Inode)
	if isFile {
		t.row("size", fmt.Sprintf("%s (%d bytes)", humanSize(entry.Size), entry.Size))
		t.row("replication", entry.Replication)
		t.row("chunks", fmt.Sprintf("%d of %s", entry.Chunks, humanSize(entry.ChunkSize)))
	}
	if err := t.flush(); err != nil || !chunks || !isFile {
		return err
	}
	return a.printChunks(file)
}

func (a *app) printChunks(file protocol.File) error {
	t := newTable(a.stdout)
	t.row("CHUNK", "SIZE", "CRC32C", "DATANODES")
	for _, chunk := range file.Chunks {
		var nodes []string
		for _, target := range chunk.Locations {
			nodes = append(nodes, string(target.ID))
		}
		t.row(chunk.ID, chunk.Size, chunk.CRC32C, strings.Join(nodes, ","))
	}
	return t.flush()
}
