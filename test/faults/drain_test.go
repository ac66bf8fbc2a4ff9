//go:build linux

package faults

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// spoken is what a command says, while it says it.
type spoken struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *spoken) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *spoken) says(text string) bool { return strings.Contains(s.String(), text) }

func (s *spoken) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// drain starts `dfs admin drain`.
func (h *healing) drain(id string) (said *spoken, ended <-chan error) {
	h.t.Helper()
	said = new(spoken)
	cmd := h.b.Command("admin", "drain", id)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return said, done
}

// TestDrainInTrouble: draining a node for which there is no other says why it
// does not get on; put back into service half-way, everything is as before; and a
// node that dies while it is drained is replaced like any other.
func TestDrainInTrouble(t *testing.T) {
	h := newHealing(t, 4, nil)
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks))
	stop := h.traffic()
	h.b.Kill("dn4")
	h.waitState("dn4", protocol.StateDown)
	h.waitFsck("three nodes hold everything", func(r protocol.FsckReply) bool { return r.Healthy })

	said, ended := h.drain("dn1")
	h.b.WaitUntil("it says that there is nowhere to go", func() bool { return said.says("need a DataNode with room") })
	before := h.node("dn1").Chunks
	h.b.Start("dn4")
	h.b.WaitUntil("it gets on with another node", func() bool { return h.node("dn1").Chunks < before })
	if _, err := h.c.Undrain(t.Context(), "dn1"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !said.says("put back into service") && !said.says("may be switched off") {
		t.Errorf("draining, undone half-way: %v: %s", err, said)
	}
	h.waitFsck("all is in order with dn1 in service", whole)

	said, ended = h.drain("dn2")
	h.waitState("dn2", protocol.StateDraining)
	h.b.Kill("dn2")
	if err := <-ended; err != nil || !said.says("what it held is elsewhere") {
		t.Errorf("draining a node that dies: %v: %s", err, said)
	}
	stop()
	t.Logf("it said: %s", said)
	h.readAll()
	h.b.Start("dn2")
	h.waitState("dn2", protocol.StateDrained)
	h.waitFsck("nothing is left over", clean)
	if left := len(h.chunkFiles("dn2")); left > 0 {
		t.Errorf("%d chunks are left on the drained node", left)
	}
	if _, err := h.c.Undrain(t.Context(), dfs.NodeID("dn2")); err != nil {
		t.Fatal(err)
	}
	h.readAll()
}
