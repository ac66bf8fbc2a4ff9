package lint

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// maxFunctionLines is generous: most functions should fit a screen.
const maxFunctionLines = 100

// vagueNames say nothing of what a package does.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared"}

// impure are the calls that give another answer on another machine.
var impure = map[string][]string{
	"time": {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer", "Sleep"},
	"rand": nil, // all of it
}

func TestCode(t *testing.T) {
	for _, file := range sources(t) {
		for _, breach := range slices.Concat(functionBreaches(file), panicBreaches(file), purityBreaches(file), nameBreaches(file)) {
			t.Error(breach)
		}
	}
}

func functionBreaches(file *source) []string {
	var breaches []string
	for _, declaration := range file.tree.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || file.test {
			continue
		}
		if function.Recv == nil && function.Name.Name == "init" {
			breaches = append(breaches, fmt.Sprintf("%s: func init runs unasked and in no plain order: call it from a constructor", file.place(function.Pos())))
		}
		lines := file.files.Position(function.End()).Line - file.files.Position(function.Pos()).Line + 1
		if lines > maxFunctionLines {
			breaches = append(breaches, fmt.Sprintf("%s: %s has %d lines and may have %d: give its steps functions with names of their own", file.place(function.Pos()), function.Name.Name, lines, maxFunctionLines))
		}
	}
	return breaches
}

// panicBreaches lets one pass: http.ErrAbortHandler, the only way to cut off an
// answer that has begun. net/http recovers from it.
func panicBreaches(file *source) []string {
	if file.test {
		return nil
	}
	var breaches []string
	ast.Inspect(file.tree, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "panic" && !abortsHandler(call) {
			breaches = append(breaches, fmt.Sprintf("%s: panic takes the whole daemon down: return an error made by dfs.Errorf", file.place(call.Pos())))
		}
		return true
	})
	return breaches
}

func abortsHandler(call *ast.CallExpr) bool {
	if len(call.Args) != 1 {
		return false
	}
	argument, ok := call.Args[0].(*ast.SelectorExpr)
	if !ok {
		return false
	}
	of, ok := argument.X.(*ast.Ident)
	return ok && of.Name == "http" && argument.Sel.Name == "ErrAbortHandler"
}

// purityBreaches looks for clocks and dice in the state machine.
func purityBreaches(file *source) []string {
	if file.test || !within(file.dir, "fsm") {
		return nil
	}
	var breaches []string
	ast.Inspect(file.tree, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		of, ok := selector.X.(*ast.Ident)
		if !ok {
			return true
		}
		names, listed := impure[of.Name]
		if listed && (names == nil || slices.Contains(names, selector.Sel.Name)) {
			breaches = append(breaches, fmt.Sprintf("%s: %s.%s differs from NameNode to NameNode: let the leader stamp it into the command", file.place(selector.Pos()), of.Name, selector.Sel.Name))
		}
		return true
	})
	return breaches
}

func nameBreaches(file *source) []string {
	name := strings.TrimSuffix(file.tree.Name.Name, "_test")
	at := file.place(file.tree.Name.Pos())
	switch {
	case slices.Contains(vagueNames, name):
		return []string{fmt.Sprintf("%s: package %s says nothing: name it after what it provides, or put the code where it is used", at, name)}
	case name == "main" && !within(file.dir, "cmd"):
		return []string{fmt.Sprintf("%s: commands live in cmd/", at)}
	case name != "main" && name != path.Base(file.dir):
		return []string{fmt.Sprintf("%s: package %s lies in a folder called %s: give both one name", at, name, path.Base(file.dir))}
	}
	return nil
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := make(map[string]bool)
	first := make(map[string]*source)
	for _, file := range sources(t) {
		if first[file.dir] == nil {
			first[file.dir] = file
		}
		base := path.Base(file.name)
		if file.tree.Doc != nil && (base == "doc.go" || file.tree.Name.Name == "main" && base == "main.go") {
			said[file.dir] = true
		}
	}
	for dir, file := range first {
		if said[dir] {
			continue
		}
		where := "doc.go with a comment 'Package " + file.tree.Name.Name + " ...'"
		if file.tree.Name.Name == "main" {
			where = "comment above 'package main' in main.go"
		}
		t.Errorf("%s: add a %s that a newcomer can start from", dir, where)
	}
}

// TestCodeRulesBite makes sure that the rules see what they are there for.
func TestCodeRulesBite(t *testing.T) {
	long := "package client\nfunc f() {\n" + strings.Repeat("\tg()\n", maxFunctionLines) + "}\n"
	tests := []struct {
		file, text string
		want       int
	}{
		{"client/x.go", "package client\n", 0},
		{"client/x.go", "package client\nfunc init() {}\n", 1},
		{"client/x.go", "package client\ntype t int\nfunc (t) init() {}\n", 0},
		{"client/x.go", "package client\nfunc f() { panic(1) }\n", 1},
		{"client/x.go", "package client\nfunc f() { panic(http.ErrAbortHandler) }\n", 0},
		{"client/x.go", "package client\nfunc f() { panic(other.ErrAbortHandler) }\n", 1},
		{"client/x_test.go", "package client\nfunc f() { panic(1) }\n", 0},
		{"client/x_test.go", "package client_test\n", 0},
		{"client/x.go", long, 1},
		{"client/x.go", "package other\n", 1},
		{"client/x.go", "package main\n", 1},
		{"cmd/dfs/main.go", "package main\n", 0},
		{"internal/util/x.go", "package util\n", 1},
		{"fsm/x.go", "package fsm\nimport \"time\"\nvar x = time.Now()\n", 1},
		{"fsm/x.go", "package fsm\nimport \"time\"\nvar x = time.Now\n", 1},
		{"fsm/x.go", "package fsm\nimport \"time\"\nvar x = time.Since(time.UnixMilli(1))\n", 1},
		{"fsm/x.go", "package fsm\nimport \"time\"\nvar x = time.UnixMilli(1)\n", 0},
		{"fsm/x.go", "package fsm\nvar x = rand.Int()\n", 1},
		{"fsm/x_test.go", "package fsm\nvar x = rand.Int()\n", 0},
		{"client/x.go", "package client\nvar x = time.Now()\n", 0},
	}
	for _, test := range tests {
		file, err := parse(test.file, test.file, test.text)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.Concat(functionBreaches(file), panicBreaches(file), purityBreaches(file), nameBreaches(file))
		if len(got) != test.want {
			t.Errorf("%s, %.60q: %q; want %d", test.file, test.text, got, test.want)
		}
	}
}
