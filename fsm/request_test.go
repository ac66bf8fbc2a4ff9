package fsm

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// answers are what a client can tell apart.
type answer struct {
	result  Result
	code    dfs.Code
	message string
}

func answerOf(result Result, err error) answer {
	if err != nil {
		return answer{result, dfs.CodeOf(err), dfs.MessageOf(err)}
	}
	return answer{result: result}
}

// answersOf an entry; of one that was refused as a whole, a single one.
func answersOf(outcomes []Outcome, err error) []answer {
	if err != nil {
		return []answer{answerOf(Result{}, err)}
	}
	var answers []answer
	for _, o := range outcomes {
		answers = append(answers, answerOf(o.Result, o.Err))
	}
	return answers
}

// A retry gets the first answer, word for word, and changes nothing: at once,
// after a snapshot, and when the world has moved on.
func TestRetryGetsTheFirstAnswer(t *testing.T) {
	tests := []struct {
		name string
		code dfs.Code
		make func(*rig) Command
	}{
		{"mkdir", "", func(r *rig) Command { return &Mkdir{Path: r.path("/new")} }},
		{"mkdir refused", dfs.Exists, func(r *rig) Command { return &Mkdir{Path: r.path("/d")} }},
		{"begin", "", func(r *rig) Command { return begin(r.path("/d/g"), 2) }},
		{"begin refused", dfs.Exists, func(r *rig) Command { return begin(r.path("/d/f"), 2) }},
		{"add", "", func(r *rig) Command { return &AddChunks{Upload: r.begin("/d/g", 1).id, Targets: [][]NodeNum{{1}}} }},
		{"commit", "", func(r *rig) Command { return r.begin("/d/g", 1).commit() }},
		{"commit of a piece", "", func(r *rig) Command {
			u := r.begin("/d/g", 1)
			return &Commit{Upload: u.id, Chunks: stored(u.chunks...)}
		}},
		{"commit refused", dfs.NotFound, func(*rig) Command { return &Commit{Upload: 4711, Final: true} }},
		{"abort", "", func(r *rig) Command { return &AbortUpload{Upload: r.begin("/d/g", 1).id} }},
		{"reserve", "", func(*rig) Command { return &ReserveChunks{Count: 2} }},
		{"put", "", func(r *rig) Command { stock := r.reserve(1); return stock.put("/d/g", stock.chunks[0]) }},
		{"put empty", "", func(r *rig) Command { return &PutFile{Path: r.path("/d/g"), Replication: 1, ChunkSize: testChunkSize} }},
		{"put refused", dfs.Conflict, func(r *rig) Command { return stock{r, 4711, nil}.put("/d/g", 1) }},
		{"delete", "", func(r *rig) Command { return &Delete{Path: r.path("/d/f")} }},
		{"delete refused", dfs.NotEmpty, func(r *rig) Command { return &Delete{Path: r.path("/d")} }},
		{"rename", "", func(r *rig) Command { return &Rename{From: r.path("/d/f"), To: r.path("/d/g")} }},
		{"setrep", "", func(r *rig) Command { return &SetReplication{Path: r.path("/d/f"), Replication: 1} }},
		{"register", "", func(*rig) Command { return registration(7) }},
		{"heartbeats", "", func(*rig) Command {
			return &Heartbeats{Reports: []NodeReport{{Node: 2, Incarnation: 1, Seq: 9, Count: 5}}}
		}},
		{"purge", "", func(r *rig) Command {
			r.write("/tree/a", 1)
			r.write("/tree/b", 1)
			r.must(&Delete{Path: r.path("/tree"), Recursive: true})
			return &Purge{Limit: 1}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.nodes(2)
			r.write("/d/f", 1)
			c := test.make(r)
			first := answerOf(r.applyAs("again", c))
			if first.code != test.code {
				t.Fatalf("the first answer is %+v; want %q", first, test.code)
			}
			for _, disturb := range []func(){
				func() {},
				func() { r.m = restored(t, r.m) },
				func() { _, _ = r.apply(c) }, // as another request, whatever comes of it
				func() { r.must(&Delete{Path: r.path("/d"), Recursive: true}) },
			} {
				disturb()
				before := content(t, r.m.Freeze())
				if again := answerOf(r.applyAs("again", c)); !reflect.DeepEqual(again, first) {
					t.Fatalf("the answer was %+v and is %+v", first, again)
				}
				if string(before) != string(content(t, r.m.Freeze())) {
					t.Fatal("a retry took effect")
				}
				result, err, known := r.m.Freeze().Answer("again", c)
				if !known || !reflect.DeepEqual(answerOf(result, err), first) {
					t.Fatalf("it is remembered as %+v, %v, %t", result, err, known)
				}
			}
		})
	}
}

func TestRequestIDOfAnotherCall(t *testing.T) {
	r := newRig(t)
	if _, err := r.applyAs("once", &Mkdir{Path: r.path("/a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.applyAs("once", &Delete{Path: r.path("/a")}); dfs.CodeOf(err) != dfs.Invalid {
		t.Fatalf("%v", err)
	}
	r.wantTree("/a")
	if _, err := r.applyAs("once", &Mkdir{Path: r.path("/a")}); err != nil {
		t.Fatalf("the misuse has spoilt the memory: %v", err)
	}
	if _, _, known := r.m.Freeze().Answer("never", &Mkdir{}); known {
		t.Fatal("a request that never came is known")
	}
	if _, _, known := r.m.Freeze().Answer("", &Mkdir{}); known {
		t.Fatal("the request without ID is known")
	}
}

// Requests without ID are not remembered: each takes effect.
func TestNoRequestID(t *testing.T) {
	r := newRig(t)
	r.must(&Mkdir{Path: r.path("/a")})
	r.refused(dfs.Exists, &Mkdir{Path: r.path("/a")})
	if r.m.Freeze().requests.Len() != 0 {
		t.Fatal("a request without ID is remembered")
	}
}

// The memory is bounded; the oldest answers go first, also after a snapshot.
func TestRequestsAreForgottenInOrder(t *testing.T) {
	r := newRig(t)
	c := &Mkdir{Path: dfs.Root, Parents: true}
	var group [][]byte
	flush := func() {
		r.index++
		if _, err := r.m.ApplyGroup(r.index, EncodeGroup(group)); err != nil {
			t.Fatal(err)
		}
		group = nil
	}
	ask := func(i int) { // in groups, in the middle of which the order of forgetting ends
		group = append(group, Encode(c, dfs.RequestID(fmt.Sprint(i)), epoch))
		if len(group) == 8 {
			flush()
		}
	}
	for i := range maxRequests + 10 {
		ask(i)
	}
	flush()
	r.m = restored(t, r.m)
	for i := maxRequests + 10; i < maxRequests+20; i++ {
		ask(i)
	}
	ask(19) // forgotten: the youngest again
	flush()
	s := r.m.Freeze()
	if s.requests.Len() != maxRequests || s.requestOrder.Len() != maxRequests {
		t.Fatalf("%d are remembered; want %d", s.requests.Len(), maxRequests)
	}
	for i, want := range map[int]bool{0: false, 18: false, 19: true, 20: false, 21: true, maxRequests + 19: true} {
		if _, _, known := s.Answer(dfs.RequestID(fmt.Sprint(i)), &Mkdir{}); known != want {
			t.Errorf("request %d is remembered: %t; want %t", i, known, want)
		}
	}
}
