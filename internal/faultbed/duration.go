//go:build linux

package faultbed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Environment variables.
const (
	// DurationVariable asks for tests against real processes, and says for how
	// long those do harm that have no end of their own.
	DurationVariable = "DFS_FAULTS"
	// SeedVariable repeats the choices of a run, though not its exact timing.
	SeedVariable = "DFS_FAULT_SEED"
)

// Duration returns how long harm is to be done, and skips the test when nobody
// has asked for such tests.
func Duration(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv(DurationVariable)
	if text == "" {
		t.Skip("faults against real processes run with 'make faults'")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", DurationVariable, err)
	}
	return d
}

// Count returns the number in an environment variable, or fallback.
func Count(t testing.TB, variable string, fallback int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return fallback
	}
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 {
		t.Fatalf("%s is %q and should be a number above 0", variable, text)
	}
	return count
}

// Random returns a source whose seed is printed.
func Random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(SeedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", SeedVariable, err)
		}
	}
	t.Logf("seed: %s=%d", SeedVariable, seed)
	return rand.New(rand.NewPCG(seed, 1))
}
