package datanode

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/stall"
)

// fetcher copies chunks from other DataNodes to this one.
type fetcher struct {
	self      dfs.NodeID
	store     *chunkstore.Store
	transport http.RoundTripper
	limit     time.Duration // for the next transferBuffer bytes
	metrics   *metrics
	log       hclog.Logger
	buffers   sync.Pool // of *[transferBuffer]byte
}

func newFetcher(config Config, store *chunkstore.Store, transport http.RoundTripper, metrics *metrics, log hclog.Logger) *fetcher {
	return &fetcher{
		self: config.ID, store: store, transport: transport, limit: config.Limits.ForwardTimeout, metrics: metrics, log: log.Named("fetch"),
		buffers: sync.Pool{New: func() any { return new([transferBuffer]byte) }},
	}
}

// copy gets a chunk from the first source that has it whole, and lets it be
// reported at once. A chunk that is held already is a success. It fails with
// Conflict when other content is held under the ID, and otherwise like the last
// source.
func (f *fetcher) copy(ctx context.Context, wanted protocol.Order) error {
	want := chunkstore.Info{ID: wanted.Chunk, Size: wanted.Size, CRC32C: wanted.CRC32C}
	if held, ok := f.store.Stat(wanted.Chunk); ok {
		if held != want {
			return dfs.Errorf(dfs.Conflict, "chunk %s is held already with other content (%d bytes, CRC-32C %s; %d, %s are wanted)",
				want.ID, held.Size, held.CRC32C, want.Size, want.CRC32C)
		}
		return nil
	}
	err := dfs.Errorf(dfs.Invalid, "no other DataNode is named as source of chunk %s", want.ID)
	for _, source := range wanted.Sources {
		if source.ID == f.self {
			continue
		}
		if err = f.copyFrom(ctx, source, want); err == nil {
			f.store.Hurry()
			f.log.Debug("a chunk has been copied", "chunk", want.ID, "from", source.ID, "bytes", want.Size)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		f.log.Debug("a source has failed", "chunk", want.ID, "from", source.ID, "error", err)
	}
	return err
}

// copyFrom makes one attempt with one source. The space is taken first, so that
// a full disk costs no transfer; Commit compares the checksum.
func (f *fetcher) copyFrom(ctx context.Context, source protocol.Target, want chunkstore.Info) error {
	writer, err := f.store.Create(want.ID, want.Size)
	if err != nil {
		return err
	}
	defer writer.Abort()
	ctx, guard := stall.Watch(ctx, f.limit)
	defer guard.Stop()
	err = f.receive(ctx, guard, source, want, writer)
	switch {
	case err != nil && guard.Stalled():
		return dfs.Errorf(dfs.Timeout, "chunk %s comes too slowly from DataNode %s: the next %d bytes took longer than %s", want.ID, source.ID, transferBuffer, f.limit)
	case err != nil:
		return err
	}
	_, err = writer.Commit(want.CRC32C)
	return err
}

func (f *fetcher) receive(ctx context.Context, guard *stall.Guard, source protocol.Target, want chunkstore.Info, writer *chunkstore.Writer) error {
	request, err := f.request(ctx, source, want.ID)
	if err != nil {
		return err
	}
	response, err := f.transport.RoundTrip(request)
	if err != nil {
		return dfs.Errorf(dfs.Unavailable, "DataNode %s cannot be reached: %w", source.ID, err)
	}
	defer response.Body.Close() // an answer that was not read wholly costs the connection, nothing else
	if err := checkSource(response, source.ID, want); err != nil {
		return err
	}
	buffer := f.buffers.Get().(*[transferBuffer]byte)
	for left := want.Size; left > 0; {
		guard.Moved()
		n, err := io.ReadFull(response.Body, buffer[:min(left, transferBuffer)])
		if err != nil {
			return dfs.Errorf(dfs.Unavailable, "DataNode %s broke off chunk %s after %d of %d bytes: %w", source.ID, want.ID, want.Size-left+int64(n), want.Size, err)
		}
		guard.Moved() // what this disk takes to write is not the source's fault
		if _, err := writer.Write(buffer[:n]); err != nil {
			return err
		}
		left -= int64(n)
		f.metrics.copied.Add(float64(n))
	}
	f.buffers.Put(buffer) // after a failure a disk that hangs may still use it
	return nil
}

// request asks for a chunk. The address is the leader's word, like all that
// DataNodes know of each other.
func (f *fetcher) request(ctx context.Context, source protocol.Target, id dfs.ChunkID) (*http.Request, error) {
	baseURL, err := dfs.ParseBaseURL(source.URL)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, protocol.GetChunk.Method, baseURL+protocol.GetChunk.Path(id.String()), nil)
	if err != nil {
		return nil, dfs.Errorf(dfs.Internal, "the request to %s cannot be made: %w", baseURL, err)
	}
	request.Header.Set(protocol.HeaderNodeID, string(source.ID))
	if cluster := f.store.Identity().ClusterID; cluster != "" {
		request.Header.Set(protocol.HeaderClusterID, string(cluster))
	}
	return request, nil
}

// checkSource finds out from the head of an answer whether the body is worth
// reading.
func checkSource(response *http.Response, source dfs.NodeID, want chunkstore.Info) error {
	checksum := response.Header.Get(protocol.HeaderChecksum)
	switch {
	case response.StatusCode != http.StatusOK:
		return protocol.ReadError(response)
	case response.ContentLength != want.Size || checksum != want.CRC32C.String():
		return dfs.Errorf(dfs.Unavailable, "DataNode %s has chunk %s with other content (%d bytes, CRC-32C %.20q; %d, %s are wanted)",
			source, want.ID, response.ContentLength, checksum, want.Size, want.CRC32C)
	}
	return nil
}
