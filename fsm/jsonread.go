package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// jsonReader reads JSON whose shape is known, a value at a time. It is stricter
// than encoding/json: no null, no other case of names, no invalid UTF-8, and
// numbers only within their range. After the first fault it returns zero values,
// and err says what it was. Memory grows with the longest string that is really
// there.
type jsonReader struct {
	r    io.Reader
	buf  []byte
	pos  int   // of the next byte, in buf
	end  int   // of what was read into buf
	base int64 // bytes before buf
	err  error
}

const jsonBufferSize = 1 << 16

func newJSONReader(r io.Reader) *jsonReader {
	return &jsonReader{r: r, buf: make([]byte, jsonBufferSize)}
}

// fail keeps the first fault, and ends the input.
func (d *jsonReader) fail(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("at byte %d: %w", d.base+int64(d.pos), err)
	}
	d.base, d.pos, d.end = d.base+int64(d.pos), 0, 0
}

func (d *jsonReader) failf(format string, args ...any) { d.fail(fmt.Errorf(format, args...)) }

// more reads more into buf, behind what was not consumed yet, and tells whether
// there was any.
func (d *jsonReader) more() bool {
	if d.err != nil {
		return false
	}
	if d.pos > 0 {
		d.base += int64(d.pos)
		d.end = copy(d.buf, d.buf[d.pos:d.end])
		d.pos = 0
	}
	if d.end == len(d.buf) { // a long string
		d.buf = append(d.buf, make([]byte, len(d.buf))...)
	}
	n, err := io.ReadAtLeast(d.r, d.buf[d.end:], 1)
	d.end += n
	if n == 0 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		d.fail(err)
	}
	return n > 0
}

// peek skips white space and returns the byte after it, 0 at a fault.
func (d *jsonReader) peek() byte {
	for d.pos < d.end || d.more() {
		switch c := d.buf[d.pos]; c {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

// skip skips white space and a byte, if it is the next, and tells whether it was.
func (d *jsonReader) skip(c byte) bool {
	if d.peek() != c || d.err != nil {
		return false
	}
	d.pos++
	return true
}

func (d *jsonReader) expect(c byte) {
	if !d.skip(c) && d.err == nil {
		d.failf("%q where %q was expected", d.buf[d.pos], c)
	}
}

// rest makes sure that only white space follows.
func (d *jsonReader) rest() {
	if d.err != nil {
		return
	}
	if c := d.peek(); d.err == nil {
		d.failf("%q where nothing more was expected", c)
	} else if errors.Is(d.err, io.ErrUnexpectedEOF) {
		d.err = nil
	}
}

// text reads a string. The bytes are good until the next call.
func (d *jsonReader) text() []byte {
	d.expect('"')
	var escaped, wide bool
	for i := d.pos; ; i++ {
		if i == d.end {
			seen := i - d.pos
			if !d.more() {
				return nil
			}
			i = d.pos + seen
		}
		switch c := d.buf[i]; {
		case c == '"':
			s := d.buf[d.pos:i]
			d.pos = i + 1
			return d.unescape(s, escaped, wide)
		case c == '\\':
			escaped = true
			i++ // what follows is no end; the checks of unescape see it
			if i == d.end {
				seen := i - d.pos
				if !d.more() {
					return nil
				}
				i = d.pos + seen
			}
		case c < ' ':
			d.failf("a control character in a string")
			return nil
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
}

// unescape returns what s, between its quotes, says.
func (d *jsonReader) unescape(s []byte, escaped, wide bool) []byte {
	if wide && !utf8.Valid(s) {
		d.failf("a string that is not UTF-8")
		return nil
	}
	if !escaped {
		return s
	}
	var plain string
	if err := json.Unmarshal(append(append([]byte{'"'}, s...), '"'), &plain); err != nil {
		d.fail(err)
	}
	return []byte(plain)
}

func (d *jsonReader) string() string { return string(d.text()) }

// uint reads a number from 0 to limit.
func (d *jsonReader) uint(limit uint64) uint64 {
	c := d.peek()
	if c < '0' || c > '9' {
		d.failf("%q where a number was expected", c)
		return 0
	}
	v, digits := uint64(0), 0
	for d.pos < d.end || d.more() {
		c := d.buf[d.pos] - '0'
		if c > 9 {
			break
		}
		if v > (limit-uint64(c))/10 || uint64(c) > limit || digits > 0 && v == 0 {
			d.failf("a number that is not from 0 to %d", limit)
			return 0
		}
		v = v*10 + uint64(c)
		d.pos++
		digits++
	}
	return v
}

// int reads a number that fits an int64.
func (d *jsonReader) int() int64 {
	if !d.skip('-') {
		return int64(d.uint(math.MaxInt64))
	}
	if (d.pos < d.end || d.more()) && (d.buf[d.pos] < '1' || d.buf[d.pos] > '9') {
		d.failf("%q where a number was expected", d.buf[d.pos])
	}
	return -int64(d.uint(-math.MinInt64))
}

// bool reads true or false.
func (d *jsonReader) bool() bool {
	word, value := "false", false
	if d.peek() == 't' {
		word, value = "true", true
	}
	for i := range len(word) {
		if d.pos == d.end && !d.more() {
			return false
		}
		if d.buf[d.pos] != word[i] {
			d.failf("%q where true or false was expected", d.buf[d.pos])
			return false
		}
		d.pos++
	}
	return value
}

// hex reads a string of so many lower-case hexadecimal digits.
func (d *jsonReader) hex(digits int) uint64 {
	s := d.text()
	if d.err != nil {
		return 0
	}
	v := uint64(0)
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			d.failf("%.40q where hexadecimal digits were expected", s)
			return 0
		}
		v = v<<4 | uint64(c)
	}
	if len(s) != digits {
		d.failf("%.40q where %d hexadecimal digits were expected", s, digits)
		return 0
	}
	return v
}

// id reads the ID of a chunk or an upload, which is not zero.
func (d *jsonReader) id() uint64 {
	v := d.hex(idDigits)
	if v == 0 && d.err == nil {
		d.failf("an ID of zero")
	}
	return v
}

func (d *jsonReader) chunk() dfs.ChunkID { return dfs.ChunkID(d.id()) }

// node reads the number of a DataNode, which is not zero.
func (d *jsonReader) node() NodeNum {
	v := d.uint(maxNodes - 1)
	if v == 0 && d.err == nil {
		d.failf("a DataNode of number zero")
	}
	return NodeNum(v)
}

// list reads a list: fn reads each of its values.
func (d *jsonReader) list(fn func()) {
	d.expect('[')
	for first := true; d.err == nil && !d.skip(']'); first = false {
		if !first {
			d.expect(',')
		}
		if d.err == nil {
			fn()
		}
	}
}

// object reads an object: fn reads the value of the field called key, or
// returns false when it does not know it.
func (d *jsonReader) object(fn func(key []byte) bool) {
	d.expect('{')
	for first := true; d.err == nil && !d.skip('}'); first = false {
		if !first {
			d.expect(',')
		}
		key := d.key()
		if d.err != nil {
			return
		}
		at := d.base + int64(d.pos)
		if !fn(key) && d.err == nil {
			d.failf("a field that is not known before byte %d", at)
		}
	}
}

// key reads the name of a field. The bytes are good until the value is read.
func (d *jsonReader) key() []byte {
	key := d.text()
	if d.pos < d.end && d.buf[d.pos] == ':' {
		d.pos++
		return key
	}
	key = bytes.Clone(key) // to look for the colon may move the buffer
	d.expect(':')
	return key
}

// appendNodes reads a list of nodes.
func (d *jsonReader) appendNodes(nodes []NodeNum) []NodeNum {
	d.list(func() { nodes = append(nodes, d.node()) })
	return nodes
}

// appendChunks reads a list of chunks.
func (d *jsonReader) appendChunks(ids []dfs.ChunkID) []dfs.ChunkID {
	d.list(func() { ids = append(ids, d.chunk()) })
	return ids
}
