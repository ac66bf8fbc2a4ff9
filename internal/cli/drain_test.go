package cli_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/dfs-go/dfs-go/internal/cli"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// interrupter ends a run, as Ctrl-C does, when it has printed a text.
type interrupter struct {
	at     string
	cancel context.CancelFunc

	mu   sync.Mutex
	text bytes.Buffer
}

func (i *interrupter) Write(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.text.Write(p)
	if strings.Contains(i.text.String(), i.at) {
		i.cancel()
	}
	return len(p), nil
}

func TestDrainAndUndrain(t *testing.T) {
	s := newCluster(t, 1, 3)
	s.fails("there is no DataNode dn9", "admin", "drain", "dn9")
	s.fails("there is no DataNode dn9", "admin", "undrain", "dn9")
	s.fails("node ID", "admin", "drain", "a/b")
	s.equal("dn3 is empty and may be switched off\n", "admin", "drain", "dn3")
	s.equal("dn3 is empty and may be switched off\n", "admin", "drain", "dn3")
	if table := s.ok("nodes"); !strings.Contains(table, "dn3  drained") {
		t.Errorf("%s", table)
	}
	s.equal("dn3 is in service\n", "admin", "undrain", "dn3")
	var node protocol.NodeInfo
	decode(t, s.run("--json", "admin", "undrain", "dn3"), &node)
	if node.ID != "dn3" || node.Service != protocol.InService || node.State != protocol.StateUp {
		t.Errorf("%+v", node)
	}

	// Three replicas on three nodes cannot do without one of them.
	s.ok("upload", "-", "/f")
	started, interrupt := context.WithCancel(t.Context())
	notices := &interrupter{at: "1 chunk needs a DataNode with room that does not hold it: start another, or lower its replication", cancel: interrupt}
	var out bytes.Buffer
	code := cli.Main(started, []string{"--namenodes", s.names, "admin", "drain", "dn1"}, nil, &out, notices)
	if text := notices.text.String(); code != 1 || out.Len() > 0 || !strings.Contains(text, "dfs: dn1: 1 chunk left\n") ||
		!strings.Contains(text, "dn1 goes on being emptied; `dfs admin undrain dn1` would put it back into service") {
		t.Errorf("exit %d, %q, %q", code, out.String(), text)
	}
	if report := s.ok("fsck"); !strings.Contains(report, "draining           1\n") || !strings.HasSuffix(report, "\nhealthy\n") || !strings.Contains(report, "it is to leave dn1") {
		t.Errorf("%s", report)
	}
	if table := s.ok("nodes"); !strings.Contains(table, "dn1  draining") {
		t.Errorf("%s", table)
	}
	s.ok("admin", "undrain", "dn1")
	s.equal("dn1 is being emptied; `dfs nodes` tells when it is drained\n", "admin", "drain", "--no-wait", "dn1")
	decode(t, s.run("--json", "admin", "drain", "--no-wait", "dn1"), &node)
	if node.Service != protocol.StateDraining || node.Chunks != 1 {
		t.Errorf("%+v", node)
	}
}
