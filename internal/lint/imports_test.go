package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// importRule says what the packages below some directories may import. Tests
// are held to it only when alsoTests is set: they may use more.
type importRule struct {
	of        []string // these directories and what lies below them
	never     []string // packages of the module, and what lies below them
	nor       []string // packages from outside the module; "net/..." means net and all below it
	only      []string // when set, the only packages of the module
	stdlib    bool     // nothing from outside the standard library
	alsoTests bool
	instead   string
}

var importRules = []importRule{
	{
		of: []string{"internal/dfs"}, only: []string{"internal/dfs"}, stdlib: true, alsoTests: true,
		instead: "the vocabulary stands on nothing: move what needs the import to the package that uses it",
	},
	{
		of: []string{"internal/protocol"}, only: []string{"internal/dfs"}, stdlib: true,
		instead: "the protocol is data and its encoding: move the behaviour to the server or the client",
	},
	{
		of: []string{"fsm"}, only: []string{"internal/dfs"},
		nor:     []string{"net/...", "os/...", "math/rand/...", "crypto/rand", "log/...", "github.com/hashicorp/..."},
		instead: "Apply is pure, and a renamed JSON field must not change the log: let the leader do it and stamp the outcome into the command",
	},
	{
		of: []string{"cluster"}, never: []string{"fsm", "namenode", "datanode", "client", "internal/protocol", "internal/leader", "internal/cli"},
		instead: "cluster is given a raft.FSM and moves bytes: let namenode translate",
	},
	{
		of: []string{"namenode"}, never: []string{"datanode", "client", "internal/cli"},
		instead: "the daemons and the client speak over HTTP: share the words in internal/protocol",
	},
	{
		of: []string{"datanode"}, never: []string{"namenode", "client", "fsm", "cluster", "internal/cli"},
		instead: "the daemons and the client speak over HTTP: share the words in internal/protocol",
	},
	{
		of: []string{"client"}, never: []string{"namenode", "datanode", "fsm", "cluster", "internal/cli"},
		instead: "the daemons and the client speak over HTTP: share the words in internal/protocol",
	},
	{
		of:      []string{"namenode/placement", "namenode/repair", "namenode/reclaim"},
		nor:     []string{"net/...", "github.com/hashicorp/raft/..."},
		never:   []string{"cluster"},
		instead: "a plan is a pure function of a view of the state: hand it the view, and let namenode carry it out",
	},
	{
		of: []string{"cmd"}, only: []string{"internal/cli"},
		instead: "a command is a few lines that call internal/cli: put the code there",
	},
	{
		of: []string{"internal/leader"}, only: []string{"internal/bundle", "internal/carrier", "internal/dfs", "internal/protocol", "internal/stall"},
		instead: "internal/leader knows how to reach the leader, not what for: let the caller tell it",
	},
	{
		of: []string{"internal/carrier"}, only: []string{}, stdlib: true,
		instead: "what carries requests knows nothing of what they say: let the caller tell it",
	},
	{
		of: []string{"internal/bundle"}, only: []string{"internal/carrier", "internal/dfs"}, stdlib: true,
		instead: "what bundles requests knows nothing of what they say: let the caller tell it",
	},
	{
		of: []string{"internal/stall"}, only: []string{}, stdlib: true,
		instead: "a watch on a transfer knows nothing of the transfer: let the caller tell it",
	},
	{
		of: []string{"fsm", "cluster", "namenode", "datanode", "client", "internal/cli", "internal/testcluster"}, never: []string{"internal/faultbed"},
		instead: "the bed is for tests that harm real processes: use it from a package of tests",
	},
	{
		of:      []string{"fsm", "cluster", "namenode", "datanode", "client", "internal"},
		nor:     []string{"log", "io/ioutil"},
		instead: "log with the hclog.Logger that you are given; read and write with io and os",
	},
}

func TestImports(t *testing.T) {
	for _, file := range sources(t) {
		for _, breach := range importBreaches(file) {
			t.Error(breach)
		}
	}
}

func importBreaches(file *source) []string {
	var breaches []string
	for _, rule := range importRules {
		if !within(file.dir, rule.of...) || file.test && !rule.alsoTests {
			continue
		}
		for _, i := range file.imports {
			if rule.allows(i) {
				continue
			}
			breaches = append(breaches, fmt.Sprintf("%s: %s must not import %s: %s", file.place(i.at), file.dir, i.path, rule.instead))
		}
	}
	return breaches
}

func (r *importRule) allows(i imported) bool {
	if i.local {
		return !within(i.path, r.never...) && (r.only == nil || slices.Contains(r.only, i.path))
	}
	if r.stdlib && strings.Contains(strings.Split(i.path, "/")[0], ".") {
		return false
	}
	for _, pattern := range r.nor {
		if tree, all := strings.CutSuffix(pattern, "/..."); i.path == pattern || all && within(i.path, tree) {
			return false
		}
	}
	return true
}

// TestImportRulesBite makes sure that the rules see what they are there for.
func TestImportRulesBite(t *testing.T) {
	tests := []struct {
		file, imports string
		want          int
	}{
		{"internal/dfs/x.go", "strings", 0},
		{"internal/dfs/x.go", "github.com/hashicorp/go-hclog", 1},
		{"internal/dfs/x_test.go", "github.com/hashicorp/go-hclog", 1},
		{"internal/dfs/x.go", module + "internal/protocol", 1},
		{"fsm/x.go", module + "internal/dfs", 0},
		{"fsm/x.go", module + "internal/protocol", 1},
		{"fsm/x.go", module + "cluster", 1},
		{"fsm/x.go", "github.com/tidwall/btree", 0},
		{"fsm/x.go", "net/http", 1},
		{"fsm/x.go", "net", 1},
		{"fsm/x.go", "os", 1},
		{"fsm/x.go", "math/rand/v2", 1},
		{"fsm/x.go", "crypto/rand", 1},
		{"fsm/x_test.go", "math/rand/v2", 0},
		{"cluster/x.go", module + "fsm", 1},
		{"cluster/x.go", module + "namenode/placement", 1},
		{"cluster/x.go", module + "internal/protocol", 1},
		{"cluster/x.go", module + "internal/dfs", 0},
		{"namenode/x.go", module + "datanode/chunkstore", 1},
		{"namenode/placement/x.go", module + "client", 1},
		{"namenode/placement/x.go", "net/http", 1},
		{"namenode/repair/x.go", "github.com/hashicorp/raft", 1},
		{"namenode/x.go", "net/http", 0},
		{"namenode/x.go", module + "fsm", 0},
		{"datanode/chunkstore/x.go", module + "namenode", 1},
		{"datanode/x.go", module + "internal/leader", 0},
		{"client/x.go", module + "datanode", 1},
		{"client/x_test.go", module + "datanode", 0},
		{"clients/x.go", module + "datanode", 0},
		{"cmd/dfs/main.go", module + "internal/cli", 0},
		{"cmd/dfs/main.go", module + "client", 1},
		{"internal/leader/x.go", module + "internal/protocol", 0},
		{"internal/leader/x.go", module + "fsm", 1},
		{"datanode/x.go", "log", 1},
		{"internal/stall/x.go", module + "internal/dfs", 1},
		{"internal/carrier/x.go", module + "internal/protocol", 1},
		{"internal/bundle/x.go", module + "internal/protocol", 1},
		{"internal/bundle/x.go", module + "internal/carrier", 0},
		{"internal/bundle/x.go", "github.com/hashicorp/go-hclog", 1},
		{"internal/cli/x.go", module + "internal/faultbed", 1},
		{"internal/cli/x_test.go", module + "internal/faultbed", 0},
	}
	for _, test := range tests {
		file, err := parse(test.file, test.file, fmt.Sprintf("package x\nimport _ %q\n", test.imports))
		if err != nil {
			t.Fatal(err)
		}
		if got := importBreaches(file); len(got) != test.want {
			t.Errorf("%s importing %s: %q; want %d", test.file, test.imports, got, test.want)
		}
	}
}
