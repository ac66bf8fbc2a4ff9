package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dfs-go/dfs-go/client"
	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// block is the size of one, short for tables.
const block = dfs.BlockSize

// held puts /file, of chunks with the given sizes, on every node.
func held(t *testing.T, f *fakeCluster, sizes ...int) []byte {
	t.Helper()
	var data []byte
	file := protocol.File{Path: "/file", Type: protocol.TypeFile}
	source := rand.NewChaCha8([32]byte{2})
	for i, size := range sizes {
		part := make([]byte, size)
		_, _ = source.Read(part) // never fails
		chunk := protocol.LocatedChunk{ID: dfs.ChunkID(i + 1), Size: int64(size), CRC32C: dfs.ChecksumOf(part)}
		for _, n := range f.nodes {
			n.chunks[chunk.ID.String()] = part
			chunk.Locations = append(chunk.Locations, protocol.Target{ID: n.id, URL: n.URL})
		}
		file.Chunks = append(file.Chunks, chunk)
		file.Size += chunk.Size
		data = append(data, part...)
	}
	f.files["/file"] = file
	return data
}

func readRange(t *testing.T, c *client.Client, offset, length int64) ([]byte, error) {
	t.Helper()
	var got bytes.Buffer
	n, err := c.ReadRange(t.Context(), mustPath(t, "/file"), &got, offset, length)
	if n != int64(got.Len()) {
		t.Errorf("%d bytes from %d on: %d were written, and %d said to be", length, offset, got.Len(), n)
	}
	return got.Bytes(), err
}

// liar answers a request for a chunk, which is data, in a wrong way.
type liar func(w http.ResponseWriter, r *http.Request, data []byte)

// lies are answered to requests for a range. Each is told by one mark only.
var lies = map[string]liar{
	"another byte": func(w http.ResponseWriter, r *http.Request, data []byte) {
		send(w, r, data, damaged(data), blocksOf(data))
	},
	"another block": func(w http.ResponseWriter, r *http.Request, data []byte) {
		send(w, r, data, turned(data), blocksOf(data))
	},
	"another chunk": func(w http.ResponseWriter, r *http.Request, data []byte) { answerHonestly(w, r, damaged(data)) },
	"zeros": func(w http.ResponseWriter, r *http.Request, data []byte) {
		answerHonestly(w, r, make([]byte, len(data)))
	},
	"a shorter chunk": func(w http.ResponseWriter, r *http.Request, data []byte) { answerHonestly(w, r, data[:len(data)-1]) },
	"a longer chunk": func(w http.ResponseWriter, r *http.Request, data []byte) {
		answerHonestly(w, r, append(slices.Clone(data), 0))
	},
	"no list":          withList(func([]dfs.Checksum) string { return "" }),
	"an unclear list":  withList(func([]dfs.Checksum) string { return "????" }),
	"a swapped list":   withList(func(list []dfs.Checksum) string { return protocol.FormatBlocks(append(list[1:], list[0])) }),
	"a short list":     withList(func(list []dfs.Checksum) string { return protocol.FormatBlocks(list[1:]) }),
	"a long list":      withList(func(list []dfs.Checksum) string { return protocol.FormatBlocks(append(list, 0)) }),
	"a false list":     withList(func(list []dfs.Checksum) string { list[0]++; return protocol.FormatBlocks(list) }),
	"a cut list":       withList(func(list []dfs.Checksum) string { return protocol.FormatBlocks(list)[1:] }),
	"the whole chunk":  withRange(func(_, _, size int) (string, int, int) { return "", 0, size }),
	"no place":         withRange(func(from, to, _ int) (string, int, int) { return "", from, to }),
	"the wrong place":  withRange(func(from, to, size int) (string, int, int) { return place(from+1, to+1, size), from, to }),
	"another size":     withRange(func(from, to, size int) (string, int, int) { return place(from, to, size+1), from, to }),
	"fewer bytes":      withRange(func(from, to, size int) (string, int, int) { return place(from, to-1, size), from, to - 1 }),
	"fewer than said":  withRange(func(from, to, size int) (string, int, int) { return place(from, to, size), from, to - 1 }),
	"nothing":          withRange(func(from, to, size int) (string, int, int) { return place(from, to, size), from, from }),
	"other bytes":      withRange(func(from, to, size int) (string, int, int) { return place(from, to, size), size - (to - from), size }),
	"an unending body": func(w http.ResponseWriter, r *http.Request, data []byte) { unending(w, r, data) },
	"a cut connection": func(w http.ResponseWriter, r *http.Request, data []byte) { cutInTheMiddle(w, r, data) },
	"an error page":    func(w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = io.WriteString(w, "<html>sorry</html>") },
	"no content":       func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusNoContent) },
	"a redirect": func(w http.ResponseWriter, r *http.Request, _ []byte) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	},
	"a refusal": func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		protocol.WriteError(w, dfs.Errorf(dfs.Corrupt, "no"))
	},
	"a hang-up": func(http.ResponseWriter, *http.Request, []byte) { panic(http.ErrAbortHandler) },
}

func damaged(data []byte) []byte {
	other := slices.Clone(data)
	for at := 0; at < len(other); at += block {
		other[at] ^= 1
	}
	return other
}

// turned has each block in the place of its neighbour.
func turned(data []byte) []byte { return append(slices.Clone(data[block:]), data[:block]...) }

func asked(r *http.Request, size int) (from, to int) {
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
		return 0, size
	}
	return from, to + 1
}

func place(from, to, size int) string { return fmt.Sprintf("bytes %d-%d/%d", from, to-1, size) }

// send answers for data with the bytes of other and any list.
func send(w http.ResponseWriter, r *http.Request, data, other []byte, blocks []dfs.Checksum) {
	from, to := asked(r, len(data))
	w.Header().Set(protocol.HeaderBlocks, protocol.FormatBlocks(blocks))
	w.Header().Set("Content-Range", place(from, to, len(data)))
	w.Header().Set("Content-Length", strconv.Itoa(to-from))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(other[from:to])
}

func withList(change func([]dfs.Checksum) string) liar {
	return func(w http.ResponseWriter, r *http.Request, data []byte) {
		from, to := asked(r, len(data))
		w.Header().Set(protocol.HeaderBlocks, change(blocksOf(data)))
		w.Header().Set("Content-Range", place(from, to, len(data)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data[from:to])
	}
}

func withRange(change func(from, to, size int) (place string, first, last int)) liar {
	return func(w http.ResponseWriter, r *http.Request, data []byte) {
		from, to := asked(r, len(data))
		where, first, last := change(from, to, len(data))
		w.Header().Set(protocol.HeaderBlocks, protocol.FormatBlocks(blocksOf(data)))
		w.Header().Set("Content-Length", strconv.Itoa(last-first))
		if where == "" && last-first == len(data) {
			w.WriteHeader(http.StatusOK)
		} else {
			w.Header().Set("Content-Range", where)
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(data[first:last])
	}
}

func unending(w http.ResponseWriter, r *http.Request, data []byte) {
	from, to := asked(r, len(data))
	w.Header().Set(protocol.HeaderBlocks, protocol.FormatBlocks(blocksOf(data)))
	w.Header().Set("Content-Range", place(from, to, len(data)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data[from:to]) // without a length, because more follows
	_ = http.NewResponseController(w).Flush()
	for range 100 {
		_, _ = w.Write(data)
	}
}

func cutInTheMiddle(w http.ResponseWriter, r *http.Request, data []byte) {
	from, to := asked(r, len(data))
	w.Header().Set(protocol.HeaderBlocks, protocol.FormatBlocks(blocksOf(data)))
	w.Header().Set("Content-Range", place(from, to, len(data)))
	w.Header().Set("Content-Length", strconv.Itoa(to-from))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data[from : (from+to)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// lie lets a node answer every request for a range with a lie.
func (n *fakeNode) lie(l liar) {
	n.setBefore(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			return true
		}
		id, _ := dfs.ParseChunkID(strings.TrimPrefix(r.URL.Path, "/chunks/"))
		l(w, r, n.chunk(id))
		return false
	})
}

// Every lie is seen: one honest replica is enough, and without one nothing
// wrong comes out.
func TestRangesOfLiars(t *testing.T) {
	for name, l := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeCluster(t, 3)
			data := held(t, f, 5*block+100)
			f.nodes[0].lie(l)
			f.nodes[1].lie(l)
			c := f.client(func(config *client.Config) { config.Patience = 1 })
			const offset, length = block + 7, 2 * block
			got, err := readRange(t, c, offset, length)
			if err != nil || !bytes.Equal(got, data[offset:offset+length]) {
				t.Errorf("with an honest replica: %d bytes, %v", len(got), err)
			}
			f.nodes[2].lie(l)
			got, err = readRange(t, c, offset, length)
			if code := dfs.CodeOf(err); len(got) > 0 || code != dfs.Corrupt && code != dfs.Unavailable {
				t.Errorf("without one: %d bytes, %v", len(got), err)
			}
		})
	}
}

// Whatever is read, from whatever file, while two of three replicas lie now and
// then: the bytes are right.
func TestAnyRange(t *testing.T) {
	const seed = 3
	random := rand.New(rand.NewPCG(seed, seed))
	f := newFakeCluster(t, 3)
	var sizes []int
	for range 12 {
		sizes = append(sizes, []int{1, block - 1, block, block + 1, 2 * block, 3*block + 5}[random.IntN(6)])
	}
	data := held(t, f, append(sizes, 4*block+9)...)
	liesOfTwo(t, f, random.Uint64())
	c := f.client()
	for i := range 300 {
		offset := random.Int64N(int64(len(data)) + 1)
		length := random.Int64N([]int64{2, block, 3 * block, int64(len(data))}[i%4])
		got, err := readRange(t, c, offset, length)
		want := data[offset:min(offset+length, int64(len(data)))]
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("seed %d, sizes %v, %d bytes from %d on: %d bytes, %v", seed, sizes, length, offset, len(got), err)
		}
	}
}

// liesOfTwo lets all but the last node lie in every other answer.
func liesOfTwo(t *testing.T, f *fakeCluster, seed uint64) {
	t.Helper()
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0)) // guarded by mu
	names := slices.Sorted(maps.Keys(lies))
	for _, n := range f.nodes[:len(f.nodes)-1] {
		n.lie(func(w http.ResponseWriter, r *http.Request, data []byte) {
			mu.Lock()
			honest, name := random.IntN(2) == 0, names[random.IntN(len(names))]
			mu.Unlock()
			if honest {
				answerHonestly(w, r, data)
				return
			}
			lies[name](w, r, data)
		})
	}
}

// Only the blocks around what is wanted are asked for; a chunk that is wanted
// wholly, or has all its blocks touched, is asked for as a whole.
func TestWhatIsAskedFor(t *testing.T) {
	f := newFakeCluster(t, 1)
	const size = 4*block + 100
	data := held(t, f, size, size, size)
	var mu sync.Mutex
	var requests []string // guarded by mu
	f.nodes[0].setBefore(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		id := strings.TrimLeft(strings.TrimPrefix(r.URL.Path, "/chunks/"), "0")
		requests = append(requests, id+strings.TrimPrefix(r.Header.Get("Range"), "bytes")+" "+r.Header.Get(protocol.HeaderWantBlocks))
		return true
	})
	c := f.client()
	for _, test := range []struct {
		offset, length, want int64
		asks                 string
	}{
		{0, 1, 1, "1=0-65535 1"},
		{block - 1, 2, 2, "1=0-131071 1"},
		{block, block, block, "1=65536-131071 1"},
		{size - 1, 1, 1, "1=262144-262243 1"},
		{size - 1, 2, 2, "1=262144-262243 1, 2=0-65535 1"},
		{0, size, size, "1 "},
		{1, size - 2, size - 2, "1 "},
		{block, size, size, "1=65536-262243 1, 2=0-65535 1"},
		{block, 2 * size, 2 * size, "1=65536-262243 1, 2 , 3=0-65535 1"},
		{2*size + 4*block, client.ToTheEnd, 100, "3=262144-262243 1"},
		{3*size - 5, 1 << 62, 5, "3=262144-262243 1"},
		{0, 1<<63 - 1, 3 * size, "1 , 2 , 3 "},
		{0, client.ToTheEnd, 3 * size, "1 , 2 , 3 "},
		{7, 0, 0, ""},
		{3 * size, client.ToTheEnd, 0, ""},
		{3 * size, 10, 0, ""},
	} {
		requests = nil
		got, err := readRange(t, c, test.offset, test.length)
		if err != nil || !bytes.Equal(got, data[test.offset:test.offset+test.want]) {
			t.Errorf("%d bytes from %d on: %d bytes, %v", test.length, test.offset, len(got), err)
		}
		slices.Sort(requests)
		if asks := strings.Join(requests, ", "); asks != test.asks {
			t.Errorf("%d bytes from %d on: asked %q, want %q", test.length, test.offset, asks, test.asks)
		}
	}
}

func TestImpossibleRanges(t *testing.T) {
	f := newFakeCluster(t, 1)
	data := held(t, f, 3*block)
	f.files["/directory"] = protocol.File{Type: protocol.TypeDirectory}
	f.files["/huge"] = protocol.File{Size: 1 << 40, Chunks: []protocol.LocatedChunk{{ID: 1, Size: 1 << 40}}}
	c := f.client()
	for _, test := range []struct {
		path           string
		offset, length int64
		want           dfs.Code
	}{
		{"/file", -1, 1, dfs.Invalid},
		{"/file", 0, -2, dfs.Invalid},
		{"/file", 1, -1 << 63, dfs.Invalid},
		{"/file", int64(len(data)) + 1, 1, dfs.Invalid},
		{"/file", 1<<63 - 1, 1<<63 - 1, dfs.Invalid},
		{"/none", 0, 1, dfs.NotFound},
		{"/directory", 0, 1, dfs.IsDirectory},
		{"/huge", 0, 1, dfs.Internal},
	} {
		var got bytes.Buffer
		n, err := c.ReadRange(t.Context(), mustPath(t, test.path), &got, test.offset, test.length)
		if dfs.CodeOf(err) != test.want || n != 0 || got.Len() != 0 {
			t.Errorf("%s, %d bytes from %d on: %d, %v; want %s", test.path, test.length, test.offset, n, err, test.want)
		}
	}
}

func TestRangeThatIsGivenUp(t *testing.T) {
	f := newFakeCluster(t, 1)
	held(t, f, 3*block)
	ctx, cancel := context.WithCancel(t.Context())
	f.nodes[0].setBefore(func(w http.ResponseWriter, r *http.Request) bool { cancel(); return stalled(w, r) })
	if _, err := f.client().ReadRange(ctx, mustPath(t, "/file"), io.Discard, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.nodes[0].setBefore(nil)
	if n, err := f.client().ReadRange(t.Context(), mustPath(t, "/file"), fullDisk{}, 0, 1); n != 0 || dfs.CodeOf(err) != dfs.Internal {
		t.Errorf("an output that fails: %d, %v", n, err)
	}
}
