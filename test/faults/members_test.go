//go:build linux

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// maxChurns is how often there are IDs left for NameNodes that are added.
const maxChurns = 25

// churn changes who the members are, under a load whose calls are checked.
type churn struct {
	t      *testing.T
	b      *faultbed.Bed
	h      *histories
	random *rand.Rand
}

// TestMembershipChurn adds, removes and replaces NameNodes, the leader among
// them, while some are killed: everything goes on, who was removed stays away,
// and who does not belong is not let in.
func TestMembershipChurn(t *testing.T) {
	length := faultbed.Duration(t)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3, NameNodeFlags: quickSnapshots})
	m := &churn{t: t, b: b, random: random}
	other := faultbed.New(t, faultbed.Options{NameNodes: 1})
	end := time.Now().Add(length / 2)
	for round := 0; round == 0 || round < maxChurns && time.Now().Before(end) && !t.Failed(); round++ {
		m.h = record(t, b, random, fmt.Sprintf("members%d-of-%s", round, b.Leader()))
		m.h.warm(length)
		m.badJoins(other)
		added := m.addTwo()
		m.killLeader()
		m.remove(b.Others(append(added, b.LeaderAmong(b.NameNodes()...))...)[0])
		m.remove(b.LeaderAmong(b.NameNodes()...))
		m.replaceDead()
		m.h.check()
		sameState(t, b, b.Client())
	}
}

// badJoins asks for what must be refused.
func (m *churn) badJoins(other *faultbed.Bed) {
	m.t.Helper()
	members := m.b.NameNodes()
	nowhere := m.b.Member(members[0])
	nowhere.ID, nowhere.RaftAddr, nowhere.URL = "nn80", "127.0.0.1:1", "http://127.0.0.1:1"
	moved := m.b.Member(members[0])
	moved.RaftAddr = m.b.Member(members[1]).RaftAddr
	stranger := other.Member("nn1")
	stranger.ID = "nn81"
	same := other.Member("nn1")
	same.ID = dfs.NodeID(members[0])
	c := m.b.Client()
	before := roles(m.t, c)
	for name, request := range map[string]protocol.JoinRequest{
		"nobody is there": nowhere, "the address of another member": moved, "of another cluster": stranger, "the ID of a member": same,
	} {
		ctx, cancel := context.WithTimeout(m.t.Context(), askTimeout) // a change that is given up has an unknown outcome
		err := c.Join(ctx, request)
		cancel()
		switch code := dfs.CodeOf(err); code {
		case dfs.Conflict, dfs.WrongCluster, dfs.Unavailable, dfs.Timeout:
			m.t.Logf("%s: %v", name, err)
		default:
			m.t.Errorf("a join that makes no sense (%s) was not refused plainly: %s %v", name, code, err)
		}
	}
	if after := roles(m.t, c); len(after) != len(before) {
		m.t.Errorf("bad joins made %v of the members %v", after, before)
	}
}

// addTwo lets two NameNodes in at once.
func (m *churn) addTwo() (added []string) {
	m.t.Helper()
	via := m.b.Leader()
	known := m.b.NameNodes()
	for range 2 {
		added = append(added, m.b.AddNameNode(via))
	}
	c := m.b.ClientOf(m.b.URL(known[0]), m.b.URL(known[1]), m.b.URL(known[2]))
	var joins sync.WaitGroup
	for _, id := range added {
		member := m.b.Member(id)
		joins.Go(func() {
			_ = c.Join(m.t.Context(), member) // letIn asks again, and says what is wrong
		})
	}
	joins.Wait()
	for _, id := range added {
		letIn(m.t, m.b, id, known...)
	}
	m.h.goOn()
	return added
}

func (m *churn) killLeader() {
	m.t.Helper()
	leader := m.b.LeaderAmong(m.b.NameNodes()...)
	m.b.Kill(leader)
	m.h.goOn()
	m.b.Start(leader)
	m.b.WaitReady()
}

// remove takes a NameNode out of the group; its process ends by itself, and does
// not start again.
func (m *churn) remove(id string) {
	m.t.Helper()
	if err := m.b.Client().RemoveMember(m.t.Context(), m.b.Member(id).ID); err != nil {
		m.t.Fatalf("remove %s: %v", id, err)
	}
	m.b.WaitEnded(id)
	m.b.Start(id)
	m.b.WaitEnded(id)
	m.b.Retire(id)
	m.h.goOn()
	if left := roles(m.t, m.b.Client()); len(left) != len(m.b.NameNodes()) || left[id] != "" {
		m.t.Errorf("after %s was removed, the members are %v", id, left)
	}
}

// replaceDead puts a new NameNode in the place of one that has died for good.
func (m *churn) replaceDead() {
	m.t.Helper()
	leader := m.b.LeaderAmong(m.b.NameNodes()...)
	rest := m.b.Others(leader)
	dead := rest[m.random.IntN(len(rest))]
	m.b.Kill(dead)
	living := m.b.Others(dead)
	added := m.b.AddNameNode(leader)
	letIn(m.t, m.b, added, living...)
	c := m.b.ClientOf(m.b.URL(living[0]), m.b.URL(living[1]))
	if err := c.RemoveMember(m.t.Context(), m.b.Member(dead).ID); err != nil {
		m.t.Fatalf("remove %s, which is dead: %v", dead, err)
	}
	m.b.Start(dead)
	m.b.WaitEnded(dead) // it learns that it was removed
	m.b.Retire(dead)
	m.h.goOn()
}
