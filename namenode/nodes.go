package namenode

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// unconfirmedAfter is how long a replica that is known only from a commit may
// go unreported before the node is asked for its inventory.
const unconfirmedAfter = time.Minute

// heartbeat takes in what a DataNode reports.
func (n *NameNode) heartbeat(c *call) (reply, error) {
	l := n.lead.Load()
	if l == nil {
		return reply{}, notLeader()
	}
	var request protocol.HeartbeatRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	if err := checkHeartbeat(&request); err != nil {
		return reply{}, err
	}
	num, err := n.registered(c.Context(), &request)
	if err != nil {
		return reply{}, err
	}
	l.saw(num)
	report, page := reportOf(num, &request)
	need, err := l.report(c.Context(), pendingReport{report: report, instance: request.Instance, page: page})
	if err != nil {
		return reply{}, err
	}
	if len(request.Removed)+len(request.Corrupt) > 0 || page != nil && page.Last {
		l.unsettled.Store(true)
	}
	if len(request.Added) > 0 {
		l.repair.refill()
	}
	answer := protocol.HeartbeatReply{
		ClusterID: n.clusterID(), Term: l.term, WantInventory: need && request.Incarnation > 0,
		Interval: l.beat().Milliseconds(), Nodes: []protocol.Target{},
	}
	n.machine.Read(func(s *fsm.State) {
		for _, node := range s.Nodes() {
			if node.Liveness != fsm.Down && node.URL != "" {
				answer.Nodes = append(answer.Nodes, protocol.Target{ID: node.ID, URL: node.URL})
			}
		}
		answer.WantInventory = answer.WantInventory || request.Incarnation > 0 && s.Unconfirmed(num, unconfirmedAfter)
	})
	answer.Orders = l.orders(c.Context(), num, request.Incarnation)
	return reply{http.StatusOK, answer}, nil
}

func checkHeartbeat(request *protocol.HeartbeatRequest) (err error) {
	if _, err := dfs.ParseNodeID(string(request.ID)); err != nil {
		return err
	}
	if request.Incarnation > 0 || request.URL != "" {
		if request.URL, err = dfs.ParseBaseURL(request.URL); err != nil {
			return err
		}
	}
	if err := dfs.CheckRack(request.Rack); err != nil {
		return err
	}
	if request.Capacity < 0 || request.Used < 0 || request.Free < 0 || request.ChunkCount < 0 {
		return dfs.Errorf(dfs.Invalid, "capacity, used, free and chunk_count cannot be negative")
	}
	if (request.Incarnation > 0 || request.Instance != "") && !dfs.IsRandomHex(request.Instance) {
		return dfs.Errorf(dfs.Invalid, "the instance of a DataNode is 32 hexadecimal digits")
	}
	if max(len(request.Added), len(request.Removed), len(request.Corrupt)) > dfs.MaxChunksPerReport {
		return dfs.Errorf(dfs.TooLarge, "a heartbeat lists at most %d changes of a kind", dfs.MaxChunksPerReport)
	}
	for _, ids := range [][]dfs.ChunkID{request.Added, request.Removed, request.Corrupt, request.Chunks} {
		if slices.Contains(ids, 0) { // the log cannot hold it, nor what shares an entry with it
			return dfs.Errorf(dfs.Invalid, "a heartbeat lists null where a chunk ID is needed")
		}
	}
	return checkPage(request.Inventory)
}

func checkPage(page *protocol.InventoryPage) error {
	if page == nil {
		return nil
	}
	if len(page.Chunks) > dfs.MaxChunksPerReport {
		return dfs.Errorf(dfs.TooLarge, "a page of an inventory lists at most %d chunks", dfs.MaxChunksPerReport)
	}
	previous := dfs.ChunkID(page.After)
	for _, id := range page.Chunks {
		if id <= previous || id > dfs.ChunkID(page.Through) {
			return dfs.Errorf(dfs.Invalid, "a page of an inventory lists chunks in order, above %d and up to %d; %s is out of place", page.After, page.Through, id)
		}
		previous = id
	}
	return nil
}

// registered makes sure that the node table knows the node as it presents
// itself, and returns its number. A second node under the ID of one that lives
// is refused.
func (n *NameNode) registered(ctx context.Context, request *protocol.HeartbeatRequest) (fsm.NodeNum, error) {
	var known fsm.Node
	var exists bool
	look := func() error {
		n.machine.Read(func(s *fsm.State) { known, exists = s.Node(request.ID) })
		if !exists {
			return nil
		}
		return identityConflict(&known, request)
	}
	if err := n.confirmed(ctx, look); err != nil {
		return 0, err
	}
	if exists && known.Instance == request.Instance && known.Incarnation == request.Incarnation &&
		known.URL == request.URL && known.Rack == request.Rack {
		return known.Num, nil
	}
	result, err := n.propose(ctx, &fsm.RegisterNode{
		ID: request.ID, URL: request.URL, Rack: request.Rack,
		Instance: request.Instance, Incarnation: request.Incarnation,
	}, "")
	if err == nil {
		n.logger.Info("DataNode registered", "id", request.ID, "url", request.URL, "rack", request.Rack, "incarnation", request.Incarnation)
	}
	return result.Node, err
}

// identityConflict tells whether someone else than the known node speaks.
func identityConflict(known *fsm.Node, request *protocol.HeartbeatRequest) error {
	alive := known.Liveness == fsm.Up
	switch {
	case known.Incarnation > 0 && request.Incarnation == 0:
		return dfs.Errorf(dfs.Conflict, "DataNode %s is registered from %s with an incarnation; its heartbeats must carry it", known.ID, known.URL)
	case !alive || known.Incarnation == 0:
		return nil
	case known.Instance != request.Instance:
		return dfs.Errorf(dfs.Conflict, "another DataNode calls itself %s and is alive at %s; choose another -id, or wait until that one is gone", known.ID, known.URL)
	case known.Incarnation == request.Incarnation && known.URL != request.URL:
		return dfs.Errorf(dfs.Conflict, "DataNode %s is alive at %s; %s runs on a copy of its data directory: empty that and choose another -id", known.ID, known.URL, request.URL)
	case known.Incarnation < request.Incarnation && known.URL != request.URL:
		return dfs.Errorf(dfs.Conflict, "DataNode %s is alive at %s; if %s is a copy of its data directory, empty that and choose another -id; if it has moved, it will be taken in when the old address has been silent for a while", known.ID, known.URL, request.URL)
	}
	return nil
}

// reportOf turns a heartbeat into what goes into the log. The short form is a
// full inventory in one page.
func reportOf(num fsm.NodeNum, request *protocol.HeartbeatRequest) (fsm.NodeReport, *protocol.InventoryPage) {
	report := fsm.NodeReport{
		Node: num, Incarnation: request.Incarnation, Seq: request.Seq,
		Capacity: request.Capacity, Used: request.Used, Free: request.Free,
		Writable: !request.Unwritable && request.URL != "",
		Count:    request.ChunkCount, Digest: request.Digest,
		Added: request.Added, Removed: request.Removed, Corrupt: request.Corrupt,
	}
	if request.Incarnation > 0 {
		return report, request.Inventory
	}
	page := &protocol.InventoryPage{Through: ^uint64(0), Last: true}
	listed := make(map[dfs.ChunkID]bool, len(request.Chunks))
	for _, id := range request.Chunks {
		if !listed[id] {
			listed[id] = true
			page.Chunks = append(page.Chunks, id)
			report.Digest = report.Digest.Add(id)
		}
	}
	report.Added, report.Removed, report.Corrupt, report.Count = nil, nil, nil, int64(len(page.Chunks))
	if report.Free == 0 {
		report.Free = max(report.Capacity-report.Used, 0)
	}
	return report, page
}

// listNodes shows the node table.
func (n *NameNode) listNodes(*call) (reply, error) {
	answer := protocol.NodesReply{Nodes: []protocol.NodeInfo{}}
	n.machine.Read(func(s *fsm.State) {
		for _, node := range s.Nodes() {
			answer.Nodes = append(answer.Nodes, nodeInfo(&node))
		}
	})
	return reply{http.StatusOK, answer}, nil
}

func nodeInfo(node *fsm.Node) protocol.NodeInfo {
	return protocol.NodeInfo{
		ID: node.ID, URL: node.URL, Rack: node.Rack, State: stateOf(node), Service: serviceOf(node.Service), Writable: node.Writable,
		Capacity: node.Capacity, Used: node.Used, Free: node.Free, Chunks: node.Chunks,
		Incarnation: node.Incarnation, LastHeartbeat: node.LastHeartbeat.UTC(),
	}
}

func serviceOf(service fsm.Service) string {
	switch service {
	case fsm.Draining:
		return protocol.StateDraining
	case fsm.Drained:
		return protocol.StateDrained
	}
	return protocol.InService
}

// stateOf is the one word that an operator sees: what is wrong comes before
// what is wanted.
func stateOf(node *fsm.Node) string {
	switch {
	case node.Liveness == fsm.Down:
		return protocol.StateDown
	case node.Liveness == fsm.Suspect:
		return protocol.StateSuspect
	case node.Service == fsm.Draining:
		return protocol.StateDraining
	case node.Service == fsm.Drained:
		return protocol.StateDrained
	}
	return protocol.StateUp
}
