package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// poll is the least time between two questions of how the cluster is doing.
	poll = 100 * time.Millisecond
	// recovery bounds what a cluster takes to be whole again after a fault.
	recovery = 10 * time.Minute
)

// Faults are what a measurement can do to a daemon. A client alone can do none
// of it, so the caller must know how.
type Faults struct {
	Kill  func(ctx context.Context, id dfs.NodeID) error // returns when it is dead
	Wipe  func(ctx context.Context, id dfs.NodeID) error // nil: its disks outlive it
	Start func(ctx context.Context, id dfs.NodeID) error // nil: somebody else starts it
}

// FailoverPlan says how often a leader is lost, and under what load.
type FailoverPlan struct {
	Count       int           // leaders to lose; 0: as many as Duration lets
	Duration    time.Duration // 0: until Count is reached
	WarmUp      time.Duration // of the load, before the first
	Concurrency int           // writers, and readers, with one operation in flight each
}

// Failover loses the leader again and again while write and read go on as fast
// as they can, and measures for how long neither is acknowledged: by
// faults.Kill, or else by handing the leadership over. It returns four results:
// the outages of writes and of reads, and the load of both.
func Failover(ctx context.Context, c *client.Client, plan FailoverPlan, faults Faults, write, read Work) ([]Result, error) {
	how := "leader killed"
	if faults.Kill == nil {
		how = "leadership handed over"
	}
	before := ownUsage()
	writes, reads := startPulse(ctx, plan.Concurrency, 0, write), startPulse(ctx, plan.Concurrency, 0, read)
	began := time.Now()
	silences, err := failovers(ctx, c, plan, faults, writes, reads)
	seconds := time.Since(began).Seconds()
	load := []Result{writes.stop("load: write", plan.Concurrency), reads.stop("load: read", plan.Concurrency)}
	if err != nil {
		return nil, err
	}
	results := []Result{
		outages("failover: write", silences[0], seconds), outages("failover: read", silences[1], seconds), load[0], load[1],
	}
	for i := range results {
		results[i].How = how
		results[i].Client = ownUsage().Since(before)
	}
	return results, nil
}

// outages makes a result of a few durations, each of which is kept.
func outages(name string, silences []time.Duration, seconds float64) Result {
	result := Result{Name: name, Concurrency: 1, Seconds: seconds, Operations: int64(len(silences))}
	if len(silences) == 0 {
		return result
	}
	sorted := slices.Sorted(slices.Values(silences))
	result.PerSecond = float64(len(sorted)) / seconds
	result.P50 = sorted[(len(sorted)-1)/2].Seconds()
	result.P99 = sorted[(len(sorted)*99+99)/100-1].Seconds()
	result.Max = sorted[len(sorted)-1].Seconds()
	for _, s := range silences {
		result.Samples = append(result.Samples, s.Seconds())
	}
	return result
}

// failovers returns the outages of writes, and of reads.
func failovers(ctx context.Context, c *client.Client, plan FailoverPlan, faults Faults, writes, reads *pulse) (silences [2][]time.Duration, err error) {
	if err := pause(ctx, plan.WarmUp); err != nil {
		return silences, err
	}
	began := time.Now()
	for round := 0; plan.Count == 0 || round < plan.Count; round++ {
		if plan.Duration > 0 && time.Since(began) > plan.Duration {
			break
		}
		victim, err := wholeGroup(ctx, c)
		if err != nil {
			return silences, err
		}
		// At no moment that has to do with heartbeats or with the last round.
		if err := pause(ctx, time.Second/4+rand.N(time.Second)); err != nil {
			return silences, err
		}
		silence, err := loseLeader(ctx, c, victim, faults, [2]*pulse{writes, reads})
		if err != nil {
			return silences, err
		}
		for i := range silences {
			silences[i] = append(silences[i], silence[i])
		}
	}
	if faults.Kill != nil {
		_, err = wholeGroup(ctx, c) // is left as it was found
	}
	return silences, err
}

// loseLeader returns for how long each pulse got no acknowledgement. What was
// killed is started again, also when that could not be measured.
func loseLeader(ctx context.Context, c *client.Client, victim dfs.NodeID, faults Faults, pulses [2]*pulse) (silence [2]time.Duration, err error) {
	for _, p := range pulses {
		p.watch()
	}
	if faults.Kill == nil {
		err = c.Transfer(ctx, "")
	} else {
		err = faults.Kill(ctx, victim)
	}
	if err != nil {
		return silence, err
	}
	for _, p := range pulses {
		p.happened()
	}
	for i, p := range pulses {
		if silence[i], err = p.outage(ctx); err != nil {
			break
		}
	}
	if faults.Kill != nil && faults.Start != nil {
		err = errors.Join(err, faults.Start(context.WithoutCancel(ctx), victim))
	}
	return silence, err
}

// wholeGroup waits until all members follow one leader and have applied what it
// had when they were asked first, so that a failover costs no more than that.
func wholeGroup(ctx context.Context, c *client.Client) (leader dfs.NodeID, err error) {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	target, missing := uint64(0), dfs.NodeID("")
	for {
		group, views, err := c.Members(ctx)
		if err == nil && group.Leader != nil {
			if target == 0 {
				target = group.AppliedIndex
			}
			missing = ""
			for _, v := range views {
				if v.Err != nil || v.View.Leader == nil || v.View.Leader.ID != group.Leader.ID || v.View.AppliedIndex < target {
					missing = v.ID
				}
			}
			if missing == "" {
				return group.Leader.ID, nil
			}
		}
		if waiting := pause(ctx, poll); waiting != nil {
			return "", dfs.Errorf(dfs.Unavailable, "the NameNodes do not follow one leader (%s is missing, if any); see 'dfs admin members': %w", missing, waiting)
		}
	}
}
