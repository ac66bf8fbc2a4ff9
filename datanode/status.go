package datanode

import (
	"net/http"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// statChunks tells which of the asked chunks are held durably.
func (s *server) statChunks(w http.ResponseWriter, r *http.Request) error {
	var request protocol.StatChunksRequest
	if err := protocol.DecodeJSON(r.Body, protocol.StatChunks.MaxBody, true, &request); err != nil {
		return err
	}
	if len(request.IDs) > dfs.MaxChunksPerReport {
		return dfs.Errorf(dfs.TooLarge, "%d chunks are too many for one question: ask for at most %d", len(request.IDs), dfs.MaxChunksPerReport)
	}
	if request.Verify {
		return s.confirmChunks(w, r, request.IDs)
	}
	reply := protocol.StatChunksReply{Chunks: []protocol.ChunkInfo{}}
	for _, id := range request.IDs {
		if info, ok := s.store.Stat(id); ok {
			reply.Chunks = append(reply.Chunks, protocol.ChunkInfo{ID: id, Size: info.Size, CRC32C: info.CRC32C})
		}
	}
	protocol.WriteJSON(w, http.StatusOK, reply)
	return nil
}

// health is bad when a person has to do something about this node.
func (s *server) health(w http.ResponseWriter, _ *http.Request) error {
	err := s.standing.refused()
	if err == nil {
		if err = s.store.Writable(); dfs.CodeOf(err) == dfs.NoSpace {
			err = nil // a full node reads as well as any other
		}
	}
	s.report(w, err)
	return nil
}

// ready is bad while the node is not a working part of its cluster.
func (s *server) ready(w http.ResponseWriter, _ *http.Request) error {
	s.report(w, s.standing.check())
	return nil
}

func (s *server) report(w http.ResponseWriter, err error) {
	reply := protocol.HealthReply{ID: s.id, ClusterID: s.store.Identity().ClusterID, Status: "ok"}
	status := http.StatusOK
	if err != nil {
		reply.Status, status = dfs.MessageOf(err), http.StatusServiceUnavailable
	}
	protocol.WriteJSON(w, status, reply)
}
