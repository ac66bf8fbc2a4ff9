package dfs

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Path is an absolute, clean path of the namespace: "/" or "/a/b". The zero
// Path is not valid; get one from ParsePath. Names are compared byte by byte,
// without Unicode normalisation.
type Path struct{ s string }

// Root is the path "/".
var Root = Path{"/"}

// ParsePath is the one place where text becomes a Path. The leading slash may
// be missing and one trailing slash is dropped. Refused, as Invalid: the empty
// text, empty components ("a//b"), "." and "..", control characters, invalid
// UTF-8, names over MaxNameLength bytes, paths over MaxPathLength bytes or
// deeper than MaxPathDepth.
func ParsePath(text string) (Path, error) {
	if text == "" {
		return Path{}, Errorf(Invalid, "the path is empty")
	}
	if len(text) > MaxPathLength {
		return Path{}, Errorf(Invalid, "the path is %d bytes long; at most %d are allowed", len(text), MaxPathLength)
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(text, "/"), "/")
	if inner == "" {
		if text == "//" {
			return Path{}, Errorf(Invalid, "the path %q has an empty component", text)
		}
		return Root, nil
	}
	depth := 0
	for name := range strings.SplitSeq(inner, "/") {
		if err := CheckName(name); err != nil {
			return Path{}, Errorf(CodeOf(err), "path %.200q: %w", text, err)
		}
		depth++
	}
	if len(inner) >= MaxPathLength { // the text had no slash in front
		return Path{}, Errorf(Invalid, "the path is %d bytes long with its leading slash; at most %d are allowed", 1+len(inner), MaxPathLength)
	}
	if depth > MaxPathDepth {
		return Path{}, Errorf(Invalid, "the path is %d directories deep; at most %d are allowed", depth, MaxPathDepth)
	}
	return Path{"/" + inner}, nil
}

// CheckName tells whether name can be one component of a path.
func CheckName(name string) error {
	switch {
	case name == "":
		return Errorf(Invalid, "a name is empty")
	case name == "." || name == "..":
		return Errorf(Invalid, "%q is not a name; paths are absolute and hold no '.' or '..'", name)
	case len(name) > MaxNameLength:
		return Errorf(Invalid, "a name is %d bytes long; at most %d are allowed", len(name), MaxNameLength)
	case !utf8.ValidString(name):
		return Errorf(Invalid, "a name is not valid UTF-8")
	}
	for _, r := range name {
		if r == '/' || unicode.IsControl(r) {
			return Errorf(Invalid, "a name holds the character %U, which is not allowed", r)
		}
	}
	return nil
}

// String returns the path with its leading slash.
func (p Path) String() string { return p.s }

// IsRoot tells whether p is "/".
func (p Path) IsRoot() bool { return p.s == "/" }

// IsZero tells whether p was never parsed.
func (p Path) IsZero() bool { return p.s == "" }

// Name returns the last component, "" for the root.
func (p Path) Name() string { return p.s[strings.LastIndexByte(p.s, '/')+1:] }

// Parent returns the directory that holds p; the root's is the root.
func (p Path) Parent() Path {
	if i := strings.LastIndexByte(p.s, '/'); i > 0 {
		return Path{p.s[:i]}
	}
	return Root
}

// Join returns the path of name inside p, or why it cannot be one.
func (p Path) Join(name string) (Path, error) {
	if err := CheckName(name); err != nil {
		return Path{}, err
	}
	if p.IsRoot() {
		return ParsePath("/" + name)
	}
	return ParsePath(p.s + "/" + name)
}

// Names returns the components from the top, none for the root.
func (p Path) Names() []string {
	if p.IsRoot() {
		return nil
	}
	return strings.Split(p.s[1:], "/")
}

// Within tells whether p is dir itself or lies below it.
func (p Path) Within(dir Path) bool {
	return dir.IsRoot() || p.s == dir.s || strings.HasPrefix(p.s, dir.s+"/")
}

// MarshalText writes the path with its leading slash.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.s), nil }

// UnmarshalText is ParsePath.
func (p *Path) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePath(string(text))
	return err
}
