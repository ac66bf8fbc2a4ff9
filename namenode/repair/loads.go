package repair

import (
	"github.com/dfs-go/dfs-go/fsm"
)

// loads is how full DataNodes are, as far as is known, and will be when what is
// under way is done.
type loads map[fsm.NodeNum]*load

// load is bytes: those of chunks, and those together with what is free.
type load struct{ used, total int64 }

// newLoads takes the copies under way for done, and the doomed replicas for
// gone.
func newLoads(nodes []fsm.Node, copies *Ledger, trims *Trims) loads {
	l := make(loads, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		l[n.Num] = &load{n.Used, n.Used + n.Free}
	}
	for _, c := range copies.Ongoing() {
		l.add(c.Target, c.Chunk.Size)
	}
	trims.each(func(t *Trim) { l.add(t.Victim, -t.Chunk.Size) })
	return l
}

func (l loads) add(num fsm.NodeNum, bytes int64) {
	if n, known := l[num]; known {
		n.used += bytes
	}
}

// fill is the used share of a node, and of one that has no room to speak of
// that of a full one.
func (l loads) fill(num fsm.NodeNum) float64 {
	n, known := l[num]
	if !known || n.total <= 0 {
		return 1
	}
	return float64(n.used) / float64(n.total)
}
