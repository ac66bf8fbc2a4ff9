package namenode_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

// benchGroup is a group of three with real HTTP and real disks, its DataNodes
// (which only answer for chunks), and callers that all share one Caller.
type benchGroup struct {
	b      *testing.B
	names  *leader.Caller
	answer atomic.Pointer[protocol.ChunkInfo] // what the DataNodes say of any chunk
}

func newBenchGroup(b *testing.B) *benchGroup {
	b.Helper()
	configs := make([]namenode.Config, 3)
	peers := make([]cluster.Peer, len(configs))
	for i := range configs {
		id := dfs.NodeID(fmt.Sprintf("nn%d", i+1))
		configs[i] = namenode.Config{ID: id, MetaDir: b.TempDir(), Timing: calmTiming(), Listener: benchPort(b), RaftListener: benchPort(b)}
		peers[i] = cluster.Peer{ID: id, URL: "http://" + configs[i].Listener.Addr().String(), RaftAddr: configs[i].RaftListener.Addr().String()}
	}
	var urls []string
	for i := range configs {
		configs[i].Peers = peers
		n, err := namenode.New(configs[i])
		if err == nil {
			err = n.Open(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := n.Close(ctx); err != nil {
				b.Error(err)
			}
		})
		urls = append(urls, n.URL())
	}
	names, err := leader.New(leader.Config{Endpoints: urls, TryTimeout: 20 * time.Second, Notice: func(string) {}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(names.Close)
	return &benchGroup{b: b, names: names}
}

func benchPort(b *testing.B) net.Listener {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (g *benchGroup) do(route protocol.Route, call leader.Call) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.names.Do(ctx, route, call); err != nil {
		g.b.Errorf("%s: %v", route.Pattern, err)
	}
}

// run lets callers work at once, b.N times in all, and reports what an
// operation cost the whole process.
func (g *benchGroup) run(callers int, work func(i int64)) {
	g.b.Helper()
	g.do(protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{Path: "/warm/up", Parents: true}})
	g.b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	g.b.ResetTimer()
	cpu, began := cpuTime(g.b), time.Now()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(g.b.N); i = next.Add(1) - 1 {
				work(i)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	g.b.ReportMetric(float64(cpuTime(g.b)-cpu)/float64(g.b.N), "cpu-ns/op")
	g.b.ReportMetric(float64(g.b.N)/took.Seconds(), "ops/s")
	g.b.StopTimer()
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkMkdir1(b *testing.B)   { benchMkdir(b, 1) }
func BenchmarkMkdir16(b *testing.B)  { benchMkdir(b, 16) }
func BenchmarkMkdir128(b *testing.B) { benchMkdir(b, 128) }

func benchMkdir(b *testing.B, callers int) {
	g := newBenchGroup(b)
	g.run(callers, func(i int64) {
		path := fmt.Sprintf("/directories/%d/%d", i/1000, i)
		g.do(protocol.Mkdir, leader.Call{Body: protocol.MkdirRequest{Path: path, Parents: true}})
	})
}

func BenchmarkStat1(b *testing.B)  { benchStat(b, 1) }
func BenchmarkStat64(b *testing.B) { benchStat(b, 64) }

func benchStat(b *testing.B, callers int) {
	g := newBenchGroup(b)
	g.run(callers, func(int64) {
		var entry protocol.Entry
		g.do(protocol.Stat, leader.Call{Query: map[string][]string{protocol.QueryPath: {"/warm/up"}}, Out: &entry})
	})
}

func BenchmarkCreateEmpty1(b *testing.B)   { benchCreate(b, 1, 0) }
func BenchmarkCreateEmpty128(b *testing.B) { benchCreate(b, 128, 0) }

// BenchmarkCreateSmall16 makes files of one chunk, without sending it.
func BenchmarkCreateSmall16(b *testing.B) { benchCreate(b, 16, 1) }

func benchCreate(b *testing.B, callers int, chunks int64) {
	g := newBenchGroup(b)
	g.register(4)
	info := protocol.ChunkInfo{Size: 4096, CRC32C: 0x12345678}
	g.answer.Store(&info)
	g.run(callers, func(i int64) {
		path := fmt.Sprintf("/files/%d/%d", i/1000, i)
		var allocation protocol.Allocation
		g.do(protocol.CreateFile, leader.Call{Body: protocol.CreateRequest{Path: path, NumChunks: chunks}, Out: &allocation})
		commit := protocol.CommitRequest{Chunks: []protocol.CommittedChunk{}}
		for _, chunk := range allocation.Chunks {
			stored := protocol.CommittedChunk{ID: chunk.ID, Size: info.Size, CRC32C: info.CRC32C}
			for _, target := range chunk.Targets {
				stored.Nodes = append(stored.Nodes, target.ID)
			}
			commit.Chunks = append(commit.Chunks, stored)
		}
		g.do(protocol.CommitUpload, leader.Call{Args: []string{allocation.UploadID.String()}, Body: commit})
	})
}

// BenchmarkPutEmpty128 and BenchmarkPutSmall16 make the same files in one entry
// each.
func BenchmarkPutEmpty128(b *testing.B) { benchPut(b, 128, 0) }
func BenchmarkPutSmall16(b *testing.B)  { benchPut(b, 16, 1) }

func benchPut(b *testing.B, callers int, chunks int64) {
	g := newBenchGroup(b)
	g.register(4)
	info := protocol.ChunkInfo{Size: 4096, CRC32C: 0x12345678}
	g.answer.Store(&info)
	var begun atomic.Int64
	g.run(callers, func(i int64) {
		put := protocol.PutRequest{Path: fmt.Sprintf("/files/%d/%d", i/1000, i)}
		for chunks > 0 && put.Chunk == nil {
			var allocation protocol.Allocation
			g.do(protocol.CreateFile, leader.Call{Body: protocol.CreateRequest{Path: put.Path, NumChunks: 1, Single: true}, Out: &allocation})
			if allocation.Pool == 0 { // the stock is empty
				begun.Add(1)
				continue
			}
			chunk := allocation.Chunks[0]
			put.Pool, put.Base = allocation.Pool, allocation.Base
			put.Chunk = &protocol.CommittedChunk{ID: chunk.ID, Size: info.Size, CRC32C: info.CRC32C}
			for _, target := range chunk.Targets {
				put.Chunk.Nodes = append(put.Chunk.Nodes, target.ID)
			}
		}
		g.do(protocol.PutFile, leader.Call{Body: put})
	})
	b.ReportMetric(float64(begun.Load())/float64(b.N), "uploads/op")
}

// register makes DataNodes known and keeps them so.
func (g *benchGroup) register(count int) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	g.b.Cleanup(func() { cancel(); wg.Wait() })
	for i := range count {
		server := httptest.NewServer(http.HandlerFunc(g.statChunks))
		g.b.Cleanup(server.Close)
		beat := protocol.HeartbeatRequest{
			ID: dfs.NodeID(fmt.Sprintf("dn%d", i+1)), URL: server.URL, Instance: dfs.RandomHex(), Incarnation: 1, Capacity: 1 << 50, Free: 1 << 50,
		}
		send := func() {
			beat.Seq++
			g.do(protocol.Heartbeat, leader.Call{Body: beat})
		}
		send()
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(2 * time.Second):
					send()
				}
			}
		})
	}
}

func (g *benchGroup) statChunks(w http.ResponseWriter, r *http.Request) {
	var request protocol.StatChunksRequest
	if err := protocol.DecodeJSON(r.Body, 1<<20, false, &request); err != nil {
		protocol.WriteError(w, err)
		return
	}
	answer := protocol.StatChunksReply{Chunks: make([]protocol.ChunkInfo, len(request.IDs))}
	for i, id := range request.IDs {
		answer.Chunks[i] = *g.answer.Load()
		answer.Chunks[i].ID = id
	}
	protocol.WriteJSON(w, http.StatusOK, answer)
}
