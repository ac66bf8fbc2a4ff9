package dfs_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestCombine(t *testing.T) {
	source := rand.NewChaCha8([32]byte{7})
	data := make([]byte, 3*dfs.BlockSize+17)
	_, _ = source.Read(data) // never fails
	whole := dfs.ChecksumOf(data)
	for _, cut := range []int{0, 1, 2, 3, 255, 256, dfs.BlockSize - 1, dfs.BlockSize, dfs.BlockSize + 1, len(data) - 1, len(data)} {
		a, b := data[:cut], data[cut:]
		if got := dfs.Combine(dfs.ChecksumOf(a), dfs.ChecksumOf(b), int64(len(b))); got != whole {
			t.Errorf("cut at %d: %s, want %s", cut, got, whole)
		}
	}
	var blocks dfs.Checksum
	for at := 0; at < len(data); at += dfs.BlockSize {
		block := data[at:min(at+dfs.BlockSize, len(data))]
		blocks = dfs.Combine(blocks, dfs.ChecksumOf(block), int64(len(block)))
	}
	if blocks != whole {
		t.Errorf("of all blocks: %s, want %s", blocks, whole)
	}
}

// Lengths that no test has the memory for: the parts of parts must agree.
func TestCombineLongParts(t *testing.T) {
	a, b, c := dfs.Checksum(0x12345678), dfs.Checksum(0x9abcdef0), dfs.Checksum(0xdeadbeef)
	for _, lengths := range [][2]int64{{1, 1}, {1 << 20, 3}, {1 << 40, 1<<33 + 5}, {1 << 61, 1<<62 - 1}} {
		left := dfs.Combine(dfs.Combine(a, b, lengths[0]), c, lengths[1])
		right := dfs.Combine(a, dfs.Combine(b, c, lengths[1]), lengths[0]+lengths[1])
		if left != right {
			t.Errorf("%v: %s from the left, %s from the right", lengths, left, right)
		}
	}
}

func TestCombineWithNothing(t *testing.T) {
	a := dfs.ChecksumOf([]byte("123456789"))
	if got := dfs.Combine(a, 0, 0); got != a {
		t.Errorf("followed by nothing: %s", got)
	}
	if got := dfs.Combine(a, 5, -1); got != a {
		t.Errorf("followed by less than nothing: %s", got)
	}
	if got := dfs.Combine(0, a, 9); got != a {
		t.Errorf("after nothing: %s", got)
	}
	zeros := dfs.ChecksumOf(make([]byte, 1000))
	if got := dfs.Combine(dfs.ChecksumOf(make([]byte, 300)), dfs.ChecksumOf(make([]byte, 700)), 700); got != zeros {
		t.Errorf("zeros: %s, want %s", got, zeros)
	}
}

func FuzzCombine(f *testing.F) {
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte("1234"), []byte("56789"))
	f.Add(bytes.Repeat([]byte{0}, 1000), []byte{0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		want := dfs.ChecksumOf(a).Update(b)
		if got := dfs.Combine(dfs.ChecksumOf(a), dfs.ChecksumOf(b), int64(len(b))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}
