package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline is part of raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(inner), nil
}

// pipeline closes itself after an answer that makes raft stop reading answers: a
// newer term, a refusal or a failure. Raft may be sending at that moment, and
// waits for its place to become free, which only the reading of answers does: it
// would wait for ever, go on with heartbeats of an old term and never shut down.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	ended   chan struct{} // closed by Close
	once    sync.Once
	relay   sync.WaitGroup
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), ended: make(chan struct{})}
	p.relay.Go(p.passOn)
	return p
}

// AppendEntries is part of raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	bound(args)
	return p.AppendPipeline.AppendEntries(args, resp)
}

func (p *pipeline) passOn() {
	for {
		select {
		case answer := <-p.AppendPipeline.Consumer():
			select {
			case p.answers <- answer:
			case <-p.ended:
				return
			}
			if request, response := answer.Request(), answer.Response(); !response.Success || response.Term > request.Term {
				_ = p.AppendPipeline.Close() // raft closes it, too, and sees the error
				return
			}
		case <-p.ended:
			return
		}
	}
}

// Consumer is part of raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close is part of raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.ended) })
	err := p.AppendPipeline.Close()
	p.relay.Wait()
	return err
}
