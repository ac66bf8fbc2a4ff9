package namenode

import (
	"context"
	"net/http"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// handOut answers an upload of a single chunk with one in stock, without a log
// entry, or refuses it as Apply would. It is not done when the stock is empty.
func (n *NameNode) handOut(ctx context.Context, command *fsm.BeginUpload) (answer reply, done bool, err error) {
	l := n.lead.Load()
	if l == nil {
		return reply{}, true, notLeader()
	}
	targets := command.Targets[0]
	var base uint64
	var pool dfs.UploadID
	var id dfs.ChunkID
	var nodes []fsm.Node
	err = n.confirmed(ctx, func() (err error) {
		n.machine.Read(func(s *fsm.State) {
			if base, err = s.Base(command.Path, command.Overwrite); err == nil {
				pool, id, done = l.stock.take(s, targets, command.ChunkSize)
				nodes = s.Nodes()
			}
		})
		return err
	})
	if err != nil || !done {
		return reply{}, err != nil, err
	}
	allocation := n.describe(&fsm.Upload{
		Path: command.Path.String(), Replication: command.Replication, ChunkSize: command.ChunkSize,
		Allocated: []fsm.Allocation{{ID: id, Targets: targets}},
	}, nodes)
	allocation.Pool, allocation.Base = pool, base
	allocation.ExpiresIn = max(1, int64(l.stock.life.Seconds())) // at least: the rest of the pool's time
	return reply{http.StatusCreated, allocation}, true, nil
}

// putFile makes a whole small file, after its chunk was seen where the caller
// says it is.
func (n *NameNode) putFile(c *call) (reply, error) {
	var request protocol.PutRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	command, err := putCommand(&request)
	if err != nil {
		return reply{}, err
	}
	result, err, known := n.remembered(c.requestID, command)
	if !known {
		result, err = n.put(c, command, &request)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.PutReply{
		CommitReply: protocol.CommitReply{Path: result.Path, Size: result.Size}, Replication: command.Replication,
	}}, nil
}

// putCommand checks what was asked for and fills in the defaults.
func putCommand(request *protocol.PutRequest) (*fsm.PutFile, error) {
	path, err := dfs.ParsePath(request.Path)
	if err != nil {
		return nil, err
	}
	if (request.Chunk == nil) != (request.Pool == 0) || request.Chunk == nil && request.Base != 0 {
		return nil, dfs.Errorf(dfs.Invalid, "a chunk needs the pool that POST /files gave with it, and an empty file has neither, nor a base")
	}
	command := &fsm.PutFile{Path: path, Overwrite: request.Overwrite, Pool: request.Pool, Base: request.Base}
	command.Replication, command.ChunkSize, err = orDefaults(request.Replication, request.ChunkSize)
	return command, err
}

// put proposes the file. Callers take a refusal as the end of the request, and
// upload the file in another way. So what another try may find otherwise is
// refused by Apply alone, which remembers it: a try that is still on its way
// must not succeed after that.
func (n *NameNode) put(c *call, command *fsm.PutFile, request *protocol.PutRequest) (fsm.Result, error) {
	if request.Replication != nil {
		if err := n.confirmed(c.Context(), func() error { return n.enoughNodes(command.Replication) }); err != nil {
			return fsm.Result{}, err
		}
	}
	if request.Chunk != nil {
		var unseen error
		command.Chunk, unseen = n.verifyOne(c.Context(), command, request.Chunk)
		if unseen != nil && dfs.CodeOf(unseen) != dfs.Invalid {
			return fsm.Result{}, unseen
		}
		if unseen != nil {
			n.logger.Debug("the chunk of a small file is not where it is said to be", "path", command.Path, "error", unseen)
		}
	}
	result, err := n.propose(c.Context(), command, c.requestID)
	if err == nil && command.Pool != 0 && len(command.Chunk.Nodes) < command.Replication {
		n.unsettle()
	}
	return result, err
}

// verifyOne is verify for the chunk of a small file. A chunk that was not seen
// names no nodes, so that it cannot become a file.
func (n *NameNode) verifyOne(ctx context.Context, command *fsm.PutFile, chunk *protocol.CommittedChunk) (fsm.StoredChunk, error) {
	chunks := []protocol.CommittedChunk{*chunk}
	nodes, err := checkNamed(&fsm.Upload{
		ID: command.Pool, ChunkSize: command.ChunkSize,
		Allocated: []fsm.Allocation{{ID: chunk.ID}}, // whether it is one of the pool's, Apply knows
	}, chunks)
	if err == nil {
		err = n.confirmed(ctx, func() error { return n.lookUp(nodes) })
	}
	var stored []fsm.StoredChunk
	if err == nil {
		stored, err = n.verify(ctx, command.Replication, nodes, chunks)
	}
	if err != nil {
		return fsm.StoredChunk{ID: chunk.ID, Size: chunk.Size, Checksum: chunk.CRC32C}, err
	}
	return stored[0], nil
}
