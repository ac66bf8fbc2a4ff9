package namenode

import (
	"context"
	"net/http"
	"time"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	drainInterval = 250 * time.Millisecond
	// drainedAfter is how long a node must have been empty: an upload may have
	// been placed on it just before it was to be emptied.
	drainedAfter = time.Second
)

// drainNode has a DataNode emptied.
func (n *NameNode) drainNode(c *call) (reply, error) {
	return n.changeService(c, func(s fsm.Service) fsm.Service {
		if s == fsm.Drained {
			return s
		}
		return fsm.Draining
	})
}

// undrainNode puts a DataNode back into service.
func (n *NameNode) undrainNode(c *call) (reply, error) {
	return n.changeService(c, func(fsm.Service) fsm.Service { return fsm.InService })
}

// changeService sets the service of a DataNode to what change makes of it, and
// answers with the node. To ask for what is so already is no error.
func (n *NameNode) changeService(c *call, change func(fsm.Service) fsm.Service) (reply, error) {
	l := n.lead.Load()
	if l == nil {
		return reply{}, notLeader()
	}
	var request protocol.DrainRequest
	if err := c.decode(&request); err != nil {
		return reply{}, err
	}
	id, err := dfs.ParseNodeID(string(request.ID))
	if err != nil {
		return reply{}, err
	}
	if err := l.service.take(c.Context()); err != nil {
		return reply{}, err
	}
	defer l.service.release()
	node, err := n.dataNode(c.Context(), id)
	if err != nil {
		return reply{}, err
	}
	_, _, answered := n.remembered(c.requestID, new(fsm.SetService))
	if !answered {
		to := change(node.Service)
		if _, err := n.propose(c.Context(), &fsm.SetService{Node: node.Num, Service: to}, c.requestID); err != nil {
			return reply{}, err
		}
		n.logger.Info("the service of a DataNode is changed", "id", id, "from", serviceOf(node.Service), "to", serviceOf(to))
		l.unsettled.Store(true)
		if node, err = n.dataNode(c.Context(), id); err != nil {
			return reply{}, err
		}
	}
	return reply{http.StatusOK, nodeInfo(&node)}, nil
}

// dataNode returns a row of the node table by ID.
func (n *NameNode) dataNode(ctx context.Context, id dfs.NodeID) (node fsm.Node, err error) {
	err = n.confirmed(ctx, func() error {
		known := false
		n.machine.Read(func(s *fsm.State) { node, known = s.Node(id) })
		if !known {
			return dfs.Errorf(dfs.NotFound, "there is no DataNode %s; dfs nodes lists them", id)
		}
		return nil
	})
	return node, err
}

// judgeDrains returns the duty that finds out which of the nodes that are to be
// emptied are empty, and which of those that were are not any more.
func (l *leadership) judgeDrains() func() {
	empty := make(map[fsm.NodeNum]time.Time) // since when
	return func() {
		if l.service.take(l.ctx) != nil {
			return // nobody leads any more
		}
		defer l.service.release()
		now := time.Now()
		since := make(map[fsm.NodeNum]time.Time)
		var changes []fsm.SetService
		l.n.machine.Read(func(s *fsm.State) {
			for _, node := range s.Nodes() {
				switch {
				case node.Service == fsm.Draining && l.emptied(s, &node):
					first, known := empty[node.Num]
					if !known {
						first = now
					}
					since[node.Num] = first
					if now.Sub(first) >= drainedAfter {
						changes = append(changes, fsm.SetService{Node: node.Num, Service: fsm.Drained})
					}
				case node.Service == fsm.Drained && !s.Empty(node.Num):
					changes = append(changes, fsm.SetService{Node: node.Num, Service: fsm.Draining})
				}
			}
		})
		empty = since
		for i := range changes {
			if _, ok := l.try("draining", &changes[i]); ok {
				l.unsettled.Store(true)
				l.n.logger.Info("the service of a DataNode is changed", "id", l.n.nodeID(changes[i].Node), "to", serviceOf(changes[i].Service))
			}
		}
	}
}

// emptied tells whether nothing lies on the node or is on its way to it.
func (l *leadership) emptied(s *fsm.State, node *fsm.Node) bool {
	if !node.Inventoried || !s.Empty(node.Num) {
		return false
	}
	expected := false
	l.expected(s, func(target fsm.NodeNum, _ int64) { expected = expected || target == node.Num })
	return !expected
}

// turn lets one at a time do something. Unlike a mutex it can be waited for
// until a context ends.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return dfs.Errorf(dfs.Timeout, "others are changing the same; try again: %w", ctx.Err())
	}
}

func (t turn) release() { <-t }
