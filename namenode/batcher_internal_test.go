package namenode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// held is a batcher of numbers whose batches stay under way until they are let
// go. The answer to n is -n.
type held struct {
	t *testing.T
	*batcher[int, int]
	crew  workers
	begun chan []int
	free  chan struct{}
}

func newHeld(t *testing.T, limit, most int) *held {
	h := &held{t: t, begun: make(chan []int, 100), free: make(chan struct{})}
	h.batcher = &batcher[int, int]{
		start: h.crew.start, limit: limit,
		fit: func(waiting []int) int { return min(most, len(waiting)) },
		carry: func(batch []int) []int {
			h.begun <- slices.Clone(batch)
			<-h.free
			answers := make([]int, len(batch))
			for i := range batch {
				answers[i] = -batch[i]
			}
			return answers
		},
	}
	t.Cleanup(h.crew.close)
	return h
}

type result struct {
	answer int
	begun  bool
	err    error
}

// put asks in the background, and returns when the question is in the queue or
// on its way.
func (h *held) put(ctx context.Context, question int) <-chan result {
	h.t.Helper()
	before := h.count()
	done := make(chan result, 1)
	go func() {
		answer, begun, err := h.ask(ctx, question)
		done <- result{answer, begun, err}
	}()
	until(h.t, "the question has arrived", func() bool { return h.count() != before })
	return done
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// count is of all questions that ever arrived, given that as many batches are
// begun as can be.
func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting) + 1000*h.senders
}

func (h *held) wantBegun(want ...int) {
	h.t.Helper()
	if got := <-h.begun; !slices.Equal(got, want) {
		h.t.Fatalf("the batch is %v; want %v", got, want)
	}
}

func TestBatcherGathersWhatComesMeanwhile(t *testing.T) {
	h := newHeld(t, 2, 3)
	ctx := t.Context()
	var results []<-chan result
	put := func(question int) { results = append(results, h.put(ctx, question)) }
	put(1)
	h.wantBegun(1) // at once, alone
	put(2)
	h.wantBegun(2)
	for question := 3; question <= 9; question++ {
		put(question)
	}
	if len(h.begun) != 0 {
		t.Fatal("more batches than allowed are under way")
	}
	h.free <- struct{}{}
	h.wantBegun(3, 4, 5) // a full batch, in their order
	h.free <- struct{}{}
	h.wantBegun(6, 7, 8)
	put(10)
	h.free <- struct{}{}
	h.wantBegun(9, 10)
	h.free <- struct{}{}
	h.free <- struct{}{}
	for i, done := range results {
		if got := <-done; got != (result{answer: -(i + 1), begun: true}) {
			t.Errorf("question %d: %+v", i+1, got)
		}
	}
	put(11) // idle again, and as quick as at first
	h.wantBegun(11)
	close(h.free)
}

// TestBatcherGivenUp: whoever gives up learns whether the question was under
// way; the others notice nothing.
func TestBatcherGivenUp(t *testing.T) {
	h := newHeld(t, 1, 10)
	under, cancelUnder := context.WithCancel(t.Context())
	waiting, cancelWaiting := context.WithCancel(t.Context())
	first := h.put(under, 1)
	h.wantBegun(1)
	second, third, fourth := h.put(t.Context(), 2), h.put(waiting, 3), h.put(t.Context(), 4)
	cancelWaiting()
	if got := <-third; got.begun || !errors.Is(got.err, context.Canceled) {
		t.Fatalf("given up before it was begun: %+v", got)
	}
	cancelUnder()
	if got := <-first; !got.begun || !errors.Is(got.err, context.Canceled) {
		t.Fatalf("given up while under way: %+v", got)
	}
	h.free <- struct{}{}
	h.wantBegun(2, 4)
	close(h.free)
	for want, done := range map[int]<-chan result{-2: second, -4: fourth} {
		if got := <-done; got.answer != want || got.err != nil {
			t.Errorf("%+v; want %d", got, want)
		}
	}
	if _, begun, err := h.ask(waiting, 5); begun || !errors.Is(err, context.Canceled) {
		t.Errorf("asked after the end: %t %v", begun, err)
	}
}

func TestBatcherAfterClose(t *testing.T) {
	h := newHeld(t, 1, 1)
	close(h.free)
	h.crew.close()
	if _, begun, err := h.ask(t.Context(), 1); begun || !errors.Is(err, errClosed) {
		t.Fatalf("%t %v", begun, err)
	}
}

// TestBatcherUnderRace lets many ask at once, some of whom give up.
func TestBatcherUnderRace(t *testing.T) {
	h := newHeld(t, 3, 7)
	h.begun = make(chan []int, 10_000)
	close(h.free)
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%5 == 0 {
				wg.Go(cancel)
			}
			answer, _, err := h.ask(ctx, i)
			if err == nil && answer != -i || err != nil && i%5 != 0 {
				t.Errorf("question %d: %d, %v", i, answer, err)
			}
		})
	}
	wg.Wait()
	h.crew.close()
	if h.senders != 0 || len(h.waiting) != 0 || len(h.askers) != 0 {
		t.Fatalf("left over: %d senders, %d questions, %d askers", h.senders, len(h.waiting), len(h.askers))
	}
}

// TestFittingCommands: a group is never longer than a log entry may be, nor has
// more commands, and an entry that is too long by itself goes alone.
func TestFittingCommands(t *testing.T) {
	of := func(lengths ...int) (commands [][]byte) {
		for _, length := range lengths {
			commands = append(commands, make([]byte, length))
		}
		return commands
	}
	const most = cluster.MaxEntrySize
	for name, test := range map[string]struct {
		commands [][]byte
		want     int
	}{
		"one":          {of(5), 1},
		"some":         {of(5, 6, 7), 3},
		"too long":     {of(most+1, 5), 1},
		"before it":    {of(5, most+1), 1},
		"just fit":     {of(most/2-fsm.GroupOverhead, most/2-fsm.GroupOverhead), 2},
		"do not":       {of(most/2, most/2), 1},
		"many":         {of(make([]int, 1000)...), fsm.MaxGroup},
		"exactly many": {of(make([]int, fsm.MaxGroup)...), fsm.MaxGroup},
	} {
		t.Run(name, func(t *testing.T) {
			got := fitting(test.commands)
			if got != test.want {
				t.Fatalf("%d fit; want %d", got, test.want)
			}
			if size := len(fsm.EncodeGroup(test.commands[:got])); got > 1 && size > most {
				t.Fatalf("the group has %d bytes", size)
			}
		})
	}
}

// TestQuestionsAreShared: what commits ask the same DataNode goes together, a
// DataNode that does not answer keeps nobody else waiting, and one that answers
// wrongly fails only those who asked it.
func TestQuestionsAreShared(t *testing.T) {
	var w workers
	t.Cleanup(w.close)
	type call struct {
		ids    []dfs.ChunkID
		failed chan error
	}
	begun := make(chan call, 100)
	q := &questions{start: w.start, ask: func(node fsm.Node, ids []dfs.ChunkID) (holding, error) {
		if node.ID == "slow" {
			c := call{ids, make(chan error)}
			begun <- c
			if err := <-c.failed; err != nil {
				return nil, err
			}
		}
		all := make(holding)
		for _, id := range ids {
			all[id] = protocol.ChunkInfo{ID: id}
		}
		return all, nil
	}}
	ask := func(node dfs.NodeID, ids ...dfs.ChunkID) <-chan error {
		done := make(chan error, 1)
		go func() {
			held, err := q.held(t.Context(), fsm.Node{ID: node, URL: "http://" + string(node)}, ids)
			for _, id := range ids {
				if _, ok := held[id]; !ok && err == nil {
					err = fmt.Errorf("nothing is said of chunk %s", id)
				}
			}
			done <- err
		}()
		return done
	}
	waiting := func(want int) {
		until(t, "the questions wait", func() bool {
			q.mu.Lock()
			queue := q.queues[nodeAddress{"slow", "http://slow"}]
			q.mu.Unlock()
			queue.mu.Lock()
			defer queue.mu.Unlock()
			return len(queue.waiting) == want
		})
	}
	first := ask("slow", 1)
	one := <-begun
	second := ask("slow", 4)
	waiting(1)
	third := ask("slow", 5, 6)
	waiting(2)
	if err := <-ask("quick", 7); err != nil {
		t.Fatalf("a question to another DataNode: %v", err)
	}
	close(one.failed)
	together := <-begun
	if !slices.Equal(together.ids, []dfs.ChunkID{4, 5, 6}) {
		t.Fatalf("asked together: %v", together.ids)
	}
	no := errors.New("no")
	together.failed <- no
	for i, done := range []<-chan error{first, second, third} {
		if err := <-done; i == 0 && err != nil || i > 0 && !errors.Is(err, no) {
			t.Errorf("question %d: %v", i+1, err)
		}
	}
	many := make([]dfs.ChunkID, 2*dfs.MaxChunksPerReport+1)
	for i := range many {
		many[i] = dfs.ChunkID(i + 1)
	}
	if err := <-ask("quick", many...); err != nil {
		t.Error(err)
	}
	w.close()
	if len(q.queues) != 0 {
		t.Errorf("%d queues are left over", len(q.queues))
	}
}
