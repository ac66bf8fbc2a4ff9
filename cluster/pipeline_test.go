package cluster

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// stuckPipeline has no place for what is sent until it is closed.
type stuckPipeline struct {
	consumer chan raft.AppendFuture
	closed   chan struct{}
	once     sync.Once
}

func (p *stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-p.closed
	return nil, errors.New("closed")
}

func (p *stuckPipeline) Consumer() <-chan raft.AppendFuture { return p.consumer }

func (p *stuckPipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

type appendAnswer struct {
	request  raft.AppendEntriesRequest
	response raft.AppendEntriesResponse
}

func (a *appendAnswer) Error() error                          { return nil }
func (a *appendAnswer) Start() time.Time                      { return time.Time{} }
func (a *appendAnswer) Request() *raft.AppendEntriesRequest   { return &a.request }
func (a *appendAnswer) Response() *raft.AppendEntriesResponse { return &a.response }

// TestPipelineLetsGoOfTheSender: after an answer that ends the reading, whoever
// is sending is not left waiting.
func TestPipelineLetsGoOfTheSender(t *testing.T) {
	for name, last := range map[string]raft.AppendEntriesResponse{
		"newer term": {Term: 3, Success: true}, "refusal": {Term: 2}, "no answer": {},
	} {
		inner := &stuckPipeline{consumer: make(chan raft.AppendFuture), closed: make(chan struct{})}
		p := newPipeline(inner)
		sent := make(chan error, 1)
		go func() {
			_, err := p.AppendEntries(&raft.AppendEntriesRequest{}, nil)
			sent <- err
		}()
		for _, response := range []raft.AppendEntriesResponse{{Term: 2, Success: true}, last} {
			inner.consumer <- &appendAnswer{raft.AppendEntriesRequest{Term: 2}, response}
			if got := <-p.Consumer(); got.Response().Term != response.Term {
				t.Errorf("%s: another answer was passed on", name)
			}
		}
		select {
		case err := <-sent:
			if err == nil {
				t.Errorf("%s: what was sent to a closed pipeline succeeded", name)
			}
		case <-time.After(patience):
			t.Fatalf("%s: the sender waits for ever", name)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPipelineClosedWithAnswersLeft(t *testing.T) {
	inner := &stuckPipeline{consumer: make(chan raft.AppendFuture), closed: make(chan struct{})}
	p := newPipeline(inner)
	inner.consumer <- &appendAnswer{} // nobody takes it
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
