package cluster

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// Timing is how fast a group notices that its leader is gone.
type Timing struct {
	HeartbeatTimeout time.Duration // a follower that hears nothing for this long looks for a new leader
	ElectionTimeout  time.Duration // a candidate that is not elected for this long tries again
	LeaderLease      time.Duration // a leader that hears from no majority for this long steps down
	CommitTimeout    time.Duration // how long followers may be told late, in a quiet group, that an entry is committed
}

// DefaultTiming elects a new leader in under two seconds on a LAN.
func DefaultTiming() Timing {
	return Timing{
		HeartbeatTimeout: 400 * time.Millisecond,
		ElectionTimeout:  400 * time.Millisecond,
		LeaderLease:      300 * time.Millisecond,
		CommitTimeout:    50 * time.Millisecond,
	}
}

func (t Timing) check() error {
	switch {
	case t.LeaderLease < 5*time.Millisecond || t.CommitTimeout < time.Millisecond:
		return dfs.Errorf(dfs.Invalid, "the leader lease (%s) and the commit timeout (%s) must be at least 5ms and 1ms", t.LeaderLease, t.CommitTimeout)
	case t.LeaderLease > t.HeartbeatTimeout:
		return dfs.Errorf(dfs.Invalid, "the leader lease (%s) must not be longer than the heartbeat timeout (%s)", t.LeaderLease, t.HeartbeatTimeout)
	case t.HeartbeatTimeout > t.ElectionTimeout:
		return dfs.Errorf(dfs.Invalid, "the heartbeat timeout (%s) must not be longer than the election timeout (%s)", t.HeartbeatTimeout, t.ElectionTimeout)
	}
	return nil
}

// Config is what Open needs. The zero value of an optional field takes its
// default.
type Config struct {
	ID       dfs.NodeID
	Instance string // random, as old as the directory; told to peers in the handshake
	Dir      string // holds raft.db, raft.journal and snapshots/; made when missing

	// RaftAddr is where to listen, like 127.0.0.1:7000 or :7000. Port 0 takes
	// any free port. Listener, when set, is used instead and owned by the group.
	RaftAddr string
	Listener net.Listener
	// Advertise is the host:port that peers are told to dial. Default: the
	// own entry in Peers, else RaftAddr, which then must name a host that
	// others can reach unless this is a group of one.
	Advertise string

	// Peers are the initial members, this one included, the same list on all
	// of them. Empty, without Join, makes a group of one. Join waits to be let
	// in instead. Both only matter while Dir is empty.
	Peers []Peer
	Join  bool

	FSM raft.FSM

	// ClusterID tells what this node knows, "" while nothing is known. It is
	// asked at every handshake and must be quick.
	ClusterID func() dfs.ClusterID
	// Admit is asked before a member with an empty directory takes part in the
	// group id that exists already. nil means that this ID has never been a
	// member with another directory. Unavailable, NotLeader, Timeout and
	// UnknownOutcome are tried again; any other error is reported to Fatal.
	// Required with Peers or Join.
	Admit func(ctx context.Context, id dfs.ClusterID) error
	// Lead is run each time this node becomes leader, after a barrier; it is
	// given the group because that may be before Open has returned. ctx ends
	// with the leadership, and Lead must then return soon. An error while
	// still leading hands the leadership to another member. Optional.
	Lead func(ctx context.Context, g *Group) error
	// Fatal is called at most once, when the node cannot go on: the disk
	// failed or hangs, the log is damaged, raft has stopped. It should not
	// return; whatever it does, it must not call Close itself. Until the
	// process exits the node takes part in nothing any more. Default: log.
	Fatal func(error)

	Timing            Timing        // default DefaultTiming
	SnapshotThreshold uint64        // entries between two snapshots; default 8192
	SnapshotInterval  time.Duration // how often to look whether one is due; default 30s
	TrailingLogs      uint64        // entries kept behind a snapshot, >= SnapshotThreshold; default 10240
	BootstrapWait     time.Duration // for silent peers, before a majority of empty ones begins; default 10s
	DiskTimeout       time.Duration // a write that takes longer is Fatal; default 10s

	Logger hclog.Logger // default: none

	freeBytes      func(dir string) (int64, error) // for tests; default: what the disk says
	beforeHandOver func() error                    // for tests; an error is that of the attempt
}

// prepared returns the configuration with defaults filled in, or the first
// fault in it.
func (c Config) prepared() (Config, error) {
	if c.Timing == (Timing{}) {
		c.Timing = DefaultTiming()
	}
	setDefault(&c.SnapshotThreshold, 8192)
	setDefault(&c.SnapshotInterval, 30*time.Second)
	setDefault(&c.TrailingLogs, max(10240, c.SnapshotThreshold+c.SnapshotThreshold/4))
	setDefault(&c.BootstrapWait, 10*time.Second)
	setDefault(&c.DiskTimeout, 10*time.Second)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.ClusterID == nil {
		c.ClusterID = func() dfs.ClusterID { return "" }
	}
	if c.Fatal == nil {
		logger := c.Logger
		c.Fatal = func(err error) { logger.Error("this node cannot go on", "error", err) }
	}
	return c, c.check()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) check() error {
	if _, err := dfs.ParseNodeID(string(c.ID)); err != nil {
		return err
	}
	if err := c.Timing.check(); err != nil {
		return err
	}
	own, listed := findPeer(c.Peers, c.ID)
	switch {
	case c.Dir == "" || c.FSM == nil:
		return dfs.Errorf(dfs.Invalid, "a member of the group needs a directory and a state machine")
	case len(c.Instance) > maxInstance:
		return dfs.Errorf(dfs.Invalid, "the instance is longer than %d bytes", maxInstance)
	case c.Join && len(c.Peers) > 0:
		return dfs.Errorf(dfs.Invalid, "a node either forms a group with its peers or joins one: choose one")
	case len(c.Peers) > 0 && !listed:
		return dfs.Errorf(dfs.Invalid, "%s is not in its own list of peers: every member is given the same list, itself included", c.ID)
	case (c.Join || len(c.Peers) > 0) && c.Admit == nil:
		return dfs.Errorf(dfs.Invalid, "a member of a group of several needs somebody to ask for admission")
	case c.TrailingLogs < c.SnapshotThreshold:
		// An older snapshot must always be completed by the log behind it,
		// in case the newest one is damaged.
		return dfs.Errorf(dfs.Invalid, "%d trailing log entries are fewer than the snapshot threshold of %d", c.TrailingLogs, c.SnapshotThreshold)
	case listed && c.Advertise != "" && c.Advertise != own.RaftAddr:
		return dfs.Errorf(dfs.Invalid, "the list of peers says that %s is at %s, the address to advertise is %s: make them the same", c.ID, own.RaftAddr, c.Advertise)
	}
	return checkDistinct(c.Peers)
}

// advertised is the address that peers are told to dial, given where this node
// listens.
func (c Config) advertised(listening net.Addr) (string, error) {
	if c.Advertise != "" {
		return dfs.ParseHostPort(c.Advertise)
	}
	if own, ok := findPeer(c.Peers, c.ID); ok {
		return own.RaftAddr, nil
	}
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return "", dfs.Errorf(dfs.Invalid, "cannot listen for peers on %s: not a TCP address", listening)
	}
	host, _, err := net.SplitHostPort(c.RaftAddr)
	if c.Listener != nil || err != nil {
		host, _, err = net.SplitHostPort(listening.String())
	}
	if err != nil || !reachableHost(host) {
		if c.Join {
			return "", dfs.Errorf(dfs.Invalid, "others cannot dial %q: say with an advertised address where they reach this node", c.RaftAddr)
		}
		host = "127.0.0.1" // a group of one
	}
	return dfs.ParseHostPort(net.JoinHostPort(host, port))
}

// reachableHost tells whether host can be dialled at all: the unspecified
// address is for listening only.
func reachableHost(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host != "" && (ip == nil || !ip.IsUnspecified())
}

// raftConfig translates into raft's own configuration.
func (c Config) raftConfig(notify chan<- bool) *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.ID)
	rc.HeartbeatTimeout = c.Timing.HeartbeatTimeout
	rc.ElectionTimeout = c.Timing.ElectionTimeout
	rc.LeaderLeaseTimeout = c.Timing.LeaderLease
	rc.CommitTimeout = c.Timing.CommitTimeout
	rc.MaxAppendEntries = maxAppendEntries
	rc.BatchApplyCh = true // groups concurrent callers into one disk write
	rc.ShutdownOnRemove = true
	rc.SnapshotThreshold = c.SnapshotThreshold
	rc.SnapshotInterval = c.SnapshotInterval
	rc.TrailingLogs = c.TrailingLogs
	rc.NoLegacyTelemetry = true
	rc.NotifyCh = notify
	rc.Logger = quiet(c.Logger.Named("raft"))
	return rc
}
