//go:build linux

package faults

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/client"
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
		encode(t, protocol.CommitRequest{Chunks: []protocol.CommittedChunk{*neverSent(allocation)}}))
	if status != http.StatusBadRequest {
		t.Errorf("a commit of chunks that nobody has was not refused: %d %s", status, answer)
	}

	handed := fromStock(t, b, a, leader)
	put := protocol.PutRequest{Path: handed.Path, Pool: handed.Pool, Base: handed.Base, Chunk: neverSent(handed)}
	if status, answer = a.ask(http.MethodPut, leader+protocol.PutFile.Pattern, encode(t, put)); status != http.StatusBadRequest {
		t.Errorf("a small file of a chunk that nobody has was not refused: %d %s", status, answer)
	}

	// Nor is a chunk taken that is there, when it is another file's.
	path := mustPath(t, "/honest")
	if _, err := b.Client().Upload(t.Context(), path, strings.NewReader("x"), client.UploadOptions{Size: 1}); err != nil {
		t.Fatal(err)
	}
	var honest protocol.File
	status, answer = a.ask(http.MethodGet, leader+protocol.GetFile.Pattern+"?path=/honest", "")
	if err := json.Unmarshal(answer, &honest); err != nil || status != http.StatusOK || len(honest.Chunks) != 1 {
		t.Fatalf("look at a file: %d %s %v", status, answer, err)
	}
	put.Chunk.ID, put.Chunk.Nodes = honest.Chunks[0].ID, nil
	for _, location := range honest.Chunks[0].Locations {
		put.Chunk.Nodes = append(put.Chunk.Nodes, location.ID)
	}
	if status, answer = a.ask(http.MethodPut, leader+protocol.PutFile.Pattern, encode(t, put)); status != http.StatusPreconditionFailed {
		t.Errorf("a small file of another file's chunk was not refused: %d %s", status, answer)
	}
	for _, lie := range []string{"/lie", "/small-lie"} {
		if _, err := b.Client().Stat(t.Context(), mustPath(t, "%s", lie)); dfs.CodeOf(err) != dfs.NotFound {
			t.Errorf("%s is there: %v", lie, err)
		}
	}
}

// fromStock asks for a chunk for a small file until one comes from the stock,
// which is empty at first.
func fromStock(t *testing.T, b *faultbed.Bed, a asker, leader string) (allocation protocol.Allocation) {
	t.Helper()
	b.WaitUntil("a chunk comes from the stock", func() bool {
		allocation = protocol.Allocation{}
		status, answer := a.ask(http.MethodPost, leader+protocol.CreateFile.Pattern, `{"path":"/small-lie","num_chunks":1,"single":true}`)
		return status == http.StatusCreated && json.Unmarshal(answer, &allocation) == nil && allocation.Pool != 0 && len(allocation.Chunks) == 1
	})
	return allocation
}

// neverSent is what would be said of a chunk that the targets hold.
func neverSent(allocation protocol.Allocation) *protocol.CommittedChunk {
	chunk := &protocol.CommittedChunk{ID: allocation.Chunks[0].ID, Size: 1, CRC32C: dfs.ChecksumOf([]byte("x"))}
	for _, target := range allocation.Chunks[0].Targets {
		chunk.Nodes = append(chunk.Nodes, target.ID)
	}
	return chunk
}

func encode(t *testing.T, body any) string {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}
