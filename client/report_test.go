package client_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

// patientReporter waits until its reports have arrived, on any machine.
func patientReporter(f *fakeCluster, change ...func(*client.Config)) *client.Client {
	c := f.client(change...)
	c.SetReportPatience(time.Minute, time.Minute)
	return c
}

func download(t *testing.T, c *client.Client, data []byte) {
	t.Helper()
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), mustPath(t, "/file"), &got, client.DownloadOptions{}); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("got %d bytes, %v", got.Len(), err)
	}
}

// A node whose replica is not what it should be is told so, once for each chunk
// and download, and nobody else is.
func TestBadReplicasAreReported(t *testing.T) {
	for name, c := range map[string]struct {
		bad      func(http.ResponseWriter, *http.Request) bool
		reported bool
	}{
		"corrupt":   {badReplicas["corrupt"], true},
		"short":     {badReplicas["short"], true},
		"long":      {badReplicas["long"], true},
		"endless":   {badReplicas["endless"], true},
		"missing":   {badReplicas["missing"], false}, // the node knows
		"damaged":   {badReplicas["damaged"], false}, // the node says so itself
		"busy":      {badReplicas["busy"], false},
		"stalled":   {badReplicas["stalled"], false},
		"hangs up":  {badReplicas["hangs up"], false},
		"cut short": {badReplicas["cut short"], false},
		"good":      {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t, 3)
			data := randomBytes(6 * chunkSize)
			stored(t, f, data)
			f.nodes[0].setBefore(c.bad)
			download(t, patientReporter(f, func(config *client.Config) {
				config.Parallelism = 1
				if name == "stalled" {
					hurried(config)
				}
			}), data)
			told := f.nodes[0].suspicions()
			if c.reported != (len(told) > 0) || len(slices.Compact(slices.Clone(told))) != len(told) {
				t.Errorf("dn1 was told of %v", told)
			}
			for _, n := range f.nodes[1:] {
				if told := n.suspicions(); len(told) > 0 {
					t.Errorf("%s was told of %v", n.id, told)
				}
			}
		})
	}
}

// However often a chunk is tried, each node hears of it once a download.
func TestReportedOnce(t *testing.T) {
	f := newFakeCluster(t, 2)
	data := randomBytes(chunkSize)
	stored(t, f, data)
	c := patientReporter(f, func(config *client.Config) { config.Patience = time.Minute })
	for downloads := 1; downloads <= 2; downloads++ {
		for _, n := range f.nodes {
			var tries atomic.Int32
			n.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
				return tries.Add(1) > 3 || badReplicas["corrupt"](w, r)
			})
		}
		download(t, c, data)
		for _, n := range f.nodes {
			if told := n.suspicions(); len(told) != downloads {
				t.Errorf("after %d downloads %s was told of %v", downloads, n.id, told)
			}
		}
	}
}

// A range that does not match is reported like a whole chunk.
func TestBadRangesAreReported(t *testing.T) {
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t, 2)
			data := held(t, f, 5*block+100)
			f.nodes[0].lie(l)
			got, err := readRange(t, patientReporter(f), block+7, 2*block)
			if err != nil || !bytes.Equal(got, data[block+7:3*block+7]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			want := []dfs.ChunkID{1}
			if slices.Contains([]string{"a refusal", "a redirect", "a hang-up", "a cut connection"}, name) {
				want = nil // nothing came that could be compared
			}
			if told := f.nodes[0].suspicions(); !slices.Equal(told, want) {
				t.Errorf("dn1 was told of %v, want %v", told, want)
			}
			if told := f.nodes[1].suspicions(); len(told) > 0 {
				t.Errorf("dn2 was told of %v", told)
			}
		})
	}
}

// A node that does not take the report holds nobody up for long, and is no
// reason to fail.
func TestReportThatIsNotTaken(t *testing.T) {
	f := newFakeCluster(t, 2)
	data := randomBytes(20 * chunkSize)
	stored(t, f, data)
	f.nodes[0].setBefore(badReplicas["corrupt"])
	f.nodes[0].deaf = true
	f.nodes[1].setBefore(func(_ http.ResponseWriter, r *http.Request) bool { // not before a report is under way
		for len(f.nodes[0].suspicions()) == 0 && r.Context().Err() == nil {
			time.Sleep(time.Millisecond) // between polls
		}
		return true
	})
	c := f.client()
	c.SetReportPatience(time.Hour, time.Millisecond)
	download(t, c, data)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Download(ctx, mustPath(t, "/file"), cancelling{cancel}, client.DownloadOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// cancelling ends the download that writes to it.
type cancelling struct{ cancel context.CancelFunc }

func (c cancelling) Write(p []byte) (int, error) {
	c.cancel()
	return len(p), nil
}
