package mutants_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/dfs-go/dfs-go/test/faults/mutants"
)

const root = "../../.."

// TestMutantsCompile keeps the mutants in step with the tree.
func TestMutantsCompile(t *testing.T) {
	names := make(map[string]bool)
	for _, m := range mutants.All() {
		if names[m.Name] {
			t.Errorf("two mutants are called %s", m.Name)
		}
		names[m.Name] = true
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			overlay, err := m.Overlay(root, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if m.Scenario != "" && (m.Rounds < 1 || m.Symptom == "") {
				t.Error("a mutant with a scenario has rounds and a symptom")
			}
			if _, err := regexp.Compile(m.Symptom); err != nil {
				t.Error(err)
			}
			args := []string{"build", "-overlay", overlay}
			for _, edit := range m.Edits {
				args = append(args, "./"+filepath.Dir(edit.File))
			}
			build := exec.Command("go", args...)
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Errorf("it does not compile: %v\n%s", err, out)
			}
		})
	}
}

func TestOverlayRefusesWhatHasChanged(t *testing.T) {
	for _, old := range []string{"this text is not in the file", "mutant"} {
		m := mutants.Mutant{Name: "x", Edits: []mutants.Edit{{File: "test/faults/mutants/doc.go", Old: old, New: "y"}}}
		_, err := m.Overlay(root, t.TempDir())
		if err == nil {
			t.Errorf("%q was replaced", old)
		}
	}
}
