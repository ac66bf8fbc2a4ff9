package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	abortTimeout = 5 * time.Second
	maxExpiry    = 1 << 30 // seconds; what is longer comes to the same
)

// UploadOptions say how a file is stored. The zero value is fine.
type UploadOptions struct {
	Size        int64 // bytes that will come, -1 when unknown; saves requests, need not be exact
	Replication *int  // nil: the default of the cluster
	ChunkSize   int64 // bytes; 0: the default of the cluster, or what a larger file needs
	Overwrite   bool  // replace a file that exists; it stays readable until the upload is complete
	// Progress is told of each bytes that are durable, in the order in which
	// they become so, from several goroutines at once. It must not block.
	Progress func(bytes int64)
}

// UploadResult says what became of an upload that is complete.
type UploadResult struct {
	protocol.CommitReply
	Chunks      int `json:"chunks"`
	Replication int `json:"replication"` // replicas wanted of each chunk
	// UnderReplicated counts the chunks that have fewer replicas than wanted
	// for the moment: LeastReplicas, or a few more. The cluster makes the rest
	// as soon as it can.
	UnderReplicated int `json:"under_replicated"`
	LeastReplicas   int `json:"least_replicas,omitempty"` // of those
}

// Upload stores what r gives, to its end, as the file path. The file appears
// whole when Upload returns nil, and not at all when it fails; the one
// exception is dfs.UnknownOutcome, when the answer to the last request was
// lost. Memory is bounded by the chunk size times (parallelism + 1), and 64 KiB:
// unless more than that is announced, so much is read before anybody is asked
// for anything, because a file that is no longer takes less work.
//
// When ctx ends, Upload returns without waiting for a Read of r that blocks.
func (c *Client) Upload(ctx context.Context, path dfs.Path, r io.Reader, options UploadOptions) (UploadResult, error) {
	if err := fitChunkSize(&options); err != nil {
		return UploadResult{}, notStored(ctx, path, err)
	}
	if limit := min(maxSmall, orDefaultSize(options.ChunkSize)); options.Size <= limit {
		head, err := c.readHead(ctx, r, limit)
		if err != nil {
			return UploadResult{}, notStored(ctx, path, err)
		}
		if head.whole {
			result, again, err := c.uploadSmall(ctx, path, head.data, options)
			if !again { // else a Read of it may have been left behind
				c.buffers.small.Put(head.buffer)
			}
			return result, err
		}
		r = io.MultiReader(bytes.NewReader(head.data), r)
	}
	u := c.newUpload(path, options)
	if err := u.begin(ctx, options, false); err != nil {
		return UploadResult{}, notStored(ctx, path, err)
	}
	return u.run(ctx, r)
}

// run does all of an upload that has begun.
func (u *upload) run(ctx context.Context, r io.Reader) (UploadResult, error) {
	chunks, err := u.sendAll(ctx, r)
	if err != nil {
		u.abort(ctx)
		return UploadResult{}, notStored(ctx, u.path, err)
	}
	reply, err := u.commit(ctx, chunks)
	if err != nil && dfs.CodeOf(err) != dfs.UnknownOutcome {
		u.abort(ctx)
		err = notStored(ctx, u.path, err)
	}
	return u.result(reply, chunks), err
}

func (u *upload) result(reply protocol.CommitReply, chunks []protocol.CommittedChunk) UploadResult {
	result := UploadResult{CommitReply: reply, Chunks: len(chunks), Replication: u.replication}
	for _, chunk := range chunks {
		replicas := len(chunk.Nodes)
		if replicas >= u.replication {
			continue
		}
		if result.UnderReplicated == 0 || replicas < result.LeastReplicas {
			result.LeastReplicas = replicas
		}
		result.UnderReplicated++
	}
	return result
}

// notStored is the error of an upload that ended before its commit. That some
// other answer was lost on the way is no reason to say that the file may exist.
func notStored(ctx context.Context, path dfs.Path, err error) error {
	switch {
	case ctx.Err() != nil:
		return interrupted(ctx, "the upload of "+path.String()+" was interrupted; nothing is stored")
	case dfs.CodeOf(err) == dfs.UnknownOutcome:
		return &dfs.Error{
			Code:    dfs.Unavailable,
			Message: "nothing is stored as " + path.String() + ": no answer came before the file was complete; try again (" + deepest(err).Error() + ")",
			Cause:   err,
		}
	}
	return err
}

func deepest(err error) error {
	for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
		err = cause
	}
	return err
}

// interrupted is the error of a transfer whose context ended.
func interrupted(ctx context.Context, message string) error {
	return &dfs.Error{Code: dfs.Unavailable, Message: message, Cause: ctx.Err()}
}

// upload is one under way.
type upload struct {
	c           *Client
	id          dfs.UploadID // 0 as long as only a chunk in stock was asked for
	pool        dfs.UploadID // that this is from
	base        uint64       // what stood at the path then
	path        dfs.Path
	chunkSize   int64
	replication int           // replicas wanted
	minReplicas int           // replicas needed
	lifetime    time.Duration // without a sign of life; 0 when unlimited
	progress    func(int64)
	allocator   *allocator
	nodes       *nodeRecord
	buffer      int64 // bytes that are read at once, at first
}

func (c *Client) newUpload(path dfs.Path, options UploadOptions) *upload {
	return &upload{c: c, path: path, progress: options.Progress, nodes: newNodeRecord(c.penalty)}
}

// begin asks for an upload and the first chunks. A single chunk may come from
// the stock of the NameNode instead; then the upload has a pool and no ID.
func (u *upload) begin(ctx context.Context, options UploadOptions, single bool) error {
	request := protocol.CreateRequest{
		Path:        u.path.String(),
		NumChunks:   min(maxBatch, chunksOf(options.Size, orDefaultSize(options.ChunkSize))),
		Single:      single,
		Replication: options.Replication,
		Overwrite:   options.Overwrite,
	}
	switch {
	case options.Size < 0:
		request.NumChunks = firstBatch
	case len(u.nodes.failed()) > 0:
		request.NumChunks = 0 // the allocator knows how to ask for others
	}
	if options.ChunkSize != 0 {
		request.ChunkSize = &options.ChunkSize
	}
	var allocation protocol.Allocation
	if err := u.c.call(ctx, protocol.CreateFile, leader.Call{Body: request, Out: &allocation}); err != nil {
		return err
	}
	stock := single && allocation.Pool != 0 && len(allocation.Chunks) == 1
	if err := dfs.CheckChunkSize(allocation.ChunkSize); err != nil || (allocation.UploadID == 0) != stock {
		return dfs.Errorf(dfs.Internal, "the NameNode began an upload that makes no sense: ID %s, chunk size %d", allocation.UploadID, allocation.ChunkSize)
	}
	u.id, u.pool, u.base = allocation.UploadID, allocation.Pool, allocation.Base
	u.chunkSize, u.buffer = allocation.ChunkSize, allocation.ChunkSize
	u.replication, u.minReplicas = allocation.Replication, max(1, allocation.MinReplicas)
	u.lifetime = time.Duration(min(max(0, allocation.ExpiresIn), maxExpiry)) * time.Second
	if options.Size >= 0 {
		u.buffer = min(u.buffer, options.Size+1) // one more, to see the end
	}
	u.allocator = &allocator{
		u:         u,
		queue:     allocation.Chunks,
		remaining: chunksOf(options.Size, allocation.ChunkSize) - int64(len(allocation.Chunks)),
		batch:     firstBatch,
	}
	return nil
}

// fitChunkSize makes sure that a file of a known size has no more chunks than a
// file may have. A chunk size that was asked for is not changed.
func fitChunkSize(options *UploadOptions) error {
	if chunksOf(options.Size, orDefaultSize(options.ChunkSize)) <= dfs.MaxChunksPerFile {
		return nil
	}
	const unit = 64 << 10
	needed := chunksOf(chunksOf(options.Size, dfs.MaxChunksPerFile), unit) * unit
	switch {
	case needed > dfs.MaxChunkSize:
		return dfs.Errorf(dfs.TooLarge, "a file may have %d GiB at most, and this one has %d bytes: split it", dfs.MaxChunksPerFile*dfs.MaxChunkSize>>30, options.Size)
	case options.ChunkSize > 0:
		return dfs.Errorf(dfs.TooLarge, "%d bytes would be more than %d chunks of %d bytes: choose a chunk size of at least %d KiB", options.Size, dfs.MaxChunksPerFile, options.ChunkSize, needed>>10)
	}
	options.ChunkSize = needed
	return nil
}

func orDefaultSize(size int64) int64 {
	if size <= 0 {
		return dfs.DefaultChunkSize
	}
	return size
}

func chunksOf(size, chunkSize int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/chunkSize + 1
}

// sendAll cuts r into chunks and sends them, several at once, while the upload
// is kept alive.
func (u *upload) sendAll(ctx context.Context, r io.Reader) ([]protocol.CommittedChunk, error) {
	var chunks []protocol.CommittedChunk
	err := u.whileAlive(ctx, func(ctx context.Context) (err error) {
		chunks, err = u.cut(ctx, r)
		return err
	})
	return chunks, err
}

// whileAlive does work while the upload is kept alive.
func (u *upload) whileAlive(ctx context.Context, work func(context.Context) error) error {
	done := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return u.keepAlive(ctx, done) })
	group.Go(func() error {
		defer close(done)
		return work(ctx)
	})
	return group.Wait()
}

func (u *upload) cut(ctx context.Context, r io.Reader) ([]protocol.CommittedChunk, error) {
	var sent []*protocol.CommittedChunk
	buffers := u.c.buffers.limit(u.c.parallelism+1, u.buffer) // one is being filled
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(u.c.parallelism)
	var err error
	for err == nil {
		sent, err = u.cutOne(ctx, r, buffers, group, sent)
	}
	if failed := group.Wait(); failed != nil {
		return nil, failed // the first failure; err is only what followed from it
	}
	if err != io.EOF {
		return nil, err
	}
	chunks := make([]protocol.CommittedChunk, len(sent))
	for i := range sent {
		chunks[i] = *sent[i]
	}
	return chunks, nil
}

// cutOne reads the next chunk and has it sent. It returns io.EOF when there is
// no more.
func (u *upload) cutOne(ctx context.Context, r io.Reader, buffers *buffers, group *errgroup.Group, sent []*protocol.CommittedChunk) ([]*protocol.CommittedChunk, error) {
	buffer, err := buffers.get(ctx)
	if err != nil {
		return sent, err
	}
	n, readErr := u.readChunk(ctx, r, buffer)
	if ctx.Err() != nil {
		return sent, ctx.Err() // the buffer is lost: a Read may still be using it
	}
	if readErr != nil && readErr != io.EOF {
		return sent, unreadable(readErr)
	}
	if n == 0 {
		buffers.put(buffer)
		return sent, io.EOF
	}
	if len(sent) == dfs.MaxChunksPerFile {
		return sent, dfs.Errorf(dfs.TooLarge, "the file has more than %d chunks of %d bytes: choose a larger chunk size", dfs.MaxChunksPerFile, u.chunkSize)
	}
	next, err := u.allocator.next(ctx)
	if err != nil {
		return sent, err
	}
	chunk := new(protocol.CommittedChunk)
	group.Go(func() (err error) {
		defer buffers.put(buffer)
		*chunk, err = u.send(ctx, next, (*buffer)[:n])
		return err
	})
	return append(sent, chunk), readErr
}

func unreadable(err error) error {
	return dfs.Errorf(dfs.Internal, "the source cannot be read: %w", err)
}

// readChunk fills the buffer with a chunk, and lets it grow first when more
// comes than was announced.
func (u *upload) readChunk(ctx context.Context, r io.Reader, buffer *[]byte) (int, error) {
	n, err := readFull(ctx, r, *buffer)
	if err != nil || int64(n) == u.chunkSize {
		return n, err
	}
	whole := make([]byte, u.chunkSize)
	copy(whole, *buffer)
	*buffer = whole
	more, err := readFull(ctx, r, whole[n:])
	return n + more, err
}

// readFull is io.ReadFull with an end of the data always called io.EOF. It
// returns when ctx ends, and leaves a Read that blocks (a terminal, a pipe) to
// end by itself: there is no way to interrupt one.
func readFull(ctx context.Context, r io.Reader, buffer []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := io.ReadFull(r, buffer)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		done <- result{n, err}
	}()
	select {
	case got := <-done:
		return got.n, got.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// keepAlive tells the NameNode from time to time that the upload goes on.
func (u *upload) keepAlive(ctx context.Context, done <-chan struct{}) error {
	if u.lifetime <= 0 {
		return nil
	}
	ticker := time.NewTicker(u.lifetime / 3)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		_, err := u.addChunks(ctx, 0)
		switch dfs.CodeOf(err) {
		case "":
		case dfs.NotFound, dfs.Conflict:
			return err // there is nothing to keep alive any more
		default:
			u.c.log.Warn("the upload could not be kept alive", "upload", u.id, "error", err)
		}
	}
}

func (u *upload) addChunks(ctx context.Context, count int64, exclude ...dfs.NodeID) ([]protocol.AllocatedChunk, error) {
	var allocation protocol.Allocation
	err := u.c.call(ctx, protocol.AddChunks, leader.Call{
		Args: []string{u.id.String()},
		Body: protocol.AddChunksRequest{NumChunks: count, Exclude: exclude},
		Out:  &allocation,
	})
	return allocation.Chunks, err
}

// abort gives the upload up, for what it is worth: it would expire anyway.
func (u *upload) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	err := u.c.names.Do(ctx, protocol.AbortUpload, leader.Call{Args: []string{u.id.String()}})
	if err != nil && dfs.CodeOf(err) != dfs.NotFound {
		u.c.log.Debug("the upload could not be aborted; it will expire", "upload", u.id, "error", err)
	}
}
