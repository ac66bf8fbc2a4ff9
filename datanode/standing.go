package datanode

import (
	"sync"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// standing is what the NameNodes think of this node, as far as it knows.
type standing struct {
	mu       sync.Mutex
	accepted bool  // since this start; guarded by mu
	refusal  error // the last word, if it was a refusal of the identity; guarded by mu
}

// accept notes an accepted heartbeat, and tells whether that is news.
func (s *standing) accept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.accepted || s.refusal != nil
	s.accepted, s.refusal = true, nil
	return news
}

// refuse notes a refusal, and tells whether that is news.
func (s *standing) refuse(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.refusal == nil || s.refusal.Error() != err.Error()
	s.refusal = err
	return news
}

// refused returns the refusal that is in force, or nil.
func (s *standing) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal
}

// check tells why the node takes no chunks: the refusal in force, or
// Unavailable before the first accepted heartbeat.
func (s *standing) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusal != nil {
		return s.refusal
	}
	if !s.accepted {
		return dfs.Errorf(dfs.Unavailable, "this DataNode has not been accepted by a NameNode yet; try again in a moment")
	}
	return nil
}
