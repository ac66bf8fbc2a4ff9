//go:build linux

package faults

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// TestLyingClient commits chunks that were never sent to anybody: a client's word
// is not enough for a file to appear.
func TestLyingClient(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3})
	a := newAsker(t, askTimeout)
	leader := b.URL(b.LeaderAmong(b.NameNodes()...))
	var allocation protocol.Allocation
	status, answer := a.ask(http.MethodPost, leader+protocol.CreateFile.Pattern, `{"path":"/lie","num_chunks":1}`)
	if err := json.Unmarshal(answer, &allocation); err != nil || status != http.StatusCreated || len(allocation.Chunks) != 1 {
		t.Fatalf("begin an upload: %d %s %v", status, answer, err)
	}
	chunk := protocol.CommittedChunk{ID: allocation.Chunks[0].ID, Size: 1, CRC32C: dfs.ChecksumOf([]byte("x"))}
	for _, target := range allocation.Chunks[0].Targets {
		chunk.Nodes = append(chunk.Nodes, target.ID)
	}
	body, err := json.Marshal(protocol.CommitRequest{Chunks: []protocol.CommittedChunk{chunk}})
	if err != nil {
		t.Fatal(err)
	}
	status, answer = a.ask(http.MethodPost, leader+protocol.CommitUpload.Path(allocation.UploadID.String()), string(body))
	if status != http.StatusBadRequest {
		t.Errorf("a commit of chunks that nobody has was not refused: %d %s", status, answer)
	}
	if _, err := b.Client().Stat(t.Context(), mustPath(t, "/lie")); dfs.CodeOf(err) != dfs.NotFound {
		t.Errorf("the file is there: %v", err)
	}
}
