package namenode

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// maxQuestions is how many questions a DataNode is asked at once. Each may be
// for many commits, and with more of them at once each would be for fewer.
const maxQuestions = 1

// holding is what a DataNode says that it holds.
type holding map[dfs.ChunkID]protocol.ChunkInfo

// questions lets commits that ask a DataNode at the same time share a question.
// Each DataNode has a queue of its own, so that a slow one only keeps those
// waiting who ask it. A question goes off after everybody in it has asked: what
// the answer says was so when the commit had already come.
type questions struct {
	start func(func()) bool                              // as that of a batcher
	ask   func(fsm.Node, []dfs.ChunkID) (holding, error) // ends by itself, in bounded time

	mu     sync.Mutex
	queues map[nodeAddress]*questionQueue // those in use; guarded by mu
}

// nodeAddress tells DataNodes apart, also from what they were before.
type nodeAddress struct {
	id  dfs.NodeID
	url string
}

type questionQueue struct {
	batcher[[]dfs.ChunkID, questionAnswer]
	users int // guarded by the mutex of the questions
}

type questionAnswer struct {
	held holding // of all who share the question
	err  error
}

// held returns what the node holds of the chunks, and maybe of others.
func (q *questions) held(ctx context.Context, node fsm.Node, ids []dfs.ChunkID) (holding, error) {
	if node.URL == "" {
		return nil, nil // a node without an address has taken no chunk
	}
	queue := q.take(node)
	defer q.giveBack(node, queue)
	var all holding
	for part := range slices.Chunk(ids, dfs.MaxChunksPerReport) {
		answer, _, err := queue.ask(ctx, part)
		if err == nil {
			err = answer.err
		}
		if err != nil {
			return nil, err
		}
		if len(part) == len(ids) {
			return answer.held, nil
		}
		if all == nil {
			all = make(holding, len(ids))
		}
		maps.Copy(all, answer.held)
	}
	return all, nil
}

// take returns the queue of a node.
func (q *questions) take(node fsm.Node) *questionQueue {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := nodeAddress{node.ID, node.URL}
	queue := q.queues[key]
	if queue == nil {
		queue = new(questionQueue)
		queue.start, queue.limit, queue.fit = q.start, maxQuestions, fittingChunks
		queue.carry = func(batch [][]dfs.ChunkID) []questionAnswer {
			held, err := q.ask(node, slices.Concat(batch...))
			return slices.Repeat([]questionAnswer{{held, err}}, len(batch))
		}
		if q.queues == nil {
			q.queues = make(map[nodeAddress]*questionQueue)
		}
		q.queues[key] = queue
	}
	queue.users++
	return queue
}

func (q *questions) giveBack(node fsm.Node, queue *questionQueue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if queue.users--; queue.users == 0 {
		delete(q.queues, nodeAddress{node.ID, node.URL})
	}
}

// fittingChunks returns how many lists of chunks, from the first on, fit into a
// question. Each fits alone.
func fittingChunks(lists [][]dfs.ChunkID) int {
	total := 0
	for i, ids := range lists {
		if total += len(ids); total > dfs.MaxChunksPerReport && i > 0 {
			return i
		}
	}
	return len(lists)
}
