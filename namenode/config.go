package namenode

import (
	"errors"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// Config says how a NameNode is to run. New fills in what is left empty and
// refuses what cannot work.
type Config struct {
	ID        dfs.NodeID // stays with the meta-dir
	Addr      string     // HTTP listen address, ":8000"
	MetaDir   string
	RaftAddr  string // Raft listen address; default ":7000", "127.0.0.1:7000" when alone
	Advertise string // base URL for others; default derived from Addr
	// RaftAdvertise is the Raft address for others; default from Peers, or
	// RaftAddr when its host can be reached.
	RaftAdvertise string
	Peers         []cluster.Peer // initial members, this one included; none for a one-node group
	Join          string         // URL of any NameNode of the group to be let into

	Timing            cluster.Timing
	SnapshotThreshold uint64 // log entries
	SnapshotInterval  time.Duration
	TrailingLogs      uint64        // log entries kept behind a snapshot
	DiskTimeout       time.Duration // a write that takes longer ends the process

	HeartbeatInterval time.Duration // asked of DataNodes
	SuspectAfter      time.Duration
	DownAfter         time.Duration
	UploadExpiry      time.Duration // without a sign of life
	ReclaimGrace      time.Duration // before what was deleted is taken from DataNodes; default 1 minute, AtOnce for none
	TrimDelay         time.Duration // for which a replica too many must have been seen before it is removed
	NoBalance         bool          // leave chunks where they are, however full their nodes become

	Logger hclog.Logger
	// Now is the wall clock that a leader stamps changes with; default time.Now.
	// Nothing else asks it.
	Now func() time.Time

	// Listener and RaftListener, when set, are used in place of Addr and
	// RaftAddr, so that a test knows the ports beforehand.
	Listener     net.Listener
	RaftListener net.Listener

	room func() error // for tests; default: what the group says
}

// AtOnce as Config.ReclaimGrace has chunks taken from DataNodes as soon as they
// are garbage. A reader that has just asked where a file lies may then fail.
const AtOnce time.Duration = -1

func (c *Config) setDefaults() {
	set(&c.ID, "nn1")
	set(&c.Addr, ":8000")
	set(&c.MetaDir, "./meta")
	set(&c.HeartbeatInterval, 2*time.Second)
	set(&c.SuspectAfter, 3*c.HeartbeatInterval)
	set(&c.DownAfter, 10*c.HeartbeatInterval)
	set(&c.UploadExpiry, time.Hour)
	set(&c.ReclaimGrace, time.Minute)
	set(&c.TrimDelay, protocol.OrderLifetime)
	set(&c.Timing, cluster.DefaultTiming())
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RaftAddr == "" {
		c.RaftAddr = ":7000"
		if len(c.Peers) == 0 && c.Join == "" {
			c.RaftAddr = "127.0.0.1:7000" // nobody else has business there
		}
	}
	for _, peer := range c.Peers {
		if peer.ID == c.ID {
			set(&c.RaftAdvertise, peer.RaftAddr)
			set(&c.Advertise, peer.URL)
		}
	}
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate reports all faults at once.
func (c *Config) validate() error {
	var faults []error
	if _, err := dfs.ParseNodeID(string(c.ID)); err != nil {
		faults = append(faults, err)
	}
	if c.Advertise != "" {
		url, err := dfs.ParseBaseURL(c.Advertise)
		c.Advertise = url
		faults = append(faults, err)
	}
	if c.Join != "" {
		url, err := dfs.ParseBaseURL(c.Join)
		c.Join = url
		faults = append(faults, err)
		if len(c.Peers) > 0 {
			faults = append(faults, dfs.Errorf(dfs.Invalid, "-peers and -join exclude each other: -peers starts a new group, -join waits to be let into one"))
		}
	}
	if c.SuspectAfter <= c.HeartbeatInterval || c.DownAfter <= c.SuspectAfter {
		faults = append(faults, dfs.Errorf(dfs.Invalid, "the heartbeat interval (%s) must be shorter than suspect-after (%s), and that shorter than down-after (%s)", c.HeartbeatInterval, c.SuspectAfter, c.DownAfter))
	}
	if c.UploadExpiry < time.Second {
		faults = append(faults, dfs.Errorf(dfs.Invalid, "uploads must be kept for a second at least"))
	}
	if c.ReclaimGrace < 0 && c.ReclaimGrace != AtOnce {
		faults = append(faults, dfs.Errorf(dfs.Invalid, "what is deleted cannot be reclaimed before that: the grace is 0 at least, not %s", c.ReclaimGrace))
	}
	if c.TrimDelay < 0 {
		faults = append(faults, dfs.Errorf(dfs.Invalid, "a trim delay of %s is not possible: choose one above 0", c.TrimDelay))
	}
	return joined(faults)
}

// joined makes one Invalid error of several faults, or nil of none.
func joined(faults []error) error {
	err := errors.Join(faults...)
	if err == nil {
		return nil
	}
	return dfs.Errorf(dfs.Invalid, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// advertised returns the base URL that others reach this NameNode by.
func (c *Config) advertised(listening net.Addr) string {
	if c.Advertise != "" {
		return c.Advertise
	}
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
