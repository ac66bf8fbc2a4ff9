package protocol_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// bodies are all that is sent as JSON, each with an example that has something
// in every field that is hard to make up.
func bodies() []struct {
	empty   any
	example string
} {
	const (
		target = `{"id":"dn1","url":"http://dn1:9000"}`
		chunk  = `"id":"0000000000000001","size":9,"crc32c":"e3069283"`
		id     = `"cluster_id":"0123456789abcdef0123456789abcdef"`
	)
	return []struct {
		empty   any
		example string
	}{
		{protocol.HeartbeatRequest{}, `{"id":"dn1","incarnation":1,"seq":2,"digest":"00000000000000ff","added":["0000000000000001"],"removed":[],"corrupt":null,"inventory":{"after":0,"through":18446744073709551615,"last":true,"chunks":["0000000000000002"]}}`},
		{protocol.CommitRequest{}, `{"chunks":[{` + chunk + `,"nodes":["dn1","dn2"]}]}`},
		{protocol.CreateRequest{}, `{"path":"/a","num_chunks":2,"replication":3,"chunk_size":1024,"overwrite":true,"exclude":["dn1"]}`},
		{protocol.AddChunksRequest{}, `{"num_chunks":2,"exclude":["dn1"]}`},
		{protocol.MkdirRequest{}, `{"path":"/a","parents":true}`},
		{protocol.RenameRequest{}, `{"from":"/a","to":"/b"}`},
		{protocol.ReplicationRequest{}, `{"path":"/a","replication":2}`},
		{protocol.StatChunksRequest{}, `{"ids":["0000000000000001"],"verify":true}`},
		{protocol.AnnounceRequest{}, `{"id":"nn1","instance":"i","url":"http://nn1:8000","raft_addr":"nn1:7000"}`},
		{protocol.JoinRequest{}, `{"id":"nn1","raft_addr":"nn1:7000","url":"http://nn1:8000"}`},
		{protocol.DrainRequest{}, `{"id":"dn1"}`},
		{protocol.MemberRequest{}, `{"id":"nn1"}`},
		{protocol.SnapshotRequest{}, `{"at_least":7}`},
		{protocol.HeartbeatReply{}, `{` + id + `,"term":3,"want_inventory":true,"interval_ms":500,"nodes":[` + target + `],"orders":[{"kind":"trim","chunk":"0000000000000001","size":9,"crc32c":"e3069283","keepers":[` + target + `],"keep":1},{"kind":"delete","chunks":["0000000000000002"]},{"kind":"copy","sources":[` + target + `]}]}`},
		{protocol.File{}, `{"path":"/a","type":"file","size":9,"mtime":"2030-01-02T03:04:05.678Z","inode":7,"replication":1,"chunk_size":1024,"chunks":[{` + chunk + `,"locations":[` + target + `]}]}`},
		{protocol.Allocation{}, `{"upload_id":"0000000000000001","path":"/a","chunk_size":1024,"replication":1,"min_replicas":1,"expires_in":60,"chunks":[{"id":"0000000000000001","targets":[` + target + `]}]}`},
		{protocol.Listing{}, `{"entries":[{"name":"a","path":"/a","type":"file","size":9,"mtime":"2030-01-02T03:04:05+02:00","inode":7,"chunks":1}],"cursor":"a"}`},
		{protocol.CommitReply{}, `{"path":"/a","size":9}`},
		{protocol.ChunkReply{}, `{` + chunk + `,"nodes":["dn1"],"failed":[{"id":"dn2","error":{"code":"timeout","message":"x"}}]}`},
		{protocol.StatChunksReply{}, `{"chunks":[{` + chunk + `}]}`},
		{protocol.NodesReply{}, `{"nodes":[{"id":"dn1","state":"up","writable":true,"capacity":1,"last_heartbeat":"2030-01-02T03:04:05Z"}]}`},
		{protocol.LeaderReply{}, `{` + id + `,"term":3,"node_id":"nn1","applied_index":9,"leader":` + target + `,"members":[{"id":"nn1","url":"u","raft_addr":"a","role":"voter"}]}`},
		{protocol.FsckReply{}, `{"healthy":false,"files":1,"problems":[{"kind":"missing","chunk":"0000000000000001","files":["/a"],"wanted":2,"live":["dn1"],"lost":["dn2"],"action":"x","stuck":true}],"truncated":true}`},
		{protocol.HealthReply{}, `{"id":"dn1",` + id + `,"status":"ok","volumes":[{"dir":"/d","id":"x","gone":true,"capacity":1}]}`},
		{protocol.SnapshotReply{}, `{"index":7}`},
		{protocol.ErrorReply{}, `{"error":{"code":"not_found","message":"x"}}`},
	}
}

// FuzzBody: an arbitrary body of any kind is refused as the caller's fault, or
// comes back the same when it is sent on. It costs no more memory than it is
// long, many times over, and nothing may follow it.
func FuzzBody(f *testing.F) {
	const limit = 1 << 16
	kinds := bodies()
	for i, kind := range kinds {
		f.Add(byte(i), []byte(kind.example))
	}
	f.Add(byte(0), []byte(`{"id":"dn1","capacity":100,"chunks":null}`))
	f.Add(byte(0), []byte(`{"chunks":["0000000000000000"]}`))
	f.Add(byte(1), []byte(`{"chunks":[{"size":-1}]}`))
	f.Add(byte(1), append([]byte(`{"chunks":[{}`), bytes.Repeat([]byte(",{}"), 1000)...))
	f.Fuzz(func(t *testing.T, index byte, data []byte) {
		kind := reflect.TypeOf(kinds[int(index)%len(kinds)].empty)
		decode := func(data []byte, limit int64, strict bool) (any, error) {
			v := reflect.New(kind)
			err := protocol.DecodeJSON(bytes.NewReader(data), limit, strict, v.Interface())
			return v.Interface(), err
		}
		before := allocated()
		lenient, err := decode(data, limit, false)
		if cost := allocated() - before; cost > uint64(len(data))*maxCost+1<<20 {
			t.Fatalf("%d bytes cost %d", len(data), cost)
		}
		strict, strictErr := decode(data, limit, true)
		if err != nil {
			if code := dfs.CodeOf(err); code != dfs.Invalid && code != dfs.TooLarge || strictErr == nil {
				t.Fatalf("%s: %v; strictly: %v", code, err, strictErr)
			}
			return
		}
		if len(data) > limit {
			t.Fatalf("%d bytes were accepted; the limit is %d", len(data), limit)
		}
		if strictErr == nil && !reflect.DeepEqual(strict, lenient) {
			t.Fatalf("read strictly it is %+v, and %+v otherwise", strict, lenient)
		}
		if more, err := decode(append(bytes.Clone(data), " {}"...), 2*limit, false); err == nil {
			t.Fatalf("something follows %+v", more)
		}
		sent, err := json.Marshal(lenient)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(sent, 16*limit, true)
		if err != nil {
			if bytes.Contains(sent, []byte(`"0000000000000000"`)) {
				return // an ID was left out: that is not seen before the value is used
			}
			t.Fatalf("%s: %v", sent, err)
		}
		if resent, err := json.Marshal(again); err != nil || !bytes.Equal(sent, resent) {
			t.Fatalf("%s came back as %s, %v", sent, resent, err)
		}
	})
}

// maxCost is how many bytes of memory one of a body may cost: "{}," makes an
// order of 200 bytes, in a list that is copied as it grows.
const maxCost = 1 << 10

func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// FuzzReadError: whatever is answered with whatever status is an error with a
// code and a sentence of bounded length, and one with a code of ours comes
// through another server unchanged.
func FuzzReadError(f *testing.F) {
	f.Add(404, []byte(`{"error":{"code":"not_found","message":"there is no /a"}}`))
	f.Add(503, []byte(`{"error":{"code":"not_leader","message":""}}`))
	f.Add(500, []byte(`{"error":{"code":"made_up","message":"x"}}`))
	f.Add(502, []byte("<html>Bad Gateway</html>"))
	f.Add(418, []byte(`{"error":null}`))
	f.Add(0, []byte{})
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		const longest = 64 << 10 // of a body that is read
		response := &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(bytes.NewReader(body))}
		err := protocol.ReadError(response)
		code, message := dfs.CodeOf(err), dfs.MessageOf(err)
		if err == nil || code == "" || len(message) > 3*longest { // each byte that is not UTF-8 becomes three
			t.Fatalf("%v has the code %q and %d bytes of message", err, code, len(message))
		}
		recorder := httptest.NewRecorder()
		protocol.WriteError(recorder, err)
		if recorder.Code < 400 || recorder.Code > 599 || protocol.StatusOf(code) != recorder.Code {
			t.Fatalf("%v was answered with %d", err, recorder.Code)
		}
		if recorder.Body.Len() > longest {
			return
		}
		if again := protocol.ReadError(recorder.Result()); dfs.CodeOf(again) != code || dfs.MessageOf(again) != message {
			t.Fatalf("%s: %q came back as %s: %q", code, message, dfs.CodeOf(again), dfs.MessageOf(again))
		}
	})
}
