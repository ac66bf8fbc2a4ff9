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
	c := config(b, n, "dn1")
	c.Unpacked = false
	d := start(b, c)
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

func BenchmarkPut(b *testing.B)      { benchPut(b, dfs.DefaultChunkSize, 1) }
func BenchmarkPutSmall(b *testing.B) { benchPut(b, 4096, 8) }
func BenchmarkGet(b *testing.B)      { benchGet(b, dfs.DefaultChunkSize) }
func BenchmarkGetSmall(b *testing.B) { benchGet(b, 4096) }

func benchPut(b *testing.B, size, parallelism int) {
	d := benchNode(b)
	data := content(1, size)
	sum := dfs.ChecksumOf(data).String()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var next atomic.Uint64
	b.SetBytes(int64(len(data)))
	b.SetParallelism(parallelism)
	b.ReportAllocs()
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

func benchGet(b *testing.B, size int) {
	d := benchNode(b)
	data := content(1, size)
	put(b, d, 1, data, "")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
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
