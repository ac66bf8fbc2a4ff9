package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/internal/cli"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/testcluster"
	"github.com/dfs-go/dfs-go/namenode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// result is what a run of a program left behind.
type result struct {
	code        int
	out, errors string
}

func run(t *testing.T, program cli.Program, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errors bytes.Buffer
	code := program(ctx, args, strings.NewReader(stdin), &out, &errors)
	return result{code, out.String(), errors.String()}
}

func TestWrongCommandLines(t *testing.T) {
	for _, test := range []struct {
		args string
		says string
	}{
		{"bogus", `unknown command "bogus"`},
		{"admin bogus", `unknown command "bogus"`},
		{"ls --bogus", "unknown flag: --bogus"},
		{"upload one", "at least 2"},
		{"download", "between 1 and 2"},
		{"download a b c", "between 1 and 2"},
		{"cat", "at least 1"},
		{"stat", "at least 1"},
		{"mkdir", "at least 1"},
		{"rm", "at least 1"},
		{"mv a", "at least 2"},
		{"nodes a", "unknown command"},
		{"fsck a", "unknown command"},
		{"setrep 2", "at least 2"},
		{"setrep two a", "number of replicas"},
		{"setrep 0 a", "1 to 16"},
		{"setrep 17 a", "1 to 16"},
		{"version a", "unknown command"},
		{"admin join nn4", "accepts 3 arg"},
		{"admin remove", "accepts 1 arg"},
		{"admin transfer a b", "at most 1"},
		{"admin drain", "accepts 1 arg"},
		{"admin drain dn1 dn2", "accepts 1 arg"},
		{"admin drain --no-wait=x dn1", "--no-wait"},
		{"admin undrain", "accepts 1 arg"},
		{"namenode -balance=x", "-balance"},
		{"upload --chunk-size 4MB a b", "4MiB"},
		{"upload --chunk-size 5 a b", "--chunk-size"},
		{"upload --chunk-size 0 a b", "--chunk-size"},
		{"upload --replication 17 a b", "--replication"},
		{"upload --replication 0 a b", "--replication"},
		{"upload --parallel 1000 a b", "1 to 64"},
		{"download --parallel -1 a", "1 to 64"},
		{"--timeout soon ls", "invalid argument"},
		{"--timeout 0s ls", "--timeout"},
		{"--namenodes junk ls", "http://host:8000"},
		{"--namenodes , ls", "0 addresses"},
		{"namenode -bogus", "-bogus"},
		{"namenode stray", "stray"},
		{"namenode -id a/b", "node ID"},
		{"namenode -peers nonsense", "-peers"},
		{"namenode -log-level loud", "-log-level"},
		{"namenode -suspect-after 1s", "suspect-after"},
		{"datanode -bogus", "-bogus"},
		{"datanode -reserve lots", "-reserve"},
		{"datanode -scrub-rate fast", "-scrub-rate"},
		{"datanode -scrub-interval 1ms", "scrubbing every 1ms"},
		{"datanode -namenode nonsense", "address"},
		{"datanode -data-dir=", "directory"},
		{"datanode -namenode localhost:8000", "http:// is missing"},
		{"--namenodes localhost:8000 ls", "http:// is missing"},
		{"help nosuch", "nosuch"},
		{"help admin nosuch", "nosuch"},
		{"ls a//b", "empty"},
		{"cat ..", "no '.' or '..'"},
		{"stat a/./b", "no '.' or '..'"},
		{"rm -f ..", "no '.' or '..'"},
		{"mkdir a/..", "no '.' or '..'"},
		{"mv a b//c", "empty"},
		{"upload a b//c", "empty"},
		{"download a//b", "empty"},
		{"upload --replication two a b", "that is not a number"},
		{"upload --parallel 99999999999999999999 a b", "too large"},
		{"dev --http-port x", "that is not a number"},
		{"namenode -snapshot-threshold x", "-snapshot-threshold"},
	} {
		got := run(t, cli.Main, "", strings.Fields(test.args)...)
		if got.code != 2 || got.out != "" || !strings.Contains(got.errors, test.says) {
			t.Errorf("dfs %s: exit %d, %q, %q; want exit 2 and %q", test.args, got.code, got.out, got.errors, test.says)
		}
		if strings.Contains(got.errors, "strconv") || strings.Contains(got.errors, "parse error") {
			t.Errorf("dfs %s: talks of its parsers: %q", test.args, got.errors)
		}
		if strings.Count(got.errors, "\n") != 1 || !strings.HasPrefix(got.errors, "dfs: ") {
			t.Errorf("dfs %s: not one line: %q", test.args, got.errors)
		}
	}
}

func TestClassicCommands(t *testing.T) {
	for name, program := range map[string]cli.Program{"client": cli.ClientMain, "namenode": cli.NameNodeMain, "datanode": cli.DataNodeMain} {
		if got := run(t, program, "", "--bogus"); got.code != 2 || !strings.HasPrefix(got.errors, name+": ") {
			t.Errorf("%s --bogus: %+v", name, got)
		}
		if got := run(t, program, "", "--help"); got.code != 0 || got.out == "" || got.errors != "" {
			t.Errorf("%s --help: %+v", name, got)
		}
	}
	if got := run(t, cli.ClientMain, "", "namenode"); got.code != 2 {
		t.Errorf("the client has daemons: %+v", got)
	}
}

// Every verb explains itself, with an example.
func TestHelp(t *testing.T) {
	verbs := []string{
		"upload", "put", "download", "get", "cat", "ls", "stat", "mkdir", "rm", "mv", "nodes", "fsck", "setrep", "version", "namenode", "datanode",
		"admin members", "admin leader", "admin join", "admin remove", "admin transfer", "admin snapshot",
		"admin drain", "admin undrain", "bench put", "bench get", "bench small", "bench meta",
	}
	for _, verb := range verbs {
		got := run(t, cli.Main, "", append(strings.Fields(verb), "--help")...)
		if got.code != 0 || got.errors != "" {
			t.Errorf("%s --help: exit %d, %q", verb, got.code, got.errors)
		}
		if want := "Examples:"; !strings.Contains(got.out, want) && !strings.HasSuffix(verb, "node") {
			t.Errorf("%s --help has no example:\n%s", verb, got.out)
		}
	}
	for _, args := range [][]string{{"--help"}, {}, {"admin"}} {
		if got := run(t, cli.Main, "", args...); got.code != 0 || !strings.Contains(got.out, "--namenodes") {
			t.Errorf("dfs %s: %+v", args, got)
		}
	}
}

func TestVersion(t *testing.T) {
	if got := run(t, cli.Main, "", "version"); got.code != 0 || !strings.HasPrefix(got.out, "dfs-go ") {
		t.Errorf("got %+v", got)
	}
	var v struct{ Version, Go string }
	decode(t, run(t, cli.Main, "", "--json", "version"), &v)
	if v.Version == "" || v.Go == "" {
		t.Errorf("got %+v", v)
	}
}

func TestNoCluster(t *testing.T) {
	var got result
	for _, timeout := range []string{"200ms", "2s", "20s"} { // the first is enough, if somebody could be asked by then
		got = run(t, cli.Main, "", "--namenodes", "http://127.0.0.1:1", "--timeout", timeout, "-v", "ls")
		if strings.Contains(got.errors, "connection refused") {
			break
		}
	}
	if got.code != 1 || !strings.Contains(got.errors, "http://127.0.0.1:1: connection refused") || !strings.HasSuffix(got.errors, "(unavailable)\n") {
		t.Errorf("got %+v", got)
	}
}

// One who waits is told what for, once.
func TestWaitingIsSaid(t *testing.T) {
	got := run(t, cli.Main, "", "--namenodes", "http://127.0.0.1:1", "--timeout", "3s", "ls")
	lines := strings.Split(strings.TrimSpace(got.errors), "\n")
	if got.code != 1 || len(lines) != 2 || lines[0] != "dfs: no NameNode answers yet (http://127.0.0.1:1: connection refused); trying for 3s, see --timeout" {
		t.Errorf("got %+v", got)
	}
}

func decode(t *testing.T, got result, v any) {
	t.Helper()
	if got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.errors)
	}
	if err := json.Unmarshal([]byte(got.out), v); err != nil {
		t.Fatalf("%v in %s", err, got.out)
	}
}

// session runs dfs against one cluster.
type session struct {
	t     *testing.T
	names string
}

func (s session) run(args ...string) result {
	s.t.Helper()
	got := run(s.t, cli.Main, "from standard input", append([]string{"--namenodes", s.names, "--timeout", "40s"}, args...)...)
	got.errors = waiting.ReplaceAllString(got.errors, "")
	return got
}

// waiting is what is said when a busy machine takes its time.
var waiting = regexp.MustCompile(`(?m)^dfs: no NameNode answers yet .*\n`)

// ok runs a line that must succeed and returns its output.
func (s session) ok(args ...string) string {
	s.t.Helper()
	got := s.run(args...)
	if got.code != 0 || got.errors != "" {
		s.t.Fatalf("dfs %q: exit %d, %s", args, got.code, got.errors)
	}
	return got.out
}

// fails runs a line that must fail with the words in its error.
func (s session) fails(words string, args ...string) {
	s.t.Helper()
	got := s.run(args...)
	if got.code != 1 || !strings.Contains(got.errors, words) {
		s.t.Errorf("dfs %q: exit %d, %q; want exit 1 and %q", args, got.code, got.errors, words)
	}
}

func (s session) equal(want string, args ...string) {
	s.t.Helper()
	if got := s.ok(args...); got != want {
		s.t.Errorf("dfs %q: got %q, want %q", args, got, want)
	}
}

// newCluster starts a cluster, which the test's end closes.
func newCluster(t *testing.T, nameNodes, dataNodes int) session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := testcluster.Start(ctx, testcluster.Config{NameNodes: nameNodes, DataNodes: dataNodes, Dir: t.TempDir(), Change: func(config *namenode.Config) {
		config.Timing = cluster.DefaultTiming()
		if nameNodes > 1 { // the leader is to stay: no hiccup of a busy machine is so long
			config.Timing.HeartbeatTimeout, config.Timing.ElectionTimeout, config.Timing.LeaderLease = 4*time.Second, 4*time.Second, 4*time.Second
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return session{t, strings.Join(c.URLs(), ",")}
}

func TestVerbs(t *testing.T) {
	s := newCluster(t, 3, 3)
	for _, test := range []struct {
		name string
		run  func(*testing.T, session)
	}{
		{"transfers", testTransfers}, {"namespace", testNamespace}, {"JSON", testJSON}, {"admin", testAdmin}, {"bench", testBench},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, session{t, s.names}) })
	}
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func testTransfers(t *testing.T, s session) {
	dir := t.TempDir()
	a := writeFile(t, filepath.Join(dir, "a.txt"), "content of a")
	b := writeFile(t, filepath.Join(dir, "b.txt"), strings.Repeat("b", 100_000))
	s.ok("upload", a, "user/test/a")
	s.equal("content of a", "cat", "/user/test/a")
	s.fails("--force", "upload", b, "user/test/a")
	s.ok("put", "-f", "--chunk-size", "4k", "--replication", "2", "--parallel", "8", b, "/user/test/a")
	s.equal(strings.Repeat("b", 100_000), "cat", "user/test/a")
	s.ok("upload", "-", "/stdin")
	s.equal("from standard input", "download", "/stdin", "-")
	s.ok("upload", a, b, "/user/test/")
	s.ok("upload", a, "/user")
	s.equal("a.txt\ntest/\n", "ls", "user")
	s.equal("a\na.txt\nb.txt\n", "ls", "/user/test")
	s.equal("content of afrom standard input", "cat", "user/a.txt", "stdin")

	s.fails("is a directory", "upload", dir, "/dir")
	s.fails("no such file", "upload", filepath.Join(dir, "none"), "/none")
	s.fails("no name", "upload", "-", "/user/")
	s.fails("there is no /none", "download", "/none")
	s.fails("directory", "download", "/user", filepath.Join(dir, "x"))
	s.fails("directory", "download", "/", dir)
	s.fails("directory", "cat", "/user")

	// One bad source does not keep the others back.
	got := s.run("upload", filepath.Join(dir, "none"), a, "/several/")
	if got.code != 1 || strings.Count(got.errors, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
	s.equal("a.txt\n", "ls", "/several")

	// Nor does a target that is a file bring one error for each.
	got = s.run("upload", a, b, "/user/a.txt")
	if got.code != 1 || strings.Count(got.errors, "\n") != 1 || !strings.Contains(got.errors, "/user/a.txt is a file") {
		t.Errorf("got %+v", got)
	}
	s.fails(a+" is not a directory", "download", "/user/a.txt", a+"/")

	s.ok("download", "/user/a.txt", filepath.Join(dir, "new"))
	s.ok("download", "/user/test/b.txt", dir)
	for name, want := range map[string]int{"new": 12, "b.txt": 100_000} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != int64(want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Chdir(t.TempDir())
	s.ok("get", "/user/a.txt")
	if _, err := os.Stat("a.txt"); err != nil {
		t.Error(err)
	}
}

func testNamespace(t *testing.T, s session) {
	s.ok("mkdir", "/d")
	s.fails("exists", "mkdir", "/d")
	s.fails("there is no", "mkdir", "/x/y")
	s.ok("mkdir", "-p", "/d", "x/y/z")
	s.ok("upload", "-", "/d/f")
	s.ok("mv", "/d/f", "/d/g")
	s.ok("mv", "/d/g", "/x/y")
	s.ok("mv", "/x/y/g", "/x/y/z", "/d/")
	s.equal("g\nz/\n", "ls", "/d")
	s.equal("/d/g\n", "ls", "/d/g")
	s.fails("there is no", "mv", "/none", "/d/")
	long := s.ok("ls", "-l", "/d")
	for _, words := range []string{"file       3  19 B", "directory  -  -", " g\n", " z/\n"} {
		if !strings.Contains(long, words) {
			t.Errorf("ls -l does not say %q:\n%s", words, long)
		}
	}
	if both := s.ok("ls", "/d", "/x"); both != "/d:\ng\nz/\n\n/x:\ny/\n" {
		t.Errorf("got %q", both)
	}
	if stat := s.ok("stat", "--chunks", "/d/g"); !strings.Contains(stat, "19 bytes") || !strings.Contains(stat, "dn1") {
		t.Errorf("got %s", stat)
	}
	s.fails("/d is not empty; -r deletes", "rm", "/d")
	s.fails("there is no", "rm", "/none")
	s.ok("rm", "-f", "/none")
	s.fails("cannot be deleted", "rm", "-r", "/")
	s.ok("rm", "-r", "/d", "/x")
	s.fails("there is no", "stat", "/d")
	if got := s.run("stat", "/a/../b"); got.code != 2 || !strings.Contains(got.errors, "no '.' or '..'") {
		t.Errorf("a path that is none: %+v", got)
	}
}

func testJSON(t *testing.T, s session) {
	var commit protocol.CommitReply
	decode(t, s.run("--json", "upload", "-", "/j/file"), &commit)
	if commit.Path != "/j/file" || commit.Size != 19 {
		t.Errorf("upload: %+v", commit)
	}
	var file protocol.File
	decode(t, s.run("--json", "stat", "/j/file"), &file)
	if file.Size != 19 || len(file.Chunks) != 1 || len(file.Chunks[0].Locations) == 0 {
		t.Errorf("stat of a file: %+v", file)
	}
	var entry protocol.Entry
	decode(t, s.run("--json", "stat", "/j"), &entry)
	if entry.Type != protocol.TypeDirectory {
		t.Errorf("stat of a directory: %+v", entry)
	}
	var listing protocol.Listing
	decode(t, s.run("--json", "ls", "/j"), &listing)
	if len(listing.Entries) != 1 || listing.Entries[0].Path != "/j/file" {
		t.Errorf("ls: %+v", listing)
	}
	var path protocol.PathReply
	decode(t, s.run("--json", "mv", "/j/file", "/j/moved"), &path)
	if path.Path != "/j/moved" {
		t.Errorf("mv: %+v", path)
	}
	if got := s.ok("--json", "download", "/j/moved", "-"); got != "from standard input" {
		t.Errorf("download to standard output: %q", got)
	}
	var nodes protocol.NodesReply
	decode(t, s.run("--json", "nodes"), &nodes)
	if len(nodes.Nodes) != 3 || nodes.Nodes[0].State != protocol.StateUp {
		t.Errorf("nodes: %+v", nodes)
	}
	if table := s.ok("nodes"); !strings.Contains(table, "dn3") || !strings.Contains(table, "CAPACITY") {
		t.Errorf("nodes: %s", table)
	}
	var members struct {
		protocol.LeaderReply
		Members []struct {
			protocol.Member
			Reachable bool `json:"reachable"`
		} `json:"members"`
		Agree bool `json:"agree"`
	}
	decode(t, s.run("--json", "admin", "members"), &members)
	if len(members.Members) != 3 || members.Leader == nil || !members.Members[0].Reachable {
		t.Errorf("members: %+v", members)
	}
}

func testAdmin(t *testing.T, s session) {
	before := strings.TrimSpace(s.ok("admin", "leader"))
	after := strings.TrimSpace(s.ok("admin", "transfer"))
	if before == after || after == "" {
		t.Errorf("leadership went from %q to %q", before, after)
	}
	s.equal(before+"\n", "admin", "transfer", before)
	if table := s.ok("admin", "members"); strings.Count(table, "yes") != 3 || !strings.Contains(table, before+" leads in term") && !strings.Contains(table, "All agree") {
		t.Errorf("members: %s", table)
	}
	if table := s.ok("admin", "snapshot"); strings.Count(table, "nn") != 3 {
		t.Errorf("snapshot: %s", table)
	}
	s.fails("node ID", "admin", "remove", "a/b")
	s.fails("address", "admin", "join", "nn4", "nowhere", "http://localhost:1")
	s.ok("admin", "remove", after)
	if table := s.ok("admin", "members"); strings.Contains(table, after+" ") {
		t.Errorf("%s is still a member: %s", after, table)
	}
	s.ok("admin", "remove", after) // again: it is removed
	s.fails("nn9", "admin", "remove", "nn9")
}

// The daemons start, serve, and stop when their context ends.
func TestDaemons(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 2)
	address := make(addressWriter, 1)
	go func() {
		ended <- cli.NameNodeMain(ctx, []string{"-addr=127.0.0.1:0", "-raft-addr=127.0.0.1:0", "-meta-dir", filepath.Join(dir, "meta")}, nil, io.Discard, address)
	}()
	var url string
	select {
	case url = <-address:
	case <-time.After(time.Minute):
		t.Fatal("the NameNode does not say that it has started")
	}
	go func() {
		ended <- cli.Main(ctx, []string{"datanode", "-id=dn1", "-addr=127.0.0.1:0", "-namenode", url, "-data-dir", filepath.Join(dir, "data")}, nil, io.Discard, io.Discard)
	}()
	s := session{t, url}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.ok("nodes"), "dn1  up"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the DataNode does not register")
		}
	}
	s.ok("upload", "--replication", "1", "-", "/f")
	s.equal("from standard input", "cat", "/f")
	stop()
	for range 2 {
		if code := <-ended; code != 0 {
			t.Errorf("exit %d", code)
		}
	}
}

// addressWriter takes the base URL from a NameNode's log.
type addressWriter chan string

func (w addressWriter) Write(line []byte) (int, error) {
	if _, rest, found := strings.Cut(string(line), " url="); found {
		url, _, _ := strings.Cut(rest, " ")
		select {
		case w <- strings.TrimSpace(url):
		default:
		}
	}
	return len(line), nil
}

func TestDaemonsThatCannotStart(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "file"), "")
	for name, got := range map[string]result{
		"namenode": run(t, cli.NameNodeMain, "", "-meta-dir", file, "-addr=127.0.0.1:0", "-log-level=error"),
		"datanode": run(t, cli.DataNodeMain, "", "-data-dir", file, "-addr=127.0.0.1:0", "-log-level=error"),
	} {
		if got.code != 1 || strings.Count(got.errors, "\n") != 1 || !strings.HasPrefix(got.errors, name+": ") {
			t.Errorf("%s: exit %d, %q; want one sentence", name, got.code, got.errors)
		}
	}
}
