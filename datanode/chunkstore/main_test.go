package chunkstore_test

import (
	"fmt"
	"os"
	"testing"
)

// memory is a file system that needs no disk. Each store of a test makes some
// hundred directories, and what must be fsynced when, the tests see by the hook.
const memory = "/dev/shm"

// TestMain puts temporary directories into memory if there is such a thing,
// unless $TMPDIR says where they are to be.
func TestMain(m *testing.M) {
	if os.Getenv("TMPDIR") != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp(memory, "chunkstore-test-")
	if err != nil {
		os.Exit(m.Run())
	}
	if err := os.Setenv("TMPDIR", dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}
