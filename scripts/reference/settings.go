package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// settings say how large everything is. All come from the environment.
type settings struct {
	Root     string        `json:"-"` // of the checkout
	Home     string        `json:"-"` // data of everything that is measured: on one disk
	Quick    bool          `json:"quick"`
	Runs     int           `json:"runs"`
	Size     int64         `json:"size"`           // of a large file, bytes
	Each     time.Duration `json:"each_ns"`        // of what is measured by time
	Kills    int           `json:"kills"`          // of leaders
	Files    int           `json:"files"`          // in the namespace of one NameNode
	Chunks   int           `json:"chunks"`         // of one DataNode
	Names    int           `json:"names"`          // in one directory
	Memory   int64         `json:"memory"`         // size of the file that clients are weighed with, bytes
	Repair   int64         `json:"repair"`         // bytes stored before a DataNode is lost
	Rows     []string      `json:"rows,omitempty"` // only these; none: all
	Previous string        `json:"-"`              // another checkout, or ""
	Port     int           `json:"-"`              // first of a thousand
	Reduced  string        `json:"note,omitempty"` // what was made smaller, and why
}

// settingsFrom reads the environment. A quick run has smaller things, which
// says little of the aims.
func settingsFrom(env func(string) string) (settings, error) {
	s := settings{
		Root: env("BENCH_ROOT"), Home: env("BENCH_HOME"), Previous: env("BENCH_PREVIOUS"), Quick: env("BENCH_QUICK") != "",
		Runs: 5, Size: gib, Each: 10 * time.Second, Kills: 20, Files: 1_000_000, Chunks: 1_000_000, Names: 100_000, Memory: 10 * gib, Repair: 6 * gib, Port: 17000,
	}
	if s.Quick {
		s.Runs, s.Size, s.Each, s.Kills, s.Files, s.Chunks, s.Names, s.Memory, s.Repair = 3, 256*mib, 3*time.Second, 5, 100_000, 100_000, 10_000, gib, gib
	}
	if s.Root == "" || s.Home == "" || !filepath.IsAbs(s.Root) || !filepath.IsAbs(s.Home) {
		return s, fmt.Errorf("BENCH_ROOT and BENCH_HOME must be absolute paths; scripts/bench.sh sets them")
	}
	if rows := env("ROWS"); rows != "" {
		s.Rows = strings.Split(rows, ",")
	}
	seconds := int64(s.Each / time.Second)
	runs, kills, files, chunks, names, port := int64(s.Runs), int64(s.Kills), int64(s.Files), int64(s.Chunks), int64(s.Names), int64(s.Port)
	for _, number := range []struct {
		name      string
		value     *int64
		low, high int64
	}{
		{"RUNS", &runs, 1, 1000}, {"SIZE", &s.Size, kib, 1 << 40}, {"SECONDS_EACH", &seconds, 1, 3600}, {"KILLS", &kills, 1, 10_000},
		{"FILES", &files, 1, 1e9}, {"CHUNKS", &chunks, 1, 1e9}, {"NAMES", &names, 1, 1e8}, {"MEMORY_SIZE", &s.Memory, kib, 1 << 40},
		{"REPAIR_SIZE", &s.Repair, mib, 1 << 40}, {"BENCH_PORT", &port, 1024, 60_000},
	} {
		text := env(number.name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < number.low || n > number.high {
			return s, fmt.Errorf("%s=%s: it must be a number from %d to %d (sizes are in bytes)", number.name, text, number.low, number.high)
		}
		*number.value = n
	}
	s.Each = time.Duration(seconds) * time.Second
	s.Runs, s.Kills, s.Files, s.Chunks, s.Names, s.Port = int(runs), int(kills), int(files), int(chunks), int(names), int(port)
	return s, nil
}

// fit makes the largest file smaller where the disk has no room for three
// replicas of it.
func (s *settings) fit() {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.Home, &disk); err != nil {
		return
	}
	parts := int64(4) // three replicas, and one to spare
	if s.Previous != "" {
		parts += 3
	}
	room := int64(disk.Bavail) * disk.Bsize / parts
	if s.Memory > room {
		s.Reduced = fmt.Sprintf("the file for memory has %s instead of %s, because the disk is small", size(room/gib*gib), size(s.Memory))
		s.Memory = max(room/gib*gib, mib)
	}
}

func (s *settings) wants(id string) bool {
	for _, row := range s.Rows {
		if row == id {
			return true
		}
	}
	return len(s.Rows) == 0
}

// size writes bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= gib && bytes%gib == 0:
		return fmt.Sprintf("%d GiB", bytes/gib)
	case bytes >= mib && bytes%mib == 0:
		return fmt.Sprintf("%d MiB", bytes/mib)
	case bytes >= kib && bytes%kib == 0:
		return fmt.Sprintf("%d KiB", bytes/kib)
	}
	return fmt.Sprintf("%d B", bytes)
}

// thousands writes 1000000 as 1,000,000.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
