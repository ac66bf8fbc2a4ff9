package carrier

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

var errLongHead = errors.New("the head of the answer is too long")

// unexpected turns the plain end of something into one that came too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readBlock reads lines until an empty one, and returns them without that. It
// takes what it reads from budget.
func readBlock(r *bufio.Reader, budget *int) (string, error) {
	var room [1024]byte
	block := room[:0]
	for line := 0; ; {
		part, err := r.ReadSlice('\n')
		if *budget -= len(part); *budget < 0 {
			return "", errLongHead
		}
		block = append(block, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull): // the rest of the line comes next
			continue
		case err != nil:
			return "", unexpected(err)
		case len(block)-line < 2 || block[len(block)-2] != '\r':
			return "", errors.New("the answer has a line that does not end in CR LF")
		case len(block)-line == 2:
			return string(block[:line]), nil
		}
		line = len(block)
	}
}

// head is the head of an answer.
type head struct {
	status int
	text   string // of the status, like "200 OK"
	minor  int    // version 1.minor
	fields http.Header
}

// parseHead is strict: an answer of our own servers needs no leniency, and what is
// understood in two ways is a way in for somebody.
func parseHead(block string) (*head, error) {
	line, rest := cutLine(block)
	h, err := parseStatus(line)
	if err != nil {
		return nil, err
	}
	h.fields, err = parseFields(rest)
	return h, err
}

func parseFields(block string) (http.Header, error) {
	count := strings.Count(block, "\n")
	fields := make(http.Header, count)
	values := make([]string, 0, count) // one array for the values of all fields
	for block != "" {
		var line string
		line, block = cutLine(block)
		key, value, found := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !found || !isToken(key) || !isValue(value) {
			return nil, fmt.Errorf("the answer has a header that is not valid: %.80q", line)
		}
		key = textproto.CanonicalMIMEHeaderKey(key)
		if before, again := fields[key]; again {
			fields[key] = append(before, value)
			continue
		}
		values = append(values, value)
		fields[key] = values[len(values)-1 : len(values) : len(values)]
	}
	return fields, nil
}

func cutLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\r\n")
	return line, rest
}

func parseStatus(line string) (*head, error) {
	version, text, _ := strings.Cut(line, " ")
	h := &head{text: text}
	switch version {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		return nil, fmt.Errorf("this is not an answer of HTTP/1.1: %.80q", line)
	}
	digits, _, _ := strings.Cut(text, " ")
	status, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || len(digits) != 3 || status < 100 || !isValue(text) {
		return nil, fmt.Errorf("the answer has no valid status: %.80q", line)
	}
	h.status = int(status)
	return h, nil
}

// frame says where the body of an answer ends.
type frame struct {
	announced int64 // what the response tells its reader; -1: not known
	left      int64 // bytes to come; -1: not known
	chunked   bool
	last      bool // the connection is of no use afterwards
}

// framing finds out where the body ends. More than one way to tell is refused.
func (h *head) framing(method string) (frame, error) {
	f := frame{announced: -1, left: -1, last: h.last()}
	lengths, codings := h.fields["Content-Length"], h.fields["Transfer-Encoding"]
	switch {
	case len(codings) > 0:
		if h.minor == 0 || len(codings) != 1 || !strings.EqualFold(codings[0], "chunked") || len(lengths) > 0 {
			return f, errors.New("the answer has a transfer encoding that is not possible here")
		}
		f.chunked = true
		delete(h.fields, "Transfer-Encoding") // done with, as far as the reader is concerned
	case len(lengths) > 0:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || len(lengths) != 1 {
			return f, fmt.Errorf("the answer has no valid length: %.40q", lengths)
		}
		f.announced, f.left = int64(n), int64(n)
	default:
		f.last = true // it ends with the connection
	}
	if method == http.MethodHead || h.status == http.StatusNoContent || h.status == http.StatusNotModified {
		// After 204 nobody announces a body, unless it may be coming.
		f.last = h.last() || h.status == http.StatusNoContent && (f.chunked || f.left > 0)
		f.left, f.chunked = 0, false
		if method != http.MethodHead {
			f.announced = 0
		}
	}
	return f, nil
}

// last tells whether the server is going to close the connection.
func (h *head) last() bool {
	if closes(h.fields) {
		return true
	}
	for _, value := range h.fields["Connection"] {
		if h.minor == 0 && hasItem(value, "keep-alive") {
			return false
		}
	}
	return h.minor == 0
}

// hasItem looks for an item in a list with commas.
func hasItem(list, item string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(part, " \t"), item) {
			return true
		}
	}
	return false
}

// isToken tells whether s may be the name of a header or a method.
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

// isValue tells whether s may be the value of a header.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
