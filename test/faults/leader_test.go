//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

const (
	askTimeout      = 10 * time.Second // for a NameNode that was stopped to answer at all
	isolatedTimeout = 2 * time.Second  // for one that was cut off to say something wrong
	triesPerRound   = 42
	wakeRounds      = 12 // more than 500 tries
)

// asker asks one NameNode, and takes no other's word for an answer.
type asker struct{ http *http.Client }

func newAsker(t *testing.T, timeout time.Duration) asker {
	transport := &http.Transport{MaxIdleConnsPerHost: triesPerRound}
	t.Cleanup(transport.CloseIdleConnections)
	return asker{&http.Client{
		Transport: transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ask returns the status and the body, or 0 when there was no answer.
func (a asker) ask(method, address, body string) (status int, answer []byte) {
	request, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return 0, []byte(err.Error())
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer response.Body.Close() // read to its end
	answer, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return 0, []byte(err.Error())
	}
	return response.StatusCode, answer
}

// TestStoppedLeaderWakes stops the leader, lets another acknowledge something,
// and asks the first one for it at the moment when it wakes up and does not know
// yet that it was replaced. It must not deny it.
func TestStoppedLeaderWakes(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3})
	c := b.Client()
	a := newAsker(t, askTimeout)
	rounds := faultbed.Count(t, "DFS_FAULT_ROUNDS", wakeRounds)
	answers := make(map[int]int)
	for round := range rounds {
		old := b.LeaderAmong(b.NameNodes()...)
		path := fmt.Sprintf("/round-%d", round)
		askAtOnce(b, a, old, "/", nil) // leaves open connections, which answer sooner
		b.Pause(old)
		others := b.Others(old)
		b.LeaderAmong(others...)
		rest := b.ClientOf(b.URL(others[0]), b.URL(others[1]))
		if err := rest.Mkdir(t.Context(), mustPath(t, "%s", path)); err != nil {
			t.Fatal(err)
		}
		for status, count := range askAtOnce(b, a, old, path, func() { b.Continue(old) }) {
			answers[status] += count
		}
		if err := c.MkdirAll(t.Context(), mustPath(t, "%s", path)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d tries in %d rounds, by status: %v", rounds*triesPerRound, rounds, answers)
	if answers[http.StatusNotFound] > 0 {
		t.Errorf("%d stale reads: the old leader denied what was acknowledged", answers[http.StatusNotFound])
	}
	if answers[0] == rounds*triesPerRound {
		t.Error("the run is void: nothing was answered")
	}
}

// askAtOnce asks one NameNode many times at once whether a path is there, and
// counts the answers by status. It calls between, if set, when half of the
// questions are on their way.
func askAtOnce(b *faultbed.Bed, a asker, id, path string, between func()) map[int]int {
	var mu sync.Mutex
	var tries sync.WaitGroup
	answers := make(map[int]int)
	address := b.URL(id) + protocol.Stat.Pattern + "?path=" + url.QueryEscape(path)
	for i := range triesPerRound {
		if i == triesPerRound/2 && between != nil {
			between()
		}
		tries.Go(func() {
			status, _ := a.ask(http.MethodGet, address, "")
			mu.Lock()
			defer mu.Unlock()
			answers[status]++
		})
	}
	tries.Wait()
	return answers
}

// TestIsolatedLeader cuts the leader's links to the other NameNodes under load,
// in several ways. The others go on, the one that was cut off says neither that
// it did something nor that it knows something, and nothing acknowledged is lost.
func TestIsolatedLeader(t *testing.T) {
	faultbed.Duration(t)
	random := faultbed.Random(t)
	b := faultbed.New(t, faultbed.Options{NameNodes: 3, DataNodes: 3, Network: faultbed.Namespaces})
	c := b.Client()
	l := newLedger(t, b)
	ways := []struct {
		name      string
		cut, heal func(leader, other string)
	}{
		{"in both directions", b.Cut, b.Heal},
		{"it is not heard", b.CutOneWay, b.HealOneWay},
		{"it does not hear", func(leader, other string) { b.CutOneWay(other, leader) }, func(leader, other string) { b.HealOneWay(other, leader) }},
		{"the plug is pulled", func(leader, _ string) { b.Unplug(leader) }, func(leader, _ string) { b.Plug(leader) }},
	}
	for i, way := range ways {
		work := newLoad(t, c, l, random, fmt.Sprintf("way-%d", i), 4, 2*chunkSize)
		work.start(t.Context())
		old := b.LeaderAmong(b.NameNodes()...)
		others := b.Others(old)
		began := time.Now()
		for _, other := range others {
			way.cut(old, other)
		}
		b.LeaderAmong(others...)
		elected := time.Since(began)
		denyIsolated(t, b, l, old, fmt.Sprintf("%s/way-%d", loadDir, i))
		count := l.count()
		b.WaitUntil("the others go on", func() bool { return l.count() > count+10 })
		for _, other := range others {
			way.heal(old, other)
		}
		b.LeaderAmong(b.NameNodes()...)
		work.quit()
		l.check(t, readBack(t, c, "/"))
		l.checkRefusals(t)
		t.Logf("%s: the others had a leader after %d ms", way.name, elected.Milliseconds())
		if t.Failed() {
			return
		}
	}
	waitHealthy(t, b, c)
	sameEverywhere(t, b)
}

// denyIsolated asks a leader that was cut off and replaced: it may not answer a
// read, and not acknowledge a change.
func denyIsolated(t *testing.T, b *faultbed.Bed, l *ledger, old, name string) {
	t.Helper()
	a := newAsker(t, isolatedTimeout)
	path := name + "-isolated"
	l.try(change{path: directory}, nil) // open: the entry may be in its log
	status, answer := a.ask(http.MethodPost, b.URL(old)+protocol.Mkdir.Pattern, fmt.Sprintf(`{"path":%q}`, path))
	if status/100 == 2 {
		t.Errorf("a leader without a majority acknowledged: %s", answer)
	}
	status, answer = a.ask(http.MethodGet, b.URL(old)+protocol.List.Pattern+"?path=/", "")
	if status/100 == 2 || status == http.StatusNotFound {
		t.Errorf("a leader without a majority answered a read: %d %s", status, answer)
	}
}

// sameEverywhere waits until all NameNodes know the same.
func sameEverywhere(t *testing.T, b *faultbed.Bed) {
	t.Helper()
	var views []string
	b.WaitUntil("all NameNodes know the same", func() bool {
		views = nil
		for _, id := range b.NameNodes() {
			views = append(views, staleView(t, b, id, "/"))
		}
		slices.Sort(views)
		return len(slices.Compact(views)) == 1 && views[0] != ""
	})
}

// staleView returns what one NameNode knows of a directory and below, as text;
// "" when it does not answer.
func staleView(t *testing.T, b *faultbed.Bed, id, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		b.URL(id)+protocol.List.Pattern+"?limit=10000&consistency=stale&path="+url.QueryEscape(dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close() // read by the decoder
	var listing protocol.Listing
	if response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(&listing) != nil {
		return ""
	}
	text := ""
	for _, entry := range listing.Entries {
		text += fmt.Sprintf("%s %s %d %s\n", entry.Path, entry.Type, entry.Size, entry.MTime)
		if entry.Type == protocol.TypeDirectory {
			text += staleView(t, b, id, entry.Path)
		}
	}
	return text
}
