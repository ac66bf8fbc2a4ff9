package namenode

import (
	"context"
	"errors"
	"fmt"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxEntriesInFlight is how many log entries are on their way at once. With more,
// each carries less, and the same changes cost more: see decision 0012.
const maxEntriesInFlight = 1

// newProposals returns the batcher that turns encoded commands into log entries.
// They are applied under a context of the process: no caller's would do for the
// others.
func (n *NameNode) newProposals() *batcher[[]byte, fsm.Outcome] {
	return &batcher[[]byte, fsm.Outcome]{start: n.workers.start, limit: maxEntriesInFlight, fit: fitting, carry: n.applyGroup}
}

// fitting returns how many of the commands, from the first on, fit into a log
// entry. A single one may still turn out to be too long.
func fitting(commands [][]byte) int {
	size := 0
	for i, command := range commands {
		size += len(command) + fsm.GroupOverhead
		if i > 0 && size > cluster.MaxEntrySize || i == fsm.MaxGroup {
			return i
		}
	}
	return len(commands)
}

// applyGroup puts commands into the log as one entry. When that fails, it fails
// for all of them alike.
func (n *NameNode) applyGroup(commands [][]byte) []fsm.Outcome {
	answer, err := n.group.Apply(n.ctx, fsm.EncodeGroup(commands))
	outcomes, _ := answer.([]fsm.Outcome)
	if err == nil && len(outcomes) == len(commands) {
		return outcomes
	}
	if err == nil {
		err = fmt.Errorf("the state machine answered %d commands with a %T", len(commands), answer)
	}
	outcomes = make([]fsm.Outcome, len(commands))
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// propose puts a command into the log on behalf of request (may be empty) and
// returns what the state machine answered. The error is the state machine's
// refusal, or says that this is not the leader, or that the outcome is unknown.
func (n *NameNode) propose(ctx context.Context, command fsm.Command, request dfs.RequestID) (fsm.Result, error) {
	// Duties, which have no request, may use what is left: they keep the cluster
	// together, and need little.
	if full := n.room(); full != nil && request != "" {
		if result, err, known := n.remembered(request, command); known {
			return result, err
		}
		return fsm.Result{}, full
	}
	outcome, begun, err := n.proposals.ask(ctx, fsm.Encode(command, request, n.config.Now()))
	switch {
	case errors.Is(err, errClosed):
		return fsm.Result{}, dfs.Errorf(dfs.NotLeader, "this NameNode is shutting down")
	case err != nil && begun:
		return fsm.Result{}, dfs.Errorf(dfs.UnknownOutcome, "it is not known whether the change was made (%w); ask again with the same request ID", err)
	case err != nil:
		return fsm.Result{}, dfs.Errorf(dfs.Timeout, "the request ran out of time before it was begun: %w", err)
	}
	return outcome.Result, outcome.Err
}

// room returns nil while there is room for more log, else the refusal of a
// change that somebody asks for.
func (n *NameNode) room() error {
	if n.config.room != nil {
		return n.config.room()
	}
	return n.group.Room()
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
// somebody does something about it, such as starting a DataNode, and an outcome
// that will never be known.
type final struct{ error }

func (f final) Unwrap() error { return f.error }
