package datanode

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// readPatience is how much longer than its deadline a piece of an answer may take
// before it is the disk that hangs: the peer would have been cut off.
const readPatience = 10 * time.Second

// getChunk sends a chunk or one range of it, and answers HEAD. The data is not
// verified here: the reader does that, against a checksum that it has from a
// NameNode. One who reads a range asks for the checksums of the blocks besides.
func (s *server) getChunk(w http.ResponseWriter, r *http.Request) error {
	id, err := dfs.ParseChunkID(r.PathValue("id"))
	if err != nil {
		return err
	}
	release, err := s.reads.take(r.Context(), w)
	if err != nil {
		return err
	}
	defer release()
	chunk, err := s.store.OpenChunk(id)
	if err != nil {
		return err
	}
	defer chunk.Close() // only read from
	header := w.Header()
	header.Set("Accept-Ranges", "bytes")
	header.Set(protocol.HeaderChecksum, chunk.CRC32C.String())
	part, err := parseRange(r.Header, chunk.Size)
	if err != nil {
		header.Set("Content-Range", fmt.Sprintf("bytes */%d", chunk.Size))
		protocol.WriteJSON(w, http.StatusRequestedRangeNotSatisfiable, protocol.ErrorReply{Error: protocol.BodyOf(err)})
		return nil
	}
	if r.Header.Get(protocol.HeaderWantBlocks) == protocol.WantBlocks {
		header.Set(protocol.HeaderBlocks, protocol.FormatBlocks(chunk.Blocks()))
	}
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.FormatInt(part.length, 10))
	status := http.StatusOK
	if part.partial {
		status = http.StatusPartialContent
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.start, part.start+part.length-1, chunk.Size))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	err = s.send(w, chunk, part)
	s.store.ReadEnded(chunk, err)
	return err
}

// send copies from the chunk in pieces, each with a deadline of its own; the last
// one holds until the answer is out.
func (s *server) send(w http.ResponseWriter, chunk *chunkstore.Chunk, part byteRange) error {
	control := http.NewResponseController(w)
	for at, end := part.start, part.start+part.length; at < end; {
		if err := control.SetWriteDeadline(time.Now().Add(s.limits.BodyTimeout)); err != nil {
			return dfs.Errorf(dfs.Internal, "no deadline can be set: %w", err)
		}
		done := s.store.Reading(chunk, s.limits.BodyTimeout+readPatience)
		n, err := chunk.Send(w, at, min(end-at, transferBuffer))
		done()
		at += n
		s.metrics.sent.Add(float64(n))
		if err != nil {
			return sendError(chunk.ID, at, err)
		}
	}
	return nil
}

// sendError is for the log: the answer has begun, and cutting it off tells the
// caller enough. A file that ends early or cannot be read is this node's fault.
func sendError(id dfs.ChunkID, at int64, err error) error {
	code := dfs.Unavailable
	if errors.Is(err, io.EOF) || chunkstore.IsUnreadable(err) {
		code = dfs.Internal
	}
	return dfs.Errorf(code, "chunk %s was sent only up to byte %d: %w", id, at, err)
}

// byteRange is the part of a chunk to send.
type byteRange struct {
	start   int64
	length  int64
	partial bool // 206, even if it is everything
}

// parseRange understands one range in its three forms. As RFC 9110 allows,
// other units, several ranges and conditions that cannot hold, because chunks
// have no validator, get the whole chunk.
func parseRange(header http.Header, size int64) (byteRange, error) {
	whole := byteRange{length: size}
	text, isBytes := strings.CutPrefix(header.Get("Range"), "bytes=")
	if !isBytes || header.Get("If-Range") != "" || strings.Contains(text, ",") {
		return whole, nil
	}
	bad := dfs.Errorf(dfs.Invalid, "%.60q is not a range of the chunk's %d bytes", text, size)
	from, to, hasDash := strings.Cut(strings.TrimSpace(text), "-")
	if !hasDash {
		return whole, bad
	}
	if from == "" {
		n, ok := parseOffset(to)
		if !ok || n == 0 {
			return whole, bad
		}
		n = min(n, size)
		return byteRange{start: size - n, length: n, partial: true}, nil
	}
	start, ok := parseOffset(from)
	if !ok || start >= size {
		return whole, bad
	}
	end := size - 1
	if to != "" {
		last, ok := parseOffset(to)
		if !ok || last < start {
			return whole, bad
		}
		end = min(last, end)
	}
	return byteRange{start: start, length: end - start + 1, partial: true}, nil
}

// parseOffset accepts digits only. A number that is too large stands for any
// position beyond the end.
func parseOffset(text string) (int64, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // of digits, only too many are wrong
		return math.MaxInt64, true
	}
	return n, true
}
