package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func encoded(t testing.TB, r *http.Request, body string) []byte {
	t.Helper()
	b, err := appendRequest(nil, r, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seen is what a server sees of a request.
func seen(t testing.TB, r *http.Request) (said, body string) {
	t.Helper()
	data, err := io.ReadAll(r.Body)
	if err != nil || int64(len(data)) != r.ContentLength {
		t.Fatalf("a body of %d bytes, and not %d: %v", len(data), r.ContentLength, err)
	}
	said = fmt.Sprintf("%s %q %q %q %q", r.Method, r.URL.Path, r.URL.RawQuery, r.Header, data)
	return said, string(data)
}

// FuzzRequests: what is accepted says the same when it is sent on.
func FuzzRequests(f *testing.F) {
	get := &http.Request{Method: "GET", URL: &url.URL{Path: "/a b", RawQuery: "q=1"}, Header: http.Header{"X-A": {"1", ""}, "X-B": {"ü"}}}
	put := &http.Request{Method: "PUT", URL: &url.URL{Path: "/"}, Header: http.Header{}}
	one, two := encoded(f, get, ""), encoded(f, put, "hello")
	for _, seed := range [][]byte{
		nil, one, two, slices.Concat(one, two, one), one[:len(one)-1], two[:3], bytes.Repeat(two, MaxParts+1),
		{0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, {0, 0, 0, 3, 0, 0, 0}, {0, 0, 0, 6, 3, 'G', 'E', 'T', 0xff, 0xff},
		bytes.Replace(one, []byte("GET"), []byte("TRY"), 1), bytes.Replace(one, []byte("X-A"), []byte("x-a"), 1),
		bytes.Replace(one, []byte("X-A"), []byte("X A"), 1), bytes.Replace(one, []byte("X-B"), []byte("Te:"), 1),
		bytes.Replace(one, []byte("/a"), []byte("a/"), 1), bytes.Replace(one, []byte("%20"), []byte("%2x"), 1),
		bytes.Replace(one, []byte("ü"), []byte(" \n"), 1), bytes.Replace(one, []byte("ü"), []byte("\xff "), 1),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxPart/4 {
			return // escaped, it may be too long to be sent on
		}
		parts, err := parseRequests(slices.Clone(data))
		if err != nil {
			if parts != nil || !errors.Is(err, errDamaged) {
				t.Fatal(parts, err)
			}
			return
		}
		if len(parts) > MaxParts {
			t.Fatalf("%d parts", len(parts))
		}
		var again []byte
		var want []string
		for _, part := range parts {
			said, body := seen(t, part)
			want = append(want, said)
			again = append(again, encoded(t, part, body)...)
		}
		parts, err = parseRequests(again)
		if err != nil || len(parts) != len(want) {
			t.Fatalf("%d requests became %d: %v", len(want), len(parts), err)
		}
		for i, part := range parts {
			if said, _ := seen(t, part); said != want[i] {
				t.Fatalf("%s became %s", want[i], said)
			}
		}
	})
}

// FuzzAnswers: what is accepted says the same when it is sent on, and what follows
// is left.
func FuzzAnswers(f *testing.F) {
	full := (&answer{index: 3, status: 200, header: http.Header{"X-A": {"1", ""}}, body: []byte("hello")}).append(nil)
	for _, seed := range [][]byte{
		nil, full, full[:len(full)-1], full[:2], slices.Concat(full, full), {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0},
		{0, 0, 0, 5, 0, 0, 0, statusCutOff, 0}, {0, 0, 0, 5, 0, 0, 0, statusTooLong, 0}, {0, 0, 0, 5, 0, 0, 0, 2, 0},
		{0, 0, 0, 5, 0, 0, 0, 200, 33}, {0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0}, bytes.Replace(full, []byte("X-A"), []byte("X:A"), 1),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		a, err := readAnswer(r)
		if err != nil {
			if a != nil || errors.Is(err, io.EOF) != (len(data) == 0) {
				t.Fatal(a, err)
			}
			return
		}
		if size := 4 + int(binary.BigEndian.Uint32(data)); len(data)-r.Len() != size || size > 4+maxAnswer {
			t.Fatalf("%d bytes read of %d", len(data)-r.Len(), size)
		}
		again, err := readAnswer(bytes.NewReader(a.append(nil)))
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}

// TestAnswerFits: what a server may say, a caller takes.
func TestAnswerFits(t *testing.T) {
	lines := http.Header{}
	for i := range maxFields {
		lines.Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", maxPart))
	}
	for _, test := range []struct {
		name string
		answer
		fits bool
	}{
		{"the longest body", answer{status: 200, body: make([]byte, maxAnswer-5)}, true},
		{"a longer body", answer{status: 200, body: make([]byte, maxAnswer-4)}, false},
		{"a long line", answer{status: 200, header: http.Header{"X": {strings.Repeat("x", maxPart)}}}, true},
		{"a longer line", answer{status: 200, header: http.Header{"X": {strings.Repeat("x", maxPart+1)}}}, false},
		{"a longer name", answer{status: 200, header: http.Header{strings.Repeat("X", 256): {"x"}}}, false},
		{"too many lines", answer{status: 200, header: http.Header{"X": make([]string, maxFields+1)}}, false},
		{"many long lines", answer{status: 200, header: lines}, false},
	} {
		test.index = 7
		out := test.append([]byte("before"))
		got, err := readAnswer(bytes.NewReader(out[len("before"):]))
		switch {
		case err != nil || got.index != 7:
			t.Errorf("%s: %v, %v", test.name, got, err)
		case test.fits && (got.status != 200 || len(got.body) != len(test.body) || len(got.header) != len(test.header)):
			t.Errorf("%s: %d with %d bytes", test.name, got.status, len(got.body))
		case !test.fits && (got.status != statusTooLong || len(got.body) > 0):
			t.Errorf("%s: %d with %d bytes; want none", test.name, got.status, len(got.body))
		}
	}
}
