//go:build !linux

package cluster

import "errors"

// takeBlocks cannot take blocks in advance here.
func takeBlocks(string, int64) error { return errors.ErrUnsupported }

// freeBytes does not know.
func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }
