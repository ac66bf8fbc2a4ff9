package namenode_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

// TestWaitingToRejoin: a NameNode that was removed and waits with an empty
// meta-dir to be let in again is not told that it was removed, which would end
// it: the meta-dir of before was.
func TestWaitingToRejoin(t *testing.T) {
	t.Parallel() // it waits
	configs := make(map[dfs.NodeID]namenode.Config)
	nodes := group(t, keep(configs))
	leader := waitLeader(t, nodes)
	member := others(nodes, leader)[0]
	waitUntil(t, "the member has been announced", func() bool { return announced(t, leader, member.ID()) })
	request := protocol.AnnounceRequest{ID: member.ID(), URL: member.URL(), RaftAddr: member.RaftAddr(), Instance: instanceIn(t, configs[member.ID()].MetaDir)}
	member.stop()
	leader.must(http.MethodPost, "/cluster/remove", protocol.MemberRequest{ID: request.ID}, nil)
	_, failure := leader.call(http.MethodPost, "/cluster/announce", request, nil)
	if failure.Code != dfs.Forbidden {
		t.Errorf("the meta-dir that was removed: %+v", failure)
	}
	request.Instance = dfs.RandomHex()
	_, failure = leader.call(http.MethodPost, "/cluster/announce", request, nil)
	if failure.Code != dfs.Unavailable {
		t.Errorf("a new meta-dir: %+v", failure)
	}
}

// instanceIn reads whose meta-dir it is.
func instanceIn(t *testing.T, metaDir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(metaDir, "identity.json"))
	var identity struct{ Instance string }
	if err == nil {
		err = json.Unmarshal(data, &identity)
	}
	if err != nil {
		t.Fatal(err)
	}
	return identity.Instance
}
