package cli_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/cli"
)

// Against real nodes: parts of chunks, chunks, and what spans several.
func TestCatOfParts(t *testing.T) {
	s := newCluster(t, 1, 1)
	content := manyLines(700_000)
	local := writeFile(t, filepath.Join(t.TempDir(), "lines"), content)
	s.ok("upload", "--replication", "1", "--chunk-size", "256k", local, "/lines")
	s.ok("upload", "--replication", "1", "-", "/short")

	const k = 1 << 10
	s.equal(content, "cat", "/lines")
	s.equal(content[:5], "cat", "--length", "5", "/lines")
	s.equal(content[100*k:101*k], "cat", "--offset", "100k", "--length", "1KiB", "/lines")
	s.equal(content[255*k:513*k], "cat", "--offset=255k", "--length=258k", "/lines")
	s.equal(content[600_001:], "cat", "--offset", "600001", "/lines")
	s.equal(content[699_990:], "cat", "--offset", "699990", "--length", "1G", "/lines")
	s.equal("", "cat", "--length", "0", "/lines")
	s.equal("", "cat", "--offset", "700000", "/lines")
	s.equal(content[5:15]+"standard i", "cat", "--offset", "5", "--length", "10", "/lines", "/short")
	s.fails("beyond the end", "cat", "--offset", "700001", "/lines")
	s.fails("is a directory", "cat", "--offset", "1", "/")
	s.fails("there is no /none", "cat", "--length", "1", "/none")
	if got := s.run("cat", "--offset", "20", "/short", "/lines"); got.code != 1 || got.out != content[20:] {
		t.Errorf("after one that is too short: exit %d, %d bytes, %s", got.code, len(got.out), got.errors)
	}
}

// manyLines has no two places that are alike.
func manyLines(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		b.WriteString(time.Unix(int64(i), 0).UTC().Format("2006-01-02 15:04:05\n"))
	}
	return b.String()[:size]
}

func TestCatOfImpossibleParts(t *testing.T) {
	for _, flag := range []string{"--offset=-1", "--length=-1", "--offset=x", "--length=", "--offset=99999999999999999999", "--length=1.5k"} {
		got := run(t, cli.Main, "", "cat", flag, "/file")
		name, _, _ := strings.Cut(flag, "=")
		if got.code != 2 || !strings.Contains(got.errors, name) || strings.Count(got.errors, "\n") != 1 {
			t.Errorf("%s: %+v", flag, got)
		}
	}
}
