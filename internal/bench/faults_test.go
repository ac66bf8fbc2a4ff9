package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/datanode"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
	"github.com/dfs-go/dfs-go/internal/testcluster"
	"github.com/dfs-go/dfs-go/namenode"
)

const patience = 2 * time.Minute

// TestOutage checks what counts as one, with made-up times.
func TestOutage(t *testing.T) {
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	p := &pulse{latest: began, over: make(chan struct{})}
	p.note(at(0), at(5000), 1, nil) // before anybody watches
	p.watch()
	p.note(at(5000), at(5010), 1, nil)
	p.note(at(5010), at(5500), 0, errors.New("no")) // no acknowledgement
	p.since = at(5600)                              // happened
	p.note(at(5500), at(5700), 1, nil)              // on its way before: may have been before the fault
	select {
	case <-p.over:
		t.Fatal("what began before the fault was complete ended the outage")
	default:
	}
	p.note(at(5700), at(6900), 1, nil)
	if silence, err := p.outage(t.Context()); err != nil || silence != 1200*time.Millisecond {
		t.Errorf("silent for %v, %v", silence, err)
	}
	result := p.tally.result("x", 1, 2)
	if result.Operations != 4 || result.Errors != 1 || result.FirstError != "no" || result.Bytes != 4 || result.PerSecond != 2 {
		t.Errorf("%+v", result)
	}
	p.watch()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.outage(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("an outage without end: %v", err)
	}
}

func TestOutages(t *testing.T) {
	if empty := outages("x", nil, 1); empty.Operations != 0 || empty.Max != 0 {
		t.Errorf("%+v", empty)
	}
	var silences []time.Duration
	for i := range 200 {
		silences = append(silences, time.Duration(200-i)*time.Second)
	}
	r := outages("x", silences, 100)
	if r.Operations != 200 || r.P50 != 100 || r.P99 != 198 || r.Max != 200 || r.PerSecond != 2 || r.Samples[0] != 200 {
		t.Errorf("%+v", r)
	}
	if r := outages("x", silences[:1], 100); r.P50 != 200 || r.P99 != 200 || r.Max != 200 {
		t.Errorf("of one: %+v", r)
	}
}

func TestPulseGoesOnAfterErrors(t *testing.T) {
	p := startPulse(t.Context(), 2, 0, func(_ context.Context, i int64) (int64, error) {
		if i == 0 {
			return 0, errors.New("first")
		}
		return 1, nil
	})
	p.watch()
	p.happened()
	if _, err := p.outage(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := p.stop("x", 2); r.Errors != 1 || r.FirstError != "first" || r.Operations == 0 || r.Bytes != r.Operations {
		t.Errorf("%+v", r)
	}
}

func TestChoose(t *testing.T) {
	node := func(id dfs.NodeID, state string, chunks int64) protocol.NodeInfo {
		return protocol.NodeInfo{ID: id, State: state, Chunks: chunks}
	}
	four := []protocol.NodeInfo{
		node("dn1", protocol.StateUp, 3), node("dn2", protocol.StateUp, 5), node("dn3", protocol.StateUp, 0), node("dn4", protocol.StateUp, 5),
	}
	for _, test := range []struct {
		nodes []protocol.NodeInfo
		id    dfs.NodeID
		want  dfs.NodeID
		code  dfs.Code
	}{
		{four, "", "dn2", ""},
		{four, "dn3", "dn3", ""},
		{four, "dn9", "", dfs.NotFound},
		{four[:3], "", "", dfs.Invalid},
		{append(four[:3:3], node("dn4", protocol.StateDown, 9)), "", "", dfs.Invalid},
		{append(four[:4:4], node("dn5", protocol.StateDown, 9)), "dn5", "", dfs.NotFound},
		{append(four[:4:4], node("dn5", protocol.StateDown, 9)), "", "dn2", ""},
	} {
		got, err := choose(test.nodes, test.id)
		if dfs.CodeOf(err) != test.code || err == nil && got.ID != test.want {
			t.Errorf("%q of %v: %s, %v", test.id, test.nodes, got.ID, err)
		}
	}
}

// field starts nodes and makes a place on them.
func field(ctx context.Context, t *testing.T, config testcluster.Config) (*testcluster.Cluster, *client.Client, *Field) {
	t.Helper()
	c, err := testcluster.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	caller, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(caller.Close)
	f, err := NewField(ctx, caller, dfs.Root)
	if err != nil {
		t.Fatal(err)
	}
	return c, caller, f
}

func TestFailover(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, caller, f := field(ctx, t, testcluster.Config{NameNodes: 3, Dir: t.TempDir()})
	write, err := f.Meta("mkdir", 0)
	if err != nil {
		t.Fatal(err)
	}
	read := func(ctx context.Context, _ int64) (int64, error) {
		_, err := caller.Stat(ctx, f.Root())
		return 0, err
	}
	var lost []dfs.NodeID
	stopped := Faults{
		Kill:  func(_ context.Context, id dfs.NodeID) error { lost = append(lost, id); return c.Stop(id) },
		Start: func(ctx context.Context, id dfs.NodeID) error { return c.StartNameNode(ctx, id) },
	}
	for how, faults := range map[string]Faults{"leadership handed over": {}, "leader killed": stopped} {
		results, err := Failover(ctx, caller, FailoverPlan{Count: 2, Concurrency: 2}, faults, write, read)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if len(results) != 4 {
			t.Fatalf("%s: %+v", how, results)
		}
		for _, r := range results[:2] {
			if r.Operations != 2 || len(r.Samples) != 2 || r.P50 <= 0 || r.Max < r.P50 || r.How != how {
				t.Errorf("%s: %+v", how, r)
			}
		}
		for _, r := range results[2:] {
			if r.Operations < 4 || r.Errors != 0 || r.Max < results[0].P50/2 && r.Max < results[1].P50/2 {
				t.Errorf("%s: the load: %+v", how, r)
			}
		}
	}
	if len(lost) != 2 {
		t.Errorf("stopped: %v", lost)
	}
	broken := Faults{Kill: func(context.Context, dfs.NodeID) error { return errors.New("no such tool") }}
	if _, err := Failover(ctx, caller, FailoverPlan{Count: 1, Concurrency: 1}, broken, write, read); err == nil || err.Error() != "no such tool" {
		t.Errorf("with a kill that fails: %v", err)
	}
}

// bytesOn is what of the four files below root a DataNode holds.
func bytesOn(ctx context.Context, t *testing.T, c *client.Client, root dfs.Path, id dfs.NodeID) (sum int64) {
	t.Helper()
	for i := range 4 {
		path, err := dfs.ParsePath(fmt.Sprintf("%s/files/0/%d", root, i))
		if err != nil {
			t.Fatal(err)
		}
		file, err := c.File(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, chunk := range file.Chunks {
			for _, at := range chunk.Locations {
				if at.ID == id {
					sum += chunk.Size
				}
			}
		}
	}
	return sum
}

func TestRecover(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	c, caller, f := field(ctx, t, testcluster.Config{
		NameNodes: 1, DataNodes: 4, Dir: dir,
		Change: func(config *namenode.Config) {
			config.HeartbeatInterval = 300 * time.Millisecond
			config.SuspectAfter, config.DownAfter = 2*time.Second, 4*time.Second
		},
		ChangeDataNode: func(config *datanode.Config) { config.HeartbeatInterval = 300 * time.Millisecond },
	})
	// What is deleted is not copied, and must not count as if it were.
	earlier, err := f.Part("earlier")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := earlier.Put(40<<20, nil)(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := earlier.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	var done []string
	lost := int64(0)
	faults := Faults{
		Kill: func(_ context.Context, id dfs.NodeID) error {
			done = append(done, "kill")
			lost = bytesOn(ctx, t, caller, f.Root(), id)
			return c.Stop(id)
		},
		Wipe: func(_ context.Context, id dfs.NodeID) error {
			done = append(done, "wipe")
			return os.RemoveAll(filepath.Join(dir, string(id)))
		},
		Start: func(ctx context.Context, id dfs.NodeID) error {
			done = append(done, "start")
			return c.StartDataNode(ctx, id)
		},
	}
	const size = 5 << 20 // two chunks
	results, err := Recover(ctx, caller, f, RecoverPlan{Files: 4, Size: size, Concurrency: 2}, faults)
	if err != nil {
		t.Fatal(err)
	}
	if len(done) != 3 || done[0] != "kill" || done[1] != "wipe" || done[2] != "start" {
		t.Errorf("done: %v", done)
	}
	r, repair := results[0], results[0].Repair
	if repair == nil || repair.Chunks < 6 || repair.Bytes != lost || repair.Down <= 0 || repair.Copying <= 0 ||
		repair.Total != repair.Down+repair.Copying || repair.BytesPerSec <= 0 || repair.Returning <= 0 || r.Seconds != repair.Total {
		t.Errorf("%+v, %+v", r, repair)
	}
	for _, load := range results[1:] {
		if load.Operations < 2 || load.Bytes == 0 {
			t.Errorf("the load: %+v", load)
		}
	}
	if _, err := Recover(ctx, caller, f, RecoverPlan{Files: 1, Size: 1, Node: "dn9", Concurrency: 1}, faults); err == nil {
		t.Error("a DataNode that is not there was lost")
	}
}
