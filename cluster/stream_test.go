package cluster

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// newTestStream serves with a fixed identity.
func newTestStream(t *testing.T, me identity) (*stream, *lockedBuffer) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &lockedBuffer{}
	s := newStream(listener, listener.Addr().String(), hclog.New(&hclog.LoggerOptions{Output: out}))
	s.self = func() identity { return me }
	s.expect = func(string) dfs.NodeID { return "" }
	s.contact = func(dfs.ClusterID) {}
	s.serve()
	t.Cleanup(func() {
		s.Close()
		s.wait()
	})
	return s, out
}

func ready(id dfs.NodeID, cluster dfs.ClusterID) identity {
	return identity{PeerInfo: PeerInfo{ID: id, ClusterID: cluster}, ready: true}
}

func TestStreamCarriesRaft(t *testing.T) {
	a, _ := newTestStream(t, ready("nn1", clusterA))
	b, _ := newTestStream(t, ready("nn2", clusterA))
	out, err := a.Dial(raft.ServerAddress(b.Addr().String()), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := out.Write([]byte("raft")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "raft" {
		t.Errorf("got %q, error %v", got, err)
	}
	b.Close()
	if _, err := io.ReadAll(out); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("after the other side closed: %v", err)
	}
	if _, err := b.Accept(); err == nil {
		t.Error("a closed stream accepts")
	}
	if _, err := a.Dial(raft.ServerAddress(b.Addr().String()), patience); dfs.CodeOf(err) != dfs.Unavailable {
		t.Errorf("dialling a closed stream: %v", err)
	}
}

func TestStreamRefuses(t *testing.T) {
	member, _ := newTestStream(t, ready("nn2", clusterA))
	waiting, _ := newTestStream(t, identity{PeerInfo: PeerInfo{ID: "nn3"}})
	contacts := make(chan dfs.ClusterID, 1)
	waiting.contact = func(id dfs.ClusterID) { contacts <- id }
	cases := []struct {
		name   string
		me     identity
		at     *stream
		expect dfs.NodeID
		want   dfs.Code
	}{
		{"other cluster", ready("nn1", clusterB), member, "", dfs.WrongCluster},
		{"other node", ready("nn1", clusterA), member, "nn4", dfs.Conflict},
		{"same ID", ready("nn2", clusterA), member, "", dfs.Conflict},
		{"not ready", ready("nn1", clusterA), waiting, "nn3", dfs.Unavailable},
	}
	for _, c := range cases {
		dialler, _ := newTestStream(t, c.me)
		dialler.expect = func(string) dfs.NodeID { return c.expect }
		if _, err := dialler.Dial(raft.ServerAddress(c.at.Addr().String()), patience); dfs.CodeOf(err) != c.want {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	if got := <-contacts; got != clusterA {
		t.Errorf("the waiting node was told of cluster %q", got)
	}
}

func TestRefusalsAreLoggedOnce(t *testing.T) {
	member, _ := newTestStream(t, ready("nn2", clusterA))
	dialler, log := newTestStream(t, ready("nn1", clusterB))
	for range 5 {
		if conn, err := dialler.Dial(raft.ServerAddress(member.Addr().String()), patience); err == nil {
			conn.Close()
			t.Fatal("not refused")
		}
	}
	if got := strings.Count(log.String(), "refuses"); got != 1 {
		t.Errorf("logged %d times:\n%s", got, log)
	}
}

// TestSilentConnectionsAreBounded opens as many connections as may wait for
// their handshake, and says nothing on them.
func TestSilentConnectionsAreBounded(t *testing.T) {
	s, _ := newTestStream(t, ready("nn1", clusterA))
	asker, _ := newTestStream(t, ready("nn2", clusterA))
	var silent []net.Conn
	for range maxHandshakes {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	waitUntil(t, "all to be accepted", func() bool { return len(s.greetings) == maxHandshakes })
	one, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if err := one.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := one.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("one connection too many was not closed")
	}
	for _, conn := range silent {
		conn.Close()
	}
	ctx, cancel := testContext()
	defer cancel()
	waitUntil(t, "room for a probe", func() bool {
		_, err := asker.probe(ctx, s.Addr().String(), "nn1")
		return err == nil
	})
}

func TestStrangersAreTurnedAway(t *testing.T) {
	s, _ := newTestStream(t, ready("nn1", clusterA))
	for _, greeting := range []string{
		"GET / HTTP/1.1\r\nHost: nn1\r\n\r\n",
		string(frame([]byte{9})),
		string(someWelcome.marshal()),
	} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, greeting); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(conn) // a reset is fine, too
		if len(answer) == 0 {
			continue
		}
		w, err := parseWelcome(answer[frameHeader:])
		if err != nil || w.status == statusOK {
			t.Errorf("%q was answered with %+v, error %v", greeting, w, err)
		}
	}
	select {
	case <-s.incoming:
		t.Error("a stranger talks raft")
	default:
	}
}

func TestProbeOfSomethingElse(t *testing.T) {
	asker, _ := newTestStream(t, ready("nn1", clusterA))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail.example.com ESMTP\r\n") // the test sees what comes of it
			conn.Close()
		}
	}()
	ctx, cancel := testContext()
	defer cancel()
	_, err = asker.probe(ctx, listener.Addr().String(), "")
	if code := dfs.CodeOf(err); code != dfs.Invalid && code != dfs.Unavailable {
		t.Errorf("error %v", err)
	}
}

func TestRepeatedLinesOfRaft(t *testing.T) {
	out := &lockedBuffer{}
	logger := quiet(hclog.New(&hclog.LoggerOptions{Output: out}))
	for i := range 10 {
		logger.Error("failed to heartbeat to", "peer", "a", "attempt", i)
		logger.Warn("failed to contact", "server-id", "b", "time", i)
	}
	logger.Error("failed to heartbeat to", "peer", "c")
	logger.Info("new")
	for i := range 2 * maxRememberedLogs {
		logger.Warn("many", "peer", i)
	}
	for text, want := range map[string]int{"peer=a": 1, "server-id=b": 1, "peer=c": 1, "new": 1, "many": 2 * maxRememberedLogs} {
		if got := strings.Count(out.String(), text); got != want {
			t.Errorf("%q was logged %d times instead of %d", text, got, want)
		}
	}
}
