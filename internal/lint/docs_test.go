package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*\b`)

// TestDocumentsNameTestsThatExist: a document that says which test holds a
// promise is worse than none when the test is gone.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	const root = "../.."
	exists := make(map[string]bool)
	for _, file := range sources(t) {
		for _, declaration := range file.tree.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && file.test && f.Recv == nil {
				exists[f.Name.Name] = true
			}
		}
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	named := 0
	for _, document := range documents {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range testName.FindAllString(string(content), -1) {
			named++
			if !exists[name] {
				t.Errorf("%s names %s, which does not exist", filepath.Base(document), name)
			}
		}
	}
	if named == 0 {
		t.Error("no document names a test")
	}
}
