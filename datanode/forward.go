package datanode

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/carrier"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/stall"
)

const (
	forwardDialTimeout = 2 * time.Second
	forwardConnections = 64       // kept open to each node
	maxForwardAnswer   = 64 << 10 // bytes
)

// forwarder passes chunks on to other DataNodes.
type forwarder struct {
	nodes     *directory
	store     *chunkstore.Store
	timeout   time.Duration     // of the last node of a pipeline
	transport http.RoundTripper // without an http.Client: nobody is redirected
	hangUp    func()            // closes idle connections
}

func newForwarder(nodes *directory, store *chunkstore.Store, timeout time.Duration) *forwarder {
	transport := carrier.New(carrier.Config{
		DialTimeout: forwardDialTimeout,
		IdleTimeout: idleTimeout / 2, // so that the server never hangs up first
		IdlePerHost: forwardConnections,
		MaxHead:     maxHeaderBytes,
	})
	return &forwarder{nodes: nodes, store: store, timeout: timeout, transport: transport, hangUp: transport.CloseIdleConnections}
}

func (f *forwarder) close() { f.hangUp() }

// patience is how long a node that has the given number of nodes behind it may
// show no sign of life; see Limits.ForwardTimeout.
func (f *forwarder) patience(behind int) time.Duration {
	return f.timeout + time.Duration(behind)*f.timeout/4
}

// outcome says what became of a chunk below this node.
type outcome struct {
	durable []dfs.NodeID
	failed  []protocol.FailedHop
}

func (o *outcome) fail(id dfs.NodeID, err error) {
	o.failed = append(o.failed, protocol.FailedHop{ID: id, Error: protocol.BodyOf(err)})
}

// transfer is the forwarding of one chunk. The nil transfer is that of a chunk
// that goes nowhere.
type transfer struct {
	f      *forwarder
	up     upload
	tail   *tail
	file   io.Closer // nil when the chunk is in memory
	cancel context.CancelFunc
	done   chan struct{}
	result outcome // set before done is closed
}

// follow begins to forward what writer gets, as grow announces it. The caller
// must call stop.
func (f *forwarder) follow(ctx context.Context, up upload, writer *chunkstore.Writer) (*transfer, error) {
	if len(up.pipeline) == 0 {
		return nil, nil
	}
	data, err := writer.OpenData()
	if err != nil {
		return nil, err
	}
	return f.start(ctx, up, newTail(data, up.size), data), nil
}

// send begins to forward a chunk that is in memory. The caller must call stop;
// after that nobody looks at the data any more.
func (f *forwarder) send(ctx context.Context, up upload, data []byte) *transfer {
	if len(up.pipeline) == 0 {
		return nil
	}
	return f.start(ctx, up, wholeTail(data), nil)
}

func (f *forwarder) start(ctx context.Context, up upload, data *tail, file io.Closer) *transfer {
	ctx, cancel := context.WithCancel(ctx)
	t := &transfer{f: f, up: up, tail: data, file: file, cancel: cancel, done: make(chan struct{})}
	go func() { // ended and waited for by stop
		defer close(t.done)
		t.result = t.run(ctx)
	}()
	return t
}

func (t *transfer) grow(n int64) {
	if t != nil {
		t.tail.grow(n)
	}
}

// wait returns what became of the chunk. It takes no longer than the patience
// with the nodes that hang.
func (t *transfer) wait() outcome {
	if t == nil {
		return outcome{}
	}
	<-t.done
	return t.result
}

// stop ends the transfer if it still runs.
func (t *transfer) stop() {
	if t == nil {
		return
	}
	t.cancel()
	<-t.done
	if t.file != nil {
		_ = t.file.Close() // only read from
	}
}

// run sends the chunk to the first node of the pipeline that takes it; that one
// sees to the nodes behind it.
func (t *transfer) run(ctx context.Context) outcome {
	var all outcome
	for i, id := range t.up.pipeline {
		behind := t.up.pipeline[i+1:]
		reply, err := t.attempt(ctx, id, behind)
		if err != nil {
			all.fail(id, err)
			continue
		}
		all.durable = append(all.durable, id)
		all.sort(reply, behind)
		break
	}
	return all
}

// sort takes over what a node says of those behind it, and only of those.
func (o *outcome) sort(reply protocol.ChunkReply, behind []dfs.NodeID) {
	for _, id := range behind {
		if slices.Contains(reply.Nodes, id) {
			o.durable = append(o.durable, id)
			continue
		}
		err := dfs.Errorf(dfs.Unavailable, "it is not known what became of the chunk on %s", id)
		for _, hop := range reply.Failed {
			if hop.ID == id {
				err = hop.Error.Err()
			}
		}
		o.fail(id, err)
	}
}

// attempt makes one attempt at one node.
func (t *transfer) attempt(ctx context.Context, id dfs.NodeID, behind []dfs.NodeID) (protocol.ChunkReply, error) {
	var reply protocol.ChunkReply
	baseURL, err := t.f.nodes.lookup(ctx, id)
	if err != nil {
		return reply, err
	}
	limit := t.f.patience(len(behind))
	ctx, guard := stall.Watch(ctx, limit)
	defer guard.Stop()
	request, err := t.request(ctx, guard, limit, baseURL)
	if err != nil {
		return reply, err
	}
	t.address(request, id, behind)
	response, err := t.f.transport.RoundTrip(request)
	if err != nil {
		return reply, t.unreachable(ctx, guard, id, limit, err)
	}
	defer response.Body.Close() // an answer that was not read wholly costs the connection, nothing else
	if response.StatusCode != http.StatusCreated {
		return reply, protocol.ReadError(response)
	}
	if err := protocol.DecodeJSON(response.Body, maxForwardAnswer, false, &reply); err != nil {
		return reply, dfs.Errorf(dfs.Unavailable, "DataNode %s gave no valid answer: %w", id, err)
	}
	if reply.ID != t.up.id || reply.Size != t.up.size || reply.CRC32C != t.up.crc || !slices.Contains(reply.Nodes, id) {
		return reply, dfs.Errorf(dfs.Internal, "DataNode %s answered for another chunk than %s", id, t.up.id)
	}
	return reply, nil
}

func (t *transfer) request(ctx context.Context, guard *stall.Guard, limit time.Duration, baseURL string) (*http.Request, error) {
	body := func() *tailReader {
		return t.tail.follow(ctx, guard, limit)
	}
	url := baseURL + protocol.PutChunk.Path(t.up.id.String())
	request, err := http.NewRequestWithContext(ctx, protocol.PutChunk.Method, url, body())
	if err != nil {
		return nil, dfs.Errorf(dfs.Internal, "the request to %s cannot be made: %w", baseURL, err)
	}
	request.ContentLength = t.up.size
	// A PUT may be repeated, and the file is there to begin again: this lets
	// the transport do so when the node has just closed a kept connection. A
	// key without a value is not sent.
	request.GetBody = func() (io.ReadCloser, error) { return body(), nil }
	request.Header["Idempotency-Key"] = nil
	return request, nil
}

// address says whom the request is for and who comes behind.
func (t *transfer) address(request *http.Request, id dfs.NodeID, behind []dfs.NodeID) {
	header := request.Header
	header.Set(protocol.HeaderNodeID, string(id))
	header.Set(protocol.HeaderChecksum, t.up.crc.String())
	if cluster := t.f.store.Identity().ClusterID; cluster != "" {
		header.Set(protocol.HeaderClusterID, string(cluster))
	}
	if len(behind) > 0 {
		names := make([]string, len(behind))
		for i, id := range behind {
			names[i] = string(id)
		}
		header.Set(protocol.HeaderPipeline, strings.Join(names, ","))
	}
}

func (t *transfer) unreachable(ctx context.Context, guard *stall.Guard, id dfs.NodeID, limit time.Duration, err error) error {
	switch {
	case guard.Stalled():
		return dfs.Errorf(dfs.Timeout, "DataNode %s has shown no sign of life for %s", id, limit)
	case ctx.Err() != nil:
		return dfs.Errorf(dfs.Unavailable, "the upload was broken off before DataNode %s had the chunk", id)
	}
	return dfs.Errorf(dfs.Unavailable, "DataNode %s cannot be reached: %w", id, err)
}
