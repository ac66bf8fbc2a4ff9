package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/namenode"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "1048576": 1 << 20, "4k": 4 << 10, "4K": 4 << 10, "4KiB": 4 << 10, "1m": 1 << 20, "4MiB": 4 << 20,
		"2g": 2 << 30, "7b": 7, "-1": -1, "": -1, "m": -1, "4MB": -1, "4 MiB": -1, "4x": -1, "4mm": -1, "1.5m": -1,
		"99999999999999999999": -1, "9999999999g": -1, "+5": 5,
	} {
		got, err := parseSize(text)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for bytes, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 4 << 20: "4.0 MiB", 1<<20 - 1: "1.0 MiB", 30_000_000: "28.6 MiB", 1 << 62: "4.0 EiB", -5: "-5 B",
	} {
		if got := humanSize(bytes); got != want {
			t.Errorf("%d: got %q, want %q", bytes, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Now()
	for want, at := range map[string]time.Time{"never": {}, "1.5s ago": now.Add(-1500 * time.Millisecond), "0s ago": now.Add(time.Hour)} {
		if got := humanAge(at, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := humanTime(time.Time{}); got != "" {
		t.Errorf("got %q", got)
	}
}

// Names from elsewhere must not control the terminal.
func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\x1b[31mc\u0085d"); got != "a b [31mc d" {
		t.Errorf("got %q", got)
	}
}

func TestSplitList(t *testing.T) {
	if got := strings.Join(splitList(" a, b,,c, "), "|"); got != "a|b|c" {
		t.Errorf("got %q", got)
	}
}

func TestDaemonFlagsReachTheConfiguration(t *testing.T) {
	a := &app{stderr: &bytes.Buffer{}}
	n, err := a.nameNodeConfig(strings.Fields(`-id=nn2 -addr=:1 -meta-dir m -raft-addr=127.0.0.1:2 -advertise=http://h:3 -heartbeat-timeout=2s
		-election-timeout 3s -snapshot-threshold 10 -snapshot-interval 4s -trailing-logs 20 -suspect-after 5s -down-after 7s -upload-expiry 8s -reclaim-grace 9s -trim-delay 11s
		-peers nn1=h:1@http://h:10,nn2=h:2@http://h:20`))
	if err != nil {
		t.Fatal(err)
	}
	if n.ID != "nn2" || n.Addr != ":1" || n.MetaDir != "m" || n.RaftAddr != "127.0.0.1:2" || n.Advertise != "http://h:3" ||
		n.Timing.HeartbeatTimeout != 2*time.Second || n.Timing.ElectionTimeout != 3*time.Second || n.Timing.LeaderLease != time.Second ||
		n.SnapshotThreshold != 10 || n.SnapshotInterval != 4*time.Second || n.TrailingLogs != 20 || n.SuspectAfter != 5*time.Second ||
		n.DownAfter != 7*time.Second || n.UploadExpiry != 8*time.Second || n.ReclaimGrace != 9*time.Second || n.TrimDelay != 11*time.Second || len(n.Peers) != 2 || n.Logger == nil {
		t.Errorf("got %+v", n)
	}
	for args, grace := range map[string]time.Duration{"": time.Minute, "-reclaim-grace=0": namenode.AtOnce} {
		if n, err := a.nameNodeConfig(strings.Fields(args)); err != nil || n.ReclaimGrace != grace {
			t.Errorf("%q: %+v, %v", args, n, err)
		}
	}
	for _, args := range []string{"-trim-delay=0", "-trim-delay=-1s"} {
		if _, err := a.nameNodeConfig([]string{args}); err == nil || !strings.Contains(err.Error(), "-trim-delay") {
			t.Errorf("%q: %v", args, err)
		}
	}
	d, err := a.dataNodeConfig(strings.Fields("-id dn2 -addr :1 -self http://h:2 -namenode http://h:3,http://h:4 -data-dir d,/e/f -trash-keep 5m -rack r/1 -reserve 1GiB -heartbeat 3s -scrub-rate 3MiB -scrub-interval 2h"))
	if err != nil {
		t.Fatal(err)
	}
	if d.ID != "dn2" || d.Addr != ":1" || d.Self != "http://h:2" || len(d.NameNodes) != 2 || !slices.Equal(d.DataDirs, []string{"d", "/e/f"}) || d.TrashKeep != 5*time.Minute || d.Rack != "r/1" ||
		d.Reserve != 1<<30 || d.HeartbeatInterval != 3*time.Second || d.ScrubRate != 3<<20 || d.ScrubInterval != 2*time.Hour || d.Logger == nil {
		t.Errorf("got %+v", d)
	}
	for args, rate := range map[string]int64{"": 10 << 20, "-scrub-rate=0": 0} {
		if d, err := a.dataNodeConfig(strings.Fields(args)); err != nil || d.ScrubRate != rate || d.ScrubInterval != 24*time.Hour ||
			d.TrashKeep != 2*time.Minute || !slices.Equal(d.DataDirs, []string{"./data"}) {
			t.Errorf("%q: %+v, %v", args, d, err)
		}
	}
}

// fakeDaemon ends with its fault, or when it is closed.
type fakeDaemon struct {
	open, fault, close error
	closed             chan struct{}
}

func (d *fakeDaemon) Open(context.Context) error { return d.open }

func (d *fakeDaemon) Wait() error {
	if d.fault == nil {
		<-d.closed
	}
	return d.fault
}

func (d *fakeDaemon) Close(ctx context.Context) error {
	close(d.closed)
	if ctx.Err() != nil {
		return errors.New("no time to close")
	}
	return d.close
}

func TestServe(t *testing.T) {
	fault, refused := errors.New("the disk is gone"), errors.New("the port is taken")
	running, cancelled := t.Context(), func() context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return ctx
	}()
	for name, test := range map[string]struct {
		ctx    context.Context
		daemon fakeDaemon
		want   error
	}{
		"stopped":      {cancelled, fakeDaemon{}, nil},
		"cannot open":  {running, fakeDaemon{open: refused}, refused},
		"fault":        {running, fakeDaemon{fault: fault, close: refused}, fault},
		"cannot close": {cancelled, fakeDaemon{close: refused}, refused},
	} {
		test.daemon.closed = make(chan struct{})
		if err := serve(test.ctx, &test.daemon, hclog.NewNullLogger()); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestDescribeMembers(t *testing.T) {
	led := protocol.LeaderReply{
		Term: 3, NodeID: "nn1", Leader: &protocol.Target{ID: "nn1"},
		Members: []protocol.Member{{ID: "nn1", Role: protocol.RoleLeader}, {ID: "nn2", Role: protocol.RoleVoter}},
	}
	follower := led
	follower.NodeID = "nn2"
	behind := follower
	behind.Term = 2
	views := func(second client.MemberView) []client.MemberView {
		second.Member = protocol.Member{ID: "nn2", Role: protocol.RoleNonvoter}
		return []client.MemberView{{Member: led.Members[0], View: led}, second}
	}
	for name, test := range map[string]struct {
		group  protocol.LeaderReply
		second client.MemberView
		agree  bool
		says   string
	}{
		"all well":    {led, client.MemberView{View: follower}, true, "All agree: nn1 leads in term 3"},
		"behind":      {led, client.MemberView{View: behind}, false, "not all agree"},
		"unreachable": {led, client.MemberView{Err: dfs.Errorf(dfs.Unavailable, "gone")}, false, "not all agree"},
		"no leader":   {protocol.LeaderReply{}, client.MemberView{}, false, "There is no leader"},
	} {
		reply := describe(test.group, views(test.second))
		if reply.Agree != test.agree || !strings.Contains(verdict(reply), test.says) {
			t.Errorf("%s: %+v, %s", name, reply, verdict(reply))
		}
		if test.group.Leader != nil && reply.Members[1].Role != protocol.RoleVoter {
			t.Errorf("%s: the leader's word on the role is lost", name)
		}
	}
}

func TestProgressBar(t *testing.T) {
	var none *progress
	none.add(5)
	none.end(nil)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, size := range []int64{-1, 0, 100} {
		for _, failure := range []error{nil, errors.New("broken")} {
			bar := (&app{stderr: null}).newProgress(t.Context(), "name", size)
			if bar == nil {
				t.Fatal("no bar")
			}
			bar.add(60)
			bar.end(failure) // must return
		}
	}
	if bar := (&app{stderr: &bytes.Buffer{}}).newProgress(t.Context(), "name", 1); bar != nil {
		t.Error("a bar where there is no terminal")
	}
}

func TestShortfall(t *testing.T) {
	for want, r := range map[string]client.UploadResult{
		"stored, but 23 of 25 chunks have 2 of 3 replicas":                     {Chunks: 25, Replication: 3, UnderReplicated: 23, LeastReplicas: 2},
		"stored, but 1 of 2 chunks have at least 2, but fewer than 5 replicas": {Chunks: 2, Replication: 5, UnderReplicated: 1, LeastReplicas: 2},
	} {
		if got := shortfall(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestLocalTarget(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ remote, local, want string }{
		{"/d/f", "", "f"}, {"/d/f", "-", "-"}, {"/d/f", "x", "x"}, {"/d/f", dir, dir + "/f"},
		{"/d/-", "", "./-"}, {"/d/-", ".", "./-"}, {"/d/-", "-", "-"}, {"/d/-", dir, dir + "/-"},
	} {
		path, err := dfs.ParsePath(test.remote)
		if err != nil {
			t.Fatal(err)
		}
		var rest []string
		if test.local != "" {
			rest = []string{test.local}
		}
		if got := localTarget(path, rest); got != test.want {
			t.Errorf("download %s %s: to %q, want %q", test.remote, test.local, got, test.want)
		}
	}
}
