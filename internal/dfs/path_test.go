package dfs_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestParsePath(t *testing.T) {
	long := strings.Repeat("x", dfs.MaxNameLength)
	deep := strings.Repeat("/d", dfs.MaxPathDepth)
	longest := strings.Repeat("/"+long, dfs.MaxPathLength/(dfs.MaxNameLength+1))
	nearly := longest[:len(longest)-2] // room for a slash and a name
	good := map[string]string{
		"/":                 "/",
		"/a":                "/a",
		"a":                 "/a",
		"a/":                "/a",
		"/a/":               "/a",
		"/a/b":              "/a/b",
		"a/b/":              "/a/b",
		"/...":              "/...",
		"/.a":               "/.a",
		"/a b":              "/a b",
		"/ ":                "/ ",
		`/a\b`:              `/a\b`,
		"/%2e%2e":           "/%2e%2e",
		"/ü/日本":             "/ü/日本",
		"/e\u0301":          "/e\u0301", // not normalised to \u00e9
		"/\ufffd":           "/\ufffd",
		"/" + long:          "/" + long,
		deep:                deep,
		longest:             longest,
		"/user/test/x.bin ": "/user/test/x.bin ",
	}
	for text, want := range good {
		p, err := dfs.ParsePath(text)
		if err != nil || p.String() != want {
			t.Errorf("%.40q: %q, %v; want %q", text, p, err, want)
		}
	}
	// Without its slash the text is as long as a path may be; with it, the path is longer.
	slashless := nearly[1:] + "/xy"
	if len(slashless) != dfs.MaxPathLength {
		t.Fatalf("%d bytes", len(slashless))
	}
	bad := []string{
		slashless,
		"", "//", "///", "//a", "a//b", "/a//", "/a//b", ".", "..", "/.", "/..", "/a/.", "/a/..", "/a/../b", "../a", "/a/./b",
		"/\x00", "/a\n", "/a\x7f", "/\u0085", "/\xff", "/a\xc3", "/" + long + "x", deep + "/d", longest + "/" + long,
	}
	for _, text := range bad {
		if p, err := dfs.ParsePath(text); dfs.CodeOf(err) != dfs.Invalid || !p.IsZero() {
			t.Errorf("%.40q: %q, %v; want it to be refused as %s", text, p, err, dfs.Invalid)
		}
	}
}

func parse(t *testing.T, text string) dfs.Path {
	t.Helper()
	p, err := dfs.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPathParts(t *testing.T) {
	tests := []struct {
		path, name, parent string
		names              []string
	}{
		{"/", "", "/", nil},
		{"/a", "a", "/", []string{"a"}},
		{"/a/b", "b", "/a", []string{"a", "b"}},
		{"/a/b/c", "c", "/a/b", []string{"a", "b", "c"}},
	}
	for _, test := range tests {
		p := parse(t, test.path)
		if p.Name() != test.name || p.Parent().String() != test.parent || !slices.Equal(p.Names(), test.names) {
			t.Errorf("%s: name %q, parent %q, names %q", p, p.Name(), p.Parent(), p.Names())
		}
		if p.IsRoot() != (test.path == "/") || p.IsZero() {
			t.Errorf("%s: root: %t, zero: %t", p, p.IsRoot(), p.IsZero())
		}
	}
	if !(dfs.Path{}).IsZero() || dfs.Root.String() != "/" {
		t.Error("the zero path or the root is wrong")
	}
}

func TestPathWithin(t *testing.T) {
	tests := []struct {
		path, dir string
		want      bool
	}{
		{"/", "/", true},
		{"/a", "/", true},
		{"/a", "/a", true},
		{"/a/b/c", "/a", true},
		{"/ab", "/a", false},
		{"/a", "/a/b", false},
		{"/", "/a", false},
		{"/b/a", "/a", false},
	}
	for _, test := range tests {
		if got := parse(t, test.path).Within(parse(t, test.dir)); got != test.want {
			t.Errorf("%s within %s: %t", test.path, test.dir, got)
		}
	}
}

func TestPathJoin(t *testing.T) {
	for dir, want := range map[string]string{"/": "/x", "/a": "/a/x", "/a/b": "/a/b/x"} {
		if p, err := parse(t, dir).Join("x"); err != nil || p.String() != want {
			t.Errorf("%s joined with x: %s, %v", dir, p, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/a", "a/", "\n"} {
		if p, err := dfs.Root.Join(bad); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("joined with %q: %s, %v", bad, p, err)
		}
	}
	deepest := parse(t, strings.Repeat("/d", dfs.MaxPathDepth))
	if p, err := deepest.Join("x"); dfs.CodeOf(err) != dfs.Invalid {
		t.Errorf("deeper than allowed: %s, %v", p, err)
	}
}

func TestPathAsJSON(t *testing.T) {
	var body struct{ P dfs.Path }
	if err := json.Unmarshal([]byte(`{"p":"a/b/"}`), &body); err != nil || body.P != parse(t, "/a/b") {
		t.Errorf("%v, %v", body.P, err)
	}
	if text, err := json.Marshal(body); err != nil || string(text) != `{"P":"/a/b"}` {
		t.Errorf("%s, %v", text, err)
	}
	if err := json.Unmarshal([]byte(`{"p":"/a/../b"}`), &body); dfs.CodeOf(err) != dfs.Invalid {
		t.Errorf("%v", err)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, text := range []string{"/", "a/b/", "/ü", "//", "/a/../b", "/\xff", "/a\x00", strings.Repeat("/d", 300)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := dfs.ParsePath(text)
		if err != nil {
			if dfs.CodeOf(err) != dfs.Invalid || !p.IsZero() {
				t.Fatalf("%q, %v", p, err)
			}
			return
		}
		if again, err := dfs.ParsePath(p.String()); err != nil || again != p {
			t.Fatalf("%q became %q, %v", p, again, err)
		}
		rebuilt := dfs.Root
		for _, name := range p.Names() {
			if rebuilt, err = rebuilt.Join(name); err != nil {
				t.Fatal(err)
			}
		}
		if rebuilt != p || !p.Within(p.Parent()) || p.IsRoot() != (len(p.Names()) == 0) {
			t.Fatalf("%q does not fit its parts %q", p, p.Names())
		}
		if !p.IsRoot() {
			if joined, err := p.Parent().Join(p.Name()); err != nil || joined != p {
				t.Fatalf("%q is not %q in %q", p, p.Name(), p.Parent())
			}
		}
	})
}
