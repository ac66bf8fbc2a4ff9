package leader

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	maxEndpoints = 64 // configured at most
	maxLearnt    = 32 // learnt at most; a group is much smaller

	// suspicion is how long an endpoint that let a call wait in vain is passed
	// over. It is a little longer than an election, so that the others no longer
	// point to a dead leader when it is over.
	suspicion = 2 * time.Second
)

// endpoints is what is known of the NameNodes. The configured ones are kept for
// ever; whatever is learnt comes from them or from those they named.
type endpoints struct {
	configured []string
	setting    string // where the operator has put the configured ones

	mu       sync.Mutex
	learnt   []string             // guarded by mu
	leader   string               // who led last, or ""; guarded by mu
	suspects map[string]time.Time // until when; guarded by mu
	cluster  dfs.ClusterID        // guarded by mu
	told     string               // who told the cluster ID; guarded by mu
	asked    time.Time            // when the members were asked for; guarded by mu
}

func newEndpoints(config Config) (*endpoints, error) {
	e := &endpoints{cluster: config.ClusterID, told: "this node", setting: config.Setting, asked: time.Now(), suspects: make(map[string]time.Time)}
	for _, text := range config.Endpoints {
		baseURL, err := parseEndpoint(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(e.configured, baseURL) {
			e.configured = append(e.configured, baseURL)
		}
	}
	if len(e.configured) == 0 || len(e.configured) > maxEndpoints {
		return nil, dfs.Errorf(dfs.Invalid, "%d addresses of NameNodes are given: name 1 to %d, like http://host:8000", len(e.configured), maxEndpoints)
	}
	return e, nil
}

// parseEndpoint is dfs.ParseBaseURL with a plain word on what is left out most
// often.
func parseEndpoint(text string) (string, error) {
	baseURL, err := dfs.ParseBaseURL(text)
	if err != nil && strings.Contains(text, ":") && !strings.Contains(text, "://") {
		if _, otherwise := dfs.ParseBaseURL("http://" + text); otherwise == nil {
			return "", dfs.Errorf(dfs.Invalid, "%.120q is not the address of a daemon: http:// is missing; write http://%s", text, text)
		}
	}
	return baseURL, err
}

func (e *endpoints) clusterID() dfs.ClusterID {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cluster
}

func (e *endpoints) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Concat(e.configured, e.learnt)
}

// order returns whom to ask: the last leader, then the others. Suspects are
// left out while anybody else is left.
func (e *endpoints) order(now time.Time) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := slices.Concat(e.configured, e.learnt)
	if i := slices.Index(all, e.leader); i > 0 {
		all = slices.Concat(all[i:i+1], all[:i], all[i+1:])
	}
	maps.DeleteFunc(e.suspects, func(_ string, until time.Time) bool { return until.Before(now) })
	good := slices.DeleteFunc(slices.Clone(all), func(baseURL string) bool {
		_, suspect := e.suspects[baseURL]
		return suspect
	})
	if len(good) == 0 {
		return all
	}
	return good
}

// accept tells whether a hint should be followed now, and remembers the
// address. Only NameNodes that are themselves known give hints.
func (e *endpoints) accept(baseURL string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add(baseURL)
	return !e.suspects[baseURL].After(now)
}

func (e *endpoints) add(baseURL string) {
	if slices.Contains(e.configured, baseURL) || slices.Contains(e.learnt, baseURL) {
		return
	}
	if len(e.learnt) >= maxLearnt {
		e.learnt = e.learnt[1:]
	}
	e.learnt = append(e.learnt, baseURL)
}

// silent notes that baseURL let a call wait in vain.
func (e *endpoints) silent(baseURL string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.suspects[baseURL] = now.Add(suspicion)
	e.unlead(baseURL)
}

// down notes that baseURL could not be talked to at all.
func (e *endpoints) down(baseURL string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unlead(baseURL)
}

func (e *endpoints) unlead(baseURL string) {
	if e.leader == baseURL {
		e.leader = ""
	}
}

// answered notes a sign of life, with the cluster ID that came with it ("" when
// none did), and refuses the answer of another cluster.
func (e *endpoints) answered(baseURL, cluster string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.suspects, baseURL)
	id, err := dfs.ParseClusterID(cluster)
	switch {
	case err != nil: // a proxy, or a NameNode that waits to be let in
		return nil
	case e.cluster == "":
		e.cluster, e.told = id, baseURL
	case e.cluster != id:
		return dfs.Errorf(dfs.WrongCluster, "%s belongs to cluster %s, %s to cluster %s: they cannot both be right; fix %s", e.told, e.cluster, baseURL, id, e.setting)
	}
	return nil
}

// forget drops baseURL if it was learnt, and tells whether it was.
func (e *endpoints) forget(baseURL string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.learnt, baseURL)
	if i < 0 {
		return false
	}
	e.learnt = slices.Delete(e.learnt, i, i+1)
	e.unlead(baseURL)
	return true
}

// leads notes who leads, and tells whether the members should be asked for.
func (e *endpoints) leads(baseURL string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leader = baseURL
	if now.Sub(e.asked) < learnInterval {
		return false
	}
	e.asked = now
	return true
}

// learn takes over the members of the group. The leader's own word replaces
// what was learnt before; that of others, who may be behind, only adds.
func (e *endpoints) learn(reply protocol.LeaderReply) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if reply.Leader != nil && reply.Leader.ID == reply.NodeID {
		e.learnt = nil
	}
	for _, member := range reply.Members {
		if baseURL, err := dfs.ParseBaseURL(member.URL); err == nil && len(e.learnt) < maxLearnt {
			e.add(baseURL)
		}
	}
}
