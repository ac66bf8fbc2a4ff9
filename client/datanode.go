package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/carrier"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/stall"
)

const (
	dataDialTimeout = 2 * time.Second
	maxConnections  = 256      // kept for each DataNode, for many transfers at once
	maxChunkAnswer  = 64 << 10 // bytes of JSON
	maxRetryAfter   = 5 * time.Second
	sendPiece       = 256 << 10 // bytes that must go out within the stall timeout
	readStep        = 256 << 10 // bytes read and verified at a time: what a processor's cache holds
	shortPipeline   = 3         // nodes that can judge each other within the stall timeout
)

// dataNodes speaks with DataNodes. It makes one try at a time; what to do about
// a failure is the business of those who call it.
type dataNodes struct {
	transport http.RoundTripper // without an http.Client: nobody is redirected
	bundles   http.RoundTripper // for short chunks
	hangUp    func()            // closes idle connections
	stall     time.Duration
	cluster   func() dfs.ClusterID
}

func newDataNodes(stallTimeout time.Duration, cluster func() dfs.ClusterID) *dataNodes {
	transport := carrier.New(carrier.Config{DialTimeout: dataDialTimeout, IdleTimeout: 30 * time.Second, IdlePerHost: maxConnections})
	bundles := bundle.New(bundle.Config{Under: transport, Path: protocol.Bundle.Pattern})
	return &dataNodes{transport: transport, bundles: bundles, hangUp: transport.CloseIdleConnections, stall: stallTimeout, cluster: cluster}
}

func (d *dataNodes) close() { d.hangUp() }

// carrierOf returns what carries so many bytes best.
func (d *dataNodes) carrierOf(size int64) http.RoundTripper {
	if size <= bundle.MaxBody {
		return d.bundles
	}
	return d.transport
}

// put sends a chunk to the first of targets, which forwards it to the others.
// The error is about the first one; the reply says what became of the rest.
// The data is not touched any more once put has returned.
func (d *dataNodes) put(ctx context.Context, id dfs.ChunkID, targets []protocol.Target, data []byte, sum dfs.Checksum) (protocol.ChunkReply, error) {
	var reply protocol.ChunkReply
	// Each node waits for those behind it. Those of a long pipeline get more
	// time, so that the first one can still say which of them stalled.
	limit := d.stall + d.stall/4*time.Duration(max(0, len(targets)-shortPipeline))
	ctx, guard := stall.Watch(ctx, limit)
	defer guard.Stop()
	request, err := d.request(ctx, protocol.PutChunk, id, targets[0])
	if err != nil {
		return reply, err
	}
	request.Body, request.ContentLength = &moving{guard, data}, int64(len(data))
	request.Header.Set("Content-Type", "application/octet-stream")
	request.Header.Set(protocol.HeaderChecksum, sum.String())
	if len(targets) > 1 {
		request.Header.Set(protocol.HeaderPipeline, pipelineOf(targets[1:]))
	}
	response, err := d.carrierOf(int64(len(data))).RoundTrip(request)
	if err != nil {
		return reply, failureOf(ctx, guard, limit, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return reply, refusalOf(response)
	}
	// The answer is short: that some of it comes is no progress, or a node could
	// spend days on it.
	if err := protocol.DecodeJSON(response.Body, maxChunkAnswer, false, &reply); err != nil {
		if guard.Stalled() {
			return reply, failureOf(ctx, guard, limit, err)
		}
		return reply, err
	}
	return reply, checkReply(reply, id, targets, data, sum)
}

// busyError is a refusal for lack of a free slot. The same request will do
// later.
type busyError struct {
	error
	after time.Duration // that the node asks to wait
}

func (e *busyError) Unwrap() error { return e.error }

func refusalOf(response *http.Response) error {
	err := protocol.ReadError(response)
	if dfs.CodeOf(err) != dfs.OverLimit {
		return err
	}
	seconds, _ := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16) // none, or a date: as we like
	return &busyError{err, min(time.Duration(seconds)*time.Second, maxRetryAfter)}
}

// checkReply believes only what can be true of the chunk that was sent.
func checkReply(reply protocol.ChunkReply, id dfs.ChunkID, targets []protocol.Target, data []byte, sum dfs.Checksum) error {
	if reply.ID != id || reply.Size != int64(len(data)) || reply.CRC32C != sum {
		return dfs.Errorf(dfs.Internal, "it confirmed another chunk than was sent")
	}
	if !slices.Contains(reply.Nodes, targets[0].ID) {
		return dfs.Errorf(dfs.Internal, "it confirmed the chunk, but not that it holds it itself")
	}
	for _, node := range reply.Nodes {
		if !slices.ContainsFunc(targets, func(t protocol.Target) bool { return t.ID == node }) {
			return dfs.Errorf(dfs.Internal, "it named %q, which the chunk was not sent to", node)
		}
	}
	return nil
}

// get fills buffer, which is as long as what is fetched for the piece, with
// verified bytes. It fails with a mismatchError when the node sends something
// else than the namespace says it should.
func (d *dataNodes) get(ctx context.Context, target protocol.Target, p piece, buffer []byte) error {
	ctx, guard := stall.Watch(ctx, d.stall)
	defer guard.Stop()
	request, err := d.request(ctx, protocol.GetChunk, p.ID, target)
	if err != nil {
		return err
	}
	p.ask(request.Header)
	response, err := d.carrierOf(int64(len(buffer))).RoundTrip(request)
	if err != nil {
		return failureOf(ctx, guard, d.stall, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return protocol.ReadError(response)
	}
	proof, err := p.accept(response)
	if err != nil {
		return &mismatchError{err}
	}
	body := guard.Reader(response.Body)
	for n := 0; n < len(buffer); {
		got, err := body.Read(buffer[n:min(n+readStep, len(buffer))])
		if bad := proof.add(buffer[n : n+got]); bad != nil {
			return &mismatchError{bad}
		}
		n += got
		switch {
		case err == nil || n == len(buffer):
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return dfs.Errorf(dfs.Unavailable, "the connection ended after %d of %d bytes", n, len(buffer))
		default:
			return failureOf(ctx, guard, d.stall, err)
		}
	}
	if more, _ := io.ReadFull(body, make([]byte, 1)); more > 0 {
		return &mismatchError{dfs.Errorf(dfs.Corrupt, "it sends more than %d bytes of its replica", len(buffer))}
	}
	return nil
}

func (d *dataNodes) request(ctx context.Context, route protocol.Route, id dfs.ChunkID, target protocol.Target) (*http.Request, error) {
	return d.requestTo(ctx, target, route.Method, route.Path(id.String()), nil)
}

func (d *dataNodes) requestTo(ctx context.Context, target protocol.Target, method, path string, body io.Reader) (*http.Request, error) {
	baseURL, err := dfs.ParseBaseURL(target.URL)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, baseURL+path, body)
	if err != nil {
		return nil, dfs.Errorf(dfs.Internal, "the request cannot be made: %w", err)
	}
	request.Header.Set(protocol.HeaderNodeID, string(target.ID))
	if cluster := d.cluster(); cluster != "" {
		request.Header.Set(protocol.HeaderClusterID, string(cluster))
	}
	return request, nil
}

func pipelineOf(targets []protocol.Target) string {
	ids := make([]string, len(targets))
	for i, target := range targets {
		ids[i] = string(target.ID)
	}
	return strings.Join(ids, ",")
}

// failureOf says in a few words why there was no answer.
func failureOf(ctx context.Context, guard *stall.Guard, limit time.Duration, err error) error {
	if guard.Stalled() {
		return dfs.Errorf(dfs.Timeout, "no progress for %s", limit)
	}
	if ctx.Err() != nil {
		return dfs.Errorf(dfs.Unavailable, "the transfer was given up: %w", ctx.Err())
	}
	var op *net.OpError
	var request *url.Error
	if errors.As(err, &op) {
		err = op.Err
	} else if errors.As(err, &request) {
		err = request.Err
	}
	return dfs.Errorf(dfs.Unavailable, "%w", err)
}

// moving is a request body in memory. Each piece that the connection takes is
// movement.
type moving struct {
	guard *stall.Guard
	data  []byte // that is left
}

// Read implements io.Reader.
func (m *moving) Read(p []byte) (int, error) {
	if len(m.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.data)
	m.data = m.data[n:]
	m.guard.Moved()
	return n, nil
}

// WriteTo implements io.WriterTo, so that the data need not be copied.
func (m *moving) WriteTo(w io.Writer) (all int64, err error) {
	for len(m.data) > 0 && err == nil {
		var n int
		n, err = w.Write(m.data[:min(len(m.data), sendPiece)])
		m.data = m.data[n:]
		all += int64(n)
		m.guard.Moved()
	}
	return all, err
}

// Close implements io.Closer.
func (m *moving) Close() error { return nil }
