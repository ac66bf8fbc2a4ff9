package cli_test

import (
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/bench"
)

func testBench(t *testing.T, s session) {
	var results []bench.Result
	expect := func(names string, args ...string) {
		t.Helper()
		decode(t, s.run(append([]string{"--json", "bench"}, args...)...), &results)
		var got []string
		for _, r := range results {
			got = append(got, r.Name)
			if r.Operations < 1 || r.Errors > 0 || r.Seconds <= 0 || r.NameNodes.Resident <= 0 || r.DataNodes.Resident <= 0 {
				t.Errorf("%+v", r)
			}
		}
		if strings.Join(got, ",") != names {
			t.Errorf("dfs bench %q measured %q", args, got)
		}
	}
	expect("put", "put", "--size", "1MiB", "--count", "2", "--concurrency", "2", "--dir", "/measured", "--replication", "2")
	expect("get", "get", "--size", "1MiB", "--count", "3")
	expect("put small,get small", "small", "--count", "5", "--duration", "0")
	expect("mkdir,create,stat,list,rename,delete", "meta", "--count", "5", "--duration", "0", "--concurrency", "2", "--names", "20")
	expect("rename,stat", "meta", "--operations", "rename,stat", "--count", "3", "--names", "20")
	expect("list", "meta", "--operations", "list", "--names", "7", "--per-directory", "5", "--count", "2")
	if r := s.run("bench", "recover", "--kill", "false", "--size", "1k"); r.code != 1 || !strings.Contains(r.errors, "nowhere to copy to") {
		t.Errorf("recover with 3 DataNodes: %+v", r)
	}
	if r := s.run("bench", "failover", "--kill", "echo killing {id}; exit 3", "--size", "1k"); r.code != 1 || !strings.Contains(r.errors, "killing nn") || !strings.Contains(r.errors, "exit status 3") {
		t.Errorf("failover with a command that fails: %+v", r)
	}
	if table := s.ok("bench", "put", "--size", "10k"); !strings.Contains(table, "OPS/S") || strings.Count(table, "\n") != 2 {
		t.Errorf("%s", table)
	}
	if left := s.ok("ls", "/"); strings.Contains(left, "bench-") || strings.Contains(s.ok("ls", "/measured"), "bench-") {
		t.Errorf("what is left: %s", left)
	}
	for wanted, line := range map[string]string{
		"--concurrency":         "put --concurrency 0",
		"--count or --duration": "meta --count 0 --duration 0",
		"--operations":          "meta --operations fly --count 1",
		"--replication":         "put --replication 99",
		"--names":               "meta --names 0",
		"--start is for":        "failover --start true",
		"--kill must say":       "recover",
		"--count and --size":    "recover --kill true --size 0",
	} {
		got := s.run(append([]string{"bench"}, strings.Fields(line)...)...)
		if got.code != 2 || !strings.Contains(got.errors, wanted) {
			t.Errorf("dfs bench %s: exit %d, %q", line, got.code, got.errors)
		}
	}
}
