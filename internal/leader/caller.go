package leader

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dfs-go/dfs-go/internal/bundle"
	"github.com/dfs-go/dfs-go/internal/carrier"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	maxHops        = 3   // hints followed from one endpoint before the next is asked
	maxConnections = 256 // kept for each NameNode, so that as many calls at once need not dial
	dialTimeout    = time.Second
	firstPause     = 25 * time.Millisecond
	longestPause   = 150 * time.Millisecond

	defaultSetting    = "the addresses of the NameNodes"
	defaultTryTimeout = 3 * time.Second
	slowTryTimeout    = 30 * time.Second // also the limit that impatience grows to
	noticeAfter       = 2 * time.Second
	learnTimeout      = 500 * time.Millisecond
	learnInterval     = 10 * time.Second
)

// Config says which NameNodes to call.
type Config struct {
	Endpoints []string      // base URLs of some NameNodes of one cluster; at least one
	ClusterID dfs.ClusterID // what the caller knows already; "" to learn it from the first answer
	Logger    hclog.Logger  // nil logs nothing
	// TryTimeout is how long one NameNode may be silent before the next is
	// tried; 0 means 3 s. Routes that work for long get 30 s in any case.
	TryTimeout time.Duration
	// Setting is what the one who gave the Endpoints knows them by, for sentences
	// that ask to correct them, like a flag.
	Setting string
	// Notice, when set, is told why when a call of Do has waited for 2 s; at most
	// once in each call, from several goroutines at once. It must not block.
	Notice func(reason string)
}

// Call is what goes with a route. The zero Call is a call without arguments.
type Call struct {
	Args       []string      // for the {wildcards} of the route's pattern, in order
	Query      url.Values    // may be nil
	Body       any           // sent as JSON; nil sends no body
	Out        any           // pointer that the answer's JSON goes to; nil drops it
	RequestID  dfs.RequestID // of a mutation; "" makes a new one
	TryTimeout time.Duration // 0 means that of the route
	// Patience is how long a NameNode may go on refusing with dfs.Unavailable
	// before the call ends with its last refusal. Such a call has changed nothing:
	// one with a try that may have been carried out goes on. 0 means that there
	// is no end but that of the context.
	Patience time.Duration
}

// Caller calls NameNodes. It is safe for concurrent use.
type Caller struct {
	transport  http.RoundTripper // without a Client: redirects are the Caller's business
	bundles    http.RoundTripper // for calls that are short on both ways
	hangUp     func()            // closes idle connections
	known      *endpoints
	log        hclog.Logger
	tryTimeout time.Duration
	setting    string
	notice     func(reason string)
}

// New makes a Caller. It does not call anybody yet. Errors: dfs.Invalid.
func New(config Config) (*Caller, error) {
	if config.Setting == "" {
		config.Setting = defaultSetting
	}
	known, err := newEndpoints(config)
	if err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	if config.TryTimeout <= 0 {
		config.TryTimeout = defaultTryTimeout
	}
	transport := carrier.New(carrier.Config{
		DialTimeout: dialTimeout,
		IdleTimeout: 30 * time.Second, // less than the servers' 60 s, so that they never hang up first
		IdlePerHost: maxConnections,
	})
	return &Caller{
		transport:  transport,
		bundles:    bundle.New(bundle.Config{Under: transport, Path: protocol.Bundle.Pattern}),
		hangUp:     transport.CloseIdleConnections,
		known:      known,
		log:        config.Logger.Named("leader"),
		tryTimeout: config.TryTimeout,
		setting:    config.Setting,
		notice:     config.Notice,
	}, nil
}

// Close closes idle connections. Calls under way are not touched.
func (c *Caller) Close() { c.hangUp() }

// Endpoints returns the base URLs of all NameNodes known: the configured ones,
// then those learnt.
func (c *Caller) Endpoints() []string { return c.known.all() }

// ClusterID returns the ID of the cluster, "" as long as nobody has answered.
func (c *Caller) ClusterID() dfs.ClusterID { return c.known.clusterID() }

// Do makes a call and follows the leader until somebody answers or ctx ends. A
// refusal keeps the code and the sentence of the NameNode; what does not show
// that it comes from one is not believed. Other errors: dfs.Unavailable at once
// when something else answers at every address,
// dfs.WrongCluster when the endpoints belong to two clusters; when ctx ends,
// dfs.UnknownOutcome for a mutation that may have happened, and otherwise
// dfs.Unavailable or dfs.Timeout.
func (c *Caller) Do(ctx context.Context, route protocol.Route, call Call) error {
	t, err := c.newTask(route, call)
	if err != nil {
		return err
	}
	defer c.watch(t)()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if v := c.round(ctx, t); v.final {
			return v.err
		}
		if t.refusedFor() > t.endurance {
			return t.refusal
		}
		if t.onlyStrangers(c.known.all()) {
			return dfs.Errorf(dfs.Unavailable, "%s", t.reasons())
		}
		select {
		case <-ctx.Done():
			return t.givenUp(ctx)
		case <-time.After(pause/2 + rand.N(pause/2)): // jitter keeps callers from moving in step
		}
	}
}

// watch gives notice of a call that takes long, until the returned function is
// called. When that has returned, no notice is under way any more.
func (c *Caller) watch(t *task) (stop func()) {
	if c.notice == nil {
		return func() {}
	}
	told := make(chan struct{})
	timer := time.AfterFunc(noticeAfter, func() {
		defer close(told)
		c.notice(t.lastReason())
	})
	return func() {
		if !timer.Stop() {
			<-told
		}
	}
}

// DoAt makes one try at one NameNode: no other is asked, no hint is followed.
// Errors as those of Do.
func (c *Caller) DoAt(ctx context.Context, baseURL string, route protocol.Route, call Call) error {
	baseURL, err := dfs.ParseBaseURL(baseURL)
	if err != nil {
		return err
	}
	t, err := c.newTask(route, call)
	if err != nil {
		return err
	}
	v := c.try(ctx, t, baseURL)
	if v.final || v.spoken {
		return v.err
	}
	t.failed(baseURL, v)
	return t.givenUp(ctx)
}

// Leader returns what the NameNode that answers first knows of the group. Its
// Leader is nil when that one knows none.
func (c *Caller) Leader(ctx context.Context) (protocol.LeaderReply, error) {
	var reply protocol.LeaderReply
	err := c.Do(ctx, protocol.GetLeader, Call{Out: &reply})
	if err == nil {
		c.known.learn(reply)
	}
	return reply, err
}

// round asks every endpoint once, hints included.
func (c *Caller) round(ctx context.Context, t *task) verdict {
	var v verdict
	visited := make(map[string]bool)
	for _, baseURL := range c.known.order(time.Now()) {
		if v = c.follow(ctx, t, baseURL, visited); v.final || ctx.Err() != nil {
			return v
		}
	}
	return v
}

// follow asks baseURL and goes where the answers point to. Nobody is asked
// twice in a round, so hints that go in a circle end.
func (c *Caller) follow(ctx context.Context, t *task, baseURL string, visited map[string]bool) verdict {
	var v verdict
	for range 1 + maxHops {
		if visited[baseURL] || ctx.Err() != nil {
			return v
		}
		visited[baseURL] = true
		v = c.try(ctx, t, baseURL)
		v.final = v.final && !(v.spoken && t.inDoubt(v.err))
		if v.final {
			if (v.err == nil || v.spoken) && t.answeredByLeader() {
				c.leads(ctx, baseURL)
			}
			return v
		}
		t.failed(baseURL, v)
		c.log.Debug("trying on", "route", t.route.Pattern, "at", baseURL, "because", v.err)
		if v.hint == "" || !c.known.accept(v.hint, time.Now()) {
			return v
		}
		baseURL = v.hint
	}
	return v
}

// leads notes who leads, and from time to time asks it for the members of the
// group, so that those are known when it dies. That is done in line, because
// one small question every 10 s is cheaper than a goroutine with an owner.
func (c *Caller) leads(ctx context.Context, baseURL string) {
	if !c.known.leads(baseURL, time.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	var reply protocol.LeaderReply
	t, err := c.newTask(protocol.GetLeader, Call{Out: &reply})
	if err == nil {
		err = c.try(ctx, t, baseURL).err
	}
	if err != nil {
		c.log.Debug("cannot learn the members", "at", baseURL, "error", err)
		return
	}
	c.known.learn(reply)
}
