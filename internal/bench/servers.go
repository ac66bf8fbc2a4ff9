package bench

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	askTimeout = 3 * time.Second
	maxMetrics = 4 << 20 // bytes
)

// ownUsage is that of this process so far.
func ownUsage() Usage {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return Usage{}
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return Usage{CPUSeconds: cpu.Seconds(), Resident: residentNow(), Peak: usage.Maxrss << 10}
}

// residentNow reads /proc/self/statm; 0 where there is none.
func residentNow() int64 {
	content, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(content))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// Daemons is what each daemon has used since it was started, by base URL.
type Daemons map[string]Usage

// Servers asks all daemons of a cluster. One that does not answer is left out.
func Servers(ctx context.Context, c *client.Client) (nameNodes, dataNodes Daemons) {
	nameNodes, dataNodes = make(Daemons), make(Daemons)
	group, err := c.Leader(ctx)
	if err == nil {
		for _, m := range group.Members {
			nameNodes.ask(ctx, m.URL)
		}
	}
	nodes, err := c.Nodes(ctx)
	if err == nil {
		for _, n := range nodes {
			dataNodes.ask(ctx, n.URL)
		}
	}
	return nameNodes, dataNodes
}

func (d Daemons) ask(ctx context.Context, url string) {
	if usage := usageOf(ctx, url); usage != (Usage{}) {
		d[url] = usage
	}
}

// Since sums up what was used from before to now, and the memory of now. A
// daemon that was started anew in between has forgotten what it used before.
func (d Daemons) Since(before Daemons) (sum Usage) {
	for url, now := range d {
		used := now.Since(before[url])
		sum.CPUSeconds += used.CPUSeconds
		sum.Resident += used.Resident
	}
	return sum
}

// Since returns what was used from before to now, and the memory of now.
func (u Usage) Since(before Usage) Usage {
	if u.CPUSeconds >= before.CPUSeconds {
		u.CPUSeconds -= before.CPUSeconds
	}
	return u
}

func usageOf(ctx context.Context, baseURL string) (u Usage) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+protocol.Metrics.Pattern, nil)
	if err != nil {
		return u
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return u
	}
	defer response.Body.Close() // only read from
	lines := bufio.NewScanner(io.LimitReader(response.Body, maxMetrics))
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil:
		case name == "process_cpu_seconds_total":
			u.CPUSeconds = value
		case name == "process_resident_memory_bytes":
			u.Resident = int64(value)
		}
	}
	return u
}
