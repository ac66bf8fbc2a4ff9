package client

import (
	"bytes"
	"context"
	"io"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// maxSmall is how many bytes a file has at most that is put with a single entry
// of the namespace's log. It has to lie in memory as a whole.
const maxSmall = dfs.BlockSize

// head is the beginning of a stream.
type head struct {
	buffer *[]byte
	data   []byte
	whole  bool // nothing comes after data
}

// readHead reads a stream as far as is needed to know whether it is a small
// file.
func (c *Client) readHead(ctx context.Context, r io.Reader, limit int64) (head, error) {
	buffer, err := c.buffers.limit(1, limit+1).get(ctx) // one more, to see the end
	if err != nil {
		return head{}, err
	}
	n, err := readFull(ctx, r, *buffer)
	switch {
	case ctx.Err() != nil:
		return head{}, ctx.Err() // the buffer is lost: a Read may still be using it
	case err != nil && err != io.EOF:
		return head{}, unreadable(err)
	}
	return head{buffer, (*buffer)[:n], err == io.EOF && int64(n) <= limit}, nil
}

// uploadSmall stores a file of one chunk, or an empty one. When that cannot be
// done in one call of the NameNode, it is done as for a large file, from the
// beginning; so what cannot be stored is refused in the same way.
func (c *Client) uploadSmall(ctx context.Context, path dfs.Path, data []byte, options UploadOptions) (result UploadResult, again bool, err error) {
	options.Size = int64(len(data))
	u := c.newUpload(path, options)
	if len(data) > 0 {
		if err := u.begin(ctx, options, true); err != nil {
			return UploadResult{}, false, notStored(ctx, path, err)
		}
	}
	if u.id == 0 {
		result, again, err = u.put(ctx, data, options)
		if !again {
			return result, false, err
		}
		c.log.Info("a small file could not be put at once and is uploaded again", "path", path, "error", err)
		if err := u.begin(ctx, options, false); err != nil {
			return UploadResult{}, true, notStored(ctx, path, err)
		}
	}
	result, err = u.run(ctx, bytes.NewReader(data))
	return result, true, err
}

// put sends the chunk, if there is one, and makes the file. Again says that
// nothing came of it, nor ever will, and that another way may do.
func (u *upload) put(ctx context.Context, data []byte, options UploadOptions) (result UploadResult, again bool, err error) {
	if len(data) > 0 && options.Size > u.chunkSize {
		return UploadResult{}, true, dfs.Errorf(dfs.TooLarge, "the chunks of this cluster have only %d bytes", u.chunkSize)
	}
	request := protocol.PutRequest{
		Path: u.path.String(), Replication: options.Replication, Overwrite: options.Overwrite, Pool: u.pool, Base: u.base,
	}
	if options.ChunkSize != 0 {
		request.ChunkSize = &options.ChunkSize
	}
	var chunks []protocol.CommittedChunk
	if len(data) > 0 {
		stored, failures := u.storeOnce(ctx, allocated{AllocatedChunk: u.allocator.queue[0]}, data)
		if len(stored.Nodes) < u.minReplicas {
			return UploadResult{}, ctx.Err() == nil, notStored(ctx, u.path, u.tooFewNodes(stored.Nodes, failures))
		}
		request.Chunk, chunks = &stored, []protocol.CommittedChunk{stored}
	}
	until := time.Now().Add(u.c.timeout)
	var reply protocol.PutReply
	err = u.c.call(ctx, protocol.PutFile, leader.Call{Body: request, Out: &reply, Patience: u.c.rescueAfter})
	switch code := dfs.CodeOf(err); {
	case err == nil:
		u.replication = reply.Replication
		if u.progress != nil && len(data) > 0 {
			u.progress(options.Size)
		}
		return u.result(reply.CommitReply, chunks), false, nil
	case code == dfs.UnknownOutcome:
		return u.result(reply.CommitReply, chunks), false, err
	case ctx.Err() == nil && time.Now().Before(until):
		again = slices.Contains(helped(), code)
	}
	return UploadResult{}, again, notStored(ctx, u.path, err)
}

// helped lists the refusals of a put that an upload from the beginning may not
// meet, each of which says that the put has not happened and will not: the chunk
// in stock has expired or the path has changed, a DataNode lost the chunk, too few
// DataNodes answer for it, the NameNode is of an earlier version.
func helped() []dfs.Code {
	return []dfs.Code{dfs.Conflict, dfs.Invalid, dfs.Unavailable, dfs.MethodNotAllowed}
}
