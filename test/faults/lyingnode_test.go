//go:build linux

package faults

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/faultbed"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// lies are what a DataNode may answer instead of a chunk.
var lies = []struct {
	name string
	tell func(*http.Response) error
}{
	{"one wrong bit", rewrite(func(_ *http.Response, body []byte) []byte {
		body[len(body)/2] ^= 4
		return body
	})},
	{"wrong bytes with fitting checksums", rewrite(func(response *http.Response, body []byte) []byte {
		clear(body)
		response.Header.Set(protocol.HeaderChecksum, dfs.ChecksumOf(body).String())
		return body
	})},
	{"too few bytes", rewrite(func(_ *http.Response, body []byte) []byte { return body[:len(body)-1] })},
	{"no bytes", rewrite(func(*http.Response, []byte) []byte { return nil })},
	{"too many bytes", rewrite(func(_ *http.Response, body []byte) []byte { return append(body, 'x') })},
	{"fewer bytes than it says", func(response *http.Response) error {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, response.ContentLength/2), response.Body}
		return nil
	}},
	{"an error page with 200", rewrite(func(response *http.Response, _ []byte) []byte {
		response.StatusCode = http.StatusOK
		response.Header.Set("Content-Type", "text/html")
		return []byte("<html><body>The disk is fine, thank you.</body></html>")
	})},
	{"nothing there, by a stranger", rewrite(func(response *http.Response, _ []byte) []byte {
		response.StatusCode = http.StatusNotFound
		return []byte("404 page not found")
	})},
	{"elsewhere", func(response *http.Response) error {
		response.StatusCode = http.StatusFound
		response.Header.Set("Location", "http://127.0.0.1:1/")
		return nil
	}},
}

// ofChunks keeps a lie to answers that carry a chunk.
func ofChunks(lie func(*http.Response) error) func(*http.Response) error {
	return func(response *http.Response) error {
		if response.Request.Method != http.MethodGet || !strings.HasPrefix(response.Request.URL.Path, "/chunks/") || response.ContentLength < 1 {
			return nil
		}
		return lie(response)
	}
}

// TestLyingDataNode: a DataNode answers with something else than the chunk. The
// client notices, whatever it is, and takes another replica; when all lie, no
// output is made, and what there was stays.
func TestLyingDataNode(t *testing.T) {
	fronts := make(map[string]*front)
	h := newHealing(t, 3, func(o *faultbed.Options) {
		o.Patience, o.Fronts = 500*time.Millisecond, make(map[string]string)
		for i := range o.DataNodes {
			id := fmt.Sprintf("dn%d", i+1)
			fronts[id] = newFront(t)
			o.Fronts[id] = fronts[id].URL
		}
	})
	for id, f := range fronts {
		f.stand(t, h.b.URL(id))
	}
	h.fill(6)
	path := h.paths[0]
	data := h.content(path)
	for _, lie := range lies {
		fronts["dn1"].answer(ofChunks(lie.tell))
		fronts["dn2"].answer(ofChunks(lie.tell))
		out := filepath.Join(t.TempDir(), "out")
		if text, err := h.b.Command("download", "--no-progress", path, out).CombinedOutput(); err != nil {
			t.Errorf("%s: dfs download: %v: %s", lie.name, err, text)
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the file holds %d bytes, and should hold the right %d: %v", lie.name, len(got), len(data), err)
		}
		piece, err := h.b.Command("cat", "--offset", "70000", "--length", "20000", path).Output()
		if err != nil || !bytes.Equal(piece, data[70000:90000]) {
			t.Errorf("%s: dfs cat gave %d bytes, and should give the right 20000: %v", lie.name, len(piece), err)
		}
		fronts["dn3"].answer(ofChunks(lie.tell))
		h.refuseAll(lie.name, path)
		fronts["dn3"].answer(nil)
	}
	for _, f := range fronts {
		f.answer(nil)
	}
	h.swallow(fronts["dn1"])
	// The readers told the nodes, which found nothing wrong with their replicas.
	h.waitFsck("all is in order", whole)
	if n := h.quarantined(); n > 0 {
		t.Errorf("%d good replicas are in quarantine on a reader's word", n)
	}
	h.readAll()
}

// content reads a file without harm.
func (h *healing) content(path string) []byte {
	h.t.Helper()
	var data bytes.Buffer
	if _, err := h.c.Download(h.t.Context(), mustPath(h.t, "%s", path), &data, client.DownloadOptions{}); err != nil {
		h.t.Fatal(err)
	}
	if contentOf(data.Bytes()) != h.want[path] {
		h.t.Fatalf("%s does not hold what it should", path)
	}
	return data.Bytes()
}

// refuseAll downloads a file of which no replica is good, onto nothing and onto
// an older file.
func (h *healing) refuseAll(lie, path string) {
	h.t.Helper()
	dir := h.t.TempDir()
	older := filepath.Join(dir, "older")
	if err := os.WriteFile(older, []byte("older"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	for _, out := range []string{filepath.Join(dir, "new"), older} {
		if _, err := h.c.DownloadFile(h.t.Context(), mustPath(h.t, "%s", path), out, client.DownloadOptions{}); err == nil {
			h.t.Errorf("%s, everywhere: the download succeeded", lie)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	if kept, err := os.ReadFile(older); err != nil || string(kept) != "older" || len(entries) != 1 {
		h.t.Errorf("%s, everywhere: %q is left of the older file, and there are %v: %v", lie, kept, entries, err)
	}
}

// swallow lets a DataNode acknowledge chunks that it does not keep. What is
// acknowledged to the user can be read all the same.
func (h *healing) swallow(f *front) {
	h.t.Helper()
	f.do(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		id, err := dfs.ParseChunkID(strings.TrimPrefix(r.URL.Path, "/chunks/"))
		body, readErr := io.ReadAll(r.Body)
		if err != nil || readErr != nil {
			return false
		}
		all := []dfs.NodeID{"dn1"}
		for id := range strings.SplitSeq(r.Header.Get(protocol.HeaderPipeline), ",") {
			if id != "" {
				all = append(all, dfs.NodeID(id))
			}
		}
		w.Header().Set(protocol.HeaderNodeID, "dn1")
		protocol.WriteJSON(w, http.StatusCreated, protocol.ChunkReply{ID: id, Size: int64(len(body)), CRC32C: dfs.ChecksumOf(body), Nodes: all})
		return true
	})
	stored := 0
	for i := range 12 {
		path := fmt.Sprintf("/swallowed/%d", i)
		data := randomData(h.random, 2*chunkSize)
		_, err := h.c.Upload(h.t.Context(), mustPath(h.t, "%s", path), bytes.NewReader(data), client.UploadOptions{Size: int64(len(data)), ChunkSize: chunkSize})
		if err != nil {
			continue
		}
		stored++
		h.want[path] = contentOf(data)
		if err := h.read(h.c, path); err != nil {
			h.t.Errorf("acknowledged, although a DataNode lied: %v", err)
		}
		h.paths = append(h.paths, path)
	}
	f.do(nil)
	h.t.Logf("%d of 12 uploads were acknowledged while a DataNode swallowed chunks", stored)
	entries := 0
	for entry, err := range h.c.List(h.t.Context(), mustPath(h.t, "/swallowed")) {
		if err != nil || !slices.Contains(h.paths, entry.Path) {
			h.t.Errorf("%v is there and was not acknowledged: %v", entry, err)
		}
		entries++
	}
	if entries != stored {
		h.t.Errorf("%d files are there, %d were acknowledged", entries, stored)
	}
}
