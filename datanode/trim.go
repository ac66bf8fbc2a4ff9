package datanode

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	// trimBound is how long after the first question to its keepers a replica
	// may be given up; see keeps.
	trimBound = 5 * time.Second

	maxConfirmation = 64 << 10 // bytes
)

// trimmer gives up replicas that are too many, when enough of the nodes that
// are to keep theirs have read them again.
type trimmer struct {
	self      dfs.NodeID
	store     *chunkstore.Store
	keeps     *keeps
	transport http.RoundTripper
	bound     time.Duration // from asking the keepers to giving the replica up
	metrics   *metrics
	log       hclog.Logger
}

func newTrimmer(config Config, store *chunkstore.Store, keeps *keeps, transport http.RoundTripper, metrics *metrics, log hclog.Logger) *trimmer {
	return &trimmer{
		self: config.ID, store: store, keeps: keeps, transport: transport, bound: trimBound, metrics: metrics, log: log.Named("trim"),
	}
}

// trim gives up the replica of a chunk. One that is not held is done. It fails
// with Conflict when the replica is not what the order says, is promised to
// another node, or when too few keepers confirm, Timeout when they took too
// long, and like the fence, which is asked last; the replica stays then.
func (t *trimmer) trim(ctx context.Context, wanted protocol.Order, fence func() error) error {
	want := infoOf(wanted)
	switch held, ok := t.store.Stat(wanted.Chunk); {
	case !ok:
		return nil
	case held != want:
		return dfs.Errorf(dfs.Conflict, "chunk %s is held with other content (%d bytes, CRC-32C %s; %d, %s are to be given up)",
			want.ID, held.Size, held.CRC32C, want.Size, want.CRC32C)
	}
	if err := t.keeps.mark(want.ID); err != nil {
		return err
	}
	defer t.keeps.unmark(want.ID) // not before it is given up
	asked := time.Now()
	if err := t.confirm(ctx, wanted); err != nil {
		return err
	}
	if err := fence(); err != nil {
		return err
	}
	if took := time.Since(asked); took >= t.bound {
		return dfs.Errorf(dfs.Timeout, "the keepers of chunk %s confirmed it %s ago, and that counts for %s", want.ID, took, t.bound)
	}
	if err := t.store.Remove(want.ID); err != nil {
		if dfs.CodeOf(err) == dfs.NotFound { // deleted or quarantined meanwhile
			return nil
		}
		return err
	}
	t.store.Hurry()
	t.metrics.trimmed.Inc()
	t.log.Debug("a replica has been given up", "chunk", want.ID, "bytes", want.Size)
	return nil
}

// verdict is what a keeper says; err is nil when it confirms.
type verdict struct {
	keeper dfs.NodeID
	err    error
}

// confirm asks all keepers at once, and returns as soon as it is clear whether
// enough of them confirm: one that hangs does not matter when it is not needed.
func (t *trimmer) confirm(ctx context.Context, wanted protocol.Order) error {
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithTimeout(ctx, t.bound)
	defer cancel() // before the wait
	verdicts := make(chan verdict, len(wanted.Keepers))
	for _, keeper := range wanted.Keepers {
		asking.Go(func() { verdicts <- verdict{keeper.ID, t.ask(ctx, keeper, infoOf(wanted))} })
	}
	var refusals []string
	for confirmed := 0; confirmed < wanted.Keep; {
		v := <-verdicts
		if v.err == nil {
			confirmed++
			continue
		}
		refusals = append(refusals, string(v.keeper)+": "+v.err.Error())
		if len(wanted.Keepers)-len(refusals) < wanted.Keep {
			return dfs.Errorf(dfs.Conflict, "chunk %s stays here, because %d of %d keepers had to confirm it, and too few did (%s)",
				wanted.Chunk, wanted.Keep, len(wanted.Keepers), strings.Join(refusals, "; "))
		}
	}
	return nil
}

// ask lets one keeper read its replica again. It fails unless that is what the
// namespace says it should be.
func (t *trimmer) ask(ctx context.Context, keeper protocol.Target, want chunkstore.Info) error {
	request, err := t.request(ctx, keeper, want.ID)
	if err != nil {
		return err
	}
	response, err := t.transport.RoundTrip(request)
	if err != nil {
		return dfs.Errorf(dfs.Unavailable, "it cannot be reached: %w", err)
	}
	defer response.Body.Close() // an answer that was not read wholly costs the connection, nothing else
	if response.StatusCode != http.StatusOK {
		return protocol.ReadError(response)
	}
	if who := response.Header.Get(protocol.HeaderNodeID); who != string(keeper.ID) {
		return dfs.Errorf(dfs.Conflict, "%.80q answered in its place", who)
	}
	var reply protocol.StatChunksReply
	if err := protocol.DecodeJSON(response.Body, maxConfirmation, false, &reply); err != nil {
		return dfs.Errorf(dfs.Unavailable, "it gave no valid answer: %w", err)
	}
	switch {
	case len(reply.Chunks) == 0:
		return dfs.Errorf(dfs.Conflict, "it does not confirm its replica, which is missing, damaged or about to go")
	case len(reply.Chunks) > 1 || reply.Chunks[0] != protocol.ChunkInfo(want):
		return dfs.Errorf(dfs.Conflict, "it has another chunk than %d bytes with the CRC-32C %s", want.Size, want.CRC32C)
	}
	return nil
}

// request is the question to a keeper. Its address is the leader's word; that
// it is the node meant, it sees to itself.
func (t *trimmer) request(ctx context.Context, keeper protocol.Target, id dfs.ChunkID) (*http.Request, error) {
	baseURL, err := dfs.ParseBaseURL(keeper.URL)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(protocol.StatChunksRequest{IDs: []dfs.ChunkID{id}, Verify: true})
	if err != nil {
		return nil, dfs.Errorf(dfs.Internal, "the question cannot be written: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, protocol.StatChunks.Method, baseURL+protocol.StatChunks.Path(), bytes.NewReader(body))
	if err != nil {
		return nil, dfs.Errorf(dfs.Internal, "the request to %s cannot be made: %w", baseURL, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(protocol.HeaderNodeID, string(keeper.ID))
	if cluster := t.store.Identity().ClusterID; cluster != "" {
		request.Header.Set(protocol.HeaderClusterID, string(cluster))
	}
	return request, nil
}

// checkKeepers finds out whether an order to trim can be confirmed at all: by
// different nodes, none of them the one that is to give its replica up.
func checkKeepers(o protocol.Order, self dfs.NodeID) error {
	if len(o.Keepers) == 0 || len(o.Keepers) > dfs.MaxReplication {
		return dfs.Errorf(dfs.Invalid, "%d keepers are not possible: 1 to %d are", len(o.Keepers), dfs.MaxReplication)
	}
	if o.Keep < 1 || o.Keep > len(o.Keepers) {
		return dfs.Errorf(dfs.Invalid, "%d of %d keepers cannot confirm: 1 to %d can", o.Keep, len(o.Keepers), len(o.Keepers))
	}
	for i, keeper := range o.Keepers {
		if _, err := dfs.ParseNodeID(string(keeper.ID)); err != nil {
			return err
		}
		if keeper.ID == self {
			return dfs.Errorf(dfs.Invalid, "this DataNode is named as keeper of what it is to give up")
		}
		if slices.ContainsFunc(o.Keepers[:i], func(t protocol.Target) bool { return t.ID == keeper.ID }) {
			return dfs.Errorf(dfs.Invalid, "%s is named as keeper twice", keeper.ID)
		}
	}
	return nil
}
