package namenode

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

// commitPart is how many chunks of a commit go into one log entry.
const commitPart = 1500

// createFile begins an upload.
func (n *NameNode) createFile(c *call) (reply, error) {
	var request protocol.CreateRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	command, err := beginCommand(&request)
	if err != nil {
		return reply{}, err
	}
	result, err, known := n.remembered(c.requestID, command)
	if !known {
		command.Targets, err = n.place(c.Context(), placement.Request{
			Chunks: int(request.NumChunks), ChunkSize: command.ChunkSize,
			Replication: command.Replication, Exclude: request.Exclude,
		}, request.Replication != nil)
		if err != nil {
			return reply{}, err
		}
		// Without room there would be no put either: propose says so.
		if request.Single && len(command.Targets) == 1 && n.room() == nil {
			if answer, done, err := n.handOut(c.Context(), command); done {
				return answer, err
			}
		}
		result, err = n.propose(c.Context(), command, c.requestID)
	}
	if err != nil {
		return reply{}, err
	}
	return n.allocation(result)
}

// beginCommand checks what was asked for and fills in the defaults.
func beginCommand(request *protocol.CreateRequest) (*fsm.BeginUpload, error) {
	path, err := dfs.ParsePath(request.Path)
	if err != nil {
		return nil, err
	}
	command := &fsm.BeginUpload{Path: path, Overwrite: request.Overwrite}
	command.Replication, command.ChunkSize, err = orDefaults(request.Replication, request.ChunkSize)
	if err != nil {
		return nil, err
	}
	return command, checkCount(request.NumChunks, request.Exclude)
}

// orDefaults checks what a caller may leave to the cluster.
func orDefaults(wanted *int, size *int64) (replication int, chunkSize int64, err error) {
	replication, chunkSize = dfs.DefaultReplication, dfs.DefaultChunkSize
	if wanted != nil {
		replication = *wanted
	}
	if size != nil {
		chunkSize = *size
	}
	if err := dfs.CheckReplication(replication); err != nil {
		return 0, 0, err
	}
	return replication, chunkSize, dfs.CheckChunkSize(chunkSize)
}

func checkCount(count int64, exclude []dfs.NodeID) error {
	switch {
	case count < 0:
		return dfs.Errorf(dfs.Invalid, "num_chunks is %d; it cannot be negative", count)
	case count > dfs.MaxChunksPerAllocation:
		return dfs.Errorf(dfs.TooLarge, "num_chunks is %d; at most %d can be asked for at once, more with POST /uploads/{id}/chunks", count, dfs.MaxChunksPerAllocation)
	case len(exclude) > 1024:
		return dfs.Errorf(dfs.TooLarge, "exclude lists %d DataNodes; at most 1024 are allowed", len(exclude))
	}
	return nil
}

// place chooses DataNodes for chunks. A replication that the caller asked for
// by number must be one that the registered nodes can give; the default makes
// do with fewer, and the missing replicas are made when there are more nodes.
func (n *NameNode) place(ctx context.Context, request placement.Request, explicit bool) (targets [][]fsm.NodeNum, err error) {
	err = n.confirmed(ctx, func() error {
		l := n.lead.Load()
		if l == nil {
			return notLeader()
		}
		if request.Chunks > 0 {
			var failed error
			targets, failed = l.place(request)
			if errors.Is(failed, placement.ErrNotReady) {
				return failed // it passes
			}
			if failed != nil {
				return final{failed}
			}
		}
		if explicit {
			return n.enoughNodes(request.Replication)
		}
		return nil
	})
	return targets, err
}

// allocation describes the chunks that a command allocated.
func (n *NameNode) allocation(result fsm.Result) (reply, error) {
	var upload fsm.Upload
	var nodes []fsm.Node
	var err error
	n.machine.Read(func(s *fsm.State) {
		upload, err = s.Upload(result.Upload)
		nodes = s.Nodes()
	})
	if err != nil {
		return reply{}, err
	}
	end := result.First + dfs.ChunkID(result.Count)
	upload.Allocated = slices.DeleteFunc(upload.Allocated, func(a fsm.Allocation) bool { return a.ID < result.First || a.ID >= end })
	answer := n.describe(&upload, nodes)
	answer.UploadID = upload.ID
	return reply{http.StatusCreated, answer}, nil
}

// describe says what is to be known of an upload, with all its chunks.
func (n *NameNode) describe(upload *fsm.Upload, nodes []fsm.Node) protocol.Allocation {
	locate := newLocator(nodes)
	answer := protocol.Allocation{
		Path: upload.Path, ChunkSize: upload.ChunkSize, Replication: upload.Replication,
		MinReplicas: dfs.MinReplicas(upload.Replication), ExpiresIn: int64(n.config.UploadExpiry.Seconds()),
		Chunks: make([]protocol.AllocatedChunk, 0, len(upload.Allocated)),
	}
	for _, a := range upload.Allocated {
		answer.Chunks = append(answer.Chunks, protocol.AllocatedChunk{ID: a.ID, Targets: locate.targets(a.Targets)})
	}
	return answer
}

// addChunks allocates more chunks for an upload, or takes a sign of life.
func (n *NameNode) addChunks(c *call) (reply, error) {
	id, err := c.uploadID()
	if err != nil {
		return reply{}, err
	}
	var request protocol.AddChunksRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	if err := checkCount(request.NumChunks, request.Exclude); err != nil {
		return reply{}, err
	}
	command := &fsm.AddChunks{Upload: id}
	result, err, known := n.remembered(c.requestID, command)
	if !known {
		if command.Targets, err = n.placeMore(c, id, &request); err != nil {
			return reply{}, err
		}
		result, err = n.propose(c.Context(), command, c.requestID)
	}
	if err != nil {
		return reply{}, err
	}
	return n.allocation(result)
}

func (n *NameNode) placeMore(c *call, id dfs.UploadID, request *protocol.AddChunksRequest) ([][]fsm.NodeNum, error) {
	upload, err := n.openUpload(c.Context(), id)
	if err != nil {
		return nil, err
	}
	return n.place(c.Context(), placement.Request{
		Chunks: int(request.NumChunks), ChunkSize: upload.ChunkSize,
		Replication: upload.Replication, Exclude: request.Exclude,
	}, false)
}

// openUpload finds an upload, or makes sure that there is none.
func (n *NameNode) openUpload(ctx context.Context, id dfs.UploadID) (upload fsm.Upload, err error) {
	err = n.confirmed(ctx, func() (err error) {
		n.machine.Read(func(s *fsm.State) { upload, err = s.Upload(id) })
		return err
	})
	return upload, err
}

// commitUpload makes the file appear, after its chunks were seen where the
// caller says they are.
func (n *NameNode) commitUpload(c *call) (reply, error) {
	id, err := c.uploadID()
	if err != nil {
		return reply{}, err
	}
	var request protocol.CommitRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	if len(request.Chunks) > dfs.MaxChunksPerFile {
		return reply{}, dfs.Errorf(dfs.TooLarge, "the commit names %d chunks; a file has at most %d, so choose a larger chunk size", len(request.Chunks), dfs.MaxChunksPerFile)
	}
	// A retry waits for the first try, whose parts it would undo.
	unlock, err := n.commits.lock(c.Context(), id)
	if err != nil {
		return reply{}, err
	}
	defer unlock()
	result, err, known := n.remembered(c.requestID, &fsm.Commit{})
	if !known {
		result, err = n.commit(c.Context(), id, c.requestID, request.Chunks)
	}
	if err != nil {
		// The first try may have been under way with an earlier leader.
		if result, answer, known := n.remembered(c.requestID, &fsm.Commit{}); known && answer == nil {
			return committed(result), nil
		}
		return reply{}, err
	}
	return committed(result), nil
}

func committed(result fsm.Result) reply {
	return reply{http.StatusOK, protocol.CommitReply{Path: result.Path, Size: result.Size}}
}

func (n *NameNode) commit(ctx context.Context, id dfs.UploadID, request dfs.RequestID, chunks []protocol.CommittedChunk) (fsm.Result, error) {
	upload, nodes, err := n.committing(ctx, id, chunks)
	if err != nil {
		return fsm.Result{}, err
	}
	stored, err := n.verify(ctx, upload.Replication, nodes, chunks)
	if err != nil {
		return fsm.Result{}, err
	}
	position := 0
	for ; len(stored)-position > commitPart; position += commitPart {
		part := &fsm.Commit{Upload: id, Position: position, Chunks: stored[position : position+commitPart]}
		if _, err := n.propose(ctx, part, ""); err != nil {
			return fsm.Result{}, err
		}
	}
	last := &fsm.Commit{Upload: id, Position: position, Chunks: stored[position:], Final: true}
	result, err := n.propose(ctx, last, request)
	if slices.ContainsFunc(stored, func(s fsm.StoredChunk) bool { return len(s.Nodes) < upload.Replication }) {
		n.unsettle()
	}
	return result, err
}

// commitLocks lets one commit of an upload go on at a time. The zero value is
// ready.
type commitLocks struct {
	mu   sync.Mutex
	held map[dfs.UploadID]chan struct{} // closed when let go
}

// lock waits until no other commit of the upload is under way.
func (l *commitLocks) lock(ctx context.Context, id dfs.UploadID) (unlock func(), err error) {
	for {
		held, mine := l.take(id)
		if mine {
			return func() { l.letGo(id, held) }, nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return nil, dfs.Errorf(dfs.Timeout, "another commit of upload %s is still under way: %w", id, ctx.Err())
		}
	}
}

func (l *commitLocks) take(id dfs.UploadID) (held chan struct{}, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, taken := l.held[id]; taken {
		return held, false
	}
	if l.held == nil {
		l.held = make(map[dfs.UploadID]chan struct{})
	}
	l.held[id] = make(chan struct{})
	return l.held[id], true
}

func (l *commitLocks) letGo(id dfs.UploadID, held chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, id)
	close(held)
}

func (n *NameNode) abortUpload(c *call) (reply, error) {
	id, err := c.uploadID()
	if err != nil {
		return reply{}, err
	}
	if _, err := n.propose(c.Context(), &fsm.AbortUpload{Upload: id}, c.requestID); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, protocol.Empty{}}, nil
}
