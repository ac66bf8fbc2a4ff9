package dfs_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestChunkAndUploadIDs(t *testing.T) {
	good := map[string]uint64{
		"0000000000000001": 1,
		"00000000000000ff": 255,
		"0123456789abcdef": 0x0123456789abcdef,
		"ffffffffffffffff": 1<<64 - 1,
	}
	for text, want := range good {
		chunk, err := dfs.ParseChunkID(text)
		if err != nil || uint64(chunk) != want || chunk.String() != text {
			t.Errorf("chunk %s: %s, %v", text, chunk, err)
		}
		upload, err := dfs.ParseUploadID(text)
		if err != nil || uint64(upload) != want || upload.String() != text {
			t.Errorf("upload %s: %s, %v", text, upload, err)
		}
	}
	bad := []string{
		"", "1", "0000000000000000", "00000000000000FF", "000000000000000g", "+000000000000001", "-000000000000001", "0x00000000000001",
		"0000_0000_000001", " 000000000000001", "00000000000000001", "000000000000001", "../../etc/passwd", "000000000000001\n", "０00000000000001",
	}
	for _, text := range bad {
		if id, err := dfs.ParseChunkID(text); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("chunk %q: %s, %v", text, id, err)
		}
		if id, err := dfs.ParseUploadID(text); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("upload %q: %s, %v", text, id, err)
		}
	}
}

func TestIDsAsJSON(t *testing.T) {
	type body struct {
		Chunk  dfs.ChunkID
		Upload dfs.UploadID
		Sum    dfs.Checksum
		Digest dfs.Digest
	}
	const text = `{"Chunk":"0000000000000007","Upload":"0000000000000008","Sum":"e3069283","Digest":"0000000000000000"}`
	var b body
	if err := json.Unmarshal([]byte(text), &b); err != nil || b != (body{7, 8, 0xe3069283, 0}) {
		t.Fatalf("%+v, %v", b, err)
	}
	if again, err := json.Marshal(b); err != nil || string(again) != text {
		t.Fatalf("%s, %v", again, err)
	}
	for _, bad := range []string{`{"Chunk":"7"}`, `{"Upload":""}`, `{"Sum":"E3069283"}`, `{"Digest":"1"}`, `{"Digest":"+000000000000001"}`} {
		if err := json.Unmarshal([]byte(bad), &b); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"Chunk":7}`), &b); err == nil {
		t.Error("a number is taken for an ID")
	}
}

func TestNames(t *testing.T) {
	word := strings.Repeat("x", 64)
	tests := []struct {
		text                   string
		node, request, cluster bool
	}{
		{"dn1", true, true, false},
		{"DN-1.rack_2", true, true, false},
		{"7", true, true, false},
		{word, true, true, false},
		{word + "x", false, false, false},
		{"", false, false, false},
		{".hidden", false, true, false},
		{"-flag", false, true, false},
		{"_x", false, true, false},
		{"..", false, true, false},
		{"a b", false, false, false},
		{"a/b", false, false, false},
		{`a\b`, false, false, false},
		{"a\nb", false, false, false},
		{"ü", false, false, false},
		{"a\x00", false, false, false},
		{"00112233445566778899aabbccddeeff", true, true, true},
		{"00112233445566778899AABBCCDDEEFF", true, true, false},
		{"00112233445566778899aabbccddeef", true, true, false},
		{"00112233445566778899aabbccddeeff00", true, true, false},
		{"zz112233445566778899aabbccddeeff", true, true, false},
	}
	for _, test := range tests {
		node, err := dfs.ParseNodeID(test.text)
		checkName(t, "node ID", test.text, string(node), err, test.node)
		request, err := dfs.ParseRequestID(test.text)
		checkName(t, "request ID", test.text, string(request), err, test.request)
		cluster, err := dfs.ParseClusterID(test.text)
		checkName(t, "cluster ID", test.text, string(cluster), err, test.cluster)
	}
}

func checkName(t *testing.T, what, text, got string, err error, good bool) {
	t.Helper()
	if good && (err != nil || got != text) || !good && (dfs.CodeOf(err) != dfs.Invalid || got != "") {
		t.Errorf("%q as a %s: %q, %v; want it accepted: %t", text, what, got, err, good)
	}
}

func TestNewIDs(t *testing.T) {
	if _, err := dfs.ParseClusterID(string(dfs.NewClusterID())); err != nil {
		t.Error(err)
	}
	if _, err := dfs.ParseRequestID(string(dfs.NewRequestID())); err != nil {
		t.Error(err)
	}
	if first, second := dfs.RandomHex(), dfs.RandomHex(); first == second {
		t.Error("two random numbers of 128 bits are the same")
	}
}
