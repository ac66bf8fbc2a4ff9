package client

import (
	"context"
	"iter"
	"net/url"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func pathQuery(path dfs.Path) url.Values {
	return url.Values{protocol.QueryPath: {path.String()}}
}

// Stat returns what the namespace says of a file or directory.
func (c *Client) Stat(ctx context.Context, path dfs.Path) (protocol.Entry, error) {
	var entry protocol.Entry
	err := c.call(ctx, protocol.Stat, leader.Call{Query: pathQuery(path), Out: &entry})
	return entry, err
}

// File returns a file with its chunks and where they lie.
func (c *Client) File(ctx context.Context, path dfs.Path) (protocol.File, error) {
	var file protocol.File
	err := c.call(ctx, protocol.GetFile, leader.Call{Query: pathQuery(path), Out: &file})
	return file, err
}

// List goes through a directory in the order of names, page by page. An error
// is the last thing it yields.
func (c *Client) List(ctx context.Context, path dfs.Path) iter.Seq2[protocol.Entry, error] {
	return func(yield func(protocol.Entry, error) bool) {
		query := pathQuery(path)
		for {
			var page protocol.Listing
			if err := c.call(ctx, protocol.List, leader.Call{Query: query, Out: &page}); err != nil {
				yield(protocol.Entry{}, err)
				return
			}
			for _, entry := range page.Entries {
				if !yield(entry, nil) {
					return
				}
			}
			if page.Cursor == "" {
				return
			}
			if page.Cursor == query.Get(protocol.QueryCursor) {
				yield(protocol.Entry{}, dfs.Errorf(dfs.Internal, "the listing of %s does not move on from %q", path, page.Cursor))
				return
			}
			query.Set(protocol.QueryCursor, page.Cursor)
		}
	}
}

// Mkdir makes a directory. Its parent must exist, and it must not.
func (c *Client) Mkdir(ctx context.Context, path dfs.Path) error {
	return c.call(ctx, protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{Path: path.String()}})
}

// MkdirAll makes a directory and its missing parents. One that exists is fine.
func (c *Client) MkdirAll(ctx context.Context, path dfs.Path) error {
	return c.call(ctx, protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{Path: path.String(), Parents: true}})
}

// Remove deletes a file or an empty directory.
func (c *Client) Remove(ctx context.Context, path dfs.Path) error {
	return c.call(ctx, protocol.DeleteFile, leader.Call{Query: pathQuery(path)})
}

// RemoveAll deletes a file, or a directory with all that is in it.
func (c *Client) RemoveAll(ctx context.Context, path dfs.Path) error {
	query := pathQuery(path)
	query.Set(protocol.QueryRecursive, "true")
	return c.call(ctx, protocol.DeleteFile, leader.Call{Query: query})
}

// Rename moves a file or directory. The new path must not exist.
func (c *Client) Rename(ctx context.Context, from, to dfs.Path) error {
	return c.call(ctx, protocol.Rename, leader.Call{Body: protocol.RenameRequest{From: from.String(), To: to.String()}})
}

// SetReplication changes how many replicas a file should have. The cluster
// makes or drops replicas later.
func (c *Client) SetReplication(ctx context.Context, path dfs.Path, replication int) error {
	return c.call(ctx, protocol.SetReplication, leader.Call{
		Body: protocol.ReplicationRequest{Path: path.String(), Replication: replication},
	})
}
