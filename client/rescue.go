package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/stall"
)

const maxStatAnswer = 8 << 20 // bytes of JSON about MaxChunksPerReport chunks

// commit makes the file appear. A commit that stays refused is tried again with
// other chunks in place of those that have lost replicas since they were sent.
// The list changes only after a plain refusal: while a try may have been carried
// out, the caller repeats it as it was.
func (u *upload) commit(ctx context.Context, chunks []protocol.CommittedChunk) (protocol.CommitReply, error) {
	until := time.Now().Add(u.c.timeout)
	for {
		began := time.Now()
		reply, err := u.tryCommit(ctx, chunks)
		lasting := dfs.CodeOf(err) == dfs.Unavailable && time.Since(began) >= u.c.rescueAfter
		if !lasting || ctx.Err() != nil || time.Now().After(until) {
			return reply, err
		}
		rescued, failed := u.rescue(ctx, until, chunks)
		if failed != nil {
			u.c.log.Warn("a refused commit could not be helped", "upload", u.id, "refusal", err, "error", failed)
		}
		if rescued > 0 { // that is progress: the time begins anew
			u.c.log.Warn("chunks had lost replicas before the commit and were sent again", "upload", u.id, "chunks", rescued)
			until = time.Now().Add(u.c.timeout)
		}
		if ctx.Err() != nil {
			return reply, err
		}
	}
}

func (u *upload) tryCommit(ctx context.Context, chunks []protocol.CommittedChunk) (protocol.CommitReply, error) {
	var reply protocol.CommitReply
	err := u.c.call(ctx, protocol.CommitUpload, leader.Call{
		Args: []string{u.id.String()}, Body: protocol.CommitRequest{Chunks: chunks}, Out: &reply, Patience: u.c.rescueAfter,
	})
	return reply, err
}

// rescue asks the DataNodes which of the chunks they still hold, and puts new
// chunks in the place of those that too few of them do. It returns how many. As
// long as one chunk is held by nobody, no commit can succeed, and nothing is sent.
func (u *upload) rescue(ctx context.Context, until time.Time, chunks []protocol.CommittedChunk) (rescued int, err error) {
	targets, err := u.dataNodes(ctx, until)
	if err != nil {
		return 0, err
	}
	held := u.survey(ctx, targets, chunks)
	var short []int
	holders := make([][]protocol.Target, len(chunks))
	for i := range chunks {
		holders[i] = held.confirm(&chunks[i], targets)
		switch count := len(holders[i]); {
		case count == 0:
			return 0, dfs.Errorf(dfs.Unavailable, "chunk %s is held by none of %s at the moment", chunks[i].ID, chunks[i].Nodes)
		case count < u.minReplicas:
			short = append(short, i)
		default:
			chunks[i].Nodes = idsOf(holders[i]) // the result is to count what is there
		}
	}
	err = u.whileAlive(ctx, func(ctx context.Context) error {
		for _, i := range short {
			if err := u.resend(ctx, &chunks[i], holders[i]); err != nil {
				return err
			}
			rescued++
		}
		return nil
	})
	return rescued, err
}

// dataNodes asks for the addresses anew: a DataNode that was started again may
// have another.
func (u *upload) dataNodes(ctx context.Context, until time.Time) (map[dfs.NodeID]protocol.Target, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	nodes, err := u.c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	targets := make(map[dfs.NodeID]protocol.Target, len(nodes))
	for _, node := range nodes {
		targets[node.ID] = protocol.Target{ID: node.ID, URL: node.URL}
	}
	return targets, nil
}

// holdings is what the DataNodes say that they hold.
type holdings map[dfs.NodeID]map[dfs.ChunkID]protocol.ChunkInfo

// survey asks all DataNodes that the chunks name. One that does not answer holds
// nothing, and gets nothing new for a while.
func (u *upload) survey(ctx context.Context, targets map[dfs.NodeID]protocol.Target, chunks []protocol.CommittedChunk) holdings {
	asked := make(map[dfs.NodeID][]dfs.ChunkID)
	for i := range chunks {
		for _, id := range chunks[i].Nodes {
			asked[id] = append(asked[id], chunks[i].ID)
		}
	}
	held := make(holdings, len(asked))
	for id := range asked {
		held[id] = make(map[dfs.ChunkID]protocol.ChunkInfo) // each task fills its own
	}
	var tasks errgroup.Group
	tasks.SetLimit(u.c.parallelism)
	for id, ids := range asked {
		tasks.Go(func() error {
			if err := u.c.data.stat(ctx, targets[id], ids, held[id]); err != nil && ctx.Err() == nil {
				u.blame(ids[0], id, err)
			}
			return nil
		})
	}
	_ = tasks.Wait() // failures were noted
	return held
}

// confirm returns the DataNodes that hold the chunk as it was sent.
func (h holdings) confirm(chunk *protocol.CommittedChunk, targets map[dfs.NodeID]protocol.Target) (holders []protocol.Target) {
	for _, id := range chunk.Nodes {
		if info, ok := h[id][chunk.ID]; ok && info.Size == chunk.Size && info.CRC32C == chunk.CRC32C {
			holders = append(holders, targets[id])
		}
	}
	return holders
}

func idsOf(targets []protocol.Target) []dfs.NodeID {
	ids := make([]dfs.NodeID, len(targets))
	for i, target := range targets {
		ids[i] = target.ID
	}
	return ids
}

// resend fetches a chunk from one of its holders and stores it as a new one. The
// old one is garbage when the commit does not name it.
func (u *upload) resend(ctx context.Context, chunk *protocol.CommittedChunk, holders []protocol.Target) error {
	buffers := u.c.buffers.limit(1, chunk.Size)
	buffer, err := buffers.get(ctx)
	if err != nil {
		return err
	}
	defer buffers.put(buffer)
	data := (*buffer)[:chunk.Size]
	if err := u.fetchBack(ctx, chunk, holders, data); err != nil {
		return err
	}
	fresh, err := u.allocate(ctx, 1)
	if err != nil {
		return err
	}
	stored, err := u.store(ctx, allocated{AllocatedChunk: fresh[0]}, data)
	if err != nil {
		return err
	}
	*chunk = stored
	return nil
}

func (u *upload) fetchBack(ctx context.Context, chunk *protocol.CommittedChunk, holders []protocol.Target, data []byte) error {
	whole := newPiece(protocol.LocatedChunk{ID: chunk.ID, Size: chunk.Size, CRC32C: chunk.CRC32C}, 0, chunk.Size)
	failures := make(nodeFailures)
	for _, holder := range holders {
		err := u.c.data.get(ctx, holder, whole, data)
		if err == nil {
			return nil
		}
		failures[holder.ID] = err
	}
	return dfs.Errorf(dfs.Unavailable, "chunk %s could not be fetched back (%s)", chunk.ID, failures)
}

// stat asks a DataNode which of the chunks it holds durably, and adds them to
// held. After an error held is not complete.
func (d *dataNodes) stat(ctx context.Context, target protocol.Target, ids []dfs.ChunkID, held map[dfs.ChunkID]protocol.ChunkInfo) error {
	for batch := range slices.Chunk(ids, dfs.MaxChunksPerReport) {
		reply, err := d.statBatch(ctx, target, batch)
		if err != nil {
			return err
		}
		for _, info := range reply.Chunks {
			held[info.ID] = info
		}
	}
	return nil
}

func (d *dataNodes) statBatch(ctx context.Context, target protocol.Target, ids []dfs.ChunkID) (protocol.StatChunksReply, error) {
	ctx, guard := stall.Watch(ctx, d.stall)
	defer guard.Stop()
	var reply protocol.StatChunksReply
	body, err := json.Marshal(protocol.StatChunksRequest{IDs: ids})
	if err != nil {
		return reply, dfs.Errorf(dfs.Internal, "the question cannot be encoded: %w", err)
	}
	request, err := d.requestTo(ctx, target, protocol.StatChunks.Method, protocol.StatChunks.Path(), bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := d.transport.RoundTrip(request)
	if err != nil {
		return reply, failureOf(ctx, guard, d.stall, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return reply, protocol.ReadError(response)
	}
	err = protocol.DecodeJSON(response.Body, maxStatAnswer, false, &reply) // all of it within the limit
	if err != nil && guard.Stalled() {
		return reply, failureOf(ctx, guard, d.stall, err)
	}
	return reply, err
}
