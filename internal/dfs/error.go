package dfs

import (
	"context"
	"errors"
	"fmt"
)

// Code says what kind of failure an error is. Codes cross the network and lie
// in the Raft log: they are only ever added, never renamed or reused.
type Code string

// The codes. The comment says what the caller should do.
const (
	Invalid          Code = "invalid"            // fix the request; do not retry
	Unauthenticated  Code = "unauthenticated"    // say who you are
	Forbidden        Code = "forbidden"          // ask for the right
	NotFound         Code = "not_found"          // there is no such thing
	Exists           Code = "exists"             // choose another name, or overwrite
	NotEmpty         Code = "not_empty"          // delete recursively, or empty it first
	IsDirectory      Code = "is_directory"       // a file was meant
	NotDirectory     Code = "not_directory"      // a directory was meant
	Conflict         Code = "conflict"           // it changed meanwhile; look again, then decide
	WrongCluster     Code = "wrong_cluster"      // the addresses belong to two clusters
	TooLarge         Code = "too_large"          // send less at once
	NoSpace          Code = "no_space"           // delete something or add a DataNode
	OverLimit        Code = "over_limit"         // retry later
	NotLeader        Code = "not_leader"         // retry at the leader
	Unavailable      Code = "unavailable"        // retry with back-off and the same request ID
	Timeout          Code = "timeout"            // retry with back-off and the same request ID
	UnknownOutcome   Code = "unknown_outcome"    // it may have happened; retry with the same request ID
	Corrupt          Code = "corrupt"            // a replica is damaged; try another
	MethodNotAllowed Code = "method_not_allowed" // the route exists, the method does not
	Internal         Code = "internal"           // a bug or a broken machine; see the log
)

// Error is a failure with a code and a sentence for the person who caused it.
// Cause, when set, is for errors.Is and errors.As; only the message is printed
// and sent.
type Error struct {
	Code    Code
	Message string
	Cause   error
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error. An argument formatted with %w becomes its cause and
// part of its message.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// CodeOf tells the code of err: that of the first Error in its chain, Timeout
// for an expired deadline, Internal for anything else, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	return Internal
}

// MessageOf returns the sentence meant for the caller. Causes of internal
// errors stay in the log.
func MessageOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Message
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "the request ran out of time"
	}
	return "internal error; the log of the server has the details under this request's ID"
}
