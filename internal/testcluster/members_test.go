package testcluster_test

import (
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

func protocolJoin(n *namenode.NameNode) protocol.JoinRequest {
	return protocol.JoinRequest{ID: n.ID(), RaftAddr: n.RaftAddr(), URL: n.URL()}
}

// waitMembers waits until the leader's list of members is as wanted.
func waitMembers(t *testing.T, c *client.Client, wanted func(map[dfs.NodeID]string) bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		reply, err := c.Leader(t.Context())
		roles := make(map[dfs.NodeID]string)
		for _, m := range reply.Members {
			roles[m.ID] = m.Role
		}
		if err == nil && wanted(roles) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the members are %v (%v)", roles, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
