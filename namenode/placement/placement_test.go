package placement_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode/placement"
)

const mib = 1 << 20

func node(num uint32, change ...func(*placement.Node)) placement.Node {
	n := placement.Node{
		Num: num, ID: dfs.NodeID(fmt.Sprintf("dn%d", num)),
		Live: true, Serving: true, Writable: true, Free: 1 << 40,
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func silent(n *placement.Node)     { n.Live = false }
func draining(n *placement.Node)   { n.Serving = false }
func unwritable(n *placement.Node) { n.Writable = false }

func free(bytes int64) func(*placement.Node) { return func(n *placement.Node) { n.Free = bytes } }
func inFlight(bytes int64) func(*placement.Node) {
	return func(n *placement.Node) { n.InFlight = bytes }
}
func rack(name string) func(*placement.Node) { return func(n *placement.Node) { n.Rack = name } }

func source() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestPlanRefusals(t *testing.T) {
	full := free(3 * mib)
	tests := []struct {
		name        string
		nodes       []placement.Node
		replication int
		exclude     []dfs.NodeID
		code        dfs.Code
		message     string
	}{
		{"no node", nil, 3, nil, dfs.Unavailable,
			"0 DataNodes are live, 2 are needed for replication 3: start 2 more"},
		{"one node", []placement.Node{node(1)}, 3, nil, dfs.Unavailable,
			"1 DataNode is live, 2 are needed for replication 3: start another or pass --replication 1"},
		{"one of two silent", []placement.Node{node(1), node(2, silent)}, 2, nil, dfs.Unavailable,
			"1 DataNode is live, 2 are needed for replication 2"},
		{"one of two draining", []placement.Node{node(1), node(2, draining)}, 2, nil, dfs.Unavailable, "1 DataNode is live"},
		{"none for one replica", []placement.Node{node(1, silent)}, 1, nil, dfs.Unavailable,
			"0 DataNodes are live, 1 is needed for replication 1: start another"},
		{"excluded", []placement.Node{node(1), node(2)}, 2, []dfs.NodeID{"dn2"}, dfs.Unavailable,
			"1 DataNode is live (1 more could not be reached by you), 2 are needed"},
		{"full", []placement.Node{node(1), node(2, full), node(3, full)}, 3, nil, dfs.NoSpace,
			"3 DataNodes are live, but only 1 can take a chunk of 4194304 bytes and 2 are needed"},
		{"unwritable and full", []placement.Node{node(1), node(2, unwritable, full)}, 3, nil, dfs.NoSpace, "only 1 can take"},
		{"just started", []placement.Node{node(1), node(2, unwritable), node(3, full)}, 3, nil, dfs.Unavailable,
			"1 DataNode is live but not ready for new chunks"},
		{"all just started", []placement.Node{node(1, unwritable), node(2, unwritable)}, 3, nil, dfs.Unavailable, "2 DataNodes are live but not ready"},
		{"too few, one just started", []placement.Node{node(1, unwritable)}, 3, nil, dfs.Unavailable, "1 DataNode is live, 2 are needed"},
		{"spoken for", []placement.Node{node(1), node(2, free(8*mib), inFlight(5*mib))}, 3, nil, dfs.NoSpace, "only 1 can take"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := placement.Plan(test.nodes, placement.Request{
				Chunks: 1, ChunkSize: 4 * mib, Replication: test.replication, Exclude: test.exclude,
			}, source())
			if dfs.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.message) {
				t.Fatalf("got %s %q, want %s %q", dfs.CodeOf(err), err, test.code, test.message)
			}
		})
	}
}

func TestPlanRunsOutOfRoom(t *testing.T) {
	nodes := []placement.Node{node(1, free(20*mib)), node(2, free(20*mib)), node(3, free(20*mib))}
	request := placement.Request{Chunks: 5, ChunkSize: 4 * mib, Replication: 3}
	if _, err := placement.Plan(nodes, request, source()); err != nil {
		t.Fatalf("five chunks fit exactly: %v", err)
	}
	request.Chunks = 6
	if _, err := placement.Plan(nodes, request, source()); dfs.CodeOf(err) != dfs.NoSpace {
		t.Fatalf("six chunks: got %v, want no_space", err)
	}
	if _, err := placement.Plan(append(nodes, node(4, unwritable)), request, source()); !errors.Is(err, placement.ErrNotReady) {
		t.Fatalf("six chunks, and a node that starts: %v", err)
	}
	if nodes[0].InFlight != 0 {
		t.Fatal("Plan changed the caller's nodes")
	}
}

func TestPlanDistinctAndEligible(t *testing.T) {
	nodes := []placement.Node{node(1), node(2, silent), node(3), node(4, draining), node(5), node(6, unwritable), node(7, free(0))}
	plan, err := placement.Plan(nodes, placement.Request{Chunks: 200, ChunkSize: 4 * mib, Replication: 3, Exclude: nil}, source())
	if err != nil {
		t.Fatal(err)
	}
	for i, targets := range plan {
		seen := map[uint32]bool{}
		for _, num := range targets {
			if num != 1 && num != 3 && num != 5 {
				t.Fatalf("chunk %d: node %d must not be used", i, num)
			}
			seen[num] = true
		}
		if len(seen) != 3 {
			t.Fatalf("chunk %d is on %v", i, targets)
		}
	}
}

func TestPlanTakesWhatThereIs(t *testing.T) {
	plan, err := placement.Plan([]placement.Node{node(1), node(2)}, placement.Request{Chunks: 1, ChunkSize: mib, Replication: 3}, source())
	if err != nil || len(plan[0]) != 2 {
		t.Fatalf("two nodes, replication 3: %v %v", plan, err)
	}
	plan, err = placement.Plan([]placement.Node{node(1)}, placement.Request{Chunks: 0, ChunkSize: mib, Replication: 1}, source())
	if err != nil || len(plan) != 0 {
		t.Fatalf("no chunks: %v %v", plan, err)
	}
}

func TestPlanSpreadsOverRacks(t *testing.T) {
	// Rack b has one small node; still every chunk has a replica there.
	nodes := []placement.Node{
		node(1, rack("a")), node(2, rack("a")), node(3, rack("a")), node(4, rack("b"), free(1<<36)),
	}
	plan, err := placement.Plan(nodes, placement.Request{Chunks: 100, ChunkSize: 4 * mib, Replication: 3}, source())
	if err != nil {
		t.Fatal(err)
	}
	for i, targets := range plan {
		onB := 0
		for _, num := range targets {
			if num == 4 {
				onB++
			}
		}
		if onB != 1 || len(targets) != 3 {
			t.Fatalf("chunk %d is on %v: one replica should be on rack b", i, targets)
		}
	}
}

func TestPlanWeighs(t *testing.T) {
	count := func(nodes []placement.Node) map[uint32]int {
		plan, err := placement.Plan(nodes, placement.Request{Chunks: 3000, ChunkSize: mib, Replication: 1}, source())
		if err != nil {
			t.Fatal(err)
		}
		counts := map[uint32]int{}
		for _, targets := range plan {
			counts[targets[0]]++
		}
		return counts
	}
	byFree := count([]placement.Node{node(1, free(300<<30)), node(2, free(100<<30))})
	if byFree[1] <= byFree[2] {
		t.Errorf("the node with three times the space got %d chunks, the other %d", byFree[1], byFree[2])
	}
	byQueue := count([]placement.Node{node(1, inFlight(4000*mib)), node(2)})
	if byQueue[1] >= byQueue[2] {
		t.Errorf("the busy node got %d chunks, the idle one %d", byQueue[1], byQueue[2])
	}
	even := count([]placement.Node{node(1), node(2), node(3)})
	for num, n := range even {
		if n < 900 || n > 1100 {
			t.Errorf("of equal nodes, node %d got %d of 3000 chunks", num, n)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	var nodes []placement.Node
	for i := range uint32(20) {
		nodes = append(nodes, node(i+1, rack(fmt.Sprint(i%4))))
	}
	random := source()
	for b.Loop() {
		if _, err := placement.Plan(nodes, placement.Request{Chunks: 64, ChunkSize: 4 * mib, Replication: 3}, random); err != nil {
			b.Fatal(err)
		}
	}
}
