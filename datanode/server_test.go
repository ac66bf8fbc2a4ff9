package datanode

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/stall"
)

func newTestServer(t testing.TB) (*server, *chunkstore.Store) {
	t.Helper()
	h, _, st := newTestHeartbeater(t)
	config, err := Config{ID: "dn1", DataDirs: []string{"x"}, NameNodes: []string{"http://nn:8000"}}.complete()
	if err != nil {
		t.Fatal(err)
	}
	f := newForwarder(h.nodes, st, config.Limits.ForwardTimeout)
	log := hclog.NewNullLogger()
	return newServer(config, st, newGate(), h.standing, f, newKeeps(), newSuspicions(st, h.metrics, log), h.metrics, log), st
}

func TestPanicIsSurvived(t *testing.T) {
	s, _ := newTestServer(t)
	w := httptest.NewRecorder()
	s.answer(w, httptest.NewRequest("GET", "/x", nil), endpoint{serve: func(http.ResponseWriter, *http.Request) error { panic("oh") }})
	var reply protocol.ErrorReply
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || w.Code != 500 || reply.Error.Code != dfs.Internal {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	func() {
		defer func() {
			if recover() != http.ErrAbortHandler {
				t.Error("an answer that has begun is not cut off")
			}
		}()
		s.answer(httptest.NewRecorder(), httptest.NewRequest("GET", "/x", nil), endpoint{serve: func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(200)
			panic("oh")
		}})
	}()
	select {
	case <-s.gate.close():
	default:
		t.Error("a request that panicked is still counted")
	}
}

// direct is a connection that the kernel can copy to.
type direct struct {
	*httptest.ResponseRecorder
	fromFile int64
}

func (d *direct) SetWriteDeadline(time.Time) error { return nil }

func (d *direct) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(d.Body, src)
	}
	_, isFile := limited.R.(*os.File)
	n, err := io.Copy(d.Body, src)
	if isFile {
		d.fromFile += n
	}
	return n, err
}

// sendfile(2) is used when net/http meets a LimitedReader over a file.
func TestDataGoesStraightFromTheFile(t *testing.T) {
	s, st := newTestServer(t)
	store(t, st, 1)
	w := &direct{ResponseRecorder: httptest.NewRecorder()}
	s.handler().ServeHTTP(w, httptest.NewRequest("GET", "/chunks/0000000000000001", nil))
	if w.fromFile != 4 || w.Body.String() != "data" {
		t.Errorf("%d bytes came from a file; the body is %q", w.fromFile, w.Body)
	}
}

// unread is a connection on which the kernel fails to read the file.
type unread struct{ direct }

func (*unread) ReadFrom(io.Reader) (int64, error) {
	return 0, &net.OpError{Op: "readfrom", Err: os.NewSyscallError("sendfile", syscall.EIO)}
}

// A disk that lets footers be read and no data is dead, whoever finds it out.
func TestReadsThatFailInTheMiddle(t *testing.T) {
	s, st := newTestServer(t)
	store(t, st, 1, 2, 3)
	for id := dfs.ChunkID(1); id <= 3; id++ {
		if st.Volumes()[0].Gone {
			t.Fatalf("%d failures cost the directory", id-1)
		}
		s.handler().ServeHTTP(&unread{direct{ResponseRecorder: httptest.NewRecorder()}}, httptest.NewRequest("GET", "/chunks/"+id.String(), nil))
	}
	if !st.Volumes()[0].Gone {
		t.Error("three chunks in a row could not be read, and the disk is in service")
	}
}

// Every route is served, and by the table of the protocol.
func TestEveryRouteIsServed(t *testing.T) {
	s, _ := newTestServer(t)
	served := map[string]bool{}
	for _, e := range s.endpoints() {
		served[e.Method+" "+e.Pattern] = true
	}
	for _, r := range []protocol.Route{protocol.PutChunk, protocol.GetChunk, protocol.DeleteChunk, protocol.StatChunks, protocol.VerifyChunk, protocol.Health, protocol.Ready, protocol.Metrics} {
		if !served[r.Method+" "+r.Pattern] {
			t.Errorf("%s %s is not served", r.Method, r.Pattern)
		}
	}
}

func TestGate(t *testing.T) {
	g := newGate()
	for range 2 {
		if !g.enter() {
			t.Fatal("an open gate lets nobody in")
		}
	}
	empty := g.close()
	for range 2 {
		if g.enter() {
			t.Error("a closed gate lets somebody in")
		}
		select {
		case <-empty:
			t.Error("somebody is inside still")
		default:
		}
		g.leave()
	}
	<-empty
	<-g.close() // again is harmless
}

func FuzzParseRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-1", "bytes=-5", "bytes=7-", "bytes=9223372036854775807-", "bytes=0-99999999999999999999", "bytes=-99999999999999999999", "bytes=0-1,3-4", "x"} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		if size < 1 {
			return
		}
		part, err := parseRange(http.Header{"Range": {text}}, size)
		if err == nil && (part.start < 0 || part.length < 1 || part.length > size || part.start > size-part.length) {
			t.Errorf("%q of %d bytes became %+v", text, size, part)
		}
	})
}

func FuzzParsePipeline(f *testing.F) {
	for _, seed := range []string{"", "dn2", "dn2,dn3", "dn1", "dn2,dn2", ",", "http://x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		ids, err := parsePipeline(header, "dn1")
		if err != nil {
			return
		}
		seen := map[dfs.NodeID]bool{"dn1": true}
		for _, id := range ids {
			if _, err := dfs.ParseNodeID(string(id)); err != nil || seen[id] {
				t.Errorf("%q gave %v", header, ids)
			}
			seen[id] = true
		}
		if len(seen) > dfs.MaxReplication {
			t.Errorf("%d replicas", len(seen))
		}
	})
}

// Only the receiver's silence counts against it, not the writer's.
func TestTailReader(t *testing.T) {
	const limit = time.Second
	file, err := os.Open("server_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	synctest.Test(t, func(t *testing.T) {
		followed := newTail(file, 30)
		ctx, guard := stall.Watch(t.Context(), limit)
		defer guard.Stop()
		r := &tailReader{ctx: ctx, tail: followed, guard: guard, limit: limit}
		go func() { // ends by itself
			for range 3 {
				time.Sleep(10 * limit)
				followed.grow(10)
			}
		}()
		got, err := io.ReadAll(r)
		want := make([]byte, 30)
		if _, err := file.ReadAt(want, 0); err != nil {
			t.Error(err)
		}
		if err != nil || string(got) != string(want) {
			t.Errorf("got %q, %v", got, err)
		}
		time.Sleep(2 * limit) // now it is the receiver who keeps silent
		if !guard.Stalled() {
			t.Error("a silent receiver is waited for")
		}
		again := newTail(file, 30).follow(ctx, guard, limit)
		if _, err := again.Read(make([]byte, 1)); err == nil {
			t.Error("waiting for data that nobody wants any more")
		}
	})
}
