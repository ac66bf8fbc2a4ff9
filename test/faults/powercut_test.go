//go:build linux

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

const (
	roundsPerBed = 10 // the disks are small
	cutClients   = 4
	cutMaxSize   = 6 * chunkSize
	leastChanges = 8 // acknowledged in a round; fewer make it void
)

// TestPowerCut holds "acknowledged means durable": the power of all machines
// fails at once, in the middle of a load or just after the last acknowledgement,
// and afterwards everything is as it was acknowledged. DFS_FAULT_ROUNDS says how
// often.
func TestPowerCut(t *testing.T) {
	faultbed.Duration(t)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", 3)
	random := faultbed.Random(t)
	began := time.Now()
	acks := 0
	for first := 0; first < rounds && !t.Failed(); first += roundsPerBed {
		last := min(first+roundsPerBed, rounds)
		t.Run(fmt.Sprintf("rounds %d to %d", first+1, last), func(t *testing.T) {
			p := newPowerCut(t, random)
			for round := first; round < last && !t.Failed(); round++ {
				p.round(round)
			}
			acks += p.l.count()
		})
	}
	if acks == 0 && !t.Failed() {
		t.Skip("no power could be cut")
	}
	took := time.Since(began)
	t.Logf("%d rounds in %s (%.1f a minute), %d changes acknowledged",
		rounds, took.Round(time.Second), float64(rounds)/took.Minutes(), acks)
}

type powerCut struct {
	t      *testing.T
	b      *faultbed.Bed
	c      *client.Client
	l      *ledger
	random *rand.Rand
}

func newPowerCut(t *testing.T, random *rand.Rand) *powerCut {
	t.Helper()
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, DataNodes: 4,
		NameNodeDisk:  faultbed.Disk{Kind: faultbed.Ext4, Size: 128 << 20},
		DataNodeDisk:  faultbed.Disk{Kind: faultbed.Ext4, Size: 512 << 20},
		NameNodeFlags: []string{"-snapshot-threshold", "60", "-snapshot-interval", "1s"},
		DataNodeFlags: []string{"-reserve", "16MiB"},
	})
	return &powerCut{t: t, b: b, c: b.Client(), l: newLedger(t, b), random: random}
}

// round loads the cluster, cuts the power, and looks at what is left. Every
// other cut comes after the load, when nothing else makes the disks write that
// might make up for a missing fsync. Of the other rounds, the clients die with
// the cluster in one, and live on and try again in the next.
func (p *powerCut) round(round int) {
	acked := p.l.count()
	work := newLoad(p.t, p.c, p.l, p.random, fmt.Sprintf("%04d", round), cutClients, cutMaxSize)
	work.start(p.t.Context())
	time.Sleep(time.Duration(p.random.IntN(1000)) * time.Millisecond) // the moment of the cut
	p.b.WaitUntil("enough was acknowledged", func() bool { return p.l.count() >= acked+leastChanges })
	quiet, dying := round%2 == 0, round%4 == 1
	if quiet {
		work.quit()
		w := work.workers[0]
		if err := w.put(p.t.Context(), w.fresh("last"), randomData(p.random, chunkSize), false); err != nil {
			p.t.Fatalf("the last upload: %v", err)
		}
	}
	acked = p.l.count() - acked
	began := time.Now()
	p.b.PowerCut()
	if dying {
		work.die()
	}
	p.b.StartAll()
	p.b.WaitReady()
	ready := time.Since(began)
	work.quit()
	p.l.check(p.t, readBack(p.t, p.c, "/"))
	p.l.checkRefusals(p.t)
	waitHealthy(p.t, p.b, p.c)
	p.t.Logf("round %d (quiet: %t, clients die: %t): %d changes acknowledged; ready %d ms after the cut, all verified after %d ms",
		round+1, quiet, dying, acked, ready.Milliseconds(), time.Since(began).Milliseconds())
}

// waitHealthy waits until fsck finds nothing wrong.
func waitHealthy(t *testing.T, b *faultbed.Bed, c *client.Client) {
	t.Helper()
	if t.Failed() {
		return // what is lost does not become healthy
	}
	b.WaitUntil("fsck finds nothing wrong", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		reply, err := c.Fsck(ctx)
		return err == nil && reply.Healthy
	})
}
