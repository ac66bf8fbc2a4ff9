package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// printJSON prints an object of the protocol.
func (a *app) printJSON(v any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// table prints rows in columns.
type table struct {
	w   *tabwriter.Writer
	err error
}

func newTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		if texts[i] = oneLine(fmt.Sprint(cell)); texts[i] == "" {
			texts[i] = "-"
		}
	}
	if _, err := fmt.Fprintln(t.w, strings.Join(texts, "\t")); err != nil && t.err == nil {
		t.err = err
	}
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	return t.err
}

// humanSize writes a number of bytes for people: 4.0 MiB.
func humanSize(bytes int64) string {
	if bytes < 1024 && bytes > -1024 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	value, unit := float64(bytes)/1024, 0
	for (value >= 1023.95 || value <= -1023.95) && unit < len("KMGTPE")-1 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
}

func humanTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// humanAge writes how long ago t was.
func humanAge(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return max(0, now.Sub(t)).Truncate(100*time.Millisecond).String() + " ago"
}

// parseSize reads 4194304, 4096k, 4m, 4MiB. Units are powers of 1024.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKmMgGiIbB")
	shift, known := map[string]uint{
		"": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30,
	}[strings.ToLower(text[len(digits):])]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > (1<<62)>>shift {
		return 0, dfs.Errorf(dfs.Invalid, "%.40q is not a size: write it like 4MiB, 512k or 1048576", text)
	}
	return n << shift, nil
}

// sizeFlag is a flag that takes a size, for both flag packages.
type sizeFlag int64

// Set is parseSize.
func (f *sizeFlag) Set(text string) error {
	n, err := parseSize(text)
	*f = sizeFlag(n)
	return err
}

// String returns the number of bytes, "" for zero.
func (f *sizeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*f), 10)
}

// Type names the kind of value in the help.
func (f *sizeFlag) Type() string { return "size" }
