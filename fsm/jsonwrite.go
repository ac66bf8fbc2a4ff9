package fsm

import (
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// jsonText is JSON being written. Each method appends a value with what stands
// before it: the punctuation and the name of its field.
type jsonText []byte

func (t *jsonText) raw(s string) { *t = append(*t, s...) }

func (t *jsonText) uint(before string, v uint64) {
	*t = strconv.AppendUint(append(*t, before...), v, 10)
}

func (t *jsonText) int(before string, v int64) {
	*t = strconv.AppendInt(append(*t, before...), v, 10)
}

// someUint, someInt and someString write nothing when the value is zero.
func (t *jsonText) someUint(before string, v uint64) {
	if v != 0 {
		t.uint(before, v)
	}
}

func (t *jsonText) someInt(before string, v int64) {
	if v != 0 {
		t.int(before, v)
	}
}

func (t *jsonText) someString(before, s string) {
	if s != "" {
		t.string(before, s)
	}
}

func (t *jsonText) bool(before string, v bool) {
	*t = strconv.AppendBool(append(*t, before...), v)
}

// hex writes a number as a string of hexadecimal digits.
func (t *jsonText) hex(before string, v uint64, digits int) {
	const alphabet = "0123456789abcdef"
	*t = append(append(*t, before...), '"')
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		*t = append(*t, alphabet[v>>shift&15])
	}
	*t = append(*t, '"')
}

func (t *jsonText) chunk(before string, id dfs.ChunkID) { t.hex(before, uint64(id), idDigits) }

func (t *jsonText) string(before, s string) {
	*t = append(*t, before...)
	if !plain(s) {
		*t = appendEscaped(*t, s)
		return
	}
	*t = append(append(append(*t, '"'), s...), '"')
}

// plain tells whether s stands in JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c == '"', c == '\\', c == '<', c == '>', c == '&', c >= utf8.RuneSelf:
			return false
		}
	}
	return true
}

// appendEscaped is for the few strings that need more than quotes.
func appendEscaped(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // no string is that bad
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

func (t *jsonText) nodes(before string, nodes []NodeNum) {
	t.raw(before)
	t.raw("[")
	for i, num := range nodes {
		t.uint(comma(i), uint64(num))
	}
	t.raw("]")
}

func (t *jsonText) chunks(before string, ids []dfs.ChunkID) {
	t.raw(before)
	t.raw("[")
	for i, id := range ids {
		t.chunk(comma(i), id)
	}
	t.raw("]")
}

// comma returns what stands before the element i of a list.
func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// document writes one of the two JSON documents, a record at a time: what is in
// memory of it is about flushSize bytes and one record.
type document struct {
	w      io.Writer
	text   jsonText
	sum    hash.Hash32
	counts []sectionCount
	err    error
}

type sectionCount struct {
	name  string
	count int
}

// flushSize is how many bytes of a document are written at once.
const flushSize = 1 << 16

func newDocument(w io.Writer) *document {
	return &document{w: w, text: make(jsonText, 0, flushSize+flushSize/4), sum: dfs.NewHash()}
}

// flush hands on what was written so far.
func (d *document) flush() {
	if d.err == nil {
		_, _ = d.sum.Write(d.text) // never fails: see package hash
		_, d.err = d.w.Write(d.text)
	}
	d.text = d.text[:0]
}

// begin ends the array before, or the header, and begins the next.
func (d *document) begin(section string) {
	if len(d.counts) > 0 {
		d.text.raw("]")
	}
	d.text.raw(",\n\"" + section + "\":[")
	d.counts = append(d.counts, sectionCount{name: section})
}

// record begins a record, whose text is to be appended.
func (d *document) record() *jsonText {
	current := &d.counts[len(d.counts)-1]
	d.text.raw(comma(current.count))
	d.text.raw("\n")
	current.count++
	return &d.text
}

// recorded ends a record and tells whether to go on.
func (d *document) recorded() bool {
	if len(d.text) >= flushSize {
		d.flush()
	}
	return d.err == nil
}

// tailLength is that of the last line: a comma, the checksum, a brace.
const tailLength = len(",\n\"crc32c\":\"00000000\"}\n")

func (d *document) finish() error {
	d.text.raw("],\n\"counts\":{")
	for i, c := range d.counts {
		d.text.int(comma(i)+`"`+c.name+`":`, int64(c.count))
	}
	d.text.raw("}")
	d.flush()
	if d.err == nil {
		_, d.err = io.WriteString(d.w, tailFor(dfs.Checksum(d.sum.Sum32())))
	}
	if d.err != nil {
		return fmt.Errorf("write snapshot: %w", d.err)
	}
	return nil
}

// tailFor returns the last line of a document.
func tailFor(sum dfs.Checksum) string { return fmt.Sprintf(",\n\"crc32c\":\"%s\"}\n", sum) }
