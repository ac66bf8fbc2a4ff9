package namenode

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dfs-go/dfs-go/cluster"
	"github.com/dfs-go/dfs-go/fsm"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/namenode/placement"
	"github.com/dfs-go/dfs-go/namenode/reclaim"
	"github.com/dfs-go/dfs-go/namenode/repair"
)

const (
	purgeInterval = 200 * time.Millisecond
	purgeLimit    = 2000 // names and chunks in one entry
	flightRefresh = time.Second
	expiryBatch   = 1024 // uploads in one entry
)

// leadership is what a leader knows beyond the state, from its election to its
// loss. All of it is about time or load, so a new leader starts afresh: nobody
// is given up earlier because the leader changed.
type leadership struct {
	n       *NameNode
	ctx     context.Context
	term    uint64 // in which this NameNode leads; orders are fenced with it
	reports chan pendingReport

	unsettled atomic.Bool                   // chunks may lack replicas since the last survey
	surveyed  atomic.Pointer[repair.Report] // the last; nil before the first
	deletions deletions
	stock     *stock // chunks for small files

	repair  *repairDuty
	service turn // for whoever changes the service of DataNodes

	mu       sync.Mutex
	seen     map[fsm.NodeNum]time.Time // last heartbeat
	inFlight map[fsm.NodeNum]int64     // bytes allocated and not yet stored
	random   *rand.Rand
	ledger   *repair.Ledger // copies under way
	trims    *repair.Trims  // replicas that are to go
}

// leadGroup is run by the group, with an up-to-date state, from when this
// NameNode becomes the leader until ctx ends with the leadership.
func (n *NameNode) leadGroup(ctx context.Context, group *cluster.Group) error {
	term := group.LeaderTerm()
	select {
	case <-n.opened:
	case <-ctx.Done():
		return nil
	}
	if err := n.establish(ctx); err != nil {
		return err
	}
	tasks, ctx := errgroup.WithContext(ctx)
	l := &leadership{
		n: n, ctx: ctx, term: term, reports: make(chan pendingReport),
		seen:      make(map[fsm.NodeNum]time.Time),
		inFlight:  make(map[fsm.NodeNum]int64),
		random:    rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		ledger:    repair.NewLedger(copyTimeout),
		trims:     repair.NewTrims(trimAgain),
		service:   newTurn(),
		deletions: deletions{ledger: reclaim.NewLedger(deleteTimeout)},
		stock:     newStock(n.config.UploadExpiry / 2),
	}
	l.repair = newRepairDuty(l)
	l.refreshFlight()
	n.lead.Store(l)
	defer n.lead.Store(nil)
	n.logger.Info("leading", "term", term)
	tasks.Go(l.collectReports)
	tasks.Go(l.keepStock)
	tasks.Go(func() error { return l.every(n.config.HeartbeatInterval/4, l.judgeLiveness) })
	tasks.Go(func() error { return l.every(min(n.config.UploadExpiry/10, time.Minute), l.expireUploads()) })
	tasks.Go(func() error { return l.every(purgeInterval, l.purge) })
	tasks.Go(func() error { return l.every(flightRefresh, l.refreshFlight) })
	tasks.Go(func() error { return l.every(repairInterval, l.repair.round) })
	tasks.Go(func() error { return l.every(drainInterval, l.judgeDrains()) })
	tasks.Go(func() error { return l.every(reclaimInterval, l.reclaimChunks()) })
	err := tasks.Wait()
	n.logger.Info("no longer leading")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// establish mints the cluster's ID when there is none, and makes this
// NameNode's address known.
func (n *NameNode) establish(ctx context.Context) error {
	if n.clusterID() == "" {
		if _, err := n.propose(ctx, &fsm.InitCluster{ClusterID: dfs.NewClusterID()}, ""); err != nil {
			return err
		}
	}
	return n.setMember(ctx, fsm.SetMember{
		ID: n.config.ID, Instance: n.meta.current().Instance, URL: n.url, RaftAddr: n.group.RaftAddr(),
	})
}

// setMember proposes the command unless the state says the same already.
func (n *NameNode) setMember(ctx context.Context, command fsm.SetMember) error {
	known := false
	n.machine.Read(func(s *fsm.State) {
		m, ok := s.Member(command.ID)
		known = ok && !m.Removed && m == fsm.Member{
			ID: command.ID, Instance: command.Instance, URL: command.URL, RaftAddr: command.RaftAddr,
		}
	})
	if known {
		return nil
	}
	_, err := n.propose(ctx, &command, "")
	return err
}

// every calls duty at intervals until the leadership ends.
func (l *leadership) every(interval time.Duration, duty func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-ticker.C:
			duty()
		}
	}
}

// try proposes a command of a duty. What fails is tried again by the duty's
// next round, or by the next leader.
func (l *leadership) try(what string, command fsm.Command) (fsm.Result, bool) {
	result, err := l.n.propose(l.ctx, command, "")
	if err != nil && l.ctx.Err() == nil {
		l.n.logger.Warn("a duty of the leader failed and will be tried again", "duty", what, "error", err)
	}
	return result, err == nil
}

// saw takes note of a heartbeat.
func (l *leadership) saw(num fsm.NodeNum) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[num] = time.Now()
}

// judgeLiveness finds the DataNodes that fell silent.
func (l *leadership) judgeLiveness() {
	var changes []fsm.NodeLiveness
	now := time.Now()
	l.mu.Lock()
	l.n.machine.Read(func(s *fsm.State) {
		for _, node := range s.Nodes() {
			last, known := l.seen[node.Num]
			if !known { // a new leader gives everyone the full time
				l.seen[node.Num] = now
				continue
			}
			if judged := l.judge(now.Sub(last)); judged > node.Liveness {
				changes = append(changes, fsm.NodeLiveness{Node: node.Num, Liveness: judged})
				l.n.logger.Warn("DataNode is silent", "id", node.ID, "for", now.Sub(last).Round(time.Millisecond), "down", judged == fsm.Down)
			}
		}
	})
	l.mu.Unlock()
	if len(changes) > 0 {
		l.try("liveness", &fsm.SetLiveness{Nodes: changes})
	}
}

func (l *leadership) judge(silence time.Duration) fsm.Liveness {
	switch {
	case silence > l.n.config.DownAfter:
		return fsm.Down
	case silence > l.n.config.SuspectAfter:
		return fsm.Suspect
	}
	return fsm.Up
}

// expireUploads returns the duty that gives up uploads without a sign of life,
// and old pools.
// Age is measured on this leader's own monotonic clock, from when it first saw
// the last sign of life.
func (l *leadership) expireUploads() func() {
	type sighting struct {
		touched int64
		since   time.Time
	}
	sightings := make(map[dfs.UploadID]sighting)
	return func() {
		now := time.Now()
		open := make(map[dfs.UploadID]sighting)
		var expired []fsm.ExpiredUpload
		abandoned := 0 // pools end as a matter of course
		l.n.machine.Read(func(s *fsm.State) {
			s.TouchedUploads(func(id dfs.UploadID, touched int64) {
				last, known := sightings[id]
				if !known || last.touched != touched {
					last = sighting{touched, now}
				}
				open[id] = last
				if now.Sub(last.since) > l.n.config.UploadExpiry && len(expired) < expiryBatch {
					expired = append(expired, fsm.ExpiredUpload{Upload: id, Touched: touched})
					if !s.PoolOpen(id) {
						abandoned++
					}
				}
			})
		})
		sightings = open
		if abandoned > 0 {
			l.n.logger.Info("giving up abandoned uploads", "count", abandoned)
		}
		if len(expired) > 0 {
			l.try("expiry of uploads", &fsm.ExpireUploads{Uploads: expired})
		}
	}
}

// purge works off what was deleted.
func (l *leadership) purge() {
	for more := true; more && l.ctx.Err() == nil; {
		l.n.machine.Read(func(s *fsm.State) { more = s.Trashed() })
		if more {
			_, more = l.try("purge", &fsm.Purge{Limit: purgeLimit})
		}
	}
}

// refreshFlight counts anew what is on its way to each DataNode.
func (l *leadership) refreshFlight() {
	inFlight := make(map[fsm.NodeNum]int64)
	// Uploads may be large, and Apply must not wait.
	l.expected(l.n.machine.Freeze(), func(target fsm.NodeNum, chunkSize int64) { inFlight[target] += chunkSize })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight = inFlight
}

// expected calls fn with each chunk that was allocated or handed out and not yet
// reported by a target, and that target.
func (l *leadership) expected(s *fsm.State, fn func(target fsm.NodeNum, chunkSize int64)) {
	s.InFlight(fn)
	l.stock.inFlight(s, fn)
}

// place decides where chunks go and takes note that they are on their way.
func (l *leadership) place(request placement.Request) ([][]fsm.NodeNum, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	plan, err := placement.Plan(l.view(), request, l.random)
	if err != nil {
		return nil, err
	}
	targets := make([][]fsm.NodeNum, len(plan))
	for i, nodes := range plan {
		for _, num := range nodes {
			l.inFlight[fsm.NodeNum(num)] += request.ChunkSize
			targets[i] = append(targets[i], fsm.NodeNum(num))
		}
	}
	return targets, nil
}

// view is the DataNodes as placement sees them. The caller holds mu.
func (l *leadership) view() []placement.Node {
	copying := make(map[fsm.NodeNum]int64) // bytes
	for _, c := range l.ledger.Ongoing() {
		copying[c.Target] += c.Chunk.Size
	}
	var nodes []placement.Node
	l.n.machine.Read(func(s *fsm.State) {
		for _, node := range s.Nodes() {
			nodes = append(nodes, placement.Node{
				Num: uint32(node.Num), ID: node.ID, Rack: node.Rack,
				Live:     node.Liveness == fsm.Up,
				Serving:  node.Service == fsm.InService,
				Writable: node.Writable && node.URL != "",
				Free:     node.Free,
				InFlight: l.inFlight[node.Num] + copying[node.Num],
			})
		}
	})
	return nodes
}
