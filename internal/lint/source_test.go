package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/dfs-go/dfs-go/"

// source is one Go file of the module.
type source struct {
	name    string // from the root of the module, with slashes
	dir     string // of the package: "." for the root
	test    bool
	imports []imported
	tree    *ast.File
	files   *token.FileSet
}

// imported is an import: inside the module without its name, as "fsm".
type imported struct {
	path  string
	local bool // inside the module
	at    token.Pos
}

// place says where pos is, in a form that editors follow.
func (s *source) place(pos token.Pos) string {
	return s.name + ":" + strconv.Itoa(s.files.Position(pos).Line)
}

// sources parses every Go file of the module.
func sources(t *testing.T) []*source {
	t.Helper()
	const root = "../.."
	var all []*source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "run") {
			return filepath.SkipDir
		}
		if entry.IsDir() && name != root {
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil { // another module
				return filepath.SkipDir
			}
		}
		if entry.IsDir() || !strings.HasSuffix(base, ".go") {
			return nil
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		file, err := parse(filepath.ToSlash(relative), name, nil)
		if err == nil {
			all = append(all, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d Go files were found: is %s the root of the module?", len(all), root)
	}
	return all
}

// parse reads a file, or text when it is not nil.
func parse(relative, name string, text any) (*source, error) {
	files := token.NewFileSet()
	tree, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	s := &source{
		name: relative, dir: path.Dir(relative), test: strings.HasSuffix(relative, "_test.go"), tree: tree, files: files,
	}
	for _, spec := range tree.Imports {
		text, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		inside, local := strings.CutPrefix(text, module)
		s.imports = append(s.imports, imported{path: inside, local: local, at: spec.Pos()})
	}
	return s, nil
}

// within tells whether dir is one of the trees or lies below one.
func within(dir string, trees ...string) bool {
	for _, tree := range trees {
		if dir == tree || strings.HasPrefix(dir, tree+"/") {
			return true
		}
	}
	return false
}
