package placement

import (
	"math/rand/v2"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestAnother(t *testing.T) {
	usable := func(num uint32, rack string) Node {
		return Node{Num: num, ID: dfs.NodeID(rack), Rack: rack, Live: true, Serving: true, Writable: true, Free: 1000}
	}
	with := func(n Node, change func(*Node)) Node { change(&n); return n }
	tests := []struct {
		name    string
		nodes   []Node
		holders []uint32
		avoid   []uint32
		want    []uint32 // any of them; none: no node
	}{
		{"the one that lacks it", []Node{usable(1, ""), usable(2, ""), usable(3, "")}, []uint32{1, 3}, nil, []uint32{2}},
		{"all have it", []Node{usable(1, ""), usable(2, "")}, []uint32{1, 2}, nil, nil},
		{"nobody there", nil, []uint32{1}, nil, nil},
		{"another rack", []Node{usable(1, "a"), usable(2, "a"), usable(3, "b")}, []uint32{1}, nil, []uint32{3}},
		{"the emptier rack", []Node{usable(1, "a"), usable(2, "a"), usable(3, "b"), usable(4, "a"), usable(5, "b")}, []uint32{1, 2, 3}, nil, []uint32{5}},
		{"no other rack", []Node{usable(1, "a"), usable(2, "a")}, []uint32{1}, nil, []uint32{2}},
		{"not live", []Node{usable(1, ""), with(usable(2, ""), func(n *Node) { n.Live = false })}, []uint32{1}, nil, nil},
		{"draining", []Node{usable(1, ""), with(usable(2, ""), func(n *Node) { n.Serving = false })}, []uint32{1}, nil, nil},
		{"not writable", []Node{usable(1, ""), with(usable(2, ""), func(n *Node) { n.Writable = false })}, []uint32{1}, nil, nil},
		{"full", []Node{usable(1, ""), with(usable(2, ""), func(n *Node) { n.Free = 99 })}, []uint32{1}, nil, nil},
		{"spoken for", []Node{usable(1, ""), with(usable(2, ""), func(n *Node) { n.InFlight = 901 })}, []uint32{1}, nil, nil},
		{"just fits", []Node{usable(1, ""), with(usable(2, ""), func(n *Node) { n.InFlight = 900 })}, []uint32{1}, nil, []uint32{2}},
		{
			"the rack of a holder that takes nothing more counts",
			[]Node{with(usable(1, "a"), func(n *Node) { n.Live, n.Free = false, 0 }), usable(2, "a"), usable(3, "b")},
			[]uint32{1}, nil, []uint32{3},
		},
		{"one that is to be avoided", []Node{usable(1, ""), usable(2, ""), usable(3, "")}, []uint32{1}, []uint32{2}, []uint32{3}},
		{"all others are to be avoided", []Node{usable(1, ""), usable(2, "")}, []uint32{1}, []uint32{2}, nil},
		{"the rack of one that is to be avoided is free", []Node{usable(1, "a"), usable(2, "b"), usable(3, "a"), usable(4, "b")}, []uint32{1}, []uint32{2}, []uint32{4}},
	}
	for _, test := range tests {
		for seed := range uint64(20) {
			got, ok := Another(test.nodes, 100, test.holders, test.avoid, rand.New(rand.NewPCG(seed, 0)))
			if ok != (len(test.want) > 0) || ok && got != test.want[0] {
				t.Fatalf("%s: got %d, %v; want %v", test.name, got, ok, test.want)
			}
		}
	}
}

// The draw is weighted as that of Plan: more free space, more chunks.
func TestAnotherPrefersRoom(t *testing.T) {
	nodes := []Node{
		{Num: 1, Live: true, Serving: true, Writable: true, Free: 900},
		{Num: 2, Live: true, Serving: true, Writable: true, Free: 100},
	}
	counts := make(map[uint32]int)
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		num, _ := Another(nodes, 1, nil, nil, random)
		counts[num]++
	}
	if counts[1] < 850 || counts[2] < 50 {
		t.Errorf("%v; want about 900 and 100", counts)
	}
}
