package datanode

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Config says what a DataNode needs to know. ID, NameNodes and DataDirs have no
// default.
type Config struct {
	ID        dfs.NodeID
	Addr      string   // to listen on; ":9000" when empty, port 0 takes any
	Self      string   // base URL for others; http://<host of Addr or localhost>:<port> when empty
	NameNodes []string // base URLs of some NameNodes
	DataDirs  []string // one on each disk
	Rack      string   // "" when racks do not matter
	Reserve   int64    // bytes of each disk to stay free; 0: the larger of 128 MiB and 1 %

	// TrashKeep is how long a removed chunk stays in the trash; 0 removes it at once.
	TrashKeep time.Duration

	HeartbeatInterval time.Duration // 2 s when 0; a NameNode may ask for another
	ScrubRate         int64         // bytes of chunks to read again per second, to find damage; 0 turns it off
	ScrubInterval     time.Duration // between the beginnings of two passes over all chunks; 24 h when 0
	Limits            Limits
	Logger            hclog.Logger    // nil logs nothing
	DiskHook          chunkstore.Hook // nil outside tests
	Unpacked          bool            // small chunks get files of their own; false outside tests
}

// Limits bound what others can make the node do. Zero takes the default.
type Limits struct {
	// Writes is how many PUTs run at a time, for each place in a pipeline; 64.
	// More wait for half of ForwardTimeout.
	Writes int
	Reads  int // GETs at a time; 1024. More wait as PUTs do
	Copies int // orders carried out at a time; 2
	// BodyTimeout is how long the next 128 KiB of a transfer may take, and any
	// other body or answer as a whole; 30 s.
	BodyTimeout time.Duration
	// ForwardTimeout is how long the last node of a pipeline may show no sign of
	// life, and a copy may take for its next 128 KiB; 6 s. Each node before the
	// last gets a quarter more, so that it is the node that hangs that is given
	// up, and not the one that waits for it. A pipeline of three is judged before
	// a client's 10 s are over. Half of it is how long a request waits for its
	// turn, so that a busy node does not seem to hang.
	ForwardTimeout time.Duration
	// ReportSize is how many chunk IDs a heartbeat carries at most;
	// dfs.MaxChunksPerReport, which is also the most.
	ReportSize int
}

// DefaultScrubRate is what the command line scrubs with unless told otherwise,
// in bytes per second: little beside what even a slow disk can do, and a
// terabyte in 28 hours.
const DefaultScrubRate = 10 << 20

// DefaultTrashKeep is what the command line keeps removed chunks for unless told
// otherwise: long enough for a person to stop a DataNode that removes what it
// should not.
const DefaultTrashKeep = 2 * time.Minute

const (
	defaultAddr           = ":9000"
	defaultScrubInterval  = 24 * time.Hour
	defaultCopies         = 2
	defaultInterval       = 2 * time.Second
	defaultWrites         = 64
	defaultReads          = 1024
	defaultBodyTimeout    = 30 * time.Second
	defaultForwardTimeout = 6 * time.Second
)

// complete fills in the defaults and tells everything that is wrong at once.
func (c Config) complete() (Config, error) {
	orDefault(&c.Addr, defaultAddr)
	orDefault(&c.HeartbeatInterval, defaultInterval)
	orDefault(&c.ScrubInterval, defaultScrubInterval)
	orDefault(&c.Limits.Writes, defaultWrites)
	orDefault(&c.Limits.Copies, defaultCopies)
	orDefault(&c.Limits.Reads, defaultReads)
	orDefault(&c.Limits.BodyTimeout, defaultBodyTimeout)
	orDefault(&c.Limits.ForwardTimeout, defaultForwardTimeout)
	orDefault(&c.Limits.ReportSize, dfs.MaxChunksPerReport)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	var faults []string
	check := func(err error) {
		if err != nil {
			faults = append(faults, err.Error())
		}
	}
	_, err := dfs.ParseNodeID(string(c.ID))
	check(err)
	check(dfs.CheckRack(c.Rack))
	check(checkListen(c.Addr))
	if c.Self != "" {
		c.Self, err = dfs.ParseBaseURL(c.Self)
		check(err)
	}
	c.NameNodes, err = parseAll(c.NameNodes)
	check(err)
	check(c.checkNumbers())
	if len(faults) > 0 {
		return Config{}, dfs.Errorf(dfs.Invalid, "this DataNode cannot be started: %s", strings.Join(faults, "; "))
	}
	return c, nil
}

func (c Config) checkNumbers() error {
	switch l := c.Limits; {
	case len(c.DataDirs) == 0 || slices.Contains(c.DataDirs, ""):
		return dfs.Errorf(dfs.Invalid, "no data directory is given")
	case len(c.DataDirs) > chunkstore.MaxDirs:
		return dfs.Errorf(dfs.Invalid, "%d data directories are too many: at most %d are possible", len(c.DataDirs), chunkstore.MaxDirs)
	case c.TrashKeep < 0:
		return dfs.Errorf(dfs.Invalid, "keeping removed chunks for %s is not possible; 0 removes them at once", c.TrashKeep)
	case c.Reserve < 0:
		return dfs.Errorf(dfs.Invalid, "a reserve of %d bytes is not possible", c.Reserve)
	case c.HeartbeatInterval < shortestInterval || c.HeartbeatInterval > longestInterval:
		return dfs.Errorf(dfs.Invalid, "a heartbeat every %s is not possible: choose %s to %s", c.HeartbeatInterval, shortestInterval, longestInterval)
	case c.ScrubRate < 0:
		return dfs.Errorf(dfs.Invalid, "a scrub rate of %d bytes per second is not possible; 0 turns scrubbing off", c.ScrubRate)
	case c.ScrubInterval < shortestInterval:
		return dfs.Errorf(dfs.Invalid, "scrubbing every %s is not possible: choose at least %s", c.ScrubInterval, shortestInterval)
	case l.Writes < 0 || l.Reads < 0 || l.Copies < 0 || l.BodyTimeout < 0 || l.ForwardTimeout < 0:
		return dfs.Errorf(dfs.Invalid, "limits cannot be negative")
	case l.ReportSize < 1 || l.ReportSize > dfs.MaxChunksPerReport:
		return dfs.Errorf(dfs.Invalid, "%d chunks in a report are not possible: choose 1 to %d", l.ReportSize, dfs.MaxChunksPerReport)
	}
	return nil
}

func orDefault[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}

func checkListen(addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return dfs.Errorf(dfs.Invalid, "%.120q is not an address to listen on: write it like :9000 or 10.0.0.1:9000", addr)
	}
	return nil
}

func parseAll(urls []string) ([]string, error) {
	if len(urls) == 0 {
		return nil, dfs.Errorf(dfs.Invalid, "no NameNode is given")
	}
	parsed := make([]string, 0, len(urls))
	for _, u := range urls {
		p, err := dfs.ParseBaseURL(u)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, p)
	}
	return parsed, nil
}

// selfURL is where others find a node that listens on addr, which has a port
// by now, when nobody has said.
func selfURL(configured string, addr net.Addr) string {
	host, _, err := net.SplitHostPort(configured)
	if err != nil || host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	return "http://" + net.JoinHostPort(host, port)
}
