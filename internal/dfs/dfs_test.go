package dfs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestChecksum(t *testing.T) {
	const text = "123456789" // the check value of the CRC catalogues
	sum := dfs.ChecksumOf([]byte(text))
	if sum.String() != "e3069283" {
		t.Fatalf("%s", sum)
	}
	for cut := range len(text) + 1 {
		if again := dfs.ChecksumOf([]byte(text[:cut])).Update([]byte(text[cut:])); again != sum {
			t.Errorf("in two parts, cut at %d: %s", cut, again)
		}
	}
	running := dfs.NewHash()
	if _, err := io.Copy(running, strings.NewReader(text)); err != nil || dfs.Checksum(running.Sum32()) != sum {
		t.Errorf("%08x, %v", running.Sum32(), err)
	}
	if zero := dfs.ChecksumOf(nil); zero != 0 || zero.String() != "00000000" {
		t.Errorf("of nothing: %s", zero)
	}
}

func TestParseChecksum(t *testing.T) {
	for text, want := range map[string]dfs.Checksum{"00000000": 0, "e3069283": 0xe3069283, "ffffffff": 1<<32 - 1} {
		if sum, err := dfs.ParseChecksum(text); err != nil || sum != want || sum.String() != text {
			t.Errorf("%s: %s, %v", text, sum, err)
		}
	}
	for _, text := range []string{"", "0", "E3069283", "e306928", "e30692833", "+3069283", "-3069283", "e3_69283", "0xe30692", "e306928g"} {
		if sum, err := dfs.ParseChecksum(text); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%q: %s, %v", text, sum, err)
		}
	}
}

func TestDigest(t *testing.T) {
	var a, b dfs.Digest
	for id := range dfs.ChunkID(100) {
		a = a.Add(id + 1)
		b = b.Add(100 - id)
	}
	if a != b {
		t.Error("the order of a set counts")
	}
	if a.Remove(7) == a || a.Remove(7).Add(7) != a || a.Remove(7) == a.Remove(8) {
		t.Error("one chunk more or less is not seen, or another one is the same")
	}
	seen := make(map[dfs.Digest]bool)
	for i := range dfs.ChunkID(64) {
		for j := range i {
			pair := dfs.Digest(0).Add(i + 1).Add(j + 1)
			if seen[pair] {
				t.Fatalf("two pairs of chunks share the digest %s", pair)
			}
			seen[pair] = true
		}
	}
	var parsed dfs.Digest
	if err := parsed.UnmarshalText([]byte(a.String())); err != nil || parsed != a {
		t.Errorf("%s, %v", parsed, err)
	}
}

func TestParseBaseURL(t *testing.T) {
	good := map[string]string{
		"http://host:8000":       "http://host:8000",
		"http://host:8000/":      "http://host:8000",
		"http://host":            "http://host:80",
		"http://host:":           "http://host:80",
		"HTTP://host:1":          "http://host:1",
		"http://10.0.0.1:65535":  "http://10.0.0.1:65535",
		"http://[::1]:8000":      "http://[::1]:8000",
		"http://[2001:db8::1]":   "http://[2001:db8::1]:80",
		"http://dn_1.rack-2:900": "http://dn_1.rack-2:900",
	}
	for text, want := range good {
		got, err := dfs.ParseBaseURL(text)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
			continue
		}
		if again, err := dfs.ParseBaseURL(got); err != nil || again != got {
			t.Errorf("%s became %s, %v", got, again, err)
		}
	}
	bad := []string{
		"", "host:8000", "host", ":8000", "https://host:8000", "ftp://host", "//host:8000", "http://", "http://:8000", "http://host:0",
		"http://host:65536", "http://host:x", "http://host:-1", "http://user@host:80", "http://user:pw@host:80", "http://host:80/path",
		"http://host:80//", "http://host:80?x=1", "http://host:80?", "http://host:80#x", "http://host:80#", "http:host:80", "http://ho st:80",
		"http://host\n:80", "http://hö:80", "http://[fe80::1%25eth0]:80", "http://a,http://b", "http://" + strings.Repeat("h", dfs.MaxURLLength) + ":80",
		"http://" + strings.Repeat("h", dfs.MaxURLLength-len("http://")), // too long with its port
	}
	for _, text := range bad {
		if got, err := dfs.ParseBaseURL(text); dfs.CodeOf(err) != dfs.Invalid || got != "" {
			t.Errorf("%.60q: %q, %v", text, got, err)
		}
	}
}

func TestParseHostPort(t *testing.T) {
	for _, text := range []string{"host:7000", "10.0.0.1:1", "[::1]:65535", "a.b-c_d:80"} {
		if got, err := dfs.ParseHostPort(text); err != nil || got != text {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "host", ":7000", "host:", "host:0", "host:65536", "host:http", "::1:80", "host:80:80", "a b:80", "a/b:80", "a@b:80", "a\n:80", "a\r\nX: y:80",
		"a\x00:80", "a\tb:80", "ä:80", "http://host:80", "a%b:80", "[]:80", strings.Repeat("h", dfs.MaxURLLength) + ":80",
	} {
		if got, err := dfs.ParseHostPort(text); dfs.CodeOf(err) != dfs.Invalid || got != "" {
			t.Errorf("%.60q: %q, %v", text, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	plain := errors.New("plain")
	coded := dfs.Errorf(dfs.NotFound, "there is no %s: %w", "x", plain)
	tests := []struct {
		err     error
		code    dfs.Code
		message string
	}{
		{nil, "", "internal error; the log of the server has the details under this request's ID"},
		{coded, dfs.NotFound, "there is no x: plain"},
		{fmt.Errorf("on the way: %w", coded), dfs.NotFound, "there is no x: plain"},
		{errors.Join(plain, coded), dfs.NotFound, "there is no x: plain"},
		{dfs.Errorf(dfs.Exists, "outer: %w", coded), dfs.Exists, "outer: there is no x: plain"},
		{context.DeadlineExceeded, dfs.Timeout, "the request ran out of time"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), dfs.Timeout, "the request ran out of time"},
		{dfs.Errorf(dfs.Unavailable, "no leader: %w", context.DeadlineExceeded), dfs.Unavailable, "no leader: context deadline exceeded"},
		{plain, dfs.Internal, "internal error; the log of the server has the details under this request's ID"},
	}
	for _, test := range tests {
		if got := dfs.CodeOf(test.err); got != test.code {
			t.Errorf("%v has code %q; want %q", test.err, got, test.code)
		}
		if got := dfs.MessageOf(test.err); got != test.message {
			t.Errorf("%v says %q; want %q", test.err, got, test.message)
		}
	}
	if !errors.Is(coded, plain) || coded.Error() != "there is no x: plain" {
		t.Errorf("%v lost its cause", coded)
	}
}

func TestLimits(t *testing.T) {
	for replication, want := range map[int]bool{-1: false, 0: false, 1: true, 3: true, dfs.MaxReplication: true, dfs.MaxReplication + 1: false} {
		if err := dfs.CheckReplication(replication); (err == nil) != want || err != nil && dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("replication %d: %v", replication, err)
		}
	}
	for size, want := range map[int64]bool{
		-1: false, 0: false, dfs.MinChunkSize - 1: false, dfs.MinChunkSize: true, dfs.DefaultChunkSize: true, dfs.MaxChunkSize: true, dfs.MaxChunkSize + 1: false,
	} {
		if err := dfs.CheckChunkSize(size); (err == nil) != want || err != nil && dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("chunk size %d: %v", size, err)
		}
	}
	for replication, want := range map[int]int{1: 1, 2: 2, 3: 2, dfs.MaxReplication: 2} {
		if got := dfs.MinReplicas(replication); got != want {
			t.Errorf("replication %d needs %d replicas; want %d", replication, got, want)
		}
	}
	for rack, want := range map[string]bool{
		"": true, "r1": true, "dc1/row-2/r_3.x": true, strings.Repeat("r", dfs.MaxRackLength): true,
		strings.Repeat("r", dfs.MaxRackLength+1): false, "a b": false, "ü": false, "a\n": false, "a,b": false,
	} {
		if err := dfs.CheckRack(rack); (err == nil) != want || err != nil && dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("rack %q: %v", rack, err)
		}
	}
}
