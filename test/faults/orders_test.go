//go:build linux

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// TestOrdersOfAnEarlierTerm: when nobody else answers, DataNodes come to a
// NameNode that led once and believes that it does still: it answers under an
// earlier term, and has every chunk deleted. Nobody obeys, also not after a
// restart; and when a leader is back, all go to it.
func TestOrdersOfAnEarlierTerm(t *testing.T) {
	old := newFront(t)
	h := newHealing(t, 3, func(o *faultbed.Options) {
		o.MoreNameNodes, o.Patience = []string{old.URL}, 2*time.Second
	})
	h.fill(9)
	h.b.Kill(h.b.Leader()) // so that there is an earlier term
	h.b.StartAll()
	h.b.WaitReady()
	h.heartbeats(2, h.b.DataNodes()...) // which have heard of the new one then
	var all []dfs.ChunkID
	for _, path := range h.paths {
		for _, chunk := range h.file(path).Chunks {
			all = append(all, chunk.ID)
		}
	}
	leader, err := h.c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	stale := answerAs(leader.ClusterID, leader.Term-1, all, &asked)
	old.stand(t, h.b.URL("nn1")) // which is never asked
	old.do(stale)
	h.b.Kill(h.b.NameNodes()...)
	h.b.WaitUntil("they have asked the one of the earlier term", func() bool { return asked.Load() >= 6 })
	h.b.Restart(h.b.DataNodes()...)
	again := asked.Load()
	h.b.WaitUntil("they have asked after a restart", func() bool { return asked.Load() >= again+6 })
	h.b.StartAll()
	h.b.WaitReady()
	h.heartbeats(2, h.b.DataNodes()...) // although the other one still answers
	h.readAll()
	h.waitFsck("nothing has happened", clean)
}

// answerAs answers heartbeats as a leader of the term would that takes the
// chunks for garbage, and counts them.
func answerAs(cluster dfs.ClusterID, term uint64, chunks []dfs.ChunkID, asked *atomic.Int64) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		var request protocol.HeartbeatRequest
		if r.URL.Path != protocol.Heartbeat.Pattern || json.NewDecoder(r.Body).Decode(&request) != nil {
			panic(http.ErrAbortHandler)
		}
		asked.Add(1)
		w.Header().Set(protocol.HeaderClusterID, string(cluster))
		w.Header().Set(protocol.HeaderNodeID, "nn9")
		w.Header().Set(protocol.HeaderAppliedIndex, "1")
		protocol.WriteJSON(w, http.StatusOK, protocol.HeartbeatReply{
			ClusterID: cluster, Term: term, Interval: 500, Nodes: []protocol.Target{},
			Orders: []protocol.Order{{Kind: protocol.OrderDelete, Chunks: chunks}},
		})
		return true
	}
}

// TestRottenKeepers: of two replicas one has rotted, which nobody has noticed,
// when the files are to have one only. It is never the good one that goes.
func TestRottenKeepers(t *testing.T) {
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.Patience = 3 * time.Second
		o.DataNodeFlags = append(o.DataNodeFlags, "-scrub-rate", "0")
	})
	h.fill(faultbed.Count(t, "DFS_FAULT_CHUNKS", healChunks) / 2)
	h.setReplication(2)
	h.waitFsck("two replicas are left", whole)
	rotten := 0
	for i, path := range h.paths {
		for j, chunk := range h.located(path) {
			h.flip(h.pathOf(string(chunk.Locations[(i+j)%2].ID), chunk.ID))
			rotten++
		}
	}
	h.setReplication(1)
	h.waitFsck("one replica is left", whole)
	h.readAll()
	t.Logf("%d rotten replicas, %d of them found when the other was to go", rotten, h.quarantined())
}

func (h *healing) setReplication(count int) {
	h.t.Helper()
	for _, path := range h.paths {
		if err := h.c.SetReplication(h.t.Context(), mustPath(h.t, "%s", path), count); err != nil {
			h.t.Fatal(err)
		}
	}
}

// located returns the chunks of a file with where they lie now.
func (h *healing) located(path string) []protocol.LocatedChunk {
	h.t.Helper()
	file, err := h.c.File(h.t.Context(), mustPath(h.t, "%s", path))
	if err != nil {
		h.t.Fatal(err)
	}
	return file.Chunks
}

// TestSlowReaderOfDeletedFile: somebody who reads a file slowly gets all of it,
// though it is deleted meanwhile, as long as the grace lasts.
func TestSlowReaderOfDeletedFile(t *testing.T) {
	h := newHealing(t, 3, func(o *faultbed.Options) {
		o.NameNodeFlags = append(o.NameNodeFlags, "-reclaim-grace", "60s")
		o.DataNodeFlags = append(o.DataNodeFlags, "-trash-keep", "0")
		o.Patience = time.Second
	})
	h.fill(9)
	data := randomData(h.random, 24*chunkSize)
	h.store("/slow", data, chunkSize)
	h.store("/sign", randomData(h.random, chunkSize), chunkSize)
	var got bytes.Buffer
	reading := &gated{to: &got, reached: make(chan struct{}), open: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := h.c.Download(t.Context(), mustPath(t, "/slow"), reading, client.DownloadOptions{})
		ended <- err
	}()
	<-reading.reached
	if err := h.c.Remove(t.Context(), mustPath(t, "/slow")); err != nil {
		t.Fatal(err)
	}
	h.heartbeats(5, h.b.DataNodes()...)
	close(reading.open)
	if err := <-ended; err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("a slow reader of a file that was deleted got %d of %d bytes: %v", got.Len(), len(data), err)
	}
}

// heartbeats returns when each of the DataNodes has reported so often, a second
// apart or less: leaders have had the time then to see what is to be seen.
func (h *healing) heartbeats(count float64, ids ...string) {
	h.t.Helper()
	beats := func(id string) float64 {
		return h.metric(id, `dfs_datanode_heartbeats_total{result="accepted"}`)
	}
	for _, id := range ids {
		first := beats(id)
		h.b.WaitUntil("some heartbeats of "+id, func() bool { return beats(id) >= first+count })
	}
}

// gated lets writes through up to the first one, and then all when it is opened.
type gated struct {
	to      *bytes.Buffer
	reached chan struct{}
	open    chan struct{}
	waited  bool
}

func (g *gated) Write(p []byte) (int, error) {
	if !g.waited {
		g.waited = true
		close(g.reached)
		<-g.open
	}
	return g.to.Write(p)
}

// TestTooLittleCPU: a DataNode and the leader get a fifth of a processor, under
// load. Nothing is lost, and hardly ever is another leader elected.
func TestTooLittleCPU(t *testing.T) {
	length := faultbed.Duration(t)
	h := newHealing(t, 4, nil)
	h.fill(9)
	leader := h.b.Leader()
	h.b.CPUQuota(leader, 20)
	h.b.CPUQuota("dn1", 20)
	before := h.term()
	l := newLedger(t, h.b)
	work := newLoad(t, h.c, l, h.random, "quota", 3, 4*chunkSize)
	ctx, cancel := context.WithTimeout(t.Context(), length/2)
	defer cancel()
	work.start(t.Context())
	<-ctx.Done()
	work.quit()
	t.Logf("%d changes acknowledged in %s; %d elections", l.count(), length/2, h.term()-before)
	if l.count() < leastChanges {
		t.Error("the run is void: almost nothing was acknowledged")
	}
	h.checkLoad(l)
	h.b.CPUQuota(leader, 100)
	h.b.CPUQuota("dn1", 100)
	h.waitFsck("all is in order", whole)
	h.readAll()
}
