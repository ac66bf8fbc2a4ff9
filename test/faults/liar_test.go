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
// is not enough for a file to appear, neither a large nor a small one.
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
	status, answer = a.ask(http.MethodPost, leader+protocol.CommitUpload.Path(allocation.UploadID.String()),
		encode(t, protocol.CommitRequest{Chunks: []protocol.CommittedChunk{neverSent(allocation)}}))
	if status != http.StatusBadRequest {
		t.Errorf("a commit of chunks that nobody has was not refused: %d %s", status, answer)
	}

	handed := fromStock(t, b, a, leader)
	put := protocol.PutRequest{Path: handed.Path, Pool: handed.Pool, Base: handed.Base, Chunk: new(neverSent(handed))}
	if status, answer = a.ask(http.MethodPut, leader+protocol.PutFile.Pattern, encode(t, put)); status != http.StatusBadRequest {
		t.Errorf("a small file of a chunk that nobody has was not refused: %d %s", status, answer)
	}

	// The chunk of another's file, which is there.
	b.MustUpload(PLACEHOLDER)
}
