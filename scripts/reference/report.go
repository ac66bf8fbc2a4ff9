package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// measurement is an experiment that was carried out.
type measurement struct {
	ID        string   `json:"id"`
	Figures   []figure `json:"figures"`
	Ours      []sample `json:"ours"`
	Reference []sample `json:"reference,omitempty"`
	Previous  []sample `json:"previous,omitempty"`
	Failure   string   `json:"failure,omitempty"`
}

// report is all of a run.
type report struct {
	Time         time.Time     `json:"time"`
	Commit       string        `json:"commit"`
	Previous     string        `json:"previous,omitempty"`
	Machine      machine       `json:"machine"`
	Settings     settings      `json:"settings"`
	Measurements []measurement `json:"measurements"`
	Rows         []row         `json:"rows"`

	later []*report // whose rows have taken the place of others
}

type machine struct {
	Processors int    `json:"processors"`
	Model      string `json:"model"`
	Memory     string `json:"memory"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
	LoadBefore string `json:"load_before"` // others that were running make all figures doubtful
}

// row is a figure with its values: medians over the runs.
type row struct {
	Title     string  `json:"title"`
	Unit      string  `json:"unit"`
	Ours      float64 `json:"ours"`
	Reference float64 `json:"reference,omitempty"`
	Ratio     float64 `json:"ratio,omitempty"`    // ours to the reference
	Previous  float64 `json:"previous,omitempty"` // ours to that of the previous revision
	Versus    string  `json:"versus,omitempty"`
	Aim       string  `json:"aim"`
	Met       string  `json:"met"` // yes, no, or why it is not known
}

func newReport(ctx context.Context, s settings) *report {
	return &report{Time: time.Now().UTC().Truncate(time.Second), Commit: revision(ctx, s.Root), Previous: revision(ctx, s.Previous), Machine: thisMachine(ctx, s.Home), Settings: s}
}

func revision(ctx context.Context, root string) string {
	if root == "" {
		return ""
	}
	return printed(ctx, "git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12")
}

// printed is what a command says, "" when it cannot.
func printed(ctx context.Context, program string, args ...string) string {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func thisMachine(ctx context.Context, home string) machine {
	return machine{
		Processors: runtime.NumCPU(), Model: field("/proc/cpuinfo", "model name"), Memory: memoryText(field("/proc/meminfo", "MemTotal")),
		Kernel: printed(ctx, "uname", "-sr"), FileSystem: printed(ctx, "findmnt", "-n", "-o", "FSTYPE", "-T", home), Go: runtime.Version(), LoadBefore: firstLine("/proc/loadavg"),
	}
}

// memoryText turns "16384000 kB" into GiB.
func memoryText(text string) string {
	kilobytes, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return text
	}
	return fmt.Sprintf("%.1f GiB of memory", float64(kilobytes)/mib)
}

func field(file, name string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(content), "\n")
	return line
}

// median is the middle one, of an even number the mean of both.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medianOf is that of a figure's values, 0 when there are none.
func medianOf(samples []sample, f figure) float64 {
	var values []float64
	for _, s := range samples {
		if v, ok := s.Values[f.Key]; ok {
			values = append(values, v)
		}
	}
	if f.quotient == 0 {
		return median(values)
	}
	return median(values) / f.quotient
}

func (m *measurement) rows() []row {
	var rows []row
	for _, f := range m.Figures {
		r := row{Title: f.Title, Unit: f.Unit, Versus: f.Versus, Aim: f.aim(), Ours: medianOf(m.Ours, f), Reference: medianOf(m.Reference, f)}
		r.Ratio = ratio(r.Ours, r.Reference)
		r.Previous = ratio(r.Ours, medianOf(m.Previous, f))
		r.Met = f.met(r)
		if m.Failure != "" {
			r.Met = "failed"
		}
		rows = append(rows, r)
	}
	return rows
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (f figure) aim() string {
	var parts []string
	if f.Ratio > 0 {
		parts = append(parts, fmt.Sprintf("≥ %g ×", f.Ratio))
	}
	if f.AtLeast > 0 {
		parts = append(parts, "≥ "+thousands(int(f.AtLeast)))
	}
	if f.AtMost > 0 {
		parts = append(parts, fmt.Sprintf("≤ %g", f.AtMost))
	}
	return strings.Join(parts, ", ")
}

// met judges only what was measured.
func (f figure) met(r row) string {
	switch {
	case r.Ours == 0:
		return "not measured"
	case f.AtLeast > 0 && r.Ours < f.AtLeast, f.AtMost > 0 && r.Ours > f.AtMost:
		return "no"
	case f.Ratio > 0 && r.Reference == 0:
		return "no reference"
	case f.Ratio > 0 && r.Ratio < f.Ratio:
		return "no"
	}
	return "yes"
}

func (r *report) file() string {
	return r.Time.Format("20060102-150405") + ".json"
}

// save writes the report, whole or not at all.
func (r *report) save(dir string) error {
	r.Rows = nil
	for i := range r.Measurements {
		r.Rows = append(r.Rows, r.Measurements[i].rows()...)
	}
	return writeJSON(filepath.Join(dir, r.file()), r)
}

func writeJSON(name string, v any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(v); err != nil {
		return err
	}
	if err := os.WriteFile(name+".tmp", text.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

func (r *report) header() []string {
	header := []string{"row", "ours", "reference", "ratio", "aim", "met?"}
	if r.Previous != "" {
		header = append(header, "to "+r.Previous)
	}
	return header
}

func (r *report) cells(x row) []string {
	reference := "–"
	if x.Reference > 0 {
		reference = number(x.Reference) + " " + x.Unit
	}
	if x.Versus != "" {
		reference += " (" + x.Versus + ")"
	}
	cells := []string{x.Title, dash(x.Ours, number(x.Ours)+" "+x.Unit), reference, dash(x.Ratio, fmt.Sprintf("%.2f", x.Ratio)), x.Aim, x.Met}
	if r.Previous != "" {
		cells = append(cells, dash(x.Previous, fmt.Sprintf("%.2f", x.Previous)))
	}
	return cells
}

func dash(value float64, text string) string {
	if value == 0 {
		return "–"
	}
	return text
}

// number has three significant digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return thousands(int(v + 0.5))
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// text is the table for a terminal.
func (r *report) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(r.header(), "\t"))
	for _, x := range r.Rows {
		fmt.Fprintln(w, strings.Join(r.cells(x), "\t"))
	}
	w.Flush() // into a Builder, which never fails
	for _, m := range r.Measurements {
		if m.Failure != "" {
			fmt.Fprintf(&out, "%s failed: %s\n", m.ID, m.Failure)
		}
	}
	return out.String()
}

// markdown is the table for the documentation.
func (r *report) markdown() string {
	var out strings.Builder
	kind := "Full size."
	if r.Settings.Quick {
		kind = "Provisional: a quick run with smaller sizes."
	}
	fmt.Fprintf(&out, "%s, commit %s. %s Medians of %d runs; %s, %d processors (%s), %s, %s, %s. Load before: %s.",
		r.Time.Format("2006-01-02 15:04 MST"), r.Commit, kind, r.Settings.Runs, r.Machine.Memory, r.Machine.Processors, r.Machine.Model, r.Machine.Kernel, r.Machine.FileSystem, r.Machine.Go, r.Machine.LoadBefore)
	if r.Settings.Reduced != "" {
		fmt.Fprintf(&out, " Note: %s.", r.Settings.Reduced)
	}
	for i, later := range r.later {
		fmt.Fprintf(&out, " Rows with %s: %s, commit %s, medians of %d runs.", mark(i), later.Time.Format("2006-01-02 15:04 MST"), later.Commit, later.Settings.Runs)
	}
	header := r.header()
	fmt.Fprintf(&out, "\n\n| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, x := range r.Rows {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(r.cells(x), " | "))
	}
	return out.String()
}

const (
	tableBegins = "<!-- the table: scripts/bench.sh publish -->"
	tableEnds   = "<!-- end of the table -->"
)

// publish puts the table of a run into a document. Rows of later runs take the
// place of those with the same title.
func publish(results []string, document string) error {
	first, err := readReport(results[0])
	if err != nil {
		return err
	}
	for _, name := range results[1:] {
		later, err := readReport(name)
		if err != nil {
			return err
		}
		if err := first.replaceRows(later); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !found || !ends {
		return errors.New(document + " has no place for the table between " + tableBegins + " and " + tableEnds)
	}
	return os.WriteFile(document, []byte(before+tableBegins+"\n"+first.markdown()+tableEnds+after), 0o644)
}

func readReport(name string) (*report, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var r report
	if err := json.Unmarshal(content, &r); err != nil {
		return nil, fmt.Errorf("%s is not the result of a run: %w", name, err)
	}
	if len(r.Rows) == 0 {
		return nil, fmt.Errorf("%s has no rows", name)
	}
	return &r, nil
}

// replaceRows takes over the rows of a run on the same machine, and marks them.
func (r *report) replaceRows(later *report) error {
	here, there := r.Machine, later.Machine
	here.LoadBefore, there.LoadBefore = "", ""
	if here != there || later.Previous != "" {
		return errors.New("it was made on another machine, or compares with another revision")
	}
	for _, x := range later.Rows {
		at := slices.IndexFunc(r.Rows, func(old row) bool { return strings.TrimRight(old.Title, `\*`) == x.Title })
		if at < 0 {
			return fmt.Errorf("the first run has no row %q: it was of another size", x.Title)
		}
		x.Title += mark(len(r.later))
		r.Rows[at] = x
	}
	r.later = append(r.later, later)
	return nil
}

// mark tells rows of the nth later run.
func mark(n int) string { return strings.Repeat(`\*`, n+1) }
