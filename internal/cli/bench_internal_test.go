package cli

import (
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/bench"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// TestShell also makes sure that nothing a server says can run there.
func TestShell(t *testing.T) {
	var errors strings.Builder
	a := &app{stderr: &errors}
	if a.shell("") != nil {
		t.Error("no command is one")
	}
	if err := a.shell("echo killed {id}, {id}")(t.Context(), "nn1"); err != nil || errors.String() != "killed nn1, nn1\n" {
		t.Errorf("%v, %q", err, errors.String())
	}
	if err := a.shell("echo {id}; exit 3")(t.Context(), "nn1"); dfs.CodeOf(err) != dfs.Internal || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a command that fails: %v", err)
	}
	errors.Reset()
	if err := a.shell("echo {id}")(t.Context(), "nn1; echo hacked"); dfs.CodeOf(err) != dfs.Invalid || errors.Len() != 0 {
		t.Errorf("an ID that is none: %v, %q", err, errors.String())
	}
}

func TestRepairSentence(t *testing.T) {
	got := repairSentence(&bench.Repair{Node: "dn2", Chunks: 3, Bytes: 12 << 20, Down: 20, Copying: 1.5, Total: 21.5, BytesPerSec: 8 << 20})
	for _, part := range []string{"dn2", "3 chunks", "12.0 MiB", "21.5s", "20s", "1.5s copying", "8.0 MiB/s"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q lacks %q", got, part)
		}
	}
}
