package cluster

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

var (
	clusterA = dfs.ClusterID(strings.Repeat("a", 32))
	clusterB = dfs.ClusterID(strings.Repeat("b", 32))

	someHello   = hello{kind: kindRaft, cluster: clusterA, id: "nn1", instance: "i1", expected: "nn2", peersDigest: 7}
	someWelcome = welcome{status: statusWrongNode, reason: "this is nn3", info: PeerInfo{
		ID: "nn3", Instance: "i3", ClusterID: clusterA, Term: 1, LastIndex: 2, AppliedIndex: 3, HasState: true, Full: true, peersDigest: 7,
	}}
)

func TestPreambleRoundTrip(t *testing.T) {
	for _, h := range []hello{someHello, {kind: kindProbe, id: "nn1"}} {
		stream := bytes.NewBuffer(append(h.marshal(), "raft"...))
		body, err := readFrame(stream)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseHello(body); err != nil || got != h {
			t.Errorf("%+v became %+v, error %v", h, got, err)
		}
		if stream.String() != "raft" {
			t.Errorf("what follows the preamble is %q", stream)
		}
	}
	for _, w := range []welcome{someWelcome, {info: PeerInfo{ID: "nn1"}}} {
		body, err := readFrame(bytes.NewReader(w.marshal()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseWelcome(body); err != nil || got != w {
			t.Errorf("%+v became %+v, error %v", w, got, err)
		}
	}
}

func TestFrameFaults(t *testing.T) {
	good := string(someHello.marshal())
	faults := map[string]struct {
		frame string
		want  dfs.Code
	}{
		"nothing":       {"", dfs.Unavailable},
		"half a header": {good[:4], dfs.Unavailable},
		"half a body":   {good[:len(good)-1], dfs.Unavailable},
		"HTTP":          {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", dfs.Invalid},
		"other version": {good[:4] + "\x02" + good[5:], dfs.Invalid},
		"too long":      {good[:5] + "\xff\xff" + good[7:], dfs.Invalid},
	}
	for name, f := range faults {
		if _, err := readFrame(strings.NewReader(f.frame)); dfs.CodeOf(err) != f.want {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestHelloFaults(t *testing.T) {
	good := string(someHello.marshal()[frameHeader:])
	faults := map[string]string{
		"empty":            "",
		"no kind":          "\x00" + good[1:],
		"unknown kind":     "\x03" + good[1:],
		"goes on":          good + "x",
		"ends early":       good[:len(good)-1],
		"upper case":       strings.Replace(good, "aaa", "AAA", 1),
		"short cluster ID": "\x01\x00\x00\x00\x00\x03aaa\x03nn1\x00\x00",
		"no ID":            "\x01\x00\x00\x00\x00\x00\x00\x00\x00",
		"bad ID":           strings.Replace(good, "nn1", "n/1", 1),
		"bad expected ID":  strings.Replace(good, "nn2", "n 2", 1),
		"control in text":  strings.Replace(good, "i1", "i\n", 1),
		"long text":        "\x01\x00\x00\x00\x00\x00\x03nn1\x41" + strings.Repeat("i", 65) + "\x00",
	}
	for name, body := range faults {
		if h, err := parseHello([]byte(body)); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: got %+v, error %v", name, h, err)
		}
	}
}

func TestWelcomeFaults(t *testing.T) {
	good := string(someWelcome.marshal()[frameHeader:])
	faults := map[string]string{
		"empty":          "",
		"unknown status": "\x05" + good[1:],
		"goes on":        good + "x",
		"ends early":     good[:len(good)-1],
		"unknown state":  good[:len(good)-1] + "\x04",
		"long reason":    "\x00\xff" + strings.Repeat("r", 255),
	}
	for name, body := range faults {
		if w, err := parseWelcome([]byte(body)); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: got %+v, error %v", name, w, err)
		}
	}
}

func TestLongReasonIsCut(t *testing.T) {
	w := welcome{status: statusInvalid, reason: strings.Repeat("r", 1000), info: PeerInfo{ID: "nn1"}}
	if got, err := parseWelcome(w.marshal()[frameHeader:]); err != nil || len(got.reason) != maxReason {
		t.Errorf("got %d bytes, error %v", len(got.reason), err)
	}
}

func FuzzPreamble(f *testing.F) {
	f.Add(someHello.marshal())
	f.Add(someWelcome.marshal())
	f.Add([]byte("DFSR\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		size := frameHeader + len(body)
		if h, err := parseHello(body); err == nil && !bytes.Equal(h.marshal(), data[:size]) {
			t.Errorf("%x became %x", data[:size], h.marshal())
		}
		if w, err := parseWelcome(body); err == nil && !bytes.Equal(w.marshal(), data[:size]) {
			t.Errorf("%x became %x", data[:size], w.marshal())
		}
	})
}

func TestJudge(t *testing.T) {
	me := identity{PeerInfo: PeerInfo{ID: "nn2", ClusterID: clusterA}, ready: true}
	empty := identity{PeerInfo: PeerInfo{ID: "nn2"}}
	cases := []struct {
		name string
		h    hello
		me   identity
		want status
	}{
		{"member", hello{kind: kindRaft, cluster: clusterA, id: "nn1", expected: "nn2"}, me, statusOK},
		{"does not know its cluster yet", hello{kind: kindRaft, id: "nn1", expected: "nn2"}, me, statusOK},
		{"other cluster", hello{kind: kindRaft, cluster: clusterB, id: "nn1", expected: "nn2"}, me, statusWrongCluster},
		{"probe from another cluster", hello{kind: kindProbe, cluster: clusterB, id: "nn1"}, me, statusWrongCluster},
		{"meant another", hello{kind: kindRaft, cluster: clusterA, id: "nn1", expected: "nn3"}, me, statusWrongNode},
		{"same ID", hello{kind: kindRaft, cluster: clusterA, id: "nn2"}, me, statusWrongNode},
		{"probing itself", hello{kind: kindProbe, cluster: clusterA, id: "nn2"}, me, statusOK},
		{"not ready", hello{kind: kindRaft, cluster: clusterA, id: "nn1"}, empty, statusNotReady},
		{"not ready for raft, but for questions", hello{kind: kindProbe, cluster: clusterA, id: "nn1"}, empty, statusOK},
	}
	for _, c := range cases {
		if got, reason := judge(c.h, c.me); got != c.want || (reason == "") != (got == statusOK) {
			t.Errorf("%s: status %d, %q", c.name, got, reason)
		}
	}
}

// scriptedConn is a connection whose other side says in and nothing more.
type scriptedConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *scriptedConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *scriptedConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *scriptedConn) SetDeadline(time.Time) error { return nil }
func (c *scriptedConn) RemoteAddr() net.Addr        { return advertisedAddr("there:1") }

// FuzzGreet lets anybody connect to the Raft port. Only who says to be another
// member of the same cluster, and means this node, gets through to raft, and not
// a byte of what follows is taken away; whoever sends a frame gets an answer that
// can be read.
func FuzzGreet(f *testing.F) {
	f.Add(append(hello{kind: kindRaft, cluster: clusterA, id: "nn1", instance: "i1", expected: "nn2"}.marshal(), "raft"...), true)
	f.Add(hello{kind: kindProbe, id: "nn1"}.marshal(), true)
	f.Add(hello{kind: kindRaft, cluster: clusterB, id: "nn1"}.marshal(), true)
	f.Add(hello{kind: kindRaft, cluster: clusterA, id: "nn2"}.marshal(), true)
	f.Add(hello{kind: kindRaft, cluster: clusterA, id: "nn1"}.marshal(), false)
	f.Add([]byte("DFSR\x01\x00\x01x"), true)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, ready bool) {
		contacted := false
		s := &stream{logger: hclog.NewNullLogger(), contact: func(dfs.ClusterID) { contacted = true }}
		s.self = func() identity {
			return identity{PeerInfo: PeerInfo{ID: "nn2", Instance: "i2", ClusterID: clusterA}, ready: ready}
		}
		conn := &scriptedConn{in: bytes.NewReader(data)}
		through := s.greet(conn)
		body, err := readFrame(bytes.NewReader(data))
		if err != nil {
			if through || conn.out.Len() > 0 {
				t.Fatalf("%x was answered with %x, and let through: %t", data, conn.out.Bytes(), through)
			}
			return
		}
		answer, err := readFrame(&conn.out)
		if err != nil {
			t.Fatal(err)
		}
		w, err := parseWelcome(answer)
		if err != nil || w.info.ID != "nn2" || conn.out.Len() > 0 {
			t.Fatalf("%x was answered with %+v, %v", data, w, err)
		}
		h, err := parseHello(body)
		meant := err == nil && h.kind == kindRaft && h.id != "nn2" && (h.cluster == "" || h.cluster == clusterA) && (h.expected == "" || h.expected == "nn2")
		if through != (meant && ready) || through != (w.status == statusOK && h.kind == kindRaft) {
			t.Fatalf("%+v was let through: %t, %+v", h, through, w)
		}
		if contacted && (ready || h.cluster != clusterA) {
			t.Fatalf("%+v counts as a contact", h)
		}
		if conn.in.Len() != len(data)-frameHeader-len(body) {
			t.Fatalf("of %d bytes, %d are left for raft", len(data), conn.in.Len())
		}
	})
}
