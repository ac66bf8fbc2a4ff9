package fsm

import (
	"slices"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestRegisterNode(t *testing.T) {
	const longAgo = 3
	known := RegisterNode{ID: "dn1", URL: "http://old:1", Rack: "r1", Instance: "disk", Incarnation: longAgo}
	tests := []struct {
		name   string
		change func(*RegisterNode)
		code   dfs.Code
		fresh  bool // the sequence of its reports begins anew
	}{
		{name: "the same again", change: func(*RegisterNode) {}},
		{name: "another address", change: func(c *RegisterNode) { c.URL, c.Rack = "http://new:1", "r2" }},
		{name: "started again", fresh: true, change: func(c *RegisterNode) { c.Incarnation++ }},
		{name: "an earlier start", code: dfs.Conflict, change: func(c *RegisterNode) { c.Incarnation-- }},
		{name: "another disk, later start", fresh: true, change: func(c *RegisterNode) { c.Instance = "new"; c.Incarnation++ }},
		{name: "another disk, same start", fresh: true, change: func(c *RegisterNode) { c.Instance = "new" }},
		{name: "another disk, first start", fresh: true, change: func(c *RegisterNode) { c.Instance = "new"; c.Incarnation = 1 }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			num := r.must(&known).Node
			d := newDisk(num)
			d.incarnation = longAgo
			r.beat(d.report(nil, nil))
			r.must(&SetLiveness{Nodes: []NodeLiveness{{num, Down}}})
			r.must(&SetService{Node: num, Service: Draining})
			before := r.node(num)
			c := known
			test.change(&c)
			if test.code != "" {
				r.refused(test.code, &c)
				return
			}
			if again := r.must(&c).Node; again != num {
				t.Fatalf("it got the number %d; it had %d", again, num)
			}
			n := r.node(num)
			if n.URL != c.URL || n.Rack != c.Rack || n.Instance != c.Instance || n.Incarnation != c.Incarnation {
				t.Fatalf("%+v; want %+v", n, c)
			}
			// To register is not yet to report, and no word of the operator's.
			if n.Liveness != Down || !n.LastHeartbeat.Equal(before.LastHeartbeat) || n.Service != Draining {
				t.Fatalf("%+v became %+v", before, n)
			}
			if fresh := n.Seq == 0 && !n.Inventoried; fresh != test.fresh {
				t.Fatalf("%+v became %+v", before, n)
			}
		})
	}
}

func TestNodeNumbers(t *testing.T) {
	r := newRig(t)
	if nums := r.nodes(3); !slices.Equal(nums, []NodeNum{1, 2, 3}) {
		t.Fatalf("%v", nums)
	}
	var ids []dfs.NodeID
	for _, n := range r.m.Freeze().Nodes() {
		ids = append(ids, n.ID)
	}
	if !slices.Equal(ids, []dfs.NodeID{"dn1", "dn2", "dn3"}) {
		t.Fatalf("%v", ids)
	}
	if n, ok := r.m.Freeze().Node("dn2"); !ok || n.Num != 2 || n.Liveness != Suspect || n.Inventoried {
		t.Fatalf("%+v, %t", n, ok)
	}
	if _, ok := r.m.Freeze().Node("dn9"); ok {
		t.Fatal("an unknown node is known")
	}
	for _, bad := range []dfs.NodeID{"", "a b", "ü", "../x"} {
		r.refused(dfs.Invalid, &RegisterNode{ID: bad})
	}
}

func TestTooManyNodes(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	r.m.state.nextNode = maxNodes - 1 // as after that many
	r.must(registration(2))
	r.refused(dfs.OverLimit, registration(3))
	r.must(registration(1))
}

func TestHeartbeat(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	u := r.begin("/f", 3)
	d := newDisk(1)
	report := d.report(u.chunks[:2], nil)
	report.Capacity, report.Used, report.Free, report.Writable = 100, 30, 60, true
	if need := r.beat(report); need != nil {
		t.Fatalf("an inventory of %v is wanted; the report adds up", need)
	}
	n := r.node(1)
	want := Node{
		Num: 1, ID: "dn1", URL: "http://dn1:9000", Rack: "r1", Instance: "disk1", Incarnation: 1, Seq: 1,
		Capacity: 100, Used: 30, Free: 60, Writable: true, LastHeartbeat: r.now, Chunks: 2, Inventoried: true,
	}
	if !n.LastHeartbeat.Equal(want.LastHeartbeat) {
		t.Fatalf("the heartbeat was at %s", n.LastHeartbeat)
	}
	n.LastHeartbeat = want.LastHeartbeat
	if n != want {
		t.Fatalf("%+v; want %+v", n, want)
	}
	if !slices.Equal(r.replicas(u.chunks[0]), []NodeNum{1}) || r.replicas(u.chunks[2]) != nil {
		t.Fatal("the replicas are not those that were reported")
	}

	corrupt := d.report(nil, u.chunks[1:2])
	corrupt.Corrupt, corrupt.Removed = corrupt.Removed, nil
	r.beat(corrupt, newDisk(2).report(u.chunks[:1], nil))
	if !slices.Equal(r.replicas(u.chunks[0]), []NodeNum{1, 2}) || len(r.replicas(u.chunks[1])) != 0 {
		t.Fatal("a damaged replica still counts")
	}
	r.beat(d.report(u.chunks[1:2], nil), d.report(nil, u.chunks[:1]))
	if !slices.Equal(r.replicas(u.chunks[0]), []NodeNum{2}) || !slices.Equal(r.replicas(u.chunks[1]), []NodeNum{1}) {
		t.Fatal("two reports of one node in one entry are not taken in, in order")
	}
}

// In one report, what is in both lists was removed and then stored again.
func TestHeartbeatRemovedAndAdded(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	u := r.beginSingle("/f")
	u.chunks = opened(r.must(&AddChunks{Upload: u.id, Targets: [][]NodeNum{{1}}})).chunks
	d := newDisk(1)
	r.beat(d.report(u.chunks, nil))
	if need := r.beat(d.report(u.chunks, u.chunks)); need != nil || !r.node(1).Inventoried {
		t.Fatalf("an inventory of %v is wanted", need)
	}
	double := d.report(slices.Repeat(u.chunks, 2), nil)
	if need := r.beat(double); need != nil {
		t.Fatal("a chunk that is listed twice counts twice")
	}
	if len(r.replicas(u.chunks[0])) != 1 {
		t.Fatal("the replica is gone")
	}
}

func TestHeartbeatOfWhoIsNotMeant(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	r.must(&RegisterNode{ID: "dn1", Instance: "disk1", Incarnation: 5})
	r.must(&SetLiveness{Nodes: []NodeLiveness{{1, Down}}})
	before := content(t, r.m.Freeze())
	old, future, stranger := newDisk(1), newDisk(1), newDisk(9)
	future.incarnation = 6
	if need := r.beat(old.report([]dfs.ChunkID{1}, nil), future.report(nil, nil), stranger.report(nil, nil)); need != nil {
		t.Fatalf("an inventory of %v is wanted", need)
	}
	if string(before) != string(content(t, r.m.Freeze())) {
		t.Fatal("a report of an earlier or later start, or of an unknown node, changed something")
	}
}

// A report that is too long for one entry comes in parts with one number.
func TestHeartbeatInParts(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	u := r.beginSingle("/f")
	u.chunks = opened(r.must(&AddChunks{Upload: u.id, Targets: [][]NodeNum{{1}, {1}, {1}}})).chunks
	first := newDisk(1).report(u.chunks, nil)
	second := first
	first.Added, second.Added = u.chunks[:1], u.chunks[1:]
	if need := r.beat(first); !slices.Equal(need, []NodeNum{1}) || r.node(1).Inventoried {
		t.Fatal("a part is taken for the whole")
	}
	if need := r.beat(second); need != nil || !r.node(1).Inventoried {
		t.Fatal("the second part was not taken in")
	}
	for _, id := range u.chunks {
		if got := r.replicas(id); !slices.Equal(got, []NodeNum{1}) {
			t.Errorf("chunk %s is on %v", id, got)
		}
	}
}

// A report that comes twice, or late, is only a sign of life.
func TestHeartbeatTwice(t *testing.T) {
	r := newRig(t)
	r.nodes(1)
	u := r.beginSingle("/f")
	u.chunks = opened(r.must(&AddChunks{Upload: u.id, Targets: [][]NodeNum{{1}, {1}}})).chunks
	d := newDisk(1)
	first := d.report(u.chunks[:1], nil)
	second := d.report(u.chunks[1:], u.chunks[:1])
	r.beat(first)
	r.beat(second)
	r.must(&SetLiveness{Nodes: []NodeLiveness{{1, Suspect}}})
	for _, again := range []NodeReport{first, second} {
		if need := r.beat(again); need != nil {
			t.Fatalf("an inventory of %v is wanted", need)
		}
		if n := r.node(1); n.Liveness != Up || n.Seq != 2 || n.Chunks != 1 || !n.LastHeartbeat.Equal(r.now) {
			t.Fatalf("%+v", n)
		}
		if len(r.replicas(u.chunks[0])) != 0 || len(r.replicas(u.chunks[1])) != 1 {
			t.Fatal("an old report was taken in again")
		}
	}
}

// Nodes of the short form have no incarnation and no sequence; their reports
// are taken in as they come.
func TestHeartbeatShortForm(t *testing.T) {
	r := newRig(t)
	num := r.must(&RegisterNode{ID: "curl", URL: "http://curl:1"}).Node
	d := newDisk(num)
	d.incarnation = 0
	for range 3 {
		report := d.report(nil, nil)
		report.Seq, report.Capacity = 0, 7
		r.beat(report)
	}
	full := d.report([]dfs.ChunkID{700}, nil)
	full.Seq = 0
	r.beat(full)
	if n := r.node(num); n.Chunks != 1 || !n.Inventoried {
		t.Fatalf("%+v", n)
	}
}

func TestHeartbeatsThatDoNotAddUp(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/f", 4)
	d1, d2 := newDisk(1), newDisk(2)
	r.beat(d1.report(ids, nil), d2.report(ids, nil))

	d1.report(nil, ids[:1]) // lost on the way
	if need := r.beat(d1.report(nil, ids[1:2]), d2.report(nil, nil)); !slices.Equal(need, []NodeNum{1}) {
		t.Fatalf("an inventory of %v is wanted; want one of DataNode number 1", need)
	}
	if r.node(1).Inventoried || !r.node(2).Inventoried {
		t.Fatal("who agrees is not who says the same")
	}
	if need := r.beat(d1.inventory(r.m.Freeze())); need != nil || !r.node(1).Inventoried {
		t.Fatalf("after the inventory one of %v is wanted", need)
	}
	if got := r.replicas(ids[0]); !slices.Equal(got, []NodeNum{2}) {
		t.Fatalf("the chunk of the lost report is on %v", got)
	}

	// The same number of chunks, but not the same ones.
	d1.report(ids[:1], ids[2:3])
	if need := r.beat(d1.report(nil, nil)); !slices.Equal(need, []NodeNum{1}) {
		t.Fatal("another chunk in the place of one was not noticed")
	}
}

// After a new start nothing is believed before the node and the state agree.
func TestNewStartWantsToAgree(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/f", 2)
	d := newDisk(1)
	r.beat(d.report(ids, nil))
	r.must(&RegisterNode{ID: "dn1", Instance: "disk1", Incarnation: 2})
	if r.node(1).Inventoried {
		t.Fatal("it is believed before its first report")
	}
	d.incarnation, d.seq = 2, 0
	if need := r.beat(d.report(nil, nil)); need != nil || !r.node(1).Inventoried {
		t.Fatal("it holds what it held, and is not believed")
	}
	if got := r.replicas(ids[0]); !slices.Equal(got, []NodeNum{1, 2}) {
		t.Fatalf("replicas %v", got)
	}

	// A replaced disk is empty: its inventory takes the replicas away.
	r.must(&RegisterNode{ID: "dn1", Instance: "another", Incarnation: 1})
	empty := newDisk(1)
	if need := r.beat(empty.report(nil, nil)); !slices.Equal(need, []NodeNum{1}) {
		t.Fatalf("an inventory of %v is wanted", need)
	}
	if need := r.beat(empty.inventory(r.m.Freeze())); need != nil {
		t.Fatal("after the inventory another is wanted")
	}
	if got := r.replicas(ids[0]); !slices.Equal(got, []NodeNum{2}) {
		t.Fatalf("replicas %v", got)
	}
}

func TestOrphans(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	d := newDisk(1)
	stranger := []dfs.ChunkID{1 << 50, ^dfs.ChunkID(0)}
	if need := r.beat(d.report(stranger, nil)); need != nil {
		t.Fatal("chunks that the namespace does not know keep the two from agreeing")
	}
	s := r.m.Freeze()
	if !s.Reported(1, stranger[0]) || s.Reported(2, stranger[0]) {
		t.Fatal("the orphan is not known to be there")
	}
	var got []dfs.ChunkID
	s.ReportedBetween(1, 0, ^dfs.ChunkID(0), func(id dfs.ChunkID) { got = append(got, id) })
	if !slices.Equal(got, stranger) {
		t.Fatalf("reported: %v", got)
	}
	r.beat(d.report(stranger, nil)) // again
	r.beat(d.report(nil, stranger))
	if r.m.Freeze().Reported(1, stranger[0]) || !r.node(1).Inventoried {
		t.Fatal("the orphan is not gone")
	}
	r.refused(dfs.Invalid, &Heartbeats{Reports: []NodeReport{{Node: 1, Incarnation: 1, Seq: 9, Added: []dfs.ChunkID{0}}}})
}

// A node that holds the remains of a deleted file, and reports them after the
// namespace has forgotten them.
func TestForgottenChunkComesBack(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/f", 1)
	d1, d2 := newDisk(1), newDisk(2)
	r.beat(d1.report(ids, nil), d2.report(ids, nil))
	r.must(&Delete{Path: r.path("/f")})
	if got := r.replicas(ids[0]); !slices.Equal(got, []NodeNum{1, 2}) {
		t.Fatalf("the garbage is on %v", got)
	}
	r.beat(d1.report(nil, ids), d2.report(nil, ids))
	if r.replicas(ids[0]) != nil {
		t.Fatal("the chunk is not forgotten")
	}
	if need := r.beat(d1.report(ids, nil)); need != nil {
		t.Fatal("a chunk that came back keeps the two from agreeing")
	}
	if _, known := r.m.Freeze().chunks.Get(ids[0]); known || !r.m.Freeze().Reported(1, ids[0]) {
		t.Fatal("a chunk that came back is no orphan")
	}
}

// A snapshot from before allocation kept clear of orphans may hold one that was
// allocated later: it counts once, whatever happens next, and is no orphan.
func TestOrphanThatWasAllocated(t *testing.T) {
	next := []dfs.ChunkID{1}
	tests := map[string]func(*rig, *disk){
		"reported again": func(r *rig, d *disk) { r.beat(d.report(next, nil)) },
		"reported again, committed": func(r *rig, d *disk) {
			r.beat(d.report(next, nil))
			r.must(open{1, next}.commit())
		},
		"committed, reported again": func(r *rig, d *disk) {
			r.must(open{1, next}.commit())
			r.beat(d.report(next, nil))
		},
		"committed, removed": func(r *rig, d *disk) {
			r.must(open{1, next}.commit())
			r.beat(d.report(nil, next))
			if got := r.replicas(1); !slices.Equal(got, []NodeNum{2}) {
				r.t.Errorf("it is on %v", got)
			}
		},
		"removed": func(r *rig, d *disk) { r.beat(d.report(nil, next)) },
	}
	for name, then := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			d := newDisk(1)
			r.begin("/f", 1)
			report := d.report(next, nil)
			n, _ := r.m.state.nodes.Get(1)
			r.m.state.orphans.Set(orphan{1, 1, r.index})
			n.hold(1)
			report.Added = nil
			r.beat(report)
			if orphans := r.orphans(1); len(orphans) > 0 {
				t.Errorf("chunks of an upload are orphans: %v", orphans)
			}
			then(r, d)
			if need := r.beat(d.report(nil, nil)); need != nil {
				t.Errorf("DataNode and state do not agree")
			}
		})
	}
}

// The commit of an upload and the reports of its nodes come in any order.
func TestCommitAndReportInBothOrders(t *testing.T) {
	for _, reportFirst := range []bool{true, false} {
		r := newRig(t)
		r.nodes(2)
		u := r.begin("/f", 1)
		d := newDisk(1)
		steps := []func(){
			func() { r.must(u.commit()) },
			func() {
				if need := r.beat(d.report(u.chunks, nil)); need != nil {
					t.Error("the report does not add up")
				}
			},
		}
		if reportFirst {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			step()
			r.check()
		}
		s := r.m.Freeze()
		if !s.Reported(1, u.chunks[0]) || s.Reported(2, u.chunks[0]) {
			t.Error("what was reported and what was said in the commit is mixed up")
		}
		if got := r.replicas(u.chunks[0]); !slices.Equal(got, []NodeNum{1, 2}) {
			t.Errorf("replicas %v", got)
		}
		if s.Unconfirmed(1, -time.Hour) || !s.Unconfirmed(2, -time.Hour) {
			t.Error("who waits for confirmation is mixed up")
		}
	}
}

// A node is empty when neither its reports nor a commit speak of a chunk on it.
func TestEmpty(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	empty := func(num NodeNum) bool { return r.m.Freeze().Empty(num) }
	if !empty(1) || !empty(2) || empty(9) {
		t.Error("at first both nodes are empty, and there are no others")
	}
	u := r.begin("/f", 1)
	r.must(u.commit())
	if empty(1) || empty(2) {
		t.Error("a commit has named both")
	}
	d := newDisk(1)
	r.beat(d.report(u.chunks, nil))
	if empty(1) {
		t.Error("it has reported a chunk")
	}
	r.beat(d.report(nil, u.chunks))
	if !empty(1) || empty(2) {
		t.Error("it has reported that the chunk is gone, the other has not")
	}
	r.beat(d.report([]dfs.ChunkID{999}, nil))
	if empty(1) {
		t.Error("what belongs to no file lies there, too")
	}
	claims := d.report(nil, []dfs.ChunkID{999})
	claims.Count = 1
	r.beat(claims)
	if empty(1) {
		t.Error("it says that it holds something")
	}
}

// What only a commit says is believed until the node had the time to report it
// and an inventory does not list it.
func TestUnconfirmedExpires(t *testing.T) {
	const grace = unconfirmedGrace * time.Millisecond
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/f", 1)
	d := newDisk(2)
	inventory := func() {
		if need := r.beat(d.inventory(r.m.Freeze())); need != nil {
			t.Fatal("the inventory does not add up")
		}
	}
	inventory()
	if got := r.replicas(ids[0]); !slices.Equal(got, []NodeNum{1, 2}) {
		t.Fatalf("an inventory that was on its way before the chunk took it away: %v", got)
	}
	if r.m.Freeze().Unconfirmed(2, grace) {
		t.Fatal("it waits longer than it can")
	}
	r.now = r.now.Add(2 * grace)
	r.beat(d.report(nil, nil))
	if got := r.replicas(ids[0]); len(got) != 2 {
		t.Fatalf("a plain heartbeat took it away: %v", got)
	}
	if !r.m.Freeze().Unconfirmed(2, grace) || r.m.Freeze().Unconfirmed(2, 3*grace) {
		t.Fatal("how long it waits is wrong")
	}
	inventory()
	if got := r.replicas(ids[0]); !slices.Equal(got, []NodeNum{1}) {
		t.Fatalf("after an inventory without it, it is on %v", got)
	}
	if r.m.Freeze().Unconfirmed(2, 0) {
		t.Fatal("it still waits")
	}
	// The last unconfirmed replica of garbage goes the same way.
	r.must(&Delete{Path: r.path("/f")})
	empty := newDisk(1)
	r.beat(empty.inventory(r.m.Freeze()))
	if r.replicas(ids[0]) != nil {
		t.Fatal("the chunk is not forgotten")
	}
}

func TestReportedBetween(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	ids := r.write("/f", 6)
	d := newDisk(1)
	r.beat(d.report(ids[:5], nil)) // the sixth is known from the commit only
	tests := []struct {
		after, through dfs.ChunkID
		want           []dfs.ChunkID
	}{
		{0, ^dfs.ChunkID(0), ids[:5]},
		{ids[0], ids[2], ids[1:3]},
		{ids[4], ^dfs.ChunkID(0), nil},
		{^dfs.ChunkID(0), ^dfs.ChunkID(0), nil},
		{ids[3], ids[1], nil},
	}
	for _, test := range tests {
		var got []dfs.ChunkID
		r.m.Freeze().ReportedBetween(1, test.after, test.through, func(id dfs.ChunkID) { got = append(got, id) })
		if !slices.Equal(got, test.want) {
			t.Errorf("between %s and %s: %v; want %v", test.after, test.through, got, test.want)
		}
	}
}

func TestLivenessAndService(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	r.must(&SetLiveness{Nodes: []NodeLiveness{{1, Suspect}, {2, Down}, {9, Down}}})
	if r.node(1).Liveness != Suspect || r.node(2).Liveness != Down {
		t.Fatal("the liveness is not the one set")
	}
	r.beat(newDisk(2).report(nil, nil))
	if r.node(1).Liveness != Suspect || r.node(2).Liveness != Up {
		t.Fatal("a heartbeat does not bring back the node that sent it, and only that")
	}
	r.must(&SetService{Node: 1, Service: Drained})
	if r.node(1).Service != Drained || r.node(2).Service != InService {
		t.Fatal("the service is not the one set")
	}
	r.beat(newDisk(1).report(nil, nil))
	if n := r.node(1); n.Service != Drained || n.Liveness != Up {
		t.Fatalf("%+v", n)
	}
	r.refused(dfs.NotFound, &SetService{Node: 9, Service: Drained})
	r.refused(dfs.Invalid, &SetService{Node: 1, Service: Drained + 1})
	r.refused(dfs.Invalid, &SetLiveness{Nodes: []NodeLiveness{{1, Down + 1}}})
}

func TestMembers(t *testing.T) {
	announce := func(instance string) *SetMember {
		return &SetMember{ID: "nn1", Instance: instance, URL: "http://" + instance, RaftAddr: "nn1:7000"}
	}
	remove := &RemoveMember{ID: "nn1"}
	tests := []struct {
		name  string
		steps []Command
		last  Command
		code  dfs.Code
		want  Member
	}{
		{"first announcement", nil, announce("a"), "", Member{ID: "nn1", Instance: "a"}},
		{"again", []Command{announce("a")}, announce("a"), "", Member{ID: "nn1", Instance: "a"}},
		{"joined, then announced", []Command{announce("")}, announce("a"), "", Member{ID: "nn1", Instance: "a"}},
		{"announced, then joined again", []Command{announce("a")}, announce(""), "", Member{ID: "nn1", Instance: "a"}},
		{"another meta-dir", []Command{announce("a")}, announce("b"), dfs.Conflict, Member{}},
		{"another meta-dir after a join", []Command{announce("a"), announce("")}, announce("b"), dfs.Conflict, Member{}},
		{"removed", []Command{announce("a")}, remove, "", Member{ID: "nn1", Instance: "a", Removed: true}},
		{"removed, unknown", nil, remove, "", Member{ID: "nn1", Removed: true}},
		{"removed twice", []Command{announce("a"), remove}, remove, "", Member{ID: "nn1", Instance: "a", Removed: true}},
		{"removed, comes back", []Command{announce("a"), remove}, announce("a"), dfs.Forbidden, Member{}},
		{"removed, new meta-dir", []Command{announce("a"), remove}, announce("b"), "", Member{ID: "nn1", Instance: "b"}},
		{"removed, joined", []Command{announce("a"), remove}, announce(""), "", Member{ID: "nn1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			for _, step := range test.steps {
				r.must(step)
			}
			if test.code != "" {
				r.refused(test.code, test.last)
				return
			}
			r.must(test.last)
			got, ok := r.m.Freeze().Member("nn1")
			if !ok || got.ID != test.want.ID || got.Instance != test.want.Instance || got.Removed != test.want.Removed {
				t.Fatalf("%+v, %t; want %+v", got, ok, test.want)
			}
			if set, ok := test.last.(*SetMember); ok && (got.URL != set.URL || got.RaftAddr != set.RaftAddr) {
				t.Fatalf("%+v; want the addresses of %+v", got, set)
			}
			if all := r.m.Freeze().Members(); len(all) != 1 || all[0] != got {
				t.Fatalf("%+v", all)
			}
		})
	}
	if _, ok := newRig(t).m.Freeze().Member("nn1"); ok {
		t.Fatal("an unknown member is known")
	}
}

func TestInitCluster(t *testing.T) {
	r := newRig(t)
	if id := r.m.Freeze().ClusterID(); id != "" {
		t.Fatalf("before: %q", id)
	}
	r.must(&InitCluster{ClusterID: "first"})
	r.must(&InitCluster{ClusterID: "second"})
	if id := r.m.Freeze().ClusterID(); id != "first" {
		t.Fatalf("%q; the first wins", id)
	}
}

// TestDamagedReplicas follows the replicas of one chunk: what was found damaged
// is remembered until a new replica has taken its place.
func TestDamagedReplicas(t *testing.T) {
	r := newRig(t)
	r.nodes(4)
	id := r.write("/f", 1)[0]
	disks := make(map[NodeNum]*disk)
	for num := NodeNum(1); num <= 4; num++ {
		disks[num] = newDisk(num)
	}
	report := func(num NodeNum, what string) {
		t.Helper()
		var one NodeReport
		switch what {
		case "added":
			one = disks[num].report([]dfs.ChunkID{id}, nil)
		case "removed":
			one = disks[num].report(nil, []dfs.ChunkID{id})
		case "corrupt":
			one = disks[num].report(nil, []dfs.ChunkID{id})
			one.Corrupt, one.Removed = one.Removed, nil
		}
		r.beat(one)
		r.beat(one) // the answer was lost: the same again
	}
	for i, step := range []struct {
		node     NodeNum
		what     string
		replicas []NodeNum
		damaged  []NodeNum
	}{
		{1, "added", []NodeNum{1, 2}, nil},
		{1, "corrupt", []NodeNum{2}, []NodeNum{1}},
		{3, "corrupt", []NodeNum{2}, []NodeNum{1}}, // it was not known to hold it
		{3, "added", []NodeNum{2, 3}, nil},
		{3, "removed", []NodeNum{2}, nil},
		{2, "corrupt", nil, []NodeNum{2}},
		{1, "added", []NodeNum{1}, nil},
		{3, "added", []NodeNum{1, 3}, nil},
		{3, "corrupt", []NodeNum{1}, []NodeNum{3}},
		{1, "corrupt", nil, []NodeNum{1, 3}},
		{3, "added", []NodeNum{3}, []NodeNum{1}}, // its own place, not that of the first
		{4, "added", []NodeNum{3, 4}, nil},
	} {
		report(step.node, step.what)
		c, _ := r.m.Freeze().Chunk(id)
		if !slices.Equal(c.Replicas, step.replicas) || !slices.Equal(c.Damaged, step.damaged) {
			t.Fatalf("step %d, %s on %d: replicas %v, damaged %v", i+1, step.what, step.node, c.Replicas, c.Damaged)
		}
		again, _ := restored(t, r.m).Freeze().Chunk(id)
		if !slices.Equal(again.Damaged, step.damaged) {
			t.Fatalf("step %d: damaged %v after a restore", i+1, again.Damaged)
		}
	}
}

func TestOrphaned(t *testing.T) {
	r := newRig(t)
	r.nodes(2)
	count := func(want int64) {
		t.Helper()
		if got := r.m.Freeze().Orphaned(); got != want {
			t.Fatalf("%d orphaned replicas, want %d", got, want)
		}
	}
	r.write("/f", 3)
	r.begin("/open", 2)
	count(0)
	r.beat(newDisk(1).report([]dfs.ChunkID{1, 2, 3, 4, 99}, nil)) // 4 is of the open upload, 99 of nothing
	count(1)
	r.must(&AbortUpload{Upload: 2})
	count(2)
	r.must(&Delete{Path: r.path("/f")})
	r.must(&Purge{Limit: maxPurge})
	count(2 + 2*3)
}
