//go:build linux

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
)

const (
	tornRounds = 9
	tornSize   = 40 * chunkSize
	tornExpiry = 6 * time.Second
)

// run is `dfs upload` of standard input, which the test feeds.
type run struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr bytes.Buffer
}

func startUpload(t *testing.T, cmd *exec.Cmd) *run {
	t.Helper()
	r := &run{cmd: cmd}
	cmd.Stderr = &r.stderr
	var err error
	if r.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// upload is the command line of one.
func (h *healing) upload(path string) *run {
	h.t.Helper()
	return startUpload(h.t, h.b.Command("upload", "--no-progress", "--chunk-size", fmt.Sprint(chunkSize), "-", path))
}

// feed gives data to the upload. One that is dead takes no more.
func (r *run) feed(data []byte) { _, _ = r.in.Write(data) } // its end tells what came of it

// end lets the input end, and returns how the run ended.
func (r *run) end() error {
	_ = r.in.Close() // likewise
	err := r.cmd.Wait()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(r.stderr.String()))
	}
	return nil
}

// TestTornUploads: uploads are torn at random bytes, by the death of the client,
// of a DataNode, or of all connections to one. A file is there whole, or it is
// not there; exit code 0 says which; and of what was not finished nothing stays.
func TestTornUploads(t *testing.T) {
	torn := newFront(t)
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.Fronts = map[string]string{"dn1": torn.URL}
		o.NameNodeFlags = append(o.NameNodeFlags, "-upload-expiry", tornExpiry.String())
	})
	torn.stand(t, h.b.URL("dn1"))
	h.fill(3)
	before := h.disks()
	ways := []struct {
		name   string
		tear   func(*run)
		heal   func()
		lethal bool // nobody is left to finish it
	}{
		{"the client is killed", func(r *run) { _ = r.cmd.Process.Kill() }, func() {}, true},
		{"a DataNode is killed", func(*run) { h.b.Kill("dn2") }, func() { h.b.Start("dn2") }, false},
		{"connections are cut", func(*run) { torn.CloseClientConnections() }, func() {}, false},
	}
	acknowledged := 0
	for round := range faultbed.Count(t, "DFS_FAULT_TORN", tornRounds) {
		way := ways[round%len(ways)]
		path := fmt.Sprintf("/torn/%d", round)
		data := randomData(h.random, tornSize)
		at := h.random.IntN(len(data))
		r := h.upload(path)
		r.feed(data[:at])
		var rest sync.WaitGroup
		rest.Go(func() { r.feed(data[at:]) })
		way.tear(r)
		rest.Wait()
		err := r.end()
		way.heal()
		switch {
		case err == nil:
			acknowledged++
			h.want[path] = contentOf(data)
			if err := h.read(h.c, path); err != nil {
				t.Errorf("%s at byte %d: acknowledged, and: %v", way.name, at, err)
			}
		case !way.lethal:
			t.Errorf("%s at byte %d: the upload should have gone on: %v", way.name, at, err)
			fallthrough
		default:
			h.wholeOrAbsent(path, contentOf(data))
		}
	}
	t.Logf("%d of the uploads were acknowledged", acknowledged)
	if err := h.c.RemoveAll(t.Context(), mustPath(t, "/torn")); err != nil {
		t.Fatal(err)
	}
	took := h.waitFsck("nothing is left over", clean)
	h.b.WaitUntil("the disks are where they were", func() bool { return h.disks() <= before+16<<10 })
	t.Logf("nothing was left %s later", took.Round(time.Millisecond))
	h.b.Restart(h.b.DataNodes()...)
	h.b.WaitReady()
	h.noTemporaries()
	h.readAll()
}

// wholeOrAbsent looks at a file whose upload was not acknowledged.
func (h *healing) wholeOrAbsent(path string, want content) {
	h.t.Helper()
	switch _, err := h.c.Stat(h.t.Context(), mustPath(h.t, "%s", path)); {
	case dfs.CodeOf(err) == dfs.NotFound:
	case err != nil:
		h.t.Errorf("%s: %v", path, err)
	default:
		h.want[path] = want
		if err := h.read(h.c, path); err != nil {
			h.t.Errorf("it was not acknowledged, and is there in part: %v", err)
		}
	}
}

// noTemporaries looks for files that a torn write has left on DataNodes.
func (h *healing) noTemporaries() {
	h.t.Helper()
	for _, id := range h.b.DataNodes() {
		for _, dir := range h.b.Dirs(id) {
			entries, err := os.ReadDir(filepath.Join(dir, "tmp"))
			if err != nil || len(entries) > 0 {
				h.t.Errorf("%s has temporary files: %v %v", id, entries, err)
			}
		}
	}
}

// TestSleepingClient: a client that was stopped for longer than an upload may be
// silent wakes up and commits. It is told plainly, and nothing is left.
func TestSleepingClient(t *testing.T) {
	h := newHealing(t, 4, func(o *faultbed.Options) {
		o.NameNodeFlags = append(o.NameNodeFlags, "-upload-expiry", "2s")
	})
	h.fill(3)
	before := h.disks()
	r := h.upload("/late")
	r.feed(randomData(h.random, 9*chunkSize))
	h.b.WaitUntil("some of it is stored", func() bool { return h.disks() > before+8*chunkSize })
	h.b.PauseProcess(r.cmd.Process.Pid)
	h.b.WaitUntil("what it had stored has been taken away", func() bool { return h.disks() <= before+16<<10 })
	h.b.ContinueProcess(r.cmd.Process.Pid)
	err := r.end()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "start the upload again") {
		t.Errorf("a commit after the upload has expired: %v", err)
	}
	t.Logf("it said: %v", err)
	if _, err := h.c.Stat(t.Context(), mustPath(t, "/late")); dfs.CodeOf(err) != dfs.NotFound {
		t.Errorf("the file of an upload that had expired: %v", err)
	}
	h.waitFsck("nothing is left over", clean)
	h.b.WaitUntil("the disks are where they were", func() bool { return h.disks() <= before+16<<10 })
}
