package protocol_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// allCodes must name every code of package dfs.
var allCodes = map[dfs.Code]int{
	dfs.Invalid:          400,
	dfs.Unauthenticated:  401,
	dfs.Forbidden:        403,
	dfs.NotFound:         404,
	dfs.MethodNotAllowed: 405,
	dfs.Exists:           409,
	dfs.NotEmpty:         409,
	dfs.IsDirectory:      409,
	dfs.NotDirectory:     409,
	dfs.Conflict:         412,
	dfs.TooLarge:         413,
	dfs.WrongCluster:     421,
	dfs.OverLimit:        429,
	dfs.Internal:         500,
	dfs.Corrupt:          500,
	dfs.NotLeader:        503,
	dfs.Unavailable:      503,
	dfs.UnknownOutcome:   503,
	dfs.Timeout:          504,
	dfs.NoSpace:          507,
}

func TestEveryCodeHasAStatus(t *testing.T) {
	source, err := os.ReadFile("../dfs/error.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code += "([a-z_]+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 20 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	for _, code := range codes {
		if _, ok := allCodes[dfs.Code(code[1])]; !ok {
			t.Errorf("add %s to the table of codes and statuses, and to this test", code[1])
		}
	}
}

// A failure keeps its code and its sentence on the way.
func TestErrorsCrossTheWire(t *testing.T) {
	for code, status := range allCodes {
		if got := protocol.StatusOf(code); got != status {
			t.Errorf("%s has status %d; want %d", code, got, status)
		}
		recorder := httptest.NewRecorder()
		protocol.WriteError(recorder, dfs.Errorf(code, "what \"happened\" to <ü>"))
		response := recorder.Result()
		if response.StatusCode != status || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s was answered %s, %v", code, response.Status, response.Header)
		}
		if response.ContentLength != int64(recorder.Body.Len()) {
			t.Errorf("%s: a length of %d was announced, %d were sent", code, response.ContentLength, recorder.Body.Len())
		}
		err := protocol.ReadError(response)
		if dfs.CodeOf(err) != code || dfs.MessageOf(err) != `what "happened" to <ü>` {
			t.Errorf("%s arrived as %s: %v", code, dfs.CodeOf(err), err)
		}
	}
	if got := protocol.StatusOf("from a newer version"); got != 500 {
		t.Errorf("an unknown code has status %d", got)
	}
}

func TestInternalErrorsAreNotTold(t *testing.T) {
	recorder := httptest.NewRecorder()
	protocol.WriteError(recorder, errors.New("the password is 1234"))
	if recorder.Code != 500 || strings.Contains(recorder.Body.String(), "1234") {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
}

func TestNotLeaderRedirectsWhenTheLeaderIsKnown(t *testing.T) {
	recorder := httptest.NewRecorder()
	recorder.Header().Set("Location", "http://nn2:8000/files")
	protocol.WriteError(recorder, dfs.Errorf(dfs.NotLeader, "ask nn2"))
	if recorder.Code != http.StatusTemporaryRedirect {
		t.Errorf("status %d", recorder.Code)
	}
	if err := protocol.ReadError(recorder.Result()); dfs.CodeOf(err) != dfs.NotLeader {
		t.Errorf("%v", err)
	}
}

// Something between that speaks another language: the status has to do.
func TestReadErrorOfStrangers(t *testing.T) {
	tests := []struct {
		status int
		body   string
		want   dfs.Code
	}{
		{404, "404 page not found\n", dfs.NotFound},
		{502, "<html>bad gateway", dfs.Internal},
		{503, "", dfs.Unavailable},
		{504, "null", dfs.Timeout},
		{500, `{"error":{}}`, dfs.Internal},
		{400, `{"error":"no object"}`, dfs.Invalid},
		{418, "teapot", dfs.Invalid},
		{409, `{"error":{"code":"exists"}}`, dfs.Exists},
		{409, `{"error":{"code":"of_a_newer_version","message":"x"}}`, "of_a_newer_version"},
		{413, strings.Repeat("x", 1<<20), dfs.TooLarge},
	}
	for _, test := range tests {
		response := &http.Response{
			StatusCode: test.status, Status: http.StatusText(test.status), Body: io.NopCloser(strings.NewReader(test.body)),
			Request: &http.Request{URL: &url.URL{Host: "nn1:8000"}},
		}
		if err := protocol.ReadError(response); dfs.CodeOf(err) != test.want {
			t.Errorf("%d %.30q: %s, %v", test.status, test.body, dfs.CodeOf(err), err)
		}
		response.Request = nil
		response.Body = io.NopCloser(strings.NewReader("x"))
		if err := protocol.ReadError(response); !strings.Contains(err.Error(), "the server") {
			t.Errorf("%v", err)
		}
	}
}

func TestWriteJSONThatCannotBeEncoded(t *testing.T) {
	recorder := httptest.NewRecorder()
	protocol.WriteJSON(recorder, 200, func() {})
	if err := protocol.ReadError(recorder.Result()); recorder.Code != 500 || dfs.CodeOf(err) != dfs.Internal {
		t.Errorf("%d %v", recorder.Code, err)
	}
}

func TestDecodeJSON(t *testing.T) {
	type body struct {
		Path  string      `json:"path"`
		Count int64       `json:"count"`
		ID    dfs.ChunkID `json:"id"`
	}
	const limit = 64
	tests := []struct {
		name, text string
		strict     bool
		want       dfs.Code
	}{
		{"plain", `{"path":"/a","count":7}`, true, ""},
		{"white space around", " \n{\"path\":\"/a\"}\r\n\t ", true, ""},
		{"empty object", `{}`, true, ""},
		{"exactly the limit", `{"path":"` + strings.Repeat("x", limit-11) + `"}`, true, ""},
		{"one more", `{"path":"` + strings.Repeat("x", limit-10) + `"}`, true, dfs.TooLarge},
		{"white space beyond the limit", `{}` + strings.Repeat(" ", limit), true, dfs.TooLarge},
		{"endless", `{"path":"` + strings.Repeat("x", 1<<20), true, dfs.TooLarge},
		{"unknown field, strict", `{"paht":"/a"}`, true, dfs.Invalid},
		{"unknown field", `{"paht":"/a"}`, false, ""},
		{"empty", ``, true, dfs.Invalid},
		{"only white space", `  `, true, dfs.Invalid},
		{"cut", `{"path":`, true, dfs.Invalid},
		{"not JSON", `path=/a`, true, dfs.Invalid},
		{"a second value", `{}{}`, true, dfs.Invalid},
		{"rubbish after it", `{}x`, true, dfs.Invalid},
		{"a bracket after it", `{}]`, true, dfs.Invalid},
		{"a list", `[]`, true, dfs.Invalid},
		{"a wrong type", `{"count":"7"}`, true, dfs.Invalid},
		{"a fraction", `{"count":1.5}`, true, dfs.Invalid},
		{"too large a number", `{"count":9223372036854775808}`, true, dfs.Invalid},
		{"a bad ID", `{"id":"../x"}`, true, dfs.Invalid},
		{"deep nesting", `{"path":` + strings.Repeat("[", 40), false, dfs.Invalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := protocol.DecodeJSON(strings.NewReader(test.text), limit, test.strict, new(body))
			if dfs.CodeOf(err) != test.want {
				t.Fatalf("%v; want %q", err, test.want)
			}
		})
	}
	var b body
	if err := protocol.DecodeJSON(strings.NewReader(`{"path":"/a","count":7,"id":"0000000000000009"}`), limit, true, &b); err != nil || b != (body{"/a", 7, 9}) {
		t.Fatalf("%+v, %v", b, err)
	}
	err := protocol.DecodeJSON(strings.NewReader(`{"count":"7"}`), limit, true, &b)
	if err == nil || !strings.Contains(err.Error(), `"count"`) {
		t.Fatalf("%v does not name the field", err)
	}
}

// The short heartbeat and the other shapes that outsiders send and read.
func TestShapes(t *testing.T) {
	tests := []struct {
		value any
		want  string
	}{
		{protocol.MkdirRequest{Path: "/a/b", Parents: true}, `{"path":"/a/b","parents":true}`},
		{protocol.PathReply{Path: "/a/b"}, `{"path":"/a/b"}`},
		{protocol.RenameRequest{From: "/a", To: "/b"}, `{"from":"/a","to":"/b"}`},
		{protocol.ReplicationRequest{Path: "/a", Replication: 2}, `{"path":"/a","replication":2}`},
		{protocol.CreateRequest{Path: "/a", NumChunks: 2}, `{"path":"/a","num_chunks":2}`},
		{protocol.AllocatedChunk{ID: 1, Targets: []protocol.Target{{ID: "dn1", URL: "http://dn1:9000"}}}, `{"id":"0000000000000001","targets":[{"id":"dn1","url":"http://dn1:9000"}]}`},
		{protocol.CommitRequest{Chunks: []protocol.CommittedChunk{{ID: 1, Size: 9, CRC32C: 0xe3069283, Nodes: []dfs.NodeID{"dn1"}}}}, `{"chunks":[{"id":"0000000000000001","size":9,"crc32c":"e3069283","nodes":["dn1"]}]}`},
		{protocol.LocatedChunk{ID: 1, Size: 9, CRC32C: 0xe3069283, Locations: []protocol.Target{}}, `{"id":"0000000000000001","size":9,"crc32c":"e3069283","locations":[]}`},
		{protocol.ErrorReply{Error: protocol.ErrorBody{Code: dfs.NotFound, Message: "x"}}, `{"error":{"code":"not_found","message":"x"}}`},
		{protocol.Target{ID: "nn1", URL: "http://nn1:8000"}, `{"id":"nn1","url":"http://nn1:8000"}`},
		{protocol.Member{ID: "nn1", URL: "u", RaftAddr: "a", Role: protocol.RoleVoter}, `{"id":"nn1","url":"u","raft_addr":"a","role":"voter"}`},
	}
	for _, test := range tests {
		got, err := json.Marshal(test.value)
		if err != nil || string(got) != test.want {
			t.Errorf("%T is\n%s, %v; want\n%s", test.value, got, err, test.want)
		}
	}
	var short protocol.HeartbeatRequest
	text := `{"id":"dn1","chunks":["0000000000000001"],"capacity":7}`
	want := protocol.HeartbeatRequest{ID: "dn1", Chunks: []dfs.ChunkID{1}, Capacity: 7}
	if err := protocol.DecodeJSON(strings.NewReader(text), 1000, true, &short); err != nil || !reflect.DeepEqual(short, want) {
		t.Errorf("%+v, %v", short, err)
	}
}

// nameNodeRoutes and dataNodeRoutes share one mux each: patterns must be valid
// and must not collide.
func TestRoutes(t *testing.T) {
	daemons := []protocol.Route{protocol.Health, protocol.Ready, protocol.Metrics}
	nameNode := append([]protocol.Route{
		protocol.CreateFile, protocol.GetFile, protocol.DeleteFile, protocol.AddChunks, protocol.CommitUpload, protocol.AbortUpload,
		protocol.Stat, protocol.List, protocol.Mkdir, protocol.Rename, protocol.SetReplication, protocol.Heartbeat, protocol.Announce,
		protocol.ListNodes, protocol.GetLeader, protocol.JoinCluster, protocol.RemoveMember, protocol.TransferLead, protocol.TakeSnapshot,
	}, daemons...)
	dataNode := append([]protocol.Route{protocol.PutChunk, protocol.GetChunk, protocol.DeleteChunk, protocol.StatChunks}, daemons...)
	for _, routes := range [][]protocol.Route{nameNode, dataNode} {
		mux := http.NewServeMux()
		for _, route := range routes {
			mux.HandleFunc(route.Method+" "+route.Pattern, func(http.ResponseWriter, *http.Request) {}) // panics on a collision
			if route.Permission == "" {
				t.Errorf("%s %s asks for no permission; %s would be the explicit choice", route.Method, route.Pattern, protocol.Public)
			}
			if route.Method == http.MethodPost && route.MaxBody == 0 {
				t.Errorf("%s %s reads a body without limit", route.Method, route.Pattern)
			}
			if route.Mutates() == (route.Method == http.MethodGet) {
				t.Errorf("%s %s mutates: %t", route.Method, route.Pattern, route.Mutates())
			}
			filled := route.Path(strings.Split(strings.Repeat("a/b ", strings.Count(route.Pattern, "{")), " ")[:strings.Count(route.Pattern, "{")]...)
			if strings.ContainsAny(filled, "{} ") || strings.Count(filled, "/") != strings.Count(route.Pattern, "/") {
				t.Errorf("%s filled is %s", route.Pattern, filled)
			}
		}
	}
	if got := protocol.CommitUpload.Path("0000000000000001"); got != "/uploads/0000000000000001/commit" {
		t.Errorf("%s", got)
	}
}
