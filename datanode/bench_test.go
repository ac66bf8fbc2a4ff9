package datanode_test

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func benchNode(b *testing.B) *datanode.DataNode {
	b.Helper()
	n := newNameNode(b)
	d := start(b, config(b, n, "dn1"))
	ready(b, n, d)
	return d
}

func roundTrip(b *testing.B, client *http.Client, r *http.Request, status int) {
	response, err := client.Do(r)
	if err != nil {
		b.Error(err)
		return
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != status {
		b.Errorf("status %d, %v", response.StatusCode, err)
	}
}

func BenchmarkPut(b *testing.B) {
	d := benchNode(b)
	data := content(1, dfs.DefaultChunkSize)
	sum := dfs.ChecksumOf(data).String()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var next atomic.Uint64
	b.SetBytes(int64(len(data)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest(http.MethodPut, chunkURL(d, dfs.ChunkID(next.Add(1))), bytes.NewReader(data))
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set(protocol.HeaderChecksum, sum)
			roundTrip(b, client, r, http.StatusCreated)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	d := benchNode(b)
	data := content(1, dfs.DefaultChunkSize)
	put(b, d, 1, data, "")
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	b.SetBytes(int64(len(data)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest(http.MethodGet, chunkURL(d, 1), nil)
			if err != nil {
				b.Error(err)
				return
			}
			roundTrip(b, client, r, http.StatusOK)
		}
	})
}
