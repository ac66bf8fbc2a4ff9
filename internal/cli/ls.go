package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// longPage is how many rows of `ls -l` are aligned with each other; what is
// printed already cannot be.
const longPage = 1000

func (a *app) ls() *cobra.Command {
	var long bool
	command := &cobra.Command{
		Use:   "ls [PATH...]",
		Short: "List directories",
		Long: `List directories, the root without PATH. Names of directories end in "/".

With -l: type, replication, size, time of the last change, name.`,
		Example: `  dfs ls
  dfs ls -l /backup
  dfs ls --json /backup`,
	}
	command.Flags().BoolVarP(&long, "long", "l", false, "show more than names")
	command.RunE = a.with(func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) == 0 {
			args = []string{"/"}
		}
		first := true
		return a.each(ctx, args, func(arg string) error {
			path, err := remotePath(arg)
			if err != nil {
				return err
			}
			if len(args) > 1 && !a.json {
				if !first {
					fmt.Fprintln(a.stdout)
				}
				first = false
				fmt.Fprintf(a.stdout, "%s:\n", path)
			}
			return a.list(ctx, c, path, long)
		})
	})
	return command
}

func (a *app) list(ctx context.Context, c *client.Client, path dfs.Path, long bool) error {
	entry, err := c.Stat(ctx, path)
	if err != nil {
		return err
	}
	entries := c.List(ctx, path)
	if entry.Type != protocol.TypeDirectory {
		entry.Name = path.String()
		entries = func(yield func(protocol.Entry, error) bool) { yield(entry, nil) }
	}
	switch {
	case a.json:
		listing := protocol.Listing{Entries: []protocol.Entry{}}
		for entry, err := range entries {
			if err != nil {
				return err
			}
			listing.Entries = append(listing.Entries, entry)
		}
		return a.printJSON(listing)
	case long:
		return a.listLong(entries)
	}
	for entry, err := range entries {
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.stdout, shownName(entry)); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) listLong(entries func(func(protocol.Entry, error) bool)) error {
	rows := 0
	t := newTable(a.stdout)
	for entry, err := range entries {
		if err != nil {
			return closingTable(t, err)
		}
		replication, size := "-", "-"
		if entry.Type == protocol.TypeFile {
			replication, size = fmt.Sprint(entry.Replication), humanSize(entry.Size)
		}
		t.row(entry.Type, replication, size, humanTime(entry.MTime), shownName(entry))
		if rows++; rows%longPage == 0 {
			if err := t.flush(); err != nil {
				return err
			}
		}
	}
	return t.flush()
}

// closingTable prints what there is before the error.
func closingTable(t *table, err error) error {
	if flushErr := t.flush(); err == nil {
		return flushErr
	}
	return err
}

func shownName(entry protocol.Entry) string {
	if entry.Type == protocol.TypeDirectory {
		return oneLine(entry.Name) + "/"
	}
	return oneLine(entry.Name)
}
