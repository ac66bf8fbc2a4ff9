package namenode

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	verifyTimeout  = 5 * time.Second // for one DataNode to answer for up to MaxChunksPerReport chunks
	verifyParallel = 16              // DataNodes asked at once
	maxStatReply   = 8 << 20         // bytes
)

// committing returns the upload that is to be committed and the nodes that the
// commit names, or what is wrong with it as far as the state tells.
func (n *NameNode) committing(ctx context.Context, id dfs.UploadID, chunks []protocol.CommittedChunk) (upload fsm.Upload, nodes map[dfs.NodeID]fsm.Node, err error) {
	err = n.confirmed(ctx, func() (err error) {
		n.machine.Read(func(s *fsm.State) { upload, err = s.Upload(id) })
		if err == nil {
			nodes, err = checkNamed(&upload, chunks)
		}
		if err == nil {
			err = n.lookUp(nodes)
		}
		return err
	})
	return upload, nodes, err
}

// verify makes sure that enough of the named DataNodes hold the chunks of a
// commit, durably and with the size and checksum that the commit says. A
// client's word is not enough: what is acknowledged must be there. Nodes that do
// not confirm are left out.
func (n *NameNode) verify(ctx context.Context, replication int, nodes map[dfs.NodeID]fsm.Node, chunks []protocol.CommittedChunk) ([]fsm.StoredChunk, error) {
	inventory := n.askNodes(ctx, nodes, chunks)
	stored := make([]fsm.StoredChunk, len(chunks))
	for i := range chunks {
		var err error
		if stored[i], err = inventory.confirm(&chunks[i], replication); err != nil {
			return nil, err
		}
	}
	return stored, nil
}

// checkNamed finds what is wrong with a commit without asking anyone, and
// returns the IDs of the nodes it names.
func checkNamed(upload *fsm.Upload, chunks []protocol.CommittedChunk) (map[dfs.NodeID]fsm.Node, error) {
	ours := make(map[dfs.ChunkID]bool, len(upload.Allocated)) // true once named
	for _, a := range upload.Allocated {
		ours[a.ID] = false
	}
	named := make(map[dfs.NodeID]fsm.Node)
	for i := range chunks {
		chunk := &chunks[i]
		switch twice, known := ours[chunk.ID]; {
		case !known:
			return nil, dfs.Errorf(dfs.Invalid, "chunk %s is not one of upload %s", chunk.ID, upload.ID)
		case twice:
			return nil, dfs.Errorf(dfs.Invalid, "chunk %s is named twice", chunk.ID)
		case chunk.Size < 1 || chunk.Size > upload.ChunkSize:
			return nil, dfs.Errorf(dfs.Invalid, "chunk %s has %d bytes; 1 to %d, the chunk size, are possible", chunk.ID, chunk.Size, upload.ChunkSize)
		case len(chunk.Nodes) > dfs.MaxReplication:
			return nil, dfs.Errorf(dfs.Invalid, "chunk %s names %d DataNodes; at most %d are possible", chunk.ID, len(chunk.Nodes), dfs.MaxReplication)
		}
		ours[chunk.ID] = true
		for _, id := range chunk.Nodes {
			named[id] = fsm.Node{}
		}
	}
	return named, nil
}

func (n *NameNode) lookUp(nodes map[dfs.NodeID]fsm.Node) error {
	var unknown dfs.NodeID
	n.machine.Read(func(s *fsm.State) {
		for id := range nodes {
			node, ok := s.Node(id)
			if !ok {
				unknown = id
			}
			nodes[id] = node
		}
	})
	if unknown != "" {
		return dfs.Errorf(dfs.Invalid, "there is no DataNode %.80q", unknown)
	}
	return nil
}

// holdings is what the DataNodes answered.
type holdings struct {
	mu          sync.Mutex
	nodes       map[dfs.NodeID]fsm.Node
	held        map[dfs.NodeID]holding
	unreachable map[dfs.NodeID]error
}

func (n *NameNode) askNodes(ctx context.Context, nodes map[dfs.NodeID]fsm.Node, chunks []protocol.CommittedChunk) *holdings {
	wanted := make(map[dfs.NodeID][]dfs.ChunkID)
	for i := range chunks {
		for _, id := range chunks[i].Nodes {
			wanted[id] = append(wanted[id], chunks[i].ID)
		}
	}
	h := &holdings{
		nodes:       nodes,
		held:        make(map[dfs.NodeID]holding),
		unreachable: make(map[dfs.NodeID]error),
	}
	var tasks errgroup.Group
	tasks.SetLimit(verifyParallel)
	for id, ids := range wanted {
		tasks.Go(func() error {
			held, err := n.questions.held(ctx, nodes[id], ids)
			h.note(id, held, err)
			return nil
		})
	}
	_ = tasks.Wait() // each task notes its own failure
	return h
}

func (h *holdings) note(id dfs.NodeID, held holding, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[id] = held
	if err != nil {
		h.unreachable[id] = err
	}
}

// confirm turns a chunk of a commit into one that has been seen.
func (h *holdings) confirm(chunk *protocol.CommittedChunk, replication int) (fsm.StoredChunk, error) {
	stored := fsm.StoredChunk{ID: chunk.ID, Size: chunk.Size, Checksum: chunk.CRC32C}
	var denied, silent error
	for _, id := range chunk.Nodes {
		info, ok := h.held[id][chunk.ID]
		num := h.nodes[id].Num
		switch {
		case slices.Contains(stored.Nodes, num):
			return stored, dfs.Errorf(dfs.Invalid, "chunk %s names DataNode %s twice", chunk.ID, id)
		case h.unreachable[id] != nil:
			silent = fmt.Errorf("DataNode %s does not answer for chunk %s: %w", id, chunk.ID, h.unreachable[id])
		case !ok:
			denied = fmt.Errorf("DataNode %s does not hold chunk %s", id, chunk.ID)
		case info.Size != chunk.Size || info.CRC32C != chunk.CRC32C:
			denied = fmt.Errorf("DataNode %s holds chunk %s with %d bytes and CRC-32C %s, not %d and %s", id, chunk.ID, info.Size, info.CRC32C, chunk.Size, chunk.CRC32C)
		default:
			stored.Nodes = append(stored.Nodes, num)
		}
	}
	needed := dfs.MinReplicas(replication)
	switch {
	case len(stored.Nodes) >= needed:
		return stored, nil
	case silent != nil:
		return stored, dfs.Errorf(dfs.Unavailable, "chunk %s was seen on %d DataNodes and replication %d needs %d: %w", chunk.ID, len(stored.Nodes), replication, needed, silent)
	case denied != nil:
		return stored, dfs.Errorf(dfs.Invalid, "chunk %s is stored on %d DataNodes and replication %d needs %d: %w", chunk.ID, len(stored.Nodes), replication, needed, denied)
	}
	return stored, dfs.Errorf(dfs.Invalid, "chunk %s names %d DataNodes and replication %d needs %d", chunk.ID, len(stored.Nodes), replication, needed)
}

// statChunks asks a DataNode which of at most MaxChunksPerReport chunks it holds.
func (n *NameNode) statChunks(node fsm.Node, ids []dfs.ChunkID) (holding, error) {
	var answer protocol.StatChunksReply
	if err := n.callDataNode(n.ctx, node, protocol.StatChunks, protocol.StatChunksRequest{IDs: ids}, &answer); err != nil {
		return nil, err
	}
	held := make(holding, len(answer.Chunks))
	for _, info := range answer.Chunks {
		held[info.ID] = info
	}
	return held, nil
}

func (n *NameNode) callDataNode(ctx context.Context, node fsm.Node, route protocol.Route, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the question: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, route.Method, node.URL+route.Path(), bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("ask DataNode %s: %w", node.ID, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(protocol.HeaderClusterID, string(n.clusterID()))
	request.Header.Set(protocol.HeaderNodeID, string(node.ID))
	response, err := n.dataNodes.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() // a body that was read to its end; nothing can be lost
	if response.StatusCode != http.StatusOK {
		return protocol.ReadError(response)
	}
	return protocol.DecodeJSON(response.Body, maxStatReply, false, answer)
}
