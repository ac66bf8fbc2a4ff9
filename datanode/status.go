package datanode

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// statChunks tells which of the asked chunks are held durably. Before that is
// known it must not say that there are none.
func (s *server) statChunks(w http.ResponseWriter, r *http.Request) error {
	if err := s.store.Ready(); err != nil {
		return err
	}
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

// health is bad when a person has to do something before this node works.
// While some directories serve it does work, and the answer names the others.
func (s *server) health(w http.ResponseWriter, _ *http.Request) error {
	err := s.standing.refused()
	reading := s.store.Ready()
	if err == nil {
		err = s.store.Writable()
		if code := dfs.CodeOf(err); code == dfs.NoSpace || code == dfs.Unavailable {
			err = nil // a full node reads as well as any other, and one that is being read needs nobody
		}
	}
	reply := s.statusOf(cmp.Or(err, reading))
	reply.Volumes = []protocol.VolumeHealth{}
	for _, v := range s.store.Volumes() {
		volume := protocol.VolumeHealth{
			Dir: v.Dir, ID: v.ID, Status: protocol.StatusOK, Gone: v.Gone, Capacity: v.Capacity, Free: v.Free,
			Used: v.Used, Chunks: v.Chunks, TrashBytes: v.TrashBytes, TrashFiles: v.TrashFiles,
		}
		if v.Failure != nil {
			volume.Status = dfs.MessageOf(v.Failure)
			if err == nil {
				reply.Status = fmt.Sprintf("the data directory %s does not work (%s)", v.Dir, volume.Status)
			}
		}
		reply.Volumes = append(reply.Volumes, volume)
	}
	protocol.WriteJSON(w, statusCode(err), reply)
	return nil
}

// ready is bad while the node is not a working part of its cluster.
func (s *server) ready(w http.ResponseWriter, _ *http.Request) error {
	err := s.standing.check()
	if err == nil {
		err = s.store.Ready()
	}
	protocol.WriteJSON(w, statusCode(err), s.statusOf(err))
	return nil
}

func (s *server) statusOf(err error) protocol.HealthReply {
	reply := protocol.HealthReply{ID: s.id, ClusterID: s.store.Identity().ClusterID, Status: protocol.StatusOK}
	if err != nil {
		reply.Status = dfs.MessageOf(err)
	}
	return reply
}

func statusCode(err error) int {
	if err != nil {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
