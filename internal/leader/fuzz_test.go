package leader

import (
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// transportFunc answers requests without a network.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzAnswer lets whatever stands at the address of a NameNode answer a call.
// Only a NameNode of the right cluster is believed; every other answer is an
// error with a code, and leaves what the answer goes to as it was; and only
// addresses in their one form are followed and remembered.
func FuzzAnswer(f *testing.F) {
	const (
		here, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
		members     = `{"node_id":"nn1","leader":{"id":"nn1","url":"http://nn1:8000"},"members":[{"id":"nn2","url":"http://nn2:8000/"},{"id":"nn3","url":"x"}]}`
	)
	seed := func(status int, body string, headers ...string) {
		f.Add(status, strings.Join(headers, "\n"), []byte(body))
	}
	id, applied := protocol.HeaderNodeID+": nn1", protocol.HeaderAppliedIndex+": 7"
	seed(200, members, id, applied, protocol.HeaderClusterID+": "+here)
	seed(200, members, id, applied, protocol.HeaderClusterID+": "+other)
	seed(200, members, id, protocol.HeaderClusterID+": "+here)
	seed(200, `{"members":[`, id, applied)
	seed(200, `{"node_id":"nn9","term":"three"}`, id, applied)
	seed(307, `{"error":{"code":"not_leader","message":"x"}}`, id, applied, protocol.HeaderLeader+": http://nn2:8000", "Location: http://nn2:8000/leader")
	seed(307, "", "Location: http://[::1]:9/x?y")
	seed(503, `{"error":{"code":"unavailable","message":"x"}}`, id, applied, "Retry-After: 1")
	seed(503, `{"error":{"code":"unknown_outcome","message":"x"}}`, id, applied)
	seed(404, `{"error":{"code":"","message":"x"}}`, id, applied)
	seed(502, "Bad Gateway")
	f.Fuzz(func(t *testing.T, status int, lines string, body []byte) {
		header := http.Header{}
		for line := range strings.SplitSeq(lines, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				header.Add(name, value)
			}
		}
		c, err := New(Config{Endpoints: []string{"http://nn1:8000"}, ClusterID: here})
		if err != nil {
			t.Fatal(err)
		}
		c.transport = transportFunc(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Status: "status", Header: header, ContentLength: -1, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
		})
		c.bundles = c.transport
		before := protocol.LeaderReply{NodeID: "untouched"}
		reply := before
		task, err := c.newTask(protocol.GetLeader, Call{Out: &reply})
		if err != nil {
			t.Fatal(err)
		}
		v := c.try(t.Context(), task, "http://nn1:8000")
		if v.err == nil {
			cluster := header.Get(protocol.HeaderClusterID)
			if _, err := dfs.ParseClusterID(cluster); err == nil && cluster != here || !v.final || status/100 != 2 || header.Get(protocol.HeaderNodeID) == "" || header.Get(protocol.HeaderAppliedIndex) == "" {
				t.Fatalf("%d with %v is believed", status, header)
			}
			c.known.learn(reply)
		} else if dfs.CodeOf(v.err) == "" || !reflect.DeepEqual(reply, before) {
			t.Fatalf("%v left %+v", v.err, reply)
		}
		if v.hint != "" {
			c.known.accept(v.hint, time.Now())
		}
		for _, known := range c.known.all() {
			if again, err := dfs.ParseBaseURL(known); err != nil || again != known {
				t.Fatalf("%q is remembered", known)
			}
		}
		if len(c.known.learnt) > maxLearnt || c.ClusterID() != here {
			t.Fatalf("%d addresses of cluster %s", len(c.known.learnt), c.ClusterID())
		}
		task.failed("http://nn1:8000", verdict{err: io.EOF})
		if task.givenUp(t.Context()) == nil {
			t.Fatal("a call that was given up has no error")
		}
	})
}
