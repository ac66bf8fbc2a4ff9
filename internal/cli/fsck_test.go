package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/protocol"
)

// With two DataNodes the default of three replicas cannot be had: that is not
// healthy, until fewer are wanted.
func TestFsckAndSetrep(t *testing.T) {
	s := newCluster(t, 1, 2)
	if out := s.ok("fsck"); !strings.HasSuffix(out, "\nhealthy\n") || !strings.Contains(out, "chunks             0\n") || strings.Contains(out, "PROBLEM") {
		t.Errorf("of an empty cluster: %s", out)
	}
	for _, path := range []string{"/a/one", "/a/b/two", "/three"} {
		got := s.run("upload", "-", path)
		if got.code != 0 || !strings.Contains(got.errors, "1 of 1 chunks have 2 of 3 replicas") {
			t.Errorf("exit %d, %q", got.code, got.errors)
		}
	}
	got := s.run("fsck")
	if got.code != 1 || got.errors != "" || !strings.HasSuffix(got.out, "\nNOT healthy\n") {
		t.Errorf("exit %d, %q, %s", got.code, got.errors, got.out)
	}
	for _, words := range []string{"under-replicated   3\n", "PROBLEM", "dn1,dn2", "/a/b/two", "waiting for another DataNode"} {
		if !strings.Contains(got.out, words) {
			t.Errorf("there is no %q in\n%s", words, got.out)
		}
	}
	got = s.run("--json", "fsck")
	var report protocol.FsckReply
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != 1 || report.Healthy || report.UnderReplicated != 3 || len(report.Problems) != 3 {
		t.Errorf("exit %d, %v, %s", got.code, err, got.out)
	}

	s.fails("-R sets it for all files", "setrep", "2", "/a")
	s.fails("2 DataNodes are registered", "setrep", "3", "/three")
	s.fails("there is no /nowhere", "setrep", "-R", "2", "/nowhere")
	s.equal("", "setrep", "2", "/three")
	s.equal("", "setrep", "-R", "2", "/a")
	s.equal("", "setrep", "-R", "1", "/a/one")
	var file protocol.File
	decode(t, s.run("--json", "stat", "/a/b/two"), &file)
	if file.Replication != 2 {
		t.Errorf("%+v", file)
	}
	decode(t, s.run("--json", "fsck"), &report)
	if !report.Healthy || report.UnderReplicated != 0 || report.OverReplicated != 1 || report.Files != 3 {
		t.Errorf("%+v", report)
	}
	if out := s.ok("fsck"); !strings.Contains(out, "over_replicated") || !strings.Contains(out, "over-replicated    1\n") {
		t.Errorf("%s", out)
	}
}
