package namenode

import (
	"context"

	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// propose puts a command into the log on behalf of request (may be empty) and
// returns what the state machine answered. The error is the state machine's
// refusal, or says that this is not the leader, or that the outcome is unknown.
func (n *NameNode) propose(ctx context.Context, command fsm.Command, request dfs.RequestID) (fsm.Result, error) {
	// Duties, which have no request, may use what is left: they keep the cluster
	// together, and need little.
	if full := n.group.Room(); full != nil && request != "" {
		if result, err, known := n.remembered(request, command); known {
			return result, err
		}
		return fsm.Result{}, full
	}
	return n.proposals.propose(ctx, fsm.Encode(command, request, n.config.Now()))
}

// remembered returns the answer that the request got before, if any. Command
// is one of the kind that the request asks for; it may be empty.
func (n *NameNode) remembered(request dfs.RequestID, command fsm.Command) (result fsm.Result, err error, known bool) {
	n.machine.Read(func(s *fsm.State) { result, err, known = s.Answer(request, command) })
	return result, err, known
}

// confirmed calls check, which looks at the state and may refuse a request. A
// refusal counts only when the state is known not to be stale: a leader that
// was deposed without noticing must not deny what another has acknowledged.
func (n *NameNode) confirmed(ctx context.Context, check func() error) error {
	if check() == nil {
		return nil
	}
	if err := n.group.ReadIndex(ctx); err != nil {
		return err
	}
	return check()
}

// final marks an unavailability that the same request will meet again until
// somebody does something about it, such as starting a DataNode.
type final struct{ error }

func (f final) Unwrap() error { return f.error }
