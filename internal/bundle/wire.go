package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// ContentType is that of a bundle, and of its answer.
const ContentType = "application/x-dfs-bundle"

// Limits of a bundle, which both sides keep.
const (
	MaxParts  = 64       // requests
	MaxBytes  = 64 << 10 // of all requests
	MaxBody   = 16 << 10 // of the body of a request that is put into one
	maxPart   = 32 << 10 // of a request with its header
	maxAnswer = 1 << 20  // bytes of the answer to one request with its header
	maxFields = 32       // lines of a header
)

// Statuses of a part that are none of HTTP.
const (
	statusCutOff  = 0 // the handler gave up in the middle of its answer
	statusTooLong = 1 // the answer has no room in a bundle
)

var errDamaged = errors.New("the bundle is damaged")

// appendRequest appends a request as a part of a bundle: its length in 4 bytes,
// method, target and header with their lengths, and the body to the end. All
// numbers are big-endian.
func appendRequest(b []byte, r *http.Request, body []byte) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	target := r.URL.RequestURI()
	if len(r.Method) > 255 || len(target) > maxPart {
		return b[:start], errors.New("the request is too long for a bundle")
	}
	if !isTarget(target) {
		return b[:start], fmt.Errorf("%.80q is not a target", target)
	}
	b = append(b, byte(len(r.Method)))
	b = append(b, r.Method...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(target)))
	b = append(b, target...)
	b, err := appendHeader(b, r.Header, false)
	if err != nil {
		return b[:start], err
	}
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b, nil
}

// appendHeader appends the number of lines in one byte, and each with the lengths
// of its name, in one byte, and its value, in two. What is about the connection
// stays here. What HTTP does not allow is an error, or, when mend is set, treated
// as net/http does in answers.
func appendHeader(b []byte, header http.Header, mend bool) ([]byte, error) {
	count := len(b)
	b = append(b, 0)
	for key, values := range header {
		key = textproto.CanonicalMIMEHeaderKey(key)
		switch {
		case isOfConnection(key) || mend && !isToken(key):
			continue
		case !isToken(key):
			return b, fmt.Errorf("the header %.40q has no valid name", key)
		}
		for _, value := range values {
			if strings.ContainsFunc(value, isControl) {
				if !mend {
					return b, fmt.Errorf("the header %s must not contain control characters", key)
				}
				value = strings.Map(printable, value)
			}
			value = strings.Trim(value, " \t")
			if b[count] == maxFields || len(key) > 255 || len(value) > maxPart {
				return b, errors.New("the header is too long for a bundle")
			}
			b[count]++
			b = append(b, byte(len(key)))
			b = append(b, key...)
			b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
			b = append(b, value...)
		}
	}
	return b, nil
}

// parseRequests cuts a bundle into the requests it consists of.
func parseRequests(data []byte) ([]*http.Request, error) {
	var parts []*http.Request
	for len(data) > 0 {
		if len(parts) == MaxParts {
			return nil, fmt.Errorf("%w: it has more than %d requests", errDamaged, MaxParts)
		}
		if len(data) < 4 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-4) {
			return nil, fmt.Errorf("%w: it ends within request %d", errDamaged, len(parts)+1)
		}
		end := 4 + binary.BigEndian.Uint32(data)
		if end > maxPart {
			return nil, fmt.Errorf("%w: request %d has more than %d bytes", errDamaged, len(parts)+1, maxPart)
		}
		part, err := parseRequest(data[4:end])
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", len(parts)+1, err)
		}
		parts = append(parts, part)
		data = data[end:]
	}
	return parts, nil
}

func parseRequest(data []byte) (*http.Request, error) {
	c := cursor{data: data}
	method := string(c.take(c.number(1)))
	target := string(c.take(c.number(2)))
	header := c.header()
	if c.failed {
		return nil, errDamaged
	}
	switch method {
	case http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		return nil, fmt.Errorf("%w: the method %.20q cannot be in it", errDamaged, method)
	}
	if !isTarget(target) {
		return nil, fmt.Errorf("%w: %.80q is not a target", errDamaged, target)
	}
	location, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	r := &http.Request{
		Method: method, URL: location, RequestURI: target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: http.NoBody, ContentLength: int64(len(c.data)),
	}
	if len(c.data) > 0 {
		r.Body = &memory{data: c.data}
	}
	return r, nil
}

// answer is what a part of a bundle is answered with.
type answer struct {
	index  int // of the request
	status int
	header http.Header
	body   []byte
}

// append appends the answer: the length of the rest in 4 bytes, the number of the
// request and the status in 2 bytes each, the header, and the body to the end.
func (a *answer) append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(a.index))
	b = binary.BigEndian.AppendUint16(b, uint16(a.status))
	b, err := appendHeader(b, a.header, true)
	if err != nil || len(b)-start-4+len(a.body) > maxAnswer {
		short := answer{index: a.index, status: statusTooLong}
		return short.append(b[:start])
	}
	b = append(b, a.body...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// readAnswer reads the next answer. io.EOF means that there is none.
func readAnswer(r io.Reader) (*answer, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxAnswer {
		return nil, fmt.Errorf("%w: an answer of %d bytes is too long", errDamaged, size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	c := cursor{data: data}
	a := &answer{index: c.number(2), status: c.number(2), header: c.header()}
	a.body = c.data
	if c.failed || a.status != statusCutOff && a.status != statusTooLong && (a.status < 200 || a.status > 999) {
		return nil, errDamaged
	}
	return a, nil
}

// cursor takes apart what is not trusted. Once it has failed, it gives nothing.
type cursor struct {
	data   []byte // to come
	failed bool
}

func (c *cursor) take(n int) []byte {
	if c.failed || n > len(c.data) {
		c.failed, c.data = true, nil
		return nil
	}
	taken := c.data[:n]
	c.data = c.data[n:]
	return taken
}

// number reads an unsigned number of one or two bytes.
func (c *cursor) number(size int) (n int) {
	for _, b := range c.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

func (c *cursor) header() http.Header {
	count := c.number(1)
	if count > maxFields {
		c.failed = true
		return nil
	}
	header := make(http.Header, count)
	for range count {
		key := string(c.take(c.number(1)))
		value := strings.Trim(string(c.take(c.number(2))), " \t")
		if !isToken(key) || textproto.CanonicalMIMEHeaderKey(key) != key || isOfConnection(key) || len(value) > maxPart || strings.ContainsFunc(value, isControl) {
			c.failed = true
		}
		if c.failed {
			return nil
		}
		header[key] = append(header[key], value)
	}
	return header
}

func isTarget(s string) bool {
	return strings.HasPrefix(s, "/") && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// isToken tells whether s may be the name of a header.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func printable(r rune) rune {
	if isControl(r) {
		return ' '
	}
	return r
}

// isOfConnection tells whether a header is about the connection, or about how a
// message is cut out of it, and not about the message.
func isOfConnection(key string) bool {
	switch key {
	case "Connection", "Content-Length", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// memory is a body that lies in memory.
type memory struct{ data []byte }

// Read implements io.Reader.
func (m *memory) Read(p []byte) (int, error) {
	if len(m.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.data)
	m.data = m.data[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (m *memory) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(m.data)
	m.data = m.data[n:]
	return int64(n), err
}

// Close implements io.Closer.
func (m *memory) Close() error { return nil }
