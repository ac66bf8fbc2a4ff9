package client_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	chunkSize = 1 << 10
	clusterID = "0123456789abcdef0123456789abcdef"
)

// fakeCluster is one NameNode and some DataNodes over real TCP, as little of
// them as the client needs.
type fakeCluster struct {
	t     *testing.T
	names *httptest.Server
	nodes []*fakeNode

	mu        sync.Mutex
	before    func(w http.ResponseWriter, r *http.Request) bool // of the NameNode; false when it answered; guarded by mu
	files     map[string]protocol.File                          // guarded by mu
	uploads   map[string]protocol.CreateRequest                 // by upload ID; guarded by mu
	aborted   int                                               // guarded by mu
	renewals  int                                               // guarded by mu
	commits   []seenCommit                                      // guarded by mu
	excluded  [][]dfs.NodeID                                    // of each allocation; guarded by mu
	nextID    uint64                                            // guarded by mu
	puts      []seenPut                                         // guarded by mu
	pooled    map[dfs.ChunkID]bool                              // handed out from the stock and in no file; guarded by mu
	expiresIn int64
	hopLimit  time.Duration // that a DataNode waits for the last of a pipeline; 0: for as long as it takes
	stock     bool          // it hands out chunks for small files; else it is a NameNode that does not know of that
}

// stockPool is the pool of all chunks that are handed out.
const stockPool = 4711

// seenPut is a small file that was judged.
type seenPut struct {
	requestID string
	protocol.PutRequest
}

// seenCommit is a commit that was judged.
type seenCommit struct {
	requestID string
	chunks    []protocol.CommittedChunk
}

// fakeNode is a DataNode that keeps chunks in memory and forwards one hop.
type fakeNode struct {
	*httptest.Server
	id      dfs.NodeID
	cluster *fakeCluster

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request) bool // false when it answered; guarded by mu
	chunks map[string][]byte                                 // guarded by mu
	puts   int                                               // guarded by mu
	gets   int                                               // guarded by mu
	told   []dfs.ChunkID                                     // what readers suspected; guarded by mu
	deaf   bool                                              // does not answer that; guarded by mu
	dead   bool                                              // guarded by mu
}

func newFakeCluster(t *testing.T, nodes int) *fakeCluster {
	f := &fakeCluster{
		t: t, files: make(map[string]protocol.File), uploads: make(map[string]protocol.CreateRequest), pooled: make(map[dfs.ChunkID]bool),
	}
	mux := http.NewServeMux()
	for route, handler := range map[*protocol.Route]http.HandlerFunc{
		&protocol.CreateFile: f.create, &protocol.PutFile: f.put, &protocol.AddChunks: f.addChunks, &protocol.CommitUpload: f.commit,
		&protocol.AbortUpload: f.abort, &protocol.GetFile: f.getFile, &protocol.List: f.list, &protocol.ListNodes: f.listNodes,
	} {
		mux.HandleFunc(route.Method+" "+route.Pattern, handler)
	}
	f.names = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(protocol.HeaderClusterID, clusterID)
		w.Header().Set(protocol.HeaderNodeID, "nn1")
		w.Header().Set(protocol.HeaderAppliedIndex, "1")
		f.mu.Lock()
		before := f.before
		f.mu.Unlock()
		if before == nil || before(w, r) {
			mux.ServeHTTP(w, r)
		}
	})
	for i := range nodes {
		n := &fakeNode{id: dfs.NodeID("dn" + strconv.Itoa(i+1)), cluster: f, chunks: make(map[string][]byte)}
		n.Server = serve(t, n.serve)
		f.nodes = append(f.nodes, n)
	}
	return f
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == protocol.Bundle.Pattern { // those who watch requests want to see each
			http.NotFound(w, r)
			return
		}
		handler(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// client takes no DataNode for one that hangs: on a busy machine any may seem to,
// and would cost a replica.
func (f *fakeCluster) client(change ...func(*client.Config)) *client.Client {
	config := client.Config{
		NameNodes:    []string{f.names.URL},
		Timeout:      20 * time.Second,
		StallTimeout: time.Minute,
		Patience:     10 * time.Second,
	}
	for _, c := range change {
		c(&config)
	}
	c, err := client.New(config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	c.SetFanOut(0) // the chunks here are shorter than any real ones that go through a pipeline
	return c
}

// hurried is for clients that meet DataNodes that hang.
func hurried(config *client.Config) { config.StallTimeout = 300 * time.Millisecond }

func (f *fakeCluster) setBefore(before func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// allocate gives every chunk all DataNodes, in the order of the cluster.
func (f *fakeCluster) allocate(count int64, exclude []dfs.NodeID) []protocol.AllocatedChunk {
	f.excluded = append(f.excluded, exclude)
	var chunks []protocol.AllocatedChunk
	for range count {
		f.nextID++
		chunk := protocol.AllocatedChunk{ID: dfs.ChunkID(f.nextID)}
		for _, n := range f.nodes {
			if !slices.Contains(exclude, n.id) && len(chunk.Targets) < 3 {
				chunk.Targets = append(chunk.Targets, protocol.Target{ID: n.id, URL: n.URL})
			}
		}
		chunks = append(chunks, chunk)
	}
	return chunks
}

func (f *fakeCluster) create(w http.ResponseWriter, r *http.Request) {
	var request protocol.CreateRequest
	if !f.decode(w, r, &request) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.files[request.Path]; there && !request.Overwrite {
		protocol.WriteError(w, dfs.Errorf(dfs.Exists, "%s exists", request.Path))
		return
	}
	size := int64(chunkSize)
	if request.ChunkSize != nil {
		size = *request.ChunkSize
	}
	if f.stock && request.Single {
		if request.NumChunks != 1 {
			f.t.Errorf("%+v", request)
		}
		chunks := f.allocate(1, request.Exclude)
		f.pooled[chunks[0].ID] = true
		protocol.WriteJSON(w, http.StatusCreated, protocol.Allocation{
			Pool: stockPool, Base: f.files[request.Path].Inode, ChunkSize: size, Replication: 3, MinReplicas: min(2, len(f.nodes)), Chunks: chunks,
		})
		return
	}
	f.nextID++
	id := dfs.UploadID(f.nextID)
	f.uploads[id.String()] = request
	protocol.WriteJSON(w, http.StatusCreated, protocol.Allocation{
		UploadID: id, ChunkSize: size, Replication: 3, MinReplicas: min(2, len(f.nodes)), ExpiresIn: f.expiresIn,
		Chunks: f.allocate(request.NumChunks, request.Exclude),
	})
}

func (f *fakeCluster) addChunks(w http.ResponseWriter, r *http.Request) {
	var request protocol.AddChunksRequest
	if !f.decode(w, r, &request) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id, err := dfs.ParseUploadID(r.PathValue("id"))
	if _, live := f.uploads[id.String()]; !live || err != nil {
		protocol.WriteError(w, dfs.Errorf(dfs.NotFound, "there is no such upload"))
		return
	}
	if request.NumChunks == 0 {
		f.renewals++
		protocol.WriteJSON(w, http.StatusOK, protocol.Allocation{UploadID: id})
		return
	}
	chunks := f.allocate(request.NumChunks, request.Exclude)
	if len(chunks[0].Targets) < min(2, len(f.nodes)) {
		protocol.WriteError(w, dfs.Errorf(dfs.Unavailable, "too few DataNodes"))
		return
	}
	protocol.WriteJSON(w, http.StatusOK, protocol.Allocation{UploadID: id, Chunks: chunks})
}

// commit believes nobody: every node named must hold the chunk as described.
func (f *fakeCluster) commit(w http.ResponseWriter, r *http.Request) {
	var request protocol.CommitRequest
	if !f.decode(w, r, &request) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	upload, live := f.uploads[r.PathValue("id")]
	if !live {
		protocol.WriteError(w, dfs.Errorf(dfs.NotFound, "there is no such upload"))
		return
	}
	f.commits = append(f.commits, seenCommit{r.Header.Get(protocol.HeaderRequestID), request.Chunks})
	file, ok := f.judge(w, upload.Path, request.Chunks)
	if !ok {
		return
	}
	delete(f.uploads, r.PathValue("id"))
	f.files[upload.Path] = file
	protocol.WriteJSON(w, http.StatusOK, protocol.CommitReply{Path: file.Path, Size: file.Size})
}

// put believes nobody, either.
func (f *fakeCluster) put(w http.ResponseWriter, r *http.Request) {
	var request protocol.PutRequest
	if !f.stock {
		protocol.WriteError(w, dfs.Errorf(dfs.MethodNotAllowed, "/files takes POST, not PUT"))
		return
	}
	if !f.decode(w, r, &request) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts = append(f.puts, seenPut{r.Header.Get(protocol.HeaderRequestID), request})
	old, there := f.files[request.Path]
	var chunks []protocol.CommittedChunk
	switch {
	case there && !request.Overwrite:
		protocol.WriteError(w, dfs.Errorf(dfs.Exists, "%s exists", request.Path))
		return
	case request.Chunk == nil:
	case request.Pool != stockPool || !f.pooled[request.Chunk.ID] || old.Inode != request.Base:
		protocol.WriteError(w, dfs.Errorf(dfs.Conflict, "the chunk is not reserved, or something else stands there"))
		return
	default:
		chunks = []protocol.CommittedChunk{*request.Chunk}
	}
	file, ok := f.judge(w, request.Path, chunks)
	if !ok {
		return
	}
	if request.Chunk != nil {
		delete(f.pooled, request.Chunk.ID)
	}
	f.nextID++
	file.Inode = f.nextID
	f.files[request.Path] = file
	protocol.WriteJSON(w, http.StatusOK, protocol.PutReply{CommitReply: protocol.CommitReply{Path: file.Path, Size: file.Size}, Replication: 3})
}

// judge makes a file of chunks that enough nodes hold, or answers that it
// cannot.
func (f *fakeCluster) judge(w http.ResponseWriter, path string, chunks []protocol.CommittedChunk) (protocol.File, bool) {
	file := protocol.File{Path: path, Type: protocol.TypeFile, Chunks: []protocol.LocatedChunk{}}
	for _, chunk := range chunks {
		located := protocol.LocatedChunk{ID: chunk.ID, Size: chunk.Size, CRC32C: chunk.CRC32C}
		for _, n := range f.nodes {
			if slices.Contains(chunk.Nodes, n.id) && !n.isDead() {
				if data := n.chunk(chunk.ID); dfs.ChecksumOf(data) != chunk.CRC32C || int64(len(data)) != chunk.Size {
					f.t.Errorf("%s does not hold chunk %s as committed", n.id, chunk.ID)
				}
				located.Locations = append(located.Locations, protocol.Target{ID: n.id, URL: n.URL})
			}
		}
		if len(located.Locations) < min(2, len(f.nodes)) {
			if len(chunk.Nodes) > len(located.Locations) {
				w.Header().Set("Retry-After", "1")
				protocol.WriteError(w, dfs.Errorf(dfs.Unavailable, "chunk %s was seen on too few DataNodes", chunk.ID))
				return file, false
			}
			f.t.Errorf("chunk %s was committed with %d replicas", chunk.ID, len(located.Locations))
		}
		file.Size += chunk.Size
		file.Chunks = append(file.Chunks, located)
	}
	return file, true
}

func (f *fakeCluster) abort(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.uploads, r.PathValue("id"))
	f.aborted++
	protocol.WriteJSON(w, http.StatusOK, protocol.Empty{})
}

func (f *fakeCluster) getFile(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, there := f.files[r.URL.Query().Get(protocol.QueryPath)]
	if !there {
		protocol.WriteError(w, dfs.Errorf(dfs.NotFound, "there is no such file"))
		return
	}
	protocol.WriteJSON(w, http.StatusOK, file)
}

// list gives one entry a page.
func (f *fakeCluster) list(w http.ResponseWriter, r *http.Request) {
	i, _ := strconv.Atoi(r.URL.Query().Get(protocol.QueryCursor)) // none is the first page
	page := protocol.Listing{Entries: []protocol.Entry{{Name: strconv.Itoa(i)}}}
	if i < 2 {
		page.Cursor = strconv.Itoa(i + 1)
	}
	protocol.WriteJSON(w, http.StatusOK, page)
}

func (f *fakeCluster) listNodes(w http.ResponseWriter, _ *http.Request) {
	var reply protocol.NodesReply
	for _, n := range f.nodes {
		reply.Nodes = append(reply.Nodes, protocol.NodeInfo{ID: n.id, URL: n.URL})
	}
	protocol.WriteJSON(w, http.StatusOK, reply)
}

func (f *fakeCluster) decode(w http.ResponseWriter, r *http.Request, v any) bool {
	err := protocol.DecodeJSON(r.Body, 1<<20, true, v)
	if err != nil {
		protocol.WriteError(w, err)
	}
	return err == nil
}

func (f *fakeCluster) file(path string) (protocol.File, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, there := f.files[path]
	return file, there
}

func (f *fakeCluster) liveUploads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

func (f *fakeCluster) node(id dfs.NodeID) *fakeNode {
	for _, n := range f.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (n *fakeNode) setBefore(before func(http.ResponseWriter, *http.Request) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.before = before
}

// die ends the node for good; what it holds is not seen any more.
func (n *fakeNode) die() {
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
	n.CloseClientConnections()
	n.Close()
}

func (n *fakeNode) isDead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

func (n *fakeNode) chunk(id dfs.ChunkID) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.chunks[id.String()]
}

func (n *fakeNode) counts() (puts, gets int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.puts, n.gets
}

func (n *fakeNode) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == protocol.StatChunks.Path() {
		n.stat(w, r)
		return
	}
	if r.Method == http.MethodPost {
		n.suspected(w, r)
		return
	}
	n.mu.Lock()
	before := n.before
	if r.Method == http.MethodPut {
		n.puts++
	} else {
		n.gets++
	}
	n.mu.Unlock()
	if got := r.Header.Get(protocol.HeaderClusterID); got != clusterID {
		n.cluster.t.Errorf("%s was asked for cluster %q", n.id, got)
	}
	if meant := r.Header.Get(protocol.HeaderNodeID); meant != string(n.id) {
		protocol.WriteError(w, dfs.Errorf(dfs.Conflict, "this is %s, not %s", n.id, meant))
		return
	}
	if before != nil && !before(w, r) {
		return
	}
	id := strings.TrimPrefix(r.URL.Path, "/chunks/")
	if r.Method == http.MethodPut {
		n.put(w, r, id)
		return
	}
	n.mu.Lock()
	data, there := n.chunks[id]
	n.mu.Unlock()
	if !there {
		protocol.WriteError(w, dfs.Errorf(dfs.NotFound, "%s has no chunk %s", n.id, id))
		return
	}
	answerHonestly(w, r, data)
}

func (n *fakeNode) stat(w http.ResponseWriter, r *http.Request) {
	var request protocol.StatChunksRequest
	if !n.cluster.decode(w, r, &request) {
		return
	}
	var reply protocol.StatChunksReply
	for _, id := range request.IDs {
		if data := n.chunk(id); data != nil {
			reply.Chunks = append(reply.Chunks, protocol.ChunkInfo{ID: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data)})
		}
	}
	protocol.WriteJSON(w, http.StatusOK, reply)
}

// suspected takes a reader's suspicion.
func (n *fakeNode) suspected(w http.ResponseWriter, r *http.Request) {
	text, found := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/chunks/"), "/verify")
	id, err := dfs.ParseChunkID(text)
	header := r.Header
	if !found || err != nil || r.ContentLength != 0 || header.Get(protocol.HeaderNodeID) != string(n.id) || header.Get(protocol.HeaderClusterID) != clusterID {
		n.cluster.t.Errorf("%s was told %s with %v", n.id, r.URL, header)
	}
	n.mu.Lock()
	n.told = append(n.told, id)
	deaf := n.deaf
	n.mu.Unlock()
	if deaf {
		stallFor(r)
		return
	}
	protocol.WriteJSON(w, http.StatusAccepted, protocol.Empty{})
}

// suspicions are the chunks that readers have suspected, in order.
func (n *fakeNode) suspicions() []dfs.ChunkID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.told))
}

// answerHonestly sends a chunk, or a range of it.
func answerHonestly(w http.ResponseWriter, r *http.Request, data []byte) {
	if r.Header.Get(protocol.HeaderWantBlocks) == protocol.WantBlocks {
		w.Header().Set(protocol.HeaderBlocks, protocol.FormatBlocks(blocksOf(data)))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func blocksOf(data []byte) (blocks []dfs.Checksum) {
	for block := range slices.Chunk(data, dfs.BlockSize) {
		blocks = append(blocks, dfs.ChecksumOf(block))
	}
	return blocks
}

func (n *fakeNode) put(w http.ResponseWriter, r *http.Request, id string) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		protocol.WriteError(w, dfs.Errorf(dfs.Invalid, "%w", err))
		return
	}
	if r.Header.Get(protocol.HeaderChecksum) != dfs.ChecksumOf(data).String() {
		protocol.WriteError(w, dfs.Errorf(dfs.Invalid, "checksum mismatch"))
		return
	}
	n.mu.Lock()
	n.chunks[id] = data
	n.mu.Unlock()
	chunkID, _ := dfs.ParseChunkID(id) // zero shows up as a wrong answer
	reply := protocol.ChunkReply{ID: chunkID, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data), Nodes: []dfs.NodeID{n.id}}
	if pipeline := r.Header.Get(protocol.HeaderPipeline); pipeline != "" {
		n.forward(r, pipeline, data, &reply)
	}
	protocol.WriteJSON(w, http.StatusCreated, reply)
}

func (n *fakeNode) forward(r *http.Request, pipeline string, data []byte, reply *protocol.ChunkReply) {
	next, rest, _ := strings.Cut(pipeline, ",")
	ctx := r.Context()
	if limit := n.cluster.hopLimit; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit*time.Duration(1+strings.Count(pipeline, ",")))
		defer cancel()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, n.cluster.node(dfs.NodeID(next)).URL+r.URL.Path, strings.NewReader(string(data)))
	if err != nil {
		n.cluster.t.Error(err)
		return
	}
	request.Close = true
	request.Header = r.Header.Clone()
	request.Header.Set(protocol.HeaderNodeID, next)
	request.Header.Set(protocol.HeaderPipeline, rest)
	if rest == "" {
		request.Header.Del(protocol.HeaderPipeline)
	}
	var below protocol.ChunkReply
	response, err := http.DefaultClient.Do(request)
	if err == nil {
		defer response.Body.Close()
		if response.StatusCode/100 == 2 {
			err = protocol.DecodeJSON(response.Body, 1<<20, true, &below)
		} else {
			err = protocol.ReadError(response)
		}
	}
	if err != nil {
		for id := range strings.SplitSeq(pipeline, ",") {
			reply.Failed = append(reply.Failed, protocol.FailedHop{ID: dfs.NodeID(id), Error: protocol.BodyOf(err)})
		}
		return
	}
	reply.Nodes = append(reply.Nodes, below.Nodes...)
	reply.Failed = append(reply.Failed, below.Failed...)
}

// Ways for a node to fail.

func refuse(code dfs.Code) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		if code == dfs.UnknownOutcome {
			w.Header().Set("Retry-After", "1") // or it would never be known
		}
		protocol.WriteError(w, dfs.Errorf(code, "refused"))
		return false
	}
}

func dieMidBody(_ http.ResponseWriter, r *http.Request) bool {
	_, _ = io.ReadFull(r.Body, make([]byte, 100))
	panic(http.ErrAbortHandler)
}

func stallFor(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // net/http notices that the caller left only after this
	<-r.Context().Done()
}

func stalled(_ http.ResponseWriter, r *http.Request) bool {
	stallFor(r)
	return false
}

// dripping takes the request and answers for ever, a byte at a time.
func dripping(w http.ResponseWriter, r *http.Request) bool {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusCreated)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return false
		case <-tick.C:
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func answerWith(data []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
		return false
	}
}

func randomBytes(n int) []byte {
	source := rand.NewChaCha8([32]byte{1})
	data := make([]byte, n)
	_, _ = source.Read(data) // never fails
	return data
}

func mustPath(t *testing.T, text string) dfs.Path {
	t.Helper()
	path, err := dfs.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits until condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("not in time:", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
