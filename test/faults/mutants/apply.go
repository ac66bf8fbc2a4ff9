package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Overlay writes the changed files into dir, and a file for the -overlay flag of
// go build, whose name it returns. Root is that of the module.
func (m Mutant) Overlay(root, dir string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	texts := make(map[string]string)
	for _, edit := range m.Edits {
		text, ok := texts[edit.File]
		if !ok {
			data, err := os.ReadFile(filepath.Join(root, edit.File))
			if err != nil {
				return "", fmt.Errorf("mutant %s: %w", m.Name, err)
			}
			text = string(data)
		}
		if count := strings.Count(text, edit.Old); count != 1 {
			return "", fmt.Errorf("mutant %s: %s holds %q %d times instead of once: change the text of the mutant", m.Name, edit.File, edit.Old, count)
		}
		texts[edit.File] = strings.Replace(text, edit.Old, edit.New, 1)
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	for file, text := range texts {
		changed := filepath.Join(dir, strconv.Itoa(len(overlay.Replace))+"-"+filepath.Base(file))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(root, file)] = changed
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, data, 0o600)
}
