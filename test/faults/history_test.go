//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/history"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	worldsPerHistory = 3
	clientsPerWorld  = 4
	historyPause     = 2 * time.Millisecond   // between two calls of a client
	probePause       = 20 * time.Millisecond  // between two questions to one NameNode
	probePatience    = 500 * time.Millisecond // so that one that wakes up is asked by somebody who began after others were answered
	maxProbes        = 20                     // NameNodes that are asked themselves
	warmUp           = 2 * time.Second        // before the first fault, for the rate
	leastRate        = 100                    // calls a second; fewer make a run void
	leastRateShort   = 30                     // in a short run, on a machine that does other things
	longRun          = time.Minute
	checkPatience    = 5 * time.Minute
	harmsPerHistory  = 6               // a longer history is slow to check
	pausePatience    = 6 * time.Second // longer than a client waits for one answer, so that others are written to
	harmTime         = 2 * time.Second // of other harm
	healTime         = 500 * time.Millisecond
)

// histories are clients at work on some worlds, everything they saw written
// down. Each client knows one NameNode only, to begin with. Besides, each
// NameNode is asked itself, whether it leads or not.
type histories struct {
	t     *testing.T
	b     *faultbed.Bed
	name  string
	loads []*history.Load
	crowd asker // keeps its connections open
	group sync.WaitGroup
	end   context.CancelFunc
}

// record lets clients work in directories of this name, until check.
func record(t *testing.T, b *faultbed.Bed, random *rand.Rand, name string) *histories {
	t.Helper()
	h := &histories{t: t, b: b, name: name, crowd: newAsker(t, askTimeout)}
	ctx, cancel := context.WithCancel(t.Context())
	h.end = cancel
	nameNodes := b.NameNodes()
	for w := range worldsPerHistory {
		load := &history.Load{
			Root: fmt.Sprintf("/%s-%d", name, w), Seed: random.Uint64(), Pause: historyPause, Recorder: history.NewRecorder(),
		}
		for i := range clientsPerWorld {
			load.Clients = append(load.Clients, b.ClientOf(b.URL(nameNodes[(w+i)%len(nameNodes)])))
		}
		if err := load.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		h.loads = append(h.loads, load)
	}
	for _, load := range h.loads {
		h.group.Go(func() { load.Run(ctx) })
	}
	a := newAsker(t, probePatience)
	for i, id := range nameNodes {
		seed := random.Uint64()
		h.group.Go(func() { probe(ctx, a, b.URL(id), h.loads[0], clientsPerWorld+i, rand.New(rand.NewPCG(seed, 2))) })
	}
	return h
}

// probe asks one NameNode, again and again, what lies at some path of a world.
func probe(ctx context.Context, a asker, baseURL string, load *history.Load, number int, random *rand.Rand) {
	for ctx.Err() == nil {
		path := history.Path(random.IntN(history.Paths))
		load.Recorder.Do(number, history.Call{Kind: history.Stat, Path: path}, func() history.Answer {
			return statAt(a, baseURL, load.Root+"/"+path.String())
		})
		select {
		case <-ctx.Done():
		case <-time.After(probePause):
		}
	}
}

// askAtOnce asks one NameNode many questions at once, as part of the histories,
// and calls between, if set, when half of them are on their way.
func (h *histories) askAtOnce(id string, between func()) {
	var tries sync.WaitGroup
	for i := range triesPerRound {
		if i == triesPerRound/2 && between != nil {
			between()
		}
		load, number := h.loads[i%len(h.loads)], clientsPerWorld+maxProbes+i
		path := history.Path(i / len(h.loads) % history.Paths)
		tries.Go(func() {
			load.Recorder.Do(number, history.Call{Kind: history.Stat, Path: path}, func() history.Answer {
				return statAt(h.crowd, h.b.URL(id), load.Root+"/"+path.String())
			})
		})
	}
	tries.Wait()
}

// statAt is what one NameNode says of a path; unknown when it does not lead.
func statAt(a asker, baseURL, path string) history.Answer {
	status, body := a.ask(http.MethodGet, baseURL+protocol.Stat.Pattern+"?path="+url.QueryEscape(path), "")
	var entry protocol.Entry
	switch {
	case status == http.StatusNotFound:
		return history.Answer{Code: "not_found"}
	case status != http.StatusOK || json.Unmarshal(body, &entry) != nil:
		return history.Answer{Unknown: true}
	}
	return history.Answer{Tag: history.Tag(entry.Size)}
}

func (h *histories) counts() (all, unknown int) {
	for _, load := range h.loads {
		a, u := load.Recorder.Counts()
		all, unknown = all+a, unknown+u
	}
	return all, unknown
}

// warm makes sure that enough is going on for faults to mean something.
func (h *histories) warm(length time.Duration) {
	h.t.Helper()
	before, _ := h.counts()
	time.Sleep(warmUp) // the rate is what is measured
	after, _ := h.counts()
	least := leastRateShort
	if length >= longRun {
		least = leastRate
	}
	rate := float64(after-before) / warmUp.Seconds()
	h.t.Logf("%s: %.0f calls a second", h.name, rate)
	if rate < float64(least) {
		h.t.Fatalf("the run is void: %.0f calls a second are fewer than %d", rate, least)
	}
}

// goOn waits until calls are answered again.
func (h *histories) goOn() {
	h.t.Helper()
	before, _ := h.counts()
	h.b.WaitUntil("calls are answered again", func() bool {
		now, _ := h.counts()
		return now > before+20
	})
}

// check lets the clients finish, and holds what they saw to be linearizable.
func (h *histories) check() {
	h.t.Helper()
	h.end()
	h.group.Wait()
	all, unknown := h.counts()
	var moments []time.Time
	for _, load := range h.loads {
		moments = append(moments, load.Recorder.Finished()...)
	}
	slices.SortFunc(moments, time.Time.Compare)
	gap := time.Duration(0)
	for i := 1; i < len(moments); i++ {
		gap = max(gap, moments[i].Sub(moments[i-1]))
	}
	began := time.Now()
	for w, load := range h.loads {
		if err := load.Recorder.Check(checkPatience, h.b.Path(fmt.Sprintf("%s-%d.html", h.name, w))); err != nil {
			h.t.Errorf("world %d of %s: %v", w, h.name, err)
		}
	}
	h.t.Logf("%s: %d calls, %d with an unknown outcome; longest time without an answer %s; checked in %s",
		h.name, all, unknown, gap.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// TestLinearizable: whatever clients see while NameNodes are cut off, killed and
// paused can be explained by one order of all calls.
func TestLinearizable(t *testing.T) {
	length := faultbed.Duration(t)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3, Network: faultbed.Namespaces, NameNodeFlags: quickSnapshots})
	names := slices.Sorted(maps.Keys(leaderHarms(b, nil)))
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	// A paused leader is what most bugs need.
	names = append([]string{"pause"}, slices.DeleteFunc(names, func(name string) bool { return name == "pause" })...)
	next := 0
	for end := time.Now().Add(length / 2); time.Now().Before(end) && !t.Failed(); {
		h := record(t, b, random, fmt.Sprintf("history%d", next))
		h.warm(length)
		for range harmsPerHistory {
			name := names[next%len(names)]
			next++
			leader := b.LeaderAmong(b.NameNodes()...)
			others := b.Others(leader)
			random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			t.Log(name)
			leaderHarms(b, h)[name](leader, others)
			b.StartAll()
			b.WaitReady()
			h.goOn()
			time.Sleep(healTime) // work without a fault
			if time.Now().After(end) {
				break
			}
		}
		h.check()
	}
	sameState(t, b, b.Client())
}

// leaderHarms are harms to the group of three that last for a while and are then
// undone, but for dead nodes, which are to be started.
func leaderHarms(b *faultbed.Bed, h *histories) map[string]func(leader string, others []string) {
	act := func() { time.Sleep(harmTime) }
	around := func(cut, heal func(leader, other string)) func(string, []string) {
		return func(leader string, others []string) {
			for _, other := range others {
				cut(leader, other)
			}
			act()
			for _, other := range others {
				heal(leader, other)
			}
		}
	}
	pause := func(leader string) {
		h.askAtOnce(leader, nil) // leaves open connections, which answer sooner
		b.Pause(leader)
		time.Sleep(pausePatience)
		h.askAtOnce(leader, func() { b.Continue(leader) })
	}
	return map[string]func(string, []string){
		"cut off":        around(b.Cut, b.Heal),
		"not heard":      around(b.CutOneWay, b.HealOneWay),
		"does not hear":  around(func(l, o string) { b.CutOneWay(o, l) }, func(l, o string) { b.HealOneWay(o, l) }),
		"plug is pulled": func(l string, _ []string) { b.Unplug(l); act(); b.Plug(l) },
		"third is cut off": func(l string, others []string) {
			b.Cut(l, others[0])
			b.Cut(others[1], others[0])
			act()
			b.Heal(l, others[0])
			b.Heal(others[1], others[0])
		},
		"cut from one follower": func(l string, others []string) { b.Cut(l, others[0]); act(); b.Heal(l, others[0]) },
		"kill":                  func(l string, _ []string) { b.Kill(l); act() },
		"kill both followers":   func(_ string, others []string) { b.Kill(others...); act() },
		"pause":                 func(l string, _ []string) { pause(l) },
		"pause and a follower dies": func(l string, others []string) {
			b.Kill(others[0])
			pause(l)
		},
		"kill, and a DataNode": func(l string, _ []string) { b.Kill(l, b.DataNodes()[0]); act() },
		"cut off, and a DataNode dies": func(l string, others []string) {
			b.Kill(b.DataNodes()[1])
			around(b.Cut, b.Heal)(l, others)
		},
		"hand over and kill": func(l string, others []string) {
			c := b.ClientOf(b.URL(l))
			if err := transfer(b, c, others[0]); err == nil {
				b.Kill(others[0])
			}
			act()
		},
	}
}

func transfer(b *faultbed.Bed, c *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	return c.Transfer(ctx, b.Member(id).ID)
}
