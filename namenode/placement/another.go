package placement

import (
	"math/rand/v2"
	"slices"
)

// Another returns the node that should get one more replica of a chunk of size
// bytes, by the rules of Plan. The holders are the numbers of the nodes that
// have the chunk, or will have it soon, and are to keep it: the new replica goes
// to none of them, and to a rack with as few of them as there is. Nor does it go
// to a node in avoid, but those take up no rack. It tells whether any node can
// take it.
func Another(nodes []Node, size int64, holders, avoid []uint32, random *rand.Rand) (uint32, bool) {
	request := Request{ChunkSize: size}
	planner := &planner{request: request, random: random}
	var chosen []int
	for i := range nodes {
		holds := slices.Contains(holders, nodes[i].Num)
		if !holds && (!request.usable(&nodes[i]) || slices.Contains(avoid, nodes[i].Num)) {
			continue
		}
		if holds {
			chosen = append(chosen, len(planner.nodes))
		}
		planner.nodes = append(planner.nodes, nodes[i])
	}
	at := planner.draw(chosen)
	if at < 0 {
		return 0, false
	}
	return planner.nodes[at].Num, true
}

// Takes tells whether a chunk of size bytes can be placed on the node.
func (n *Node) Takes(size int64) bool {
	request := Request{ChunkSize: size}
	return request.usable(n)
}
