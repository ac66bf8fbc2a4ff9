package bench

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	loadEvery = 50 * time.Millisecond // of each kind, beside a repair
	loadSize  = 4 << 10               // bytes written at a time
	loadPiece = 64 << 10              // bytes read at a time
)

// Repair is how the replicas of a lost DataNode came back. Times are in seconds.
type Repair struct {
	Node        dfs.NodeID `json:"node"`
	Chunks      int64      `json:"chunks"`            // of the stored files that lay on it
	Bytes       int64      `json:"bytes"`             // of these; what else lay there was copied, too
	Down        float64    `json:"down_seconds"`      // from its death until it was taken for dead
	Copying     float64    `json:"copying_seconds"`   // from then until every file was healthy
	Total       float64    `json:"total_seconds"`     // the sum
	BytesPerSec float64    `json:"bytes_per_second"`  // while copying
	Returning   float64    `json:"returning_seconds"` // from its start until it was up again; 0 when it was not started
}

// RecoverPlan says what is stored, and which DataNode is lost.
type RecoverPlan struct {
	Files       int64      // to store before
	Size        int64      // of each, bytes
	Node        dfs.NodeID // "": the one with the most chunks
	Concurrency int        // uploads at once, before
}

// Recover stores files, loses a DataNode by faults.Kill, and measures how long
// it takes until every file has all its replicas again, while a light load goes
// on. The results are the repair, and that load.
func Recover(ctx context.Context, c *client.Client, field *Field, plan RecoverPlan, faults Faults) ([]Result, error) {
	nodes, err := c.Nodes(ctx)
	if err == nil {
		_, err = choose(nodes, plan.Node) // refuses before anything is stored
	}
	if err != nil {
		return nil, err
	}
	stored := Run(ctx, "prepare", Plan{Concurrency: plan.Concurrency, Count: plan.Files}, field.Put(plan.Size, nil))
	if stored.Errors > 0 {
		return nil, dfs.Errorf(dfs.Unavailable, "%d of %d files could not be stored; the first: %s", stored.Errors, plan.Files, stored.FirstError)
	}
	if nodes, err = healthyCluster(ctx, c); err != nil {
		return nil, err
	}
	victim, err := choose(nodes, plan.Node)
	if err != nil {
		return nil, err
	}
	repair := Repair{Node: victim.ID}
	if err := repair.weigh(ctx, c, field, plan.Files); err != nil {
		return nil, err
	}
	small, err := field.Part("load")
	if err != nil {
		return nil, err
	}
	before := ownUsage()
	writes := startPulse(ctx, 1, loadEvery, small.Put(loadSize, nil))
	reads := startPulse(ctx, 1, loadEvery, field.GetPiece(plan.Files, plan.Size, loadPiece))
	err = repair.lose(ctx, c, faults)
	load := []Result{writes.stop("load: write", 1), reads.stop("load: read", 1)}
	if err != nil {
		return nil, err
	}
	result := Result{
		Name: "recover", Concurrency: 1, Seconds: repair.Total, Operations: repair.Chunks, Bytes: repair.Bytes,
		PerSecond: float64(repair.Chunks) / repair.Copying, BytesPerSec: repair.BytesPerSec,
		P50: repair.Total, P99: repair.Total, Max: repair.Total,
		Client: ownUsage().Since(before), How: "DataNode killed", Repair: &repair,
	}
	return []Result{result, load[0], load[1]}, nil
}

// choose returns the DataNode to lose, provided that the others can hold all
// replicas without it.
func choose(nodes []protocol.NodeInfo, id dfs.NodeID) (protocol.NodeInfo, error) {
	var chosen protocol.NodeInfo
	up := 0
	for _, n := range nodes {
		if n.State != protocol.StateUp {
			continue
		}
		up++
		if id == n.ID || id == "" && (chosen.ID == "" || n.Chunks > chosen.Chunks) {
			chosen = n
		}
	}
	switch {
	case id != "" && chosen.ID == "":
		return chosen, dfs.Errorf(dfs.NotFound, "there is no DataNode %s that is up; see 'dfs nodes'", id)
	case up <= dfs.DefaultReplication:
		return chosen, dfs.Errorf(dfs.Invalid, "with %d DataNodes up there is nowhere to copy to when one is lost: add one, so that there are %d", up, dfs.DefaultReplication+1)
	}
	return chosen, nil
}

// weigh counts what of the stored files lies on the DataNode. What it says that
// it holds is more: chunks of deleted files, which nobody copies.
func (r *Repair) weigh(ctx context.Context, c *client.Client, field *Field, files int64) error {
	for i := range files {
		path, err := field.path("files", i)
		if err != nil {
			return err
		}
		file, err := c.File(ctx, path)
		if err != nil {
			return err
		}
		for _, chunk := range file.Chunks {
			if slices.ContainsFunc(chunk.Locations, func(t protocol.Target) bool { return t.ID == r.Node }) {
				r.Chunks++
				r.Bytes += chunk.Size
			}
		}
	}
	return nil
}

// lose kills the DataNode and waits until every file is healthy without it. Then
// it is started again, if that is known how, whatever has become of the rest.
func (r *Repair) lose(ctx context.Context, c *client.Client, faults Faults) error {
	killing := time.Now()
	if err := faults.Kill(ctx, r.Node); err != nil {
		return err
	}
	err := r.wait(ctx, c, killing)
	if err == nil && faults.Wipe != nil {
		err = faults.Wipe(ctx, r.Node)
	}
	if faults.Start == nil {
		return err
	}
	starting := time.Now()
	if err := errors.Join(err, faults.Start(context.WithoutCancel(ctx), r.Node)); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	err = waitState(limited, c, r.Node, protocol.StateUp)
	r.Returning = time.Since(starting).Seconds()
	return err
}

// wait measures the time since the DataNode was killed.
func (r *Repair) wait(ctx context.Context, c *client.Client, killed time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	if err := waitState(ctx, c, r.Node, protocol.StateDown); err != nil {
		return err
	}
	down := time.Now()
	if err := waitHealthy(ctx, c); err != nil {
		return err
	}
	r.Down = down.Sub(killed).Seconds()
	r.Copying = time.Since(down).Seconds()
	r.Total = r.Down + r.Copying
	r.BytesPerSec = float64(r.Bytes) / r.Copying
	return nil
}

// healthyCluster waits until all is well and reported, and returns the DataNodes.
func healthyCluster(ctx context.Context, c *client.Client) ([]protocol.NodeInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	if err := waitHealthy(ctx, c); err != nil {
		return nil, err
	}
	// What a DataNode took last is reported with its next heartbeat. Their times
	// are of the leader's clock.
	first := make(map[dfs.NodeID]time.Time)
	for {
		nodes, err := c.Nodes(ctx)
		current := err == nil
		for _, n := range nodes {
			seen, known := first[n.ID]
			if !known {
				first[n.ID] = n.LastHeartbeat
			}
			current = current && (n.State != protocol.StateUp || known && !n.LastHeartbeat.Equal(seen))
		}
		if current {
			return nodes, nil
		}
		if waiting := pause(ctx, poll); waiting != nil {
			return nil, dfs.Errorf(dfs.Unavailable, "not all DataNodes that are up report: %w", waiting)
		}
	}
}

func waitState(ctx context.Context, c *client.Client, id dfs.NodeID, state string) error {
	for {
		nodes, err := c.Nodes(ctx)
		for _, n := range nodes {
			if err == nil && n.ID == id && n.State == state {
				return nil
			}
		}
		if waiting := pause(ctx, poll); waiting != nil {
			return dfs.Errorf(dfs.Unavailable, "%s is not %s: %w", id, state, waiting)
		}
	}
}

// waitHealthy asks more rarely when the answer, a walk through all files, takes
// its time: the leader shall repair, not answer.
func waitHealthy(ctx context.Context, c *client.Client) error {
	for {
		asked := time.Now()
		report, err := c.Fsck(ctx)
		if err == nil && report.Healthy {
			return nil
		}
		if waiting := pause(ctx, max(poll, 10*time.Since(asked))); waiting != nil {
			return dfs.Errorf(dfs.Unavailable, "the files are not healthy, %d chunks lack replicas and %d have none; see 'dfs fsck': %w", report.UnderReplicated, report.Missing, waiting)
		}
	}
}
