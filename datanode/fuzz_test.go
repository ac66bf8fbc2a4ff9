package datanode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// transportFunc answers requests without a network.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var seededChunks = []dfs.ChunkID{1, 2, 3} // which hold "data"

// FuzzHeartbeatReply feeds what a NameNode may answer to a heartbeat, and
// carries out what comes of it, while no other DataNode can be reached. Only an
// answer of this cluster and of a term that is not over is believed; what is put
// into a queue makes sense; and no chunk is lost but by an order to delete it, or
// to verify it as another one.
func FuzzHeartbeatReply(f *testing.F) {
	sum := dfs.ChecksumOf([]byte("data")).String()
	head := `{"cluster_id":"` + string(clusterA) + `","orders":[`
	trim := `{"kind":"trim","chunk":"0000000000000001","size":4,"crc32c":"` + sum + `"`
	for _, seed := range []string{
		`{"cluster_id":"` + string(clusterA) + `","want_inventory":true,"interval_ms":500,"nodes":[{"id":"dn2","url":"http://dn2:9000"},{"id":"dn3","url":"x"}]}`,
		`{"cluster_id":"` + string(clusterB) + `","orders":[{"kind":"delete","chunks":["0000000000000001"]}]}`,
		head + `{"kind":"delete","chunks":["0000000000000001","0000000000000009"]},{"kind":"delete","chunks":[]}]}`,
		head + `{"kind":"verify","chunk":"0000000000000002"},{"kind":"verify","chunk":"0000000000000003","size":5,"crc32c":"00000000"}]}`,
		head + trim + `,"keepers":[{"id":"dn2","url":"http://dn2:9000"}],"keep":1}]}`,
		head + trim + `,"keepers":[{"id":"dn2"}],"keep":0},` + trim + `,"keepers":[{"id":"dn2"}],"keep":2}]}`,
		head + trim + `,"keepers":[{"id":"dn1","url":"http://dn1:9000"}],"keep":0},{"kind":"shred"}]}`,
		head + `{"kind":"copy","chunk":"0000000000000004","size":4,"crc32c":"` + sum + `","sources":[{"id":"dn2","url":"http://dn2:9000"},{"id":"dn3"}]}]}`,
		`{"interval_ms":9223372036854775807}`,
	} {
		f.Add(byte(1), []byte(seed))
		f.Add(byte(2), []byte(seed))
	}
	f.Add(byte(0), []byte(head+`{"kind":"delete","chunks":["0000000000000001"]}],"nodes":[{"id":"dn2","url":"http://dn2:9000"}]}`))
	_, _, st := newTestHeartbeater(f)
	if err := errors.Join(st.SetClusterID(clusterA), st.RaiseTerm(1)); err != nil {
		f.Fatal(err)
	}
	store(f, st, seededChunks...)
	f.Fuzz(func(t *testing.T, step byte, data []byte) {
		var reply protocol.HeartbeatReply
		if protocol.DecodeJSON(bytes.NewReader(data), 1<<16, false, &reply) != nil {
			return
		}
		before := st.Identity()
		reply.Term = before.Term + uint64(step%3) - 1 // of the past, the present or the future
		h, s := heartbeaterOn(t, st)
		h.standing.accept()
		offline := transportFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("offline") })
		h.orders.fetcher.transport, h.orders.trimmer.transport = offline, offline
		s.answer = func(int, protocol.HeartbeatRequest) (protocol.HeartbeatReply, error) { return reply, nil }
		if pause := h.beat(t.Context()); pause < 0 || pause > refusedFactor*longestInterval || h.interval < shortestInterval || h.interval > longestInterval {
			t.Fatalf("the next heartbeat comes after %s, then every %s", pause, h.interval)
		}
		taken := append(append(waitingIn(h.orders.copies), waitingIn(h.orders.deletes)...), waitingIn(h.orders.trims)...)
		if believed := reply.ClusterID == clusterA && reply.Term >= before.Term; !believed {
			if len(taken) > 0 || st.Identity() != before || len(h.nodes.urls) > 0 {
				t.Fatalf("orders %+v come from cluster %q and term %d; ours are %+v", taken, reply.ClusterID, reply.Term, before)
			}
			return
		}
		if st.Identity().Term != reply.Term {
			t.Fatalf("term %d is not noted", reply.Term)
		}
		for id, base := range h.nodes.urls {
			if again, err := dfs.ParseBaseURL(base); err != nil || again != base {
				t.Fatalf("%s is to be found at %q", id, base)
			}
		}
		for _, o := range taken {
			checkTaken(t, o)
		}
		for _, o := range taken[:min(len(taken), 8)] {
			h.orders.carryOut(t.Context(), o)
		}
		checkSeeded(t, st, taken)
	})
}

func waitingIn(l *lane[task, order]) (list []order) {
	for len(l.queue) > 0 {
		list = append(list, l.work(<-l.queue))
	}
	return list
}

// checkTaken says again, in other words, what an order must be like.
func checkTaken(t *testing.T, o order) {
	t.Helper()
	distinct := func(targets []protocol.Target) bool {
		seen := map[dfs.NodeID]bool{"dn1": true}
		for _, target := range targets {
			_, err := dfs.ParseNodeID(string(target.ID))
			if err != nil || seen[target.ID] {
				return false
			}
			seen[target.ID] = true
		}
		return true
	}
	possible := o.Chunk != 0 && o.Size > 0 && o.Size <= dfs.MaxChunkSize
	good := false
	switch o.Kind {
	case protocol.OrderDelete:
		good = len(o.Chunks) > 0 && len(o.Chunks) <= protocol.MaxOrderChunks && !slices.Contains(o.Chunks, 0)
	case protocol.OrderVerify:
		good = possible || o.Chunk != 0 && o.Size == 0
	case protocol.OrderCopy:
		good = possible && len(o.Sources) > 0 && len(o.Sources) <= dfs.MaxReplication
	case protocol.OrderTrim:
		good = possible && o.Keep > 0 && o.Keep <= len(o.Keepers) && len(o.Keepers) <= dfs.MaxReplication && distinct(o.Keepers)
	}
	if !good {
		t.Fatalf("%+v is to be obeyed", o.Order)
	}
}

// checkSeeded makes sure that a chunk which is gone was meant, and puts it back.
func checkSeeded(t *testing.T, st *chunkstore.Store, obeyed []order) {
	t.Helper()
	for _, id := range seededChunks {
		if _, held := st.Stat(id); held {
			continue
		}
		if !slices.ContainsFunc(obeyed, func(o order) bool {
			return o.Kind == protocol.OrderDelete && slices.Contains(o.Chunks, id) || o.Kind == protocol.OrderVerify && o.Chunk == id && o.Size > 0
		}) {
			t.Fatalf("chunk %s is gone after %+v", id, obeyed)
		}
		store(t, st, id)
	}
}

// FuzzPeerAnswer feeds what another DataNode may answer: to the question whether
// it keeps a chunk, to the request for one, and to a chunk that is passed on.
// What it says is believed only if it is about the chunk that was meant, and a
// copy is kept only if it is the chunk.
func FuzzPeerAnswer(f *testing.F) {
	content := []byte("what the chunk consists of")
	want := chunkstore.Info{ID: 7, Size: int64(len(content)), CRC32C: dfs.ChecksumOf(content)}
	sum := want.CRC32C.String()
	info := fmt.Sprintf(`{"id":"%s","size":%d,"crc32c":"%s"`, want.ID, want.Size, sum)
	f.Add(byte(0), 200, "dn2", "", int64(-1), []byte(`{"chunks":[`+info+`}]}`))
	f.Add(byte(0), 200, "dn2", "", int64(-1), []byte(`{"chunks":[]}`))
	f.Add(byte(0), 200, "dn3", "", int64(-1), []byte(`{"chunks":[`+info+`}]}`))
	f.Add(byte(0), 412, "dn2", "", int64(-1), []byte(`{"error":{"code":"conflict","message":"x"}}`))
	f.Add(byte(1), 200, "dn2", sum, want.Size, content)
	f.Add(byte(1), 200, "dn2", sum, want.Size, bytes.ToUpper(content))
	f.Add(byte(1), 206, "dn2", sum, want.Size, content)
	f.Add(byte(1), 200, "dn2", sum, want.Size, content[:5])
	f.Add(byte(2), 201, "dn2", "", int64(-1), []byte(info+`,"nodes":["dn2","dn4","dn9"],"failed":[{"id":"dn3","error":{"code":"timeout","message":"x"}}]}`))
	f.Add(byte(2), 201, "dn2", "", int64(-1), []byte(info+`,"nodes":["dn3"]}`))
	h, _, st := newTestHeartbeater(f)
	file, err := os.Create(filepath.Join(f.TempDir(), "data"))
	if err == nil {
		_, err = file.Write(content)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { file.Close() }) // only read from by now
	f.Fuzz(func(t *testing.T, kind byte, status int, node, checksum string, length int64, body []byte) {
		transport := transportFunc(func(r *http.Request) (*http.Response, error) {
			if r.Body != nil {
				if sent, err := io.ReadAll(r.Body); err != nil || kind%3 == 2 && !bytes.Equal(sent, content) {
					t.Errorf("%q was sent, %v", sent, err)
				}
				r.Body.Close() // by contract
			}
			header := http.Header{}
			header.Set(protocol.HeaderNodeID, node)
			header.Set(protocol.HeaderChecksum, checksum)
			return &http.Response{StatusCode: status, Status: "status", Header: header, ContentLength: length, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
		})
		peer := protocol.Target{ID: "dn2", URL: "http://dn2:9000"}
		order := protocol.Order{Chunk: want.ID, Size: want.Size, CRC32C: want.CRC32C, Sources: []protocol.Target{peer}, Keepers: []protocol.Target{peer}, Keep: 1}
		switch kind % 3 {
		case 0:
			trimmer := *h.orders.trimmer
			trimmer.transport = transport
			var said protocol.StatChunksReply
			right := json.Unmarshal(body, &said) == nil && len(said.Chunks) == 1 && said.Chunks[0] == protocol.ChunkInfo(want)
			if trimmer.confirm(t.Context(), order) == nil && (status != 200 || node != "dn2" || !right) {
				t.Fatalf("%d from %q, %s, is taken for a promise", status, node, body)
			}
		case 1:
			checkCopy(t, st, transport, order, content)
		case 2:
			h.nodes.learn([]protocol.Target{peer, {ID: "dn3", URL: "http://dn3:9000"}, {ID: "dn4", URL: "http://dn4:9000"}})
			forward := &forwarder{nodes: h.nodes, store: st, timeout: time.Minute, transport: transport}
			up := upload{id: want.ID, size: want.Size, crc: want.CRC32C, pipeline: []dfs.NodeID{"dn2", "dn3", "dn4"}}
			sending := &transfer{f: forward, up: up, tail: newTail(file, want.Size)}
			sending.grow(want.Size)
			checkOutcome(t, sending.run(t.Context()), up.pipeline)
		}
	})
}

func checkCopy(t *testing.T, st *chunkstore.Store, transport http.RoundTripper, order protocol.Order, content []byte) {
	t.Helper()
	h, _ := heartbeaterOn(t, st)
	h.orders.fetcher.transport = transport
	err := h.orders.fetcher.copy(t.Context(), order)
	chunk, openErr := st.OpenChunk(order.Chunk)
	if err != nil {
		if dfs.CodeOf(openErr) != dfs.NotFound {
			t.Fatalf("%v, and yet there is a chunk: %v", err, openErr)
		}
		return
	}
	if openErr != nil {
		t.Fatal(openErr)
	}
	defer chunk.Close() // only read from
	got, err := io.ReadAll(io.NewSectionReader(chunk, 0, chunk.Size))
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%q was kept, %v", got, err)
	}
	if err := st.Remove(order.Chunk); err != nil {
		t.Fatal(err)
	}
}

// checkOutcome: the fate of each node of a pipeline is told once, and of no
// other.
func checkOutcome(t *testing.T, got outcome, pipeline []dfs.NodeID) {
	t.Helper()
	told := slices.Clone(got.durable)
	for _, hop := range got.failed {
		if hop.Error.Code == "" {
			t.Fatalf("%s failed without a code", hop.ID)
		}
		told = append(told, hop.ID)
	}
	slices.Sort(told)
	if !slices.Equal(told, pipeline) {
		t.Fatalf("of %v, %v hold the chunk and %+v failed", pipeline, got.durable, got.failed)
	}
}

// deadlines is an answer on a connection that has deadlines.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error  { return nil }
func (deadlines) SetWriteDeadline(time.Time) error { return nil }

// FuzzRequest lets a DataNode answer arbitrary requests. It is never at fault;
// what it sends is what it holds, and what it acknowledges is what was sent.
func FuzzRequest(f *testing.F) {
	const one, four = "0000000000000001", "0000000000000004"
	sum := dfs.ChecksumOf([]byte("data")).String()
	add := func(method byte, path string, body string, headers ...string) {
		length := int64(len(body))
		f.Add(method, path, strings.Join(headers, "\n"), length, []byte(body))
	}
	add(0, "/chunks/"+one, "")
	add(0, "/chunks/"+one, "", "Range: bytes=1-2", protocol.HeaderWantBlocks+": 1")
	add(0, "/chunks/"+one, "", "Range: bytes=-3")
	add(0, "/chunks/"+one, "", "Range: bytes=9-", protocol.HeaderNodeID+": dn1")
	add(0, "/chunks/"+four, "")
	add(1, "/chunks/"+one, "")
	add(2, "/chunks/"+four, "data", protocol.HeaderChecksum+": "+sum)
	add(2, "/chunks/"+four, "data", protocol.HeaderChecksum+": "+sum, protocol.HeaderPipeline+": dn2,dn3")
	add(2, "/chunks/"+four, "date", protocol.HeaderChecksum+": "+sum)
	add(2, "/chunks/"+one, "data", protocol.HeaderChecksum+": "+sum, protocol.HeaderClusterID+": "+string(clusterB))
	add(3, "/chunks/"+one, "")
	add(4, "/chunks/stat", `{"ids":["`+one+`","`+four+`"]}`)
	add(4, "/chunks/stat", `{"ids":["`+one+`"],"verify":true}`)
	add(4, "/chunks/"+one+"/verify", "")
	add(0, "/health", "")
	add(0, "/ready", "")
	add(0, "/files", "")
	add(5, "/", "")
	s, st := newTestServer(f)
	s.standing.accept()
	if err := st.SetClusterID(clusterA); err != nil {
		f.Fatal(err)
	}
	store(f, st, seededChunks...)
	handler := s.handler()
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPost, http.MethodPatch}
	f.Fuzz(func(t *testing.T, method byte, path, headers string, length int64, body []byte) {
		if len(headers) > maxHeaderBytes || path == "/metrics" {
			return // too much for net/http; not of this project
		}
		request := &http.Request{
			Method: methods[int(method)%len(methods)], URL: &url.URL{Path: path}, Host: "dn1", Header: headersOf(headers), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			ContentLength: length, Body: io.NopCloser(io.LimitReader(bytes.NewReader(body), max(0, length))),
		}
		w := deadlines{httptest.NewRecorder()}
		handler.ServeHTTP(w, request.WithContext(t.Context()))
		checkAnswer(t, st, request, w.Result(), body)
		for _, id := range seededChunks {
			if _, held := st.Stat(id); !held {
				t.Fatalf("chunk %s is gone", id)
			}
		}
	})
}

func headersOf(lines string) http.Header {
	header := http.Header{}
	for line := range strings.SplitSeq(lines, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			header.Add(name, value)
		}
	}
	return header
}

func checkAnswer(t *testing.T, st *chunkstore.Store, request *http.Request, answer *http.Response, sent []byte) {
	t.Helper()
	if answer.StatusCode/100 == 3 {
		return // net/http puts the path in order
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := dfs.ParseChunkID(strings.TrimPrefix(request.URL.Path, "/chunks/")) // 0 for none
	switch {
	case answer.StatusCode == http.StatusInternalServerError:
		t.Fatalf("%s", body)
	case answer.StatusCode == http.StatusCreated:
		want := chunkstore.Info{ID: id, Size: int64(len(sent)), CRC32C: dfs.ChecksumOf(sent)}
		want.Size = min(want.Size, request.ContentLength)
		want.CRC32C = dfs.ChecksumOf(sent[:want.Size])
		if held, ok := st.Stat(id); !ok || held != want || request.Header.Get(protocol.HeaderChecksum) != want.CRC32C.String() {
			t.Fatalf("%+v is held; %+v was sent", held, want)
		}
		if slices.Contains(seededChunks, id) {
			return // sent once more
		}
		if err := st.Remove(id); err != nil {
			t.Fatal(err)
		}
	case answer.StatusCode >= 400 && request.URL.Path != "/health" && request.URL.Path != "/ready":
		if err := protocol.ReadError(&http.Response{Status: "no code", Body: io.NopCloser(bytes.NewReader(body))}); strings.Contains(err.Error(), "no code") {
			t.Fatalf("%d says %q", answer.StatusCode, body)
		}
		if _, held := st.Stat(id); held && !slices.Contains(seededChunks, id) {
			t.Fatalf("chunk %s was refused with %d and is held", id, answer.StatusCode)
		}
	case id != 0 && request.Method == http.MethodGet:
		checkSent(t, request, answer, body)
	}
}

func checkSent(t *testing.T, request *http.Request, answer *http.Response, body []byte) {
	t.Helper()
	const content = "data"
	var first, last, size int
	want := content
	if answer.StatusCode == http.StatusPartialContent {
		place := answer.Header.Get("Content-Range")
		if n, err := fmt.Sscanf(place, "bytes %d-%d/%d", &first, &last, &size); n != 3 || err != nil || size != len(content) || first < 0 || first > last || last >= size {
			t.Fatalf("the range is %q", place)
		}
		want = content[first : last+1]
	}
	blocks := ""
	if request.Header.Get(protocol.HeaderWantBlocks) == protocol.WantBlocks {
		blocks = protocol.FormatBlocks([]dfs.Checksum{dfs.ChecksumOf([]byte(content))})
	}
	if string(body) != want || answer.Header.Get(protocol.HeaderBlocks) != blocks || answer.Header.Get("Content-Length") != fmt.Sprint(len(want)) {
		t.Fatalf("%d: %q with %v; want %q", answer.StatusCode, body, answer.Header, want)
	}
}
