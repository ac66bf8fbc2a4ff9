package cli

import (
	"strconv"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// FuzzParseSize: a size is never negative and never wraps around, and what a flag
// shows of it is read as the same.
func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"", "0", "4MiB", "512k", "1048576", "-1", "+1", "9223372036854775807", "4611686018427387904", "4294967296g", "4294967297g", "1 k", "1kk", "k"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseSize(text)
		if err != nil {
			if dfs.CodeOf(err) != dfs.Invalid || n != 0 {
				t.Fatalf("%q: %d, %v", text, n, err)
			}
			return
		}
		digits, err := strconv.ParseInt(strings.TrimRight(text, "kKmMgGiIbB"), 10, 64)
		if err != nil || n < digits || n > 1<<62 || digits > 0 && n%digits != 0 {
			t.Fatalf("%q is %d, %v", text, n, err)
		}
		again := sizeFlag(0)
		if shown := sizeFlag(n); n > 0 && (again.Set(shown.String()) != nil || again != shown) {
			t.Fatalf("%q is %d, shown as %q", text, n, shown.String())
		}
	})
}
