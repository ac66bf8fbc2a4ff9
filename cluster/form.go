package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	surveyInterval  = 200 * time.Millisecond
	surveyLogEvery  = 10 * time.Second
	admitRetryFirst = 250 * time.Millisecond
	admitRetryMax   = 4 * time.Second
)

// form makes this node take part in raft: at once when its directory holds
// state, otherwise when it is certain that this cannot fork the group or lose
// what the group has acknowledged.
func (g *Group) form(ctx context.Context) error {
	switch {
	case g.hadState:
		g.ready.Store(true)
		return nil
	case g.cfg.ClusterID() != "":
		// The ID is only learned from the log. Whoever knows it has had one.
		return dfs.Errorf(dfs.Corrupt, "this NameNode belonged to cluster %s, but its Raft log is gone: %s", g.cfg.ClusterID(), rejoinAdvice)
	case g.cfg.Join:
		g.logger.Info("waiting to be let into a group", "node", g.cfg.ID, "raft_addr", g.address)
		return g.waitForGroup(ctx)
	case len(g.cfg.Peers) == 0:
		return g.bootstrap([]Peer{{ID: g.cfg.ID, RaftAddr: g.address}})
	}
	return g.formWithPeers(ctx)
}

// waitForGroup waits until the right group wants to talk raft. Anyone can dial
// the port, so a call from another cluster than that of -join changes nothing.
func (g *Group) waitForGroup(ctx context.Context) error {
	for {
		select {
		case id := <-g.contacts:
			err := g.seekAdmission(ctx, id)
			if dfs.CodeOf(err) != dfs.WrongCluster {
				return err
			}
			g.learned.Store(nil)
			g.logger.Warn("another cluster wants to take this NameNode in", "cluster", id, "error", err)
		case <-ctx.Done():
			return nil
		}
	}
}

// formWithPeers looks at the other peers until they show that there is a group
// already, or that there is none.
func (g *Group) formWithPeers(ctx context.Context) error {
	begun, logged := time.Now(), time.Time{}
	for {
		found, err := g.survey(ctx)
		if err != nil {
			return err
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case found.cluster != "":
			return g.seekAdmission(ctx, found.cluster)
		case found.mayBootstrap(time.Since(begun) >= g.cfg.BootstrapWait):
			return g.bootstrap(g.cfg.Peers)
		}
		if time.Since(logged) >= surveyLogEvery {
			g.logger.Info("waiting for the other NameNodes", "silent", found.silent, "empty", found.empty, "settling", found.settling)
			logged = time.Now()
		}
		if !sleep(ctx, surveyInterval) {
			return nil
		}
	}
}

// survey is what a node with an empty directory learned from its peers.
type survey struct {
	cluster  dfs.ClusterID // to which at least one of them belongs
	empty    int           // have nothing but, at most, the first log entry that all of them bootstrap
	settling int           // have a log but do not know their cluster yet: they will soon
	silent   []dfs.NodeID
}

// mayBootstrap tells whether there cannot be a group yet. Silent peers are
// waited for, but a majority of empty ones, this node included, is enough: no
// group can have existed without one of them.
func (s survey) mayBootstrap(patienceOver bool) bool {
	switch {
	case s.cluster != "" || s.settling > 0:
		return false
	case len(s.silent) == 0:
		return true
	}
	return patienceOver && s.empty+1 > (s.empty+1+len(s.silent))/2
}

func (g *Group) survey(ctx context.Context) (survey, error) {
	others := slices.DeleteFunc(initialConfiguration(g.cfg.Peers).Servers, func(s raft.Server) bool {
		return s.ID == raft.ServerID(g.cfg.ID)
	})
	var found survey
	for i, answer := range g.probeAll(ctx, others) {
		info := answer.info
		switch {
		case answer.err != nil:
			g.stream.noteRefusal(string(others[i].Address), answer.err)
			found.silent = append(found.silent, dfs.NodeID(others[i].ID))
		case info.ClusterID != "" && found.cluster != "" && info.ClusterID != found.cluster:
			return found, dfs.Errorf(dfs.WrongCluster, "the peers belong to two clusters, %s and %s: correct the list of peers", found.cluster, info.ClusterID)
		case info.ClusterID != "":
			found.cluster = info.ClusterID
		case info.LastIndex > 1:
			found.settling++
		case info.peersDigest != peersDigest(g.cfg.Peers):
			return found, dfs.Errorf(dfs.Invalid, "%s was given another list of peers than %s: give all of them the same", info.ID, g.cfg.ID)
		default:
			found.empty++
		}
	}
	return found, nil
}

// bootstrap writes the first log entry, the same on all peers.
func (g *Group) bootstrap(peers []Peer) error {
	if len(peers)%2 == 0 {
		g.logger.Warn("an even number of NameNodes survives no more failures than one fewer would", "peers", len(peers))
	}
	if err := g.raft.BootstrapCluster(initialConfiguration(peers)).Error(); err != nil {
		return dfs.Errorf(dfs.Internal, "cannot write the first entry of the Raft log: %w", err)
	}
	g.ready.Store(true)
	g.logger.Info("started a new group", "peers", len(peers))
	return nil
}

// seekAdmission waits until Config.Admit lets this node take part in the group
// that exists already. The leader then sends it log and configuration.
func (g *Group) seekAdmission(ctx context.Context, id dfs.ClusterID) error {
	g.learned.Store(&id)
	delay := admitRetryFirst
	for {
		err := g.cfg.Admit(ctx, id)
		if err == nil {
			g.ready.Store(true)
			g.logger.Info("admitted with an empty directory", "cluster", id)
			return nil
		}
		switch dfs.CodeOf(err) {
		case dfs.Unavailable, dfs.NotLeader, dfs.Timeout, dfs.UnknownOutcome:
		default:
			return dfs.Errorf(dfs.CodeOf(err), "this NameNode may not take part in cluster %s with an empty directory: %w", id, err)
		}
		g.logger.Warn("not admitted to the group yet", "cluster", id, "error", err, "retry_in", delay)
		if !sleep(ctx, delay) {
			return nil
		}
		delay = min(2*delay, admitRetryMax)
	}
}

// noteContact remembers that a cluster wants to talk raft to this node.
func (g *Group) noteContact(id dfs.ClusterID) {
	select {
	case g.contacts <- id:
	default: // known already
	}
}
