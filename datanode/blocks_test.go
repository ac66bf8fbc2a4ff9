package datanode_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// The list comes when it is asked for, is the same whatever the range, and
// amounts to the checksum of the whole.
func TestBlockChecksums(t *testing.T) {
	n := newNameNode(t)
	c := config(t, n, "dn1")
	c.Unpacked = false
	d := start(t, c)
	ready(t, n, d)
	for id, size := range map[dfs.ChunkID]int{1: 1, 2: dfs.BlockSize, 3: dfs.BlockSize + 1, 4: 300_000, 5: dfs.MaxChunkSize} {
		data := content(byte(id), size)
		put(t, d, id, data, "")
		if a := get(t, chunkURL(d, id), nil); a.header.Get(protocol.HeaderBlocks) != "" {
			t.Errorf("%d bytes: the list came unasked", size)
		}
		for _, r := range []string{"bytes=0-0", "bytes=-1", ""} {
			header := http.Header{"Range": {r}}
			header.Set(protocol.HeaderWantBlocks, protocol.WantBlocks)
			a := get(t, chunkURL(d, id), header)
			blocks, err := protocol.ParseBlocks(a.header.Get(protocol.HeaderBlocks), int64(size))
			if err != nil {
				t.Fatalf("%d bytes, range %q: %v", size, r, err)
			}
			checkBlocks(t, data, blocks)
		}
		if a := get(t, chunkURL(d, id), http.Header{http.CanonicalHeaderKey(protocol.HeaderWantBlocks): {"0"}}); a.header.Get(protocol.HeaderBlocks) != "" || !bytes.Equal(a.body, data) {
			t.Errorf("%d bytes: the list came when it was not wanted, or the bytes differ", size)
		}
	}
}

func checkBlocks(t *testing.T, data []byte, blocks []dfs.Checksum) {
	t.Helper()
	var whole dfs.Checksum
	for i, sum := range blocks {
		block := data[i*dfs.BlockSize : min((i+1)*dfs.BlockSize, len(data))]
		if sum != dfs.ChecksumOf(block) {
			t.Fatalf("%d bytes: block %d has the checksum %s in the list", len(data), i, sum)
		}
		whole = dfs.Combine(whole, sum, int64(len(block)))
	}
	if whole != dfs.ChecksumOf(data) {
		t.Errorf("%d bytes: the list amounts to %s", len(data), whole)
	}
}
