package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/leader"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	defaultParallelism  = 4
	maxParallelism      = 64
	defaultTimeout      = 60 * time.Second
	defaultStallTimeout = 10 * time.Second
	defaultPatience     = 30 * time.Second
	defaultRescueAfter  = 3 * time.Second // longer than a DataNode takes to start again
)

// Config says which cluster to talk to, and how. Only NameNodes is required.
type Config struct {
	NameNodes    []string      // base URLs of some NameNodes of the cluster
	Parallelism  int           // chunks in flight in each transfer, 1 to 64; 0 means 4
	Timeout      time.Duration // of one metadata call with all its retries; 0 means 60 s
	StallTimeout time.Duration // how long a DataNode may make no progress; 0 means 10 s
	Patience     time.Duration // how long a transfer waits for a chunk that nobody can give, or a DataNode that is busy; 0 means 30 s
	Logger       hclog.Logger  // nil logs nothing
	// Notice, when set, is told a sentence for the user when something is waited
	// for: once for the NameNodes, and once in each download. It is called from
	// several goroutines at once, and must not block.
	Notice func(message string)
}

// Client talks to one cluster. It is safe for concurrent use.
type Client struct {
	names       *leader.Caller
	data        *dataNodes
	buffers     bufferPool
	parallelism int
	downloads   atomic.Int32 // under way, of more than one chunk
	timeout     time.Duration
	patience    time.Duration
	penalty     time.Duration // that a DataNode is left out for when it failed
	log         hclog.Logger

	fanOut        int           // bytes of a chunk at most that is sent to all its targets at once
	rescueAfter   time.Duration // that a commit is refused before it is looked why
	reportTimeout time.Duration // for telling a DataNode of a bad replica
	reportGrace   time.Duration // for that, when the download is over

	notice func(message string)
}

// New makes a Client. It does not call anybody yet. Errors: dfs.Invalid.
func New(config Config) (*Client, error) {
	if config.Parallelism < 0 || config.Parallelism > maxParallelism {
		return nil, dfs.Errorf(dfs.Invalid, "%d chunks at once are not possible: choose 1 to %d", config.Parallelism, maxParallelism)
	}
	if config.Timeout < 0 || config.StallTimeout < 0 || config.Patience < 0 {
		return nil, dfs.Errorf(dfs.Invalid, "a timeout is negative: choose one above zero, like 60s")
	}
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	if config.Notice == nil {
		config.Notice = func(string) {}
	}
	timeout := orDefault(config.Timeout, defaultTimeout)
	var waiting sync.Once
	names, err := leader.New(leader.Config{Endpoints: config.NameNodes, Setting: "--namenodes", Logger: config.Logger, Notice: func(reason string) {
		waiting.Do(func() {
			config.Notice(fmt.Sprintf("no NameNode answers yet (%s); trying for %gs, see --timeout", reason, timeout.Seconds()))
		})
	}})
	if err != nil {
		return nil, err
	}
	return &Client{
		notice:        config.Notice,
		names:         names,
		data:          newDataNodes(orDefault(config.StallTimeout, defaultStallTimeout), names.ClusterID),
		parallelism:   orDefault(config.Parallelism, defaultParallelism),
		timeout:       timeout,
		patience:      orDefault(config.Patience, defaultPatience),
		penalty:       defaultPenalty,
		fanOut:        fanOutLimit,
		rescueAfter:   defaultRescueAfter,
		reportTimeout: defaultReportTimeout,
		reportGrace:   defaultReportGrace,
		log:           config.Logger.Named("client"),
	}, nil
}

func orDefault[T int | time.Duration](value, fallback T) T {
	if value == 0 {
		return fallback
	}
	return value
}

// Close closes idle connections. Transfers under way are not touched.
func (c *Client) Close() {
	c.names.Close()
	c.data.close()
}

// call makes one metadata call.
func (c *Client) call(ctx context.Context, route protocol.Route, call leader.Call) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.names.Do(ctx, route, call)
}
