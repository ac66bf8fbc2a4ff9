package history

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// op is a call from one moment to another.
func op(from, to int64, call Call, answer Answer) porcupine.Operation {
	return porcupine.Operation{Input: call, Call: from, Output: answer, Return: to}
}

const forever = 1 << 60

func TestCheck(t *testing.T) {
	create := Call{Kind: Create, Path: 0, Tag: 7}
	ok, unknown := Answer{}, Answer{Unknown: true}
	stat := func(p Path) Call { return Call{Kind: Stat, Path: p} }
	tag := func(tag Tag) Answer { return Answer{Tag: tag} }
	missing := Answer{Code: dfs.NotFound}
	tests := []struct {
		name  string
		calls []porcupine.Operation
		want  bool
	}{
		{"nothing", nil, true},
		{"a write is seen", []porcupine.Operation{op(1, 2, create, ok), op(3, 4, stat(0), tag(7))}, true},
		{"a stale read", []porcupine.Operation{op(1, 2, create, ok), op(3, 4, stat(0), missing)}, false},
		{"a read beside a write may see either", []porcupine.Operation{op(1, 5, create, ok), op(2, 3, stat(0), missing), op(2, 4, stat(0), tag(7))}, true},
		{"time does not go back", []porcupine.Operation{op(1, 9, create, ok), op(2, 3, stat(0), tag(7)), op(4, 5, stat(0), missing)}, false},
		{"a lost write", []porcupine.Operation{op(1, 2, create, ok), op(3, 4, Call{Kind: Create, Path: 0, Tag: 8}, ok)}, false},
		{"an unknown write may have happened", []porcupine.Operation{op(1, forever, create, unknown), op(8, 9, stat(0), tag(7))}, true},
		{"or not", []porcupine.Operation{op(1, forever, create, unknown), op(8, 9, stat(0), missing)}, true},
		{"or later", []porcupine.Operation{op(1, forever, create, unknown), op(3, 4, stat(0), missing), op(8, 9, stat(0), tag(7))}, true},
		{"but only once", []porcupine.Operation{
			op(1, forever, create, unknown), op(2, 3, stat(0), tag(7)), op(4, 5, Call{Kind: Delete, Path: 0}, ok), op(6, 7, stat(0), tag(7)),
		}, false},
		{"a refusal needs its reason", []porcupine.Operation{op(1, 2, create, Answer{Code: dfs.Exists})}, false},
		{"a delete of nothing", []porcupine.Operation{op(1, 2, Call{Kind: Delete, Path: 0}, ok)}, false},
		{"a rename moves", []porcupine.Operation{
			op(1, 2, create, ok), op(3, 4, Call{Kind: Rename, Path: 0, To: 4}, ok), op(5, 6, stat(4), tag(7)), op(5, 6, stat(0), missing),
		}, true},
		{"a rename does not leave a copy", []porcupine.Operation{
			op(1, 2, create, ok), op(3, 4, Call{Kind: Rename, Path: 0, To: 4}, ok), op(5, 6, stat(0), tag(7)),
		}, false},
		{"a file is never in two directories", []porcupine.Operation{
			op(1, 2, create, ok), op(3, 20, Call{Kind: Rename, Path: 0, To: 4}, ok),
			op(5, 6, Call{Kind: List, Dir: 1}, Answer{Listing: [Names]Tag{0, 7, 0}}), op(7, 8, Call{Kind: List, Dir: 0}, Answer{Listing: [Names]Tag{7, 0, 0}}),
		}, false},
		{"content that nobody wrote", []porcupine.Operation{op(1, 2, create, ok), op(3, 4, Call{Kind: Read, Path: 0}, tag(-1))}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := NewRecorder()
			r.calls = test.calls
			picture := filepath.Join(t.TempDir(), "history.html")
			err := r.Check(time.Minute, picture)
			if (err == nil) != test.want {
				t.Errorf("error: %v, linearizable: %t", err, test.want)
			}
			if _, missing := os.Stat(picture); (missing != nil) != test.want {
				t.Errorf("the picture: %v", missing)
			}
		})
	}
}

func TestReadsWithoutAnAnswerAreLeftOut(t *testing.T) {
	r := NewRecorder()
	r.Do(0, Call{Kind: Stat}, func() Answer { return Answer{Unknown: true} })
	r.Do(0, Call{Kind: Create, Tag: 1}, func() Answer { return Answer{Unknown: true} })
	r.Do(0, Call{Kind: Create, Tag: 2}, func() Answer { return Answer{} })
	if all, unknown := r.Counts(); all != 2 || unknown != 1 {
		t.Errorf("%d calls, %d of them unknown", all, unknown)
	}
	if err := r.Check(time.Minute, ""); err != nil {
		t.Error(err)
	}
}
