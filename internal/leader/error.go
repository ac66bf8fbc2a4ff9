package leader

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// givenUp is the error of a call whose context ended before anybody answered.
func (t *task) givenUp(ctx context.Context) error {
	tried := t.reasons()
	if tried == "" {
		tried = "nobody was asked"
	}
	switch cause := ctx.Err(); {
	case t.maybe:
		return &dfs.Error{
			Code:    dfs.UnknownOutcome,
			Message: "it may have happened, but no NameNode confirmed it; look before you try again (" + tried + ")",
			Cause:   errors.New(tried), // for those who know better than that
		}
	case cause == nil: // a single try
		return dfs.Errorf(dfs.Unavailable, "the NameNode did not answer (%s)", tried)
	case errors.Is(cause, context.Canceled):
		return dfs.Errorf(dfs.Unavailable, "the call was given up (%s): %w", tried, cause)
	case len(t.failures) == 0:
		return dfs.Errorf(dfs.Timeout, "the time was over before a NameNode could be asked: %w", cause)
	}
	return dfs.Errorf(dfs.Unavailable, "no NameNode could answer in time; is the cluster up, and a majority of its NameNodes? (%s)", tried)
}

// reasons tells of each NameNode why it did not do.
func (t *task) reasons() string {
	var reasons []string
	for _, f := range t.failures {
		reasons = append(reasons, f.reason())
	}
	return strings.Join(reasons, "; ")
}

// onlyStrangers tells whether something else than a NameNode answered at every
// address known. Then waiting does not help, unless it is a proxy (maybe).
func (t *task) onlyStrangers(known []string) bool {
	return !t.maybe && len(t.failures) >= len(known) &&
		!slices.ContainsFunc(t.failures, func(f failure) bool { return !f.stranger || f.maybe })
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// plainReason says in a few words why there was no answer.
func plainReason(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &dns):
		return "the host " + dns.Name + " is not known"
	case isTimeout(err):
		return "cannot be reached"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection was closed before the answer"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
