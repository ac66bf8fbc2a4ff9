package protocol_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

func TestBlocks(t *testing.T) {
	two := []dfs.Checksum{1, 0xe3069283}
	const text = "AQAAAIOSBuM="
	if got := protocol.FormatBlocks(two); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
	for _, size := range []int64{dfs.BlockSize + 1, 2 * dfs.BlockSize} {
		if got, err := protocol.ParseBlocks(text, size); err != nil || !slices.Equal(got, two) {
			t.Errorf("%d bytes: %v, %v", size, got, err)
		}
	}
	for _, bad := range []struct {
		text string
		size int64
	}{
		{"", 1},
		{text, 0},
		{text, -1},
		{text, dfs.BlockSize},                       // one block too many
		{text, 2*dfs.BlockSize + 1},                 // one too few
		{text, dfs.MaxChunkSize + 1},                // no chunk is that long
		{text, 1 << 62},                             // nor this
		{"AQAAAIOSBuN=", 2 * dfs.BlockSize},         // bits after the end
		{"AQAAAIOSBuM\n", 2 * dfs.BlockSize},        // a character that decoders skip
		{"AQAAAIOSBu=\n", 2 * dfs.BlockSize},        // the same
		{"AQAAAIOS-_M=", 2 * dfs.BlockSize},         // the other alphabet
		{"????????????", 2 * dfs.BlockSize},         // no alphabet
		{text + text, 2 * dfs.BlockSize},            // twice
		{strings.Repeat("A", 1<<20), dfs.BlockSize}, // far too long
	} {
		if got, err := protocol.ParseBlocks(bad.text, bad.size); dfs.CodeOf(err) != dfs.Invalid || got != nil {
			t.Errorf("%.20q of %d bytes: %v, %v", bad.text, bad.size, got, err)
		}
	}
	largest := make([]dfs.Checksum, dfs.MaxChunkSize/dfs.BlockSize)
	header := protocol.FormatBlocks(largest)
	if len(header) != 5464 {
		t.Errorf("the largest list has %d characters", len(header))
	}
	if got, err := protocol.ParseBlocks(header, dfs.MaxChunkSize); err != nil || !slices.Equal(got, largest) {
		t.Errorf("the largest list: %d, %v", len(got), err)
	}
}

func FuzzParseBlocks(f *testing.F) {
	f.Add("AQAAAIOSBuM=", int64(dfs.BlockSize+1))
	f.Add("AQAAAA==", int64(1))
	f.Add("", int64(0))
	f.Fuzz(func(t *testing.T, text string, size int64) {
		blocks, err := protocol.ParseBlocks(text, size)
		if err != nil {
			if dfs.CodeOf(err) != dfs.Invalid {
				t.Errorf("code %q", dfs.CodeOf(err))
			}
			return
		}
		if again := protocol.FormatBlocks(blocks); again != text {
			t.Errorf("%q became %q", text, again)
		}
	})
}
