//go:build linux

package faults

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/test/faults/mutants"
)

const mutantPatience = 5 * time.Minute

// TestMutants proves that the scenarios can fail: each is run against binaries
// with a planted bug, and must go red, for the right reason. DFS_FAULT_MUTANTS
// asks for it: "all", or names separated by commas.
func TestMutants(t *testing.T) {
	faultbed.Duration(t)
	chosen := os.Getenv("DFS_FAULT_MUTANTS")
	if chosen == "" {
		t.Skip("planted bugs are looked for with 'make faults-mutants'")
	}
	if os.Getuid() != 0 {
		t.Skip("most scenarios need root")
	}
	for _, m := range mutants.All() {
		if chosen != "all" && !strings.Contains(","+chosen+",", ","+m.Name+",") {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			if m.Scenario == "" {
				t.Skip("there is no scenario for it yet")
			}
			mustFail(t, m)
		})
	}
}

// mustFail runs the scenario of a mutant in a process of its own.
func mustFail(t *testing.T, m mutants.Mutant) {
	t.Helper()
	dir := t.TempDir()
	overlay, err := m.Overlay("../..", dir)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "dfs")
	if err := faultbed.Build(binary, overlay); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), mutantPatience)
	defer cancel()
	run := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+m.Scenario+"$", "-test.v", "-test.count", "1", "-test.timeout", mutantPatience.String())
	// The directory for what a failure leaves goes with this test: the failure is wanted.
	run.Env = append(os.Environ(), faultbed.BinaryVariable+"="+binary, "DFS_FAULT_ROUNDS="+strconv.Itoa(m.Rounds), "TMPDIR="+dir)
	began := time.Now()
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch found := regexp.MustCompile("(?m)^.*(" + m.Symptom + ").*$").Find(out); {
	case err == nil:
		t.Errorf("%s did not notice the planted bug:\n%s", m.Scenario, tail(out))
	case !errors.As(err, &exit) || ctx.Err() != nil:
		t.Errorf("%s did not run to its end: %v\n%s", m.Scenario, err, tail(out))
	case found == nil:
		t.Errorf("%s failed for another reason than %q:\n%s", m.Scenario, m.Symptom, tail(out))
	default:
		t.Logf("%s went red after %s: %s", m.Scenario, time.Since(began).Round(time.Second), found[:min(len(found), 300)])
	}
}

func tail(out []byte) []byte { return out[max(0, len(out)-4000):] }
