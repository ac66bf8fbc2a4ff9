package history

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// A world is a small part of the namespace with clients of its own: Dirs
// directories, which stay, with room for Names files each.
const (
	Dirs  = 2
	Names = 3
	Paths = Dirs * Names
)

// Path is a place for a file in a world, from 0.
type Path int

// Dir returns the directory of the path, from 0.
func (p Path) Dir() int { return int(p) / Names }

// String returns the path below the directory of the world.
func (p Path) String() string { return fmt.Sprintf("d%d/f%d", p.Dir(), int(p)%Names) }

// DirName returns the name of a directory of a world.
func DirName(dir int) string { return fmt.Sprintf("d%d", dir) }

// Kind is what a call does.
type Kind string

// The kinds of calls.
const (
	Create  Kind = "create"  // a file where there is none
	Replace Kind = "replace" // a file, whatever stands there
	Delete  Kind = "delete"
	Rename  Kind = "rename"
	Stat    Kind = "stat" // the tag by the size alone
	Read    Kind = "read" // the tag by the content
	List    Kind = "list" // the tags of one directory
)

// Mutates tells whether a call of this kind may change something.
func (k Kind) Mutates() bool {
	return k == Create || k == Replace || k == Delete || k == Rename
}

// Tag tells the contents of files apart: it is their size in bytes, and no two
// calls of a world write the same. 0 stands for no file.
type Tag int64

// State is what a world contains: the tag at each path.
type State [Paths]Tag

// Call is what a client asked for.
type Call struct {
	Kind Kind
	Path Path
	To   Path // of a Rename
	Tag  Tag  // of a Create or Replace
	Dir  int  // of a List
}

// Answer is what a client got.
type Answer struct {
	Code    dfs.Code // "" when the call was carried out
	Unknown bool     // the outcome of a mutation is not known
	Tag     Tag      // of a Stat or Read
	Listing [Names]Tag
}

// model is the namespace of one world, as a single machine would have it.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{State{}} },
		Step: func(state, input, output any) []any {
			return step(state.(State), input.(Call), output.(Answer))
		},
		DescribeOperation: func(input, output any) string { return describe(input.(Call), output.(Answer)) },
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
	return m.ToModel()
}

// step returns the states in which the call can have left a world: none when it
// cannot have been answered so.
func step(s State, call Call, answer Answer) []any {
	if answer.Unknown {
		after, ok := effect(s, call)
		if !ok || after == s {
			return []any{s}
		}
		return []any{s, after}
	}
	if !call.Kind.Mutates() {
		return same(s, matches(s, call, answer))
	}
	after, possible := effect(s, call)
	switch answer.Code {
	case "":
		if possible {
			return []any{after}
		}
		return nil
	case dfs.NotFound:
		return same(s, (call.Kind == Delete || call.Kind == Rename) && s[call.Path] == 0)
	case dfs.Exists:
		occupied := call.Path
		if call.Kind == Rename {
			occupied = call.To
		}
		return same(s, s[occupied] != 0)
	}
	return []any{s} // refused for a reason that the model does not know
}

// effect returns what a mutation makes of s, and whether it can be carried out.
func effect(s State, call Call) (State, bool) {
	switch call.Kind {
	case Create:
		if s[call.Path] != 0 {
			return s, false
		}
		s[call.Path] = call.Tag
	case Replace:
		s[call.Path] = call.Tag
	case Delete:
		if s[call.Path] == 0 {
			return s, false
		}
		s[call.Path] = 0
	case Rename:
		if s[call.Path] == 0 || s[call.To] != 0 {
			return s, false
		}
		s[call.To], s[call.Path] = s[call.Path], 0
	}
	return s, true
}

// matches tells whether a reader can have seen this in s.
func matches(s State, call Call, answer Answer) bool {
	if call.Kind == List {
		return answer.Code == "" && slices.Equal(answer.Listing[:], s[call.Dir*Names:(call.Dir+1)*Names])
	}
	switch answer.Code {
	case "":
		return answer.Tag != 0 && s[call.Path] == answer.Tag
	case dfs.NotFound:
		return s[call.Path] == 0
	}
	return false
}

func same(s State, possible bool) []any {
	if possible {
		return []any{s}
	}
	return nil
}

func describe(call Call, answer Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", call.Kind)
	switch call.Kind {
	case List:
		fmt.Fprint(&b, DirName(call.Dir))
	case Rename:
		fmt.Fprintf(&b, "%s to %s", call.Path, call.To)
	case Create, Replace:
		fmt.Fprintf(&b, "%s = %d", call.Path, call.Tag)
	default:
		fmt.Fprint(&b, call.Path)
	}
	switch {
	case answer.Unknown:
		b.WriteString(": unknown")
	case answer.Code != "":
		fmt.Fprintf(&b, ": %s", answer.Code)
	case call.Kind == List:
		fmt.Fprintf(&b, ": %v", answer.Listing)
	case !call.Kind.Mutates():
		fmt.Fprintf(&b, ": %d", answer.Tag)
	}
	return b.String()
}
