package datanode

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// upload is what a PUT announces.
type upload struct {
	id       dfs.ChunkID
	size     int64
	crc      dfs.Checksum
	pipeline []dfs.NodeID // to forward to, in order
}

func (s *server) parseUpload(r *http.Request) (upload, error) {
	id, err := dfs.ParseChunkID(r.PathValue("id"))
	if err != nil {
		return upload{}, err
	}
	switch {
	case r.ContentLength < 0:
		return upload{}, dfs.Errorf(dfs.Invalid, "the header Content-Length is needed")
	case r.ContentLength == 0:
		return upload{}, dfs.Errorf(dfs.Invalid, "an empty chunk cannot be stored")
	case r.ContentLength > dfs.MaxChunkSize:
		return upload{}, dfs.Errorf(dfs.TooLarge, "a chunk of %d bytes is too large: at most %d are possible", r.ContentLength, dfs.MaxChunkSize)
	case r.Header.Get(protocol.HeaderChecksum) == "":
		return upload{}, dfs.Errorf(dfs.Invalid, "the header %s with the chunk's CRC-32C is needed", protocol.HeaderChecksum)
	}
	crc, err := dfs.ParseChecksum(r.Header.Get(protocol.HeaderChecksum))
	if err != nil {
		return upload{}, err
	}
	pipeline, err := parsePipeline(r.Header.Get(protocol.HeaderPipeline), s.id)
	if err != nil {
		return upload{}, err
	}
	return upload{id: id, size: r.ContentLength, crc: crc, pipeline: pipeline}, nil
}

// parsePipeline accepts different node IDs, none of them self, few enough that
// the chunk has at most MaxReplication replicas with this node's own.
func parsePipeline(header string, self dfs.NodeID) ([]dfs.NodeID, error) {
	if header == "" {
		return nil, nil
	}
	seen := []dfs.NodeID{self}
	for text := range strings.SplitSeq(header, ",") {
		id, err := dfs.ParseNodeID(strings.TrimSpace(text))
		switch {
		case err != nil:
			return nil, err
		case slices.Contains(seen, id):
			return nil, dfs.Errorf(dfs.Invalid, "%s is in the pipeline twice", id)
		case len(seen) == dfs.MaxReplication:
			return nil, dfs.Errorf(dfs.Invalid, "the pipeline is too long: a chunk has at most %d replicas", dfs.MaxReplication)
		}
		seen = append(seen, id)
	}
	return seen[1:], nil
}

// putChunk stores a chunk here and on the rest of the pipeline.
func (s *server) putChunk(w http.ResponseWriter, r *http.Request) error {
	up, err := s.parseUpload(r)
	if err != nil {
		return err
	}
	if err := s.standing.check(); err != nil {
		if dfs.CodeOf(err) == dfs.Unavailable {
			w.Header().Set("Retry-After", "1")
		}
		return err
	}
	release, err := s.writes[len(up.pipeline)].take(r.Context(), w)
	if err != nil {
		return err
	}
	defer release()
	put := s.putLarge
	if up.size <= chunkstore.PackLimit {
		put = s.putSmall
	}
	below, err := put(w, r, up)
	if err != nil {
		return err
	}
	s.metrics.forwardFailures.Add(float64(len(below.failed)))
	protocol.WriteJSON(w, http.StatusCreated, protocol.ChunkReply{
		ID: up.id, Size: up.size, CRC32C: up.crc,
		Nodes: append([]dfs.NodeID{s.id}, below.durable...), Failed: below.failed,
	})
	return nil
}

// putLarge writes a chunk while it comes, and passes it on from what is written.
func (s *server) putLarge(w http.ResponseWriter, r *http.Request, up upload) (outcome, error) {
	writer, err := s.store.Create(up.id, up.size)
	if err != nil {
		return outcome{}, err
	}
	defer writer.Abort()
	down, err := s.forward.follow(r.Context(), up, writer)
	if err != nil {
		return outcome{}, err
	}
	defer down.stop()
	if err := s.receive(w, r, writer, down); err != nil {
		return outcome{}, err
	}
	if _, err := writer.Commit(up.crc); err != nil {
		return outcome{}, err
	}
	return down.wait(), nil
}

// putSmall takes a chunk into memory first. What it writes and what it passes on
// is the same memory.
func (s *server) putSmall(w http.ResponseWriter, r *http.Request, up upload) (outcome, error) {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.limits.BodyTimeout)); err != nil {
		return outcome{}, dfs.Errorf(dfs.Internal, "no deadline can be set: %w", err)
	}
	buffer := s.smallBuffers.Get().(*smallBuffer)
	data := buffer[:up.size]
	n, err := io.ReadFull(r.Body, data)
	s.metrics.received.Add(float64(n))
	if err != nil {
		s.smallBuffers.Put(buffer)
		return outcome{}, s.bodyError(int64(n), up.size, err)
	}
	down := s.forward.send(r.Context(), up, data)
	var below outcome
	if _, err = s.store.Put(up.id, data, up.crc); err == nil {
		below = down.wait()
	}
	down.stop()
	if err == nil { // or a disk that hangs may still look at it
		s.smallBuffers.Put(buffer)
	}
	return below, err
}

// receive takes the body in pieces, each with a deadline of its own.
func (s *server) receive(w http.ResponseWriter, r *http.Request, writer *chunkstore.Writer, down *transfer) error {
	control := http.NewResponseController(w)
	buffer := s.buffers.Get().(*[transferBuffer]byte)
	for left := r.ContentLength; left > 0; {
		if err := control.SetReadDeadline(time.Now().Add(s.limits.BodyTimeout)); err != nil {
			return dfs.Errorf(dfs.Internal, "no deadline can be set: %w", err)
		}
		n, err := io.ReadFull(r.Body, buffer[:min(left, transferBuffer)])
		if err != nil {
			return s.bodyError(r.ContentLength-left+int64(n), r.ContentLength, err)
		}
		if _, err := writer.Write(buffer[:n]); err != nil {
			return err
		}
		left -= int64(n)
		down.grow(int64(n))
		s.metrics.received.Add(float64(n))
	}
	s.buffers.Put(buffer) // after a failure a disk that hangs may still use it
	return nil
}

func (s *server) bodyError(got, size int64, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return dfs.Errorf(dfs.Timeout, "the body came too slowly: %d of %d bytes, and the next %d took longer than %s", got, size, min(size-got, transferBuffer), s.limits.BodyTimeout)
	}
	return dfs.Errorf(dfs.Invalid, "the body ended after %d of %d bytes", got, size)
}
