package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// scalar is a way to read a value, and what encoding/json makes of it.
type scalar struct {
	name string
	read func(*jsonReader) any
	want func([]byte) (any, error)
}

var scalars = []scalar{
	{"uint", func(d *jsonReader) any { return d.uint(math.MaxUint64) }, unmarshal[uint64]},
	{"uint16", func(d *jsonReader) any { return uint16(d.uint(math.MaxUint16)) }, unmarshal[uint16]},
	{"int", func(d *jsonReader) any { return d.int() }, unmarshal[int64]},
	{"bool", func(d *jsonReader) any { return d.bool() }, unmarshal[bool]},
	{"string", func(d *jsonReader) any { return d.string() }, unmarshal[string]},
	{"chunk", func(d *jsonReader) any { return d.chunk() }, unmarshal[dfs.ChunkID]},
	{"node", func(d *jsonReader) any { return d.node() }, unmarshal[NodeNum]},
	{"checksum", func(d *jsonReader) any { return dfs.Checksum(d.hex(checksumDigits)) }, unmarshal[dfs.Checksum]},
	{"chunks", func(d *jsonReader) any { return d.appendChunks([]dfs.ChunkID{}) }, unmarshal[[]dfs.ChunkID]},
	{"fields", func(d *jsonReader) any {
		var fields struct{ A, B int64 }
		d.object(func(key []byte) bool {
			switch string(key) {
			case "A":
				fields.A = d.int()
			case "B":
				fields.B = d.int()
			default:
				return false
			}
			return true
		})
		return fields
	}, unmarshal[struct{ A, B int64 }]},
}

func unmarshal[T any](data []byte) (any, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more")
	}
	return v, nil
}

// readScalar reads data as scalar i, and nothing after it. A byte at a time: the
// buffer moves at every one.
func readScalar(i int, data []byte) (any, error) {
	d := newJSONReader(iotest.OneByteReader(bytes.NewReader(append(data, ' ')))) // no document ends with a number
	d.buf = make([]byte, 4)
	v := scalars[i].read(d)
	d.rest()
	return v, d.err
}

// What the reader accepts, encoding/json accepts and understands likewise.
func checkScalar(t *testing.T, i int, data []byte) (accepted bool) {
	t.Helper()
	got, err := readScalar(i, data)
	if err != nil {
		return false
	}
	want, err := scalars[i].want(data)
	if err != nil {
		t.Fatalf("%q was read as %s %v; encoding/json says %v", data, scalars[i].name, got, err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if !bytes.Equal(a, b) {
		t.Fatalf("%q was read as %s %s; encoding/json reads %s", data, scalars[i].name, a, b)
	}
	return true
}

func TestScalars(t *testing.T) {
	tests := []struct {
		name          string
		good, refused []string
	}{
		{
			"uint", []string{"0", "7", "10", " 12\n", "18446744073709551615"},
			[]string{"", "-1", "-0", "01", "00", "1.0", "1e3", "18446744073709551616", "28446744073709551615", "99999999999999999999", "x", "null", `"1"`, "1 1", "+1", "[1]"},
		},
		{"uint16", []string{"65535", "0"}, []string{"65536", "655350", "100000"}},
		{
			"int", []string{"0", "-1", "9223372036854775807", "-9223372036854775808"},
			[]string{"-", "-0", "- 1", "--1", "-01", "9223372036854775808", "-9223372036854775809", "null"},
		},
		{"bool", []string{"true", "false", " true "}, []string{"tru", "truex", "True", "null", "0", `"true"`, "falsy"}},
		{
			"string",
			[]string{`""`, `"a"`, `"\""`, `"\\"`, `"\u00e9\n"`, `"ü<&>"`, `"\ud83d\ude00"`, `"\ud83d"`, `"` + strings.Repeat("long", 1000) + `"`, "\"\x7f\""},
			[]string{`"`, `"a`, `"\"`, `"\x"`, `"\u12"`, "\"\n\"", "\"\x00\"", "\"\xff\"", "\"\\\xff\"", `a`, `'a'`, "null"},
		},
		{
			"chunk", []string{`"0000000000000001"`, `"ffffffffffffffff"`},
			[]string{`"0000000000000000"`, `"000000000000001"`, `"00000000000000001"`, `"000000000000000G"`, `"000000000000000A"`, `"000000000000000/"`, `"000000000000000:"`, `1`, `""`},
		},
		{"node", []string{"1", "65535"}, []string{"0", "65536", "-1"}},
		{"checksum", []string{`"00000000"`, `"deadbeef"`}, []string{`"0000000"`, `"000000000"`, `"DEADBEEF"`, `null`}},
		{
			"chunks", []string{`[]`, `[ "0000000000000001" , "0000000000000002" ]`},
			[]string{`[`, `["0000000000000001"`, `["0000000000000001",]`, `[,"0000000000000001"]`, `["0000000000000001" "0000000000000001"]`, `null`, `{}`},
		},
		{
			"fields", []string{`{}`, `{"A":1,"B":-2}`, ` { "B" : 2 , "A" : 1 } `, `{"\u0041":3}`},
			[]string{`{`, `{"A"}`, `{"A":}`, `{"A":1,}`, `{,"A":1}`, `{"A":1 "B":2}`, `{"a":1}`, `{"C":1}`, `{A:1}`, `[]`, `null`, `{"A":null}`, `{"A":1}}`, `{"A";1}`},
		},
	}
	for _, test := range tests {
		i := slices.IndexFunc(scalars, func(s scalar) bool { return s.name == test.name })
		for _, text := range test.good {
			if !checkScalar(t, i, []byte(text)) {
				t.Errorf("%s %q was refused", test.name, text)
			}
		}
		for _, text := range test.refused {
			if checkScalar(t, i, []byte(text)) {
				t.Errorf("%s %q was accepted", test.name, text)
			}
		}
	}
}

func FuzzScalars(f *testing.F) {
	for _, text := range []string{`0`, `-12`, `true`, `"a\u00e9\\"`, `"0000000000000001"`, `"deadbeef"`, `["0000000000000001"]`, `{"A":1,"B":2}`} {
		for i := range scalars {
			f.Add(uint8(i), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, data []byte) { checkScalar(t, int(i)%len(scalars), data) })
}

// FuzzJSONString: every string is written as encoding/json writes it, and comes
// back.
func FuzzJSONString(f *testing.F) {
	for _, s := range []string{"", "photo-000123.jpg", "a <&> ü", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "\u2028\u2029\U0001f600", "\xff\xc0", strings.Repeat("ä", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var text jsonText
		text.string("", s)
		want, err := json.Marshal(s)
		if err != nil || !bytes.Equal(text, want) {
			t.Fatalf("%q was written as %s; encoding/json writes %s, %v", s, text, want, err)
		}
		back, err := readScalar(slices.IndexFunc(scalars, func(s scalar) bool { return s.name == "string" }), text)
		if err != nil || back != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("%q came back as %q, %v", s, back, err)
		}
	})
}

// A snapshot is read alike in whatever pieces it comes, and a string may be
// longer than the buffer.
func TestSnapshotComesInPieces(t *testing.T) {
	r := busyRig(t)
	s := r.m.Freeze()
	long := strings.Repeat("<ü>\"\\ 0123456789", 3*jsonBufferSize/10)
	id := dfs.RequestID("long")
	answer := &request{index: s.applied, command: numMkdir, err: &dfs.Error{Code: dfs.Exists, Message: long}}
	s.requests.Set(id, answer)
	s.requestOrder.Set(s.nextTurn(), id)
	want := bothDocuments(t, s)
	snapshot := snapshotOf(t, s)
	for name, pieces := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "with the end": iotest.DataErrReader,
	} {
		again, err := ReadSnapshot(pieces(bytes.NewReader(snapshot)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(bothDocuments(t, again), want) {
			t.Fatalf("%s: it came back another", name)
		}
	}
}

// Whoever has edited a snapshot with a program that writes JSON in its own way
// (and mended its checksum) is understood, too.
func TestSnapshotInAnotherLayout(t *testing.T) {
	s := busyRig(t).m.Freeze()
	files, nodes := documents(t, s)
	indented := func(document []byte) []byte {
		body := document[:len(document)-tailLength]
		var out bytes.Buffer
		if err := json.Indent(&out, append(bytes.Clone(body), '}'), " ", "\t"); err != nil {
			t.Fatal(err)
		}
		spread := bytes.TrimRight(out.Bytes(), " \t\r\n}")
		return resealed(append(append(spread, "}\n"...), make([]byte, tailLength)...)) // the brace of the counts
	}
	again, err := ReadSnapshot(bytes.NewReader(archiveOf(t, tarMember{FilesDocument, indented(files)}, tarMember{NodesDocument, indented(nodes)})))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bothDocuments(t, s), bothDocuments(t, again)) {
		t.Fatal("it came back another")
	}
}
