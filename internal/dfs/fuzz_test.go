package dfs_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// FuzzParseWords: whatever is taken for an ID, a checksum, a digest, a rack or
// an address has one spelling, and nothing in it that would mean something in a
// header, a URL, a file name or a list.
func FuzzParseWords(f *testing.F) {
	for _, text := range []string{
		"", "0", "dn1", "nn-1.example_2", ".", "..", "a/b", "a,b", "a b", "ü", "-x", "a\r\nX: y", "%2e", strings.Repeat("x", 65),
		"0000000000000000", "0000000000000001", "00000000000000FF", "ffffffffffffffff", "+000000000000001", "0x00000000000001",
		"e3069283", "E3069283", "+3069283", "0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789abcdef",
		"http://a:8000", "http://a", "http://[::1]:8000/", "http://[fe80::1%25eth0]:1", "http://u@a:1", "http://a:1?", "http://a:0",
		"HTTP://A:1", "http://a:+1", "http://a:1/..", "https://a:1", "a:7000", "[::1]:7000", "::1:7000", "a:07000", "a:65536", "/rack/1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		checkIDs(t, text)
		checkNumbers(t, text)
		checkAddresses(t, text)
		if err := dfs.CheckRack(text); err == nil {
			checkPlain(t, text, dfs.MaxRackLength)
		} else {
			checkRefused(t, text, err)
		}
	})
}

func checkIDs(t *testing.T, text string) {
	t.Helper()
	if id, err := dfs.ParseNodeID(text); err != nil {
		checkRefused(t, text, err)
	} else {
		checkPlain(t, string(id), dfs.MaxNodeIDLength)
		if string(id) != text || id == "" || filepath.Base(text) != text || text[0] == '.' || text[0] == '-' || strings.Contains(text, "/") {
			t.Fatalf("%q is node ID %q", text, id)
		}
	}
	if id, err := dfs.ParseRequestID(text); err != nil {
		checkRefused(t, text, err)
	} else if checkPlain(t, string(id), dfs.MaxRequestIDLength); string(id) != text || id == "" {
		t.Fatalf("%q is request ID %q", text, id)
	}
	if id, err := dfs.ParseClusterID(text); err != nil {
		checkRefused(t, text, err)
	} else if checkPlain(t, string(id), 32); string(id) != text || len(id) != 32 || strings.Trim(text, "0123456789abcdef") != "" {
		t.Fatalf("%q is cluster ID %q", text, id)
	}
}

// checkNumbers: only what String writes is read.
func checkNumbers(t *testing.T, text string) {
	t.Helper()
	if id, err := dfs.ParseChunkID(text); err != nil {
		checkRefused(t, text, err)
	} else if id == 0 || id.String() != text {
		t.Fatalf("%q is chunk ID %s", text, id)
	}
	if id, err := dfs.ParseUploadID(text); err != nil {
		checkRefused(t, text, err)
	} else if id == 0 || id.String() != text {
		t.Fatalf("%q is upload ID %s", text, id)
	}
	if sum, err := dfs.ParseChecksum(text); err != nil {
		checkRefused(t, text, err)
	} else if sum.String() != text {
		t.Fatalf("%q is checksum %s", text, sum)
	}
	var digest dfs.Digest
	if err := digest.UnmarshalText([]byte(text)); err != nil {
		checkRefused(t, text, err)
	} else if digest.String() != strings.ToLower(text) { // of a digest, both cases are read
		t.Fatalf("%q is digest %s", text, digest)
	}
}

func checkAddresses(t *testing.T, text string) {
	t.Helper()
	if address, err := dfs.ParseHostPort(text); err != nil {
		checkRefused(t, text, err)
	} else {
		if again, err := dfs.ParseHostPort(address); err != nil || again != address {
			t.Fatalf("%q became %q, which became %q, %v", text, address, again, err)
		}
		if strings.ContainsAny(address, ",=@/") { // a list of peers has them between addresses
			t.Fatalf("%q is the address %q", text, address)
		}
	}
	base, err := dfs.ParseBaseURL(text)
	if err != nil {
		checkRefused(t, text, err)
		return
	}
	if again, err := dfs.ParseBaseURL(base); err != nil || again != base {
		t.Fatalf("%q became %q, which became %q, %v", text, base, again, err)
	}
	request, err := http.NewRequest(http.MethodGet, base+"/chunks/1?x=y", nil)
	if err != nil {
		t.Fatalf("%q became %q, which cannot be asked: %v", text, base, err)
	}
	want := url.URL{Scheme: "http", Host: strings.TrimPrefix(base, "http://"), Path: "/chunks/1", RawQuery: "x=y"}
	if *request.URL != want {
		t.Fatalf("%q became %q, where %+v is asked", text, base, *request.URL)
	}
}

func checkRefused(t *testing.T, text string, err error) {
	t.Helper()
	if dfs.CodeOf(err) != dfs.Invalid || len(err.Error()) > 1<<10 {
		t.Fatalf("%q was refused as %s: %v", text, dfs.CodeOf(err), err)
	}
}

// checkPlain: it needs no quoting anywhere.
func checkPlain(t *testing.T, text string, longest int) {
	t.Helper()
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`,;:=@?#%&"'\<>{}`, c) >= 0 {
			t.Fatalf("%q was accepted with %q in it", text, c)
		}
	}
	if len(text) > longest {
		t.Fatalf("%d bytes were accepted; the limit is %d", len(text), longest)
	}
}
