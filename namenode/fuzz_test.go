package namenode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// memorySink is a raft.SnapshotSink.
type memorySink struct{ bytes.Buffer }

func (*memorySink) ID() string    { return "1" }
func (*memorySink) Close() error  { return nil }
func (*memorySink) Cancel() error { return nil }

// machineWith has a state with a little of everything that commands make.
func machineWith(t testing.TB, directory string) *fsm.Machine {
	t.Helper()
	m := fsm.New(nil)
	at := func(text string) dfs.Path {
		path, err := dfs.ParsePath(text)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	stamp := time.UnixMilli(1_900_000_000_000)
	for i, c := range []fsm.Command{
		&fsm.InitCluster{ClusterID: "0123456789abcdef0123456789abcdef"},
		&fsm.RegisterNode{ID: "dn1", URL: "http://dn1:9000", Rack: "r", Instance: "i", Incarnation: 1},
		&fsm.Mkdir{Path: at(directory)},
		&fsm.BeginUpload{Path: at(directory + "/file"), Replication: 1, ChunkSize: dfs.MinChunkSize, Targets: [][]fsm.NodeNum{{1}, {1}}},
		&fsm.Commit{Upload: 1, Chunks: []fsm.StoredChunk{{ID: 1, Size: 9, Checksum: 7, Nodes: []fsm.NodeNum{1}}}, Final: true},
		&fsm.Heartbeats{Reports: []fsm.NodeReport{{Node: 1, Incarnation: 1, Seq: 1, Added: []dfs.ChunkID{1, 2, 900}, Count: 3}}},
		&fsm.BeginUpload{Path: at(directory + "/open"), Replication: 1, ChunkSize: dfs.MinChunkSize, Targets: [][]fsm.NodeNum{{1}}},
		&fsm.SetMember{ID: "nn1", Instance: "i", URL: "http://nn1:8000", RaftAddr: "nn1:7000"},
	} {
		if _, err := m.Apply(uint64(i+1), fsm.Encode(c, dfs.RequestID(fmt.Sprint("r", i)), stamp)); err != nil {
			t.Fatalf("%T: %v", c, err)
		}
	}
	return m
}

func contentOf(t testing.TB, m *fsm.Machine) string {
	t.Helper()
	var content bytes.Buffer
	frozen := m.Freeze()
	if err := errors.Join(frozen.WriteFiles(&content), frozen.WriteNodes(&content)); err != nil {
		t.Fatal(err)
	}
	return content.String()
}

// FuzzRestore restores a snapshot that is damaged in up to four bytes that are
// next to each other, or cut off, or followed by something. Either that changes
// nothing, and the state is that of the snapshot, or it is noticed, and the state
// is what it was before, and goes on.
func FuzzRestore(f *testing.F) {
	source := machineWith(f, "/new")
	want := contentOf(f, source)
	var sink memorySink
	if err := (&frozenState{state: source.Freeze(), dir: f.TempDir()}).Persist(&sink); err != nil {
		f.Fatal(err)
	}
	snapshot := sink.Bytes()
	f.Add(uint(0), []byte(nil), uint(0), []byte(nil))
	f.Add(uint(0), []byte{1}, uint(0), []byte(nil))
	f.Add(uint(136), []byte{1, 1}, uint(0), []byte(nil)) // of a tar header, with the same sum
	f.Add(uint(600), []byte{0x20}, uint(0), []byte(nil))
	f.Add(uint(bytes.Index(snapshot, []byte(`"mtime_ms":`))+len(`"mtime_ms":`)), []byte{2}, uint(0), []byte(nil))
	f.Add(uint(0), []byte(nil), uint(1), []byte(nil))
	f.Add(uint(0), []byte(nil), uint(1024), []byte("x"))
	f.Add(uint(0), []byte(nil), uint(2000), []byte(nil))
	f.Add(uint(0), []byte(nil), uint(0), snapshot[:512])
	f.Fuzz(func(t *testing.T, at uint, damage []byte, cut uint, more []byte) {
		damaged := bytes.Clone(snapshot[:len(snapshot)-int(cut%uint(len(snapshot)+1))])
		for i, b := range damage[:min(len(damage), 4)] {
			if place := int(at%uint(len(snapshot))) + i; place < len(damaged) {
				damaged[place] ^= b
			}
		}
		damaged = append(damaged, more...)
		machine := machineWith(t, "/old")
		before := contentOf(t, machine)
		s := &stateMachine{machine: machine, onState: func(dfs.ClusterID) {}}
		if err := s.Restore(io.NopCloser(bytes.NewReader(damaged))); err == nil {
			if got := contentOf(t, machine); got != want {
				t.Fatalf("the damage was not noticed: %s", got)
			}
		} else if got := contentOf(t, machine); got != before || dfs.CodeOf(err) != dfs.Corrupt {
			t.Fatalf("%v; the state was\n%s\nand became\n%s", err, before, got)
		}
		next := machine.Freeze().AppliedIndex() + 1
		if _, err := machine.Apply(next, fsm.Encode(&fsm.Purge{Limit: 1}, "", time.UnixMilli(1_900_000_000_001))); err != nil || machine.Halted() != nil {
			t.Fatalf("it does not go on: %v, %v", err, machine.Halted())
		}
	})
}

// FuzzMetaIdentity: whatever identity.json holds, a meta-dir is refused or is the
// NameNode's own, and then reads the same after it was written again.
func FuzzMetaIdentity(f *testing.F) {
	f.Add([]byte(`{"format":1,"node_id":"nn1","instance":"0123456789abcdef0123456789abcdef","cluster_id":""}`))
	f.Add([]byte(`{"format":1,"node_id":"nn1","instance":"i","cluster_id":"0123456789abcdef0123456789abcdef","removed":true}`))
	f.Add([]byte(`{"format":2,"node_id":"nn1","instance":"i"}`))
	f.Add([]byte(`{"format":1,"node_id":"nn2","instance":"i"}`))
	f.Add([]byte(`null`))
	f.Add([]byte{})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, identityFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		m := &metaDir{path: dir}
		if err := m.identify("nn1"); err != nil {
			if code := dfs.CodeOf(err); code != dfs.Corrupt && code != dfs.Invalid && code != dfs.Conflict {
				t.Fatalf("%s: %v", code, err)
			}
			return
		}
		found := m.current()
		if found.Format != metaFormat || found.NodeID != "nn1" || found.Instance == "" || found.Removed {
			t.Fatalf("%+v is accepted", found)
		}
		if err := m.update(func(*identity) {}); err != nil {
			t.Fatal(err)
		}
		again := &metaDir{path: dir}
		if err := again.identify("nn1"); err != nil || again.current() != found {
			t.Fatalf("%+v came back as %+v, %v", found, again.current(), err)
		}
	})
}

// everyChunk plays all DataNodes: each holds every chunk, which is "data".
func everyChunk(r *http.Request) (*http.Response, error) {
	var question protocol.StatChunksRequest
	if err := protocol.DecodeJSON(r.Body, 1<<20, true, &question); err != nil {
		return nil, err
	}
	var answer protocol.StatChunksReply
	for _, id := range question.IDs {
		answer.Chunks = append(answer.Chunks, protocol.ChunkInfo{ID: id, Size: 4, CRC32C: dfs.ChecksumOf([]byte("data"))})
	}
	recorder := httptest.NewRecorder()
	protocol.WriteJSON(recorder, http.StatusOK, answer)
	return recorder.Result(), nil
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// fuzzedNode is a NameNode that leads a group of its own, with DataNodes that
// are there and do nothing.
type fuzzedNode struct {
	*NameNode
	handler http.Handler
	seq     uint64
	last    time.Time // when the DataNodes last spoke
	served  int
}

func newFuzzedNode(f *testing.F) *fuzzedNode {
	f.Helper()
	timing := cluster.DefaultTiming()
	timing.HeartbeatTimeout, timing.ElectionTimeout, timing.LeaderLease = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	n, err := New(Config{ID: "nn1", Addr: "127.0.0.1:0", RaftAddr: "127.0.0.1:0", MetaDir: f.TempDir(), Timing: timing, Logger: hclog.NewNullLogger()})
	if err == nil {
		n.dataNodes = transportFunc(everyChunk)
		err = n.Open(f.Context())
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			f.Error(err)
		}
	})
	for deadline := time.Now().Add(time.Minute); n.lead.Load() == nil; {
		if time.Now().After(deadline) {
			f.Fatal("it does not lead")
		}
		time.Sleep(time.Millisecond) // between polls
	}
	return &fuzzedNode{NameNode: n, handler: n.routes()}
}

// keepUp lets the DataNodes send heartbeats when they have not for a while.
func (n *fuzzedNode) keepUp(t *testing.T) {
	t.Helper()
	if time.Since(n.last) < 2*time.Second {
		return
	}
	n.seq++
	var beats sync.WaitGroup
	for _, id := range []dfs.NodeID{"dn1", "dn2", "dn3"} {
		beats.Go(func() {
			body, err := json.Marshal(protocol.HeartbeatRequest{
				ID: id, URL: "http://" + string(id) + ":9000", Instance: strings.Repeat("0", 32), Incarnation: 1, Seq: n.seq, Capacity: 1 << 40, Free: 1 << 40,
			})
			if err != nil {
				t.Error(err)
			}
			if w := n.serve(protocol.Heartbeat, "", "", nil, body); w.Code != http.StatusOK {
				t.Errorf("heartbeat of %s: %d %s", id, w.Code, w.Body)
			}
		})
	}
	beats.Wait()
	n.last = time.Now()
}

func (n *fuzzedNode) serve(route protocol.Route, id, query string, header http.Header, body []byte) *httptest.ResponseRecorder {
	request := &http.Request{
		Method: route.Method, URL: &url.URL{Path: strings.ReplaceAll(route.Pattern, "{id}", id), RawQuery: query}, Host: "nn1", Header: header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	if header == nil {
		request.Header = http.Header{}
	}
	w := httptest.NewRecorder()
	n.handler.ServeHTTP(w, request)
	return w
}

// fuzzedRoutes are those that change neither the group nor leave the process.
func fuzzedRoutes() (routes []protocol.Route) {
	for _, e := range endpoints() {
		switch e.Route {
		case protocol.JoinCluster, protocol.RemoveMember, protocol.TransferLead, protocol.TakeSnapshot, protocol.Announce, protocol.PutFile:
		default:
			routes = append(routes, e.Route)
		}
	}
	return append(routes, protocol.PutFile) // last, so that the inputs kept from before it ask for what they did
}

// FuzzRequest lets a leading NameNode answer arbitrary requests. It is never at
// fault, and puts nothing into the log that cannot be read; its answers are JSON,
// and pages and files in them add up; a change
// that is asked for again with the same request ID is answered the same; and
// the state that comes of it all can be written and read.
func FuzzRequest(f *testing.F) {
	routes := fuzzedRoutes()
	add := func(route protocol.Route, id, query, body string) {
		for i, r := range routes {
			if r == route {
				f.Add(byte(i), id, query, "", []byte(body))
			}
		}
	}
	const first = "0000000000000001"
	chunk := `{"id":"` + first + `","size":4,"crc32c":"` + dfs.ChecksumOf([]byte("data")).String() + `","nodes":["dn1","dn2","dn3"]}`
	add(protocol.CreateFile, "", "", `{"path":"/d/a","num_chunks":2}`)
	add(protocol.CreateFile, "", "", `{"path":"/d/b","num_chunks":1,"replication":1,"chunk_size":1024,"overwrite":true,"exclude":["dn1"]}`)
	add(protocol.CreateFile, "", "", `{"path":"/d/c","num_chunks":1,"single":true}`)
	add(protocol.PutFile, "", "", `{"path":"/d/empty"}`)
	add(protocol.PutFile, "", "", `{"path":"/d/c","replication":2,"overwrite":true,"pool":"`+first+`","base":7,"chunk":`+chunk+`}`)
	add(protocol.AddChunks, first, "", `{"num_chunks":1}`)
	add(protocol.CommitUpload, first, "", `{"chunks":[`+chunk+`]}`)
	add(protocol.CommitUpload, first, "", `{"chunks":[{"id":"`+first+`","size":-1}]}`)
	add(protocol.AbortUpload, "0000000000000002", "", "")
	add(protocol.GetFile, "", "path=/d/a", "")
	add(protocol.Stat, "", "path=/d&consistency=stale", "")
	add(protocol.Stat, "", "path=%2F..%2Fd", "")
	add(protocol.Mkdir, "", "", `{"path":"/e/f","parents":true}`)
	add(protocol.Mkdir, "", "", `{"path":"/g"}`)
	add(protocol.List, "", "path=/&limit=1&cursor=a", "")
	add(protocol.List, "", "path=/d&limit=0", "")
	add(protocol.Rename, "", "", `{"from":"/e","to":"/d/e"}`)
	add(protocol.SetReplication, "", "", `{"path":"/d/a","replication":2}`)
	add(protocol.DeleteFile, "", "path=/d&recursive=true", "")
	add(protocol.DeleteFile, "", "path=/d&recursive=perhaps", "")
	add(protocol.Heartbeat, "", "", `{"id":"dn4","capacity":100,"chunks":["`+first+`"]}`)
	add(protocol.Heartbeat, "", "", `{"id":"dn6","capacity":1,"instance":"`+strings.Repeat("i", 65)+`"}`)
	add(protocol.Heartbeat, "", "", `{"id":"dn5","url":"http://dn5:9000","instance":"`+strings.Repeat("0", 32)+`","incarnation":1,"seq":1,"inventory":{"after":0,"through":9,"chunks":["`+first+`"]}}`)
	add(protocol.Heartbeat, "", "", `{"id":"dn7","capacity":1,"chunks":[null]}`)
	add(protocol.Heartbeat, "", "", `{"id":"dn8","url":"http://`+strings.Repeat("h", 249)+`","capacity":1}`)
	add(protocol.Mkdir, "", "", `{"path":"`+strings.Repeat("d/", 200)+strings.Repeat(strings.Repeat("n", 230)+"/", 15)+strings.Repeat("n", 231)+`"}`)
	add(protocol.ListNodes, "", "", "")
	add(protocol.DrainNode, "", "", `{"id":"dn4"}`)
	add(protocol.UndrainNode, "", "", `{"id":"dn4"}`)
	add(protocol.Fsck, "", "", "")
	add(protocol.GetLeader, "", "", "")
	n := newFuzzedNode(f)
	f.Fuzz(func(t *testing.T, index byte, id, query, requestID string, body []byte) {
		n.keepUp(t)
		route := routes[int(index)%len(routes)]
		header := http.Header{}
		header.Set(protocol.HeaderRequestID, requestID)
		if requestID == "" {
			header.Set(protocol.HeaderRequestID, string(dfs.NewRequestID()))
		}
		w := n.serve(route, id, query, header, body)
		checkAnswer(t, route, query, w)
		var handedOut protocol.Allocation // from the stock: nothing was changed, and a retry gets another
		if route == protocol.CreateFile && w.Code == http.StatusCreated {
			decodeAnswer(t, &httptest.ResponseRecorder{Body: bytes.NewBuffer(w.Body.Bytes())}, &handedOut)
		}
		if again := route.Mutates() && route.Permission == protocol.Write && w.Code < 500 && handedOut.Pool == 0; again {
			if w2 := n.serve(route, id, query, header, body); w2.Code != w.Code || w2.Body.String() != w.Body.String() {
				t.Fatalf("first %d %s\nthen %d %s", w.Code, w.Body, w2.Code, w2.Body)
			}
		}
		if n.served++; n.served%256 == 1 {
			var sink memorySink
			if err := (&frozenState{state: n.machine.Freeze(), dir: t.TempDir()}).Persist(&sink); err != nil {
				t.Fatal(err)
			}
			if _, err := fsm.ReadSnapshot(&sink); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func checkAnswer(t *testing.T, route protocol.Route, query string, w *httptest.ResponseRecorder) {
	t.Helper()
	switch {
	case w.Code == http.StatusInternalServerError:
		t.Fatalf("%s", w.Body)
	case w.Code/100 == 3:
		return // net/http puts the path in order
	case w.Code >= 400:
		var reply protocol.ErrorReply
		if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || reply.Error.Code == "" || reply.Error.Message == "" {
			if route != protocol.Ready && route != protocol.Health {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		if strings.Contains(reply.Error.Message, "malformed log entry") {
			t.Fatalf("what the state machine cannot read was put into the log: %s", reply.Error.Message)
		}
		return
	case !json.Valid(w.Body.Bytes()):
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	switch route {
	case protocol.List:
		var page protocol.Listing
		decodeAnswer(t, w, &page)
		values, _ := url.ParseQuery(query) // as the server does, which takes what is well-formed
		previous := values.Get(protocol.QueryCursor)
		for _, entry := range page.Entries {
			if entry.Name <= previous {
				t.Fatalf("%q follows %q", entry.Name, previous)
			}
			previous = entry.Name
		}
		if page.Cursor != "" && (len(page.Entries) == 0 || page.Cursor != previous) {
			t.Fatalf("the page ends with %q and goes on after %q", previous, page.Cursor)
		}
	case protocol.GetFile:
		var file protocol.File
		decodeAnswer(t, w, &file)
		for _, chunk := range file.Chunks {
			file.Size -= chunk.Size
		}
		if file.Size != 0 {
			t.Fatalf("%+v does not add up", file)
		}
	}
}

func decodeAnswer(t *testing.T, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	if err := protocol.DecodeJSON(w.Body, 1<<30, true, v); err != nil {
		t.Fatal(err)
	}
}
