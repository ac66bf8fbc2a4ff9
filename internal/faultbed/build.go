//go:build linux

package faultbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Environment variables.
const (
	// BinaryVariable names a dfs binary to use instead of building one.
	BinaryVariable = "DFS_FAULT_BINARY"
	// RaceVariable, when it is not empty, builds with the race detector.
	RaceVariable = "DFS_FAULT_RACE"
)

// product is the binary of this test process: there is one tree, so one is enough.
var product builds

// builds makes the binary when it is first asked for.
type builds struct {
	once sync.Once
	dir  string
	err  error
}

func (p *builds) path(t testing.TB) string {
	t.Helper()
	if given := os.Getenv(BinaryVariable); given != "" {
		return given
	}
	p.once.Do(func() {
		if p.dir, p.err = makeTemp("bin"); p.err == nil {
			p.err = Build(filepath.Join(p.dir, "dfs"), "")
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return filepath.Join(p.dir, "dfs")
}

// Build builds dfs from this module into output. Overlay, when not empty, is a
// file for the -overlay flag of go build, which replaces sources.
func Build(output, overlay string) error {
	args := []string{"build", "-o", output}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	if os.Getenv(RaceVariable) != "" {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/dfs-go/dfs-go/cmd/dfs")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build dfs: %w\n%s", err, out)
	}
	return nil
}

// Main is what TestMain returns with: it sweeps what killed runs have left,
// runs the tests, and removes the binary that they built.
func Main(m *testing.M) int {
	if err := sweepAll(); err != nil {
		fmt.Fprintln(os.Stderr, "faultbed: what an earlier run has left could not be swept:", err)
	}
	code := m.Run()
	if product.dir != "" {
		if err := os.RemoveAll(product.dir); err != nil {
			fmt.Fprintln(os.Stderr, "faultbed:", err)
		}
	}
	return code
}
