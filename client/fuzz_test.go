package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// FuzzFileAnswer plans a read of what a NameNode may say of a file: refused, or
// pieces that together are exactly the bytes that were asked for, each of whole
// blocks of a chunk and no longer than a chunk may be.
func FuzzFileAnswer(f *testing.F) {
	const target = `"locations":[{"id":"dn1","url":"http://dn1:9000"}]`
	f.Add([]byte(`{"path":"/a","type":"file","size":100010,"chunks":[{"id":"0000000000000001","size":100000,"crc32c":"e3069283",`+target+`},{"id":"0000000000000002","size":10,"crc32c":"00000000",`+target+`}]}`), int64(7), int64(99998))
	f.Add([]byte(`{"path":"/a","type":"file","size":0,"chunks":null}`), int64(0), int64(0))
	f.Add([]byte(`{"path":"/a","type":"directory","size":5}`), int64(0), int64(5))
	f.Add([]byte(`{"size":5,"chunks":[{"size":6},{"size":-1}]}`), int64(0), int64(5))
	f.Add([]byte(`{"size":5,"chunks":[{"size":6}]}`), int64(0), int64(5))
	f.Add([]byte(`{"size":67108865,"chunks":[{"size":67108865}]}`), int64(0), int64(5))
	f.Add([]byte(`{"size":-9223372036854775808,"chunks":[{"size":9223372036854775807},{"size":1}]}`), int64(0), int64(5))
	f.Fuzz(func(t *testing.T, data []byte, from, to int64) {
		var file protocol.File
		if protocol.DecodeJSON(bytes.NewReader(data), 1<<16, false, &file) != nil {
			return
		}
		if err := checkFile(file); err != nil {
			if code := dfs.CodeOf(err); code != dfs.Internal && code != dfs.IsDirectory {
				t.Fatalf("%s: %v", code, err)
			}
			return
		}
		var size int64
		for _, chunk := range file.Chunks {
			size += chunk.Size
		}
		if file.Size < 0 || file.Type == protocol.TypeDirectory || file.Size != size || size > int64(len(file.Chunks))*dfs.MaxChunkSize {
			t.Fatalf("%+v is to be read", file)
		}
		if file.Size == 0 {
			from, to = 0, 0
		} else { // ReadRange has seen to it that they lie in the file
			from = int64(uint64(from) % uint64(file.Size))
			to = from + int64(uint64(to)%uint64(file.Size-from+1))
		}
		checkPlan(t, file, from, to)
	})
}

func checkPlan(t *testing.T, file protocol.File, from, to int64) {
	t.Helper()
	starts := make([]int64, 0, len(file.Chunks))
	at := int64(0)
	for _, chunk := range file.Chunks {
		starts = append(starts, at)
		at += chunk.Size
	}
	next, number := from, 0
	for _, p := range pieces(file, from, to) {
		for number < len(starts)-1 && starts[number+1] <= next { // the chunk that holds the next byte
			number++
		}
		chunk := file.Chunks[number]
		if p.ID != chunk.ID || p.Size != chunk.Size || p.CRC32C != chunk.CRC32C || starts[number]+p.from != next || p.to <= p.from || p.to > chunk.Size {
			t.Fatalf("byte %d of %+v is in %+v", next, file, p)
		}
		next += p.to - p.from
		aligned := p.start%dfs.BlockSize == 0 && (p.end%dfs.BlockSize == 0 || p.end == chunk.Size)
		if !aligned || p.start < 0 || p.start > p.from || p.end < p.to || p.end > chunk.Size || p.length() > dfs.MaxChunkSize || p.whole() != (p.start == 0 && p.end == chunk.Size) {
			t.Fatalf("%+v is to be fetched of %+v", p, chunk)
		}
		header := http.Header{}
		if p.ask(header); p.whole() != (header.Get("Range") == "") {
			t.Fatalf("%+v asks with %v", p, header)
		}
	}
	if next != to {
		t.Fatalf("bytes %d to %d of %+v end at %d", from, to, file, next)
	}
}

// transportFunc answers requests without a network.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answering makes every DataNode give one answer.
func answering(status int, header http.Header, length int64, body []byte) *dataNodes {
	d := newDataNodes(time.Minute, func() dfs.ClusterID { return "" })
	d.transport = transportFunc(func(r *http.Request) (*http.Response, error) {
		if r.Body != nil {
			_, _ = io.Copy(io.Discard, r.Body) // in memory
			r.Body.Close()                     // by contract
		}
		return &http.Response{StatusCode: status, Status: "status", Header: header, ContentLength: length, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
	})
	d.bundles = d.transport
	return d
}

// FuzzChunkAnswer reads a piece of a chunk from a DataNode that may answer
// anything: what is accepted is what the namespace says the chunk consists of.
func FuzzChunkAnswer(f *testing.F) {
	content := bytes.Repeat([]byte("The content of a chunk, of two blocks and a bit. "), 3000)
	chunk := protocol.LocatedChunk{ID: 1, Size: int64(len(content)), CRC32C: dfs.ChecksumOf(content)}
	var blocks []dfs.Checksum
	for block := range slices.Chunk(content, dfs.BlockSize) {
		blocks = append(blocks, dfs.ChecksumOf(block))
	}
	sums := protocol.FormatBlocks(blocks)
	ranges := []piece{
		newPiece(chunk, 0, chunk.Size), newPiece(chunk, 3, 4), newPiece(chunk, dfs.BlockSize-1, dfs.BlockSize+1), newPiece(chunk, chunk.Size-1, chunk.Size),
	}
	for i, p := range ranges {
		place := fmt.Sprintf("bytes %d-%d/%d", p.start, p.end-1, p.Size)
		f.Add(byte(i), 206, place, sums, p.length(), byte(0), p.start, p.end, 0, byte(0))
		f.Add(byte(i), 200, "", sums, int64(-1), byte(1), int64(0), chunk.Size, 70000, byte(1))
		f.Add(byte(i), 206, place, sums, int64(-1), byte(2), p.start, p.end, 0, byte(0))
	}
	forged := slices.Clone(blocks) // right for what is sent, and not for the chunk
	forged[0] = dfs.ChecksumOf(append([]byte{content[0] ^ 1}, content[1:dfs.BlockSize]...))
	f.Add(byte(1), 206, "bytes 0-65535/147000", protocol.FormatBlocks(forged), int64(-1), byte(0), int64(0), int64(dfs.BlockSize), 0, byte(1))
	f.Add(byte(1), 206, "bytes 0-65535/147000", "AAAA", int64(0), byte(0), int64(0), int64(9), 0, byte(0))
	f.Add(byte(0), 404, "", "", int64(-1), byte(3), int64(0), int64(0), 0, byte(0))
	f.Fuzz(func(t *testing.T, which byte, status int, place, sums string, length int64, tail byte, from, to int64, spoilt int, by byte) {
		p := ranges[int(which)%len(ranges)]
		from = max(0, min(from, chunk.Size))
		body := bytes.Clone(content[from:max(from, min(to, chunk.Size))])
		if spoilt >= 0 && spoilt < len(body) {
			body[spoilt] ^= by
		}
		body = append(body, strings.Repeat("x", int(tail%3))...)
		header := http.Header{}
		header.Set("Content-Range", place)
		header.Set(protocol.HeaderBlocks, sums)
		buffer := make([]byte, p.length())
		err := answering(status, header, length, body).get(t.Context(), protocol.Target{ID: "dn1", URL: "http://dn1:9000"}, p, buffer)
		if err == nil && !bytes.Equal(buffer, content[p.start:p.end]) {
			t.Fatalf("other bytes than %d to %d were accepted", p.start, p.end)
		}
		var mismatch *mismatchError
		if errors.As(err, &mismatch) && dfs.CodeOf(err) != dfs.Corrupt {
			t.Fatalf("%s: %v", dfs.CodeOf(err), err)
		}
		right := bytes.Equal(body, content[p.start:p.end]) && (length < 0 || length == p.length())
		if right && (p.whole() && status == 200 && place == "" || !p.whole() && status == 206 && place == fmt.Sprintf("bytes %d-%d/%d", p.start, p.end-1, p.Size) && sums == protocol.FormatBlocks(blocks)) && err != nil {
			t.Fatalf("a good answer was refused: %v", err)
		}
	})
}

// FuzzPutAnswer: what a DataNode says of a chunk that was sent to it is believed
// only of that chunk and of nodes that it was sent to. A pause that it asks for
// is bounded.
func FuzzPutAnswer(f *testing.F) {
	data := []byte("data")
	sum := dfs.ChecksumOf(data)
	info := fmt.Sprintf(`{"id":"0000000000000001","size":4,"crc32c":"%s"`, sum)
	f.Add(201, "", []byte(info+`,"nodes":["dn1","dn2"]}`))
	f.Add(201, "", []byte(info+`,"nodes":["dn2"]}`))
	f.Add(200, "", []byte(info+`,"nodes":["dn1"],"failed":[{"id":"dn2","error":{"code":"timeout","message":"x"}},{"id":"dn1"}]}`))
	f.Add(201, "", []byte(info+`,"nodes":["dn1","dn9"]}`))
	f.Add(429, "65535", []byte(`{"error":{"code":"over_limit","message":"x"}}`))
	f.Add(429, "-1", []byte(`x`))
	f.Add(503, "Wed, 21 Oct 2026 07:28:00 GMT", []byte(`{"error":{"code":"unavailable","message":"x"}}`))
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		targets := []protocol.Target{{ID: "dn1", URL: "http://dn1:9000"}, {ID: "dn2", URL: "http://dn2:9000"}}
		header := http.Header{}
		header.Set("Retry-After", retryAfter)
		reply, err := answering(status, header, -1, body).put(t.Context(), 1, targets, data, sum)
		var busy *busyError
		if errors.As(err, &busy) && (busy.after < 0 || busy.after > maxRetryAfter || dfs.CodeOf(err) != dfs.OverLimit) {
			t.Fatalf("%v: a pause of %s", err, busy.after)
		}
		if err != nil {
			if dfs.CodeOf(err) == "" {
				t.Fatalf("%v has no code", err)
			}
			return
		}
		if status/100 != 2 || reply.ID != 1 || reply.Size != 4 || reply.CRC32C != sum || !slices.Contains(reply.Nodes, "dn1") {
			t.Fatalf("%d with %+v is taken for success", status, reply)
		}
		for _, node := range reply.Nodes {
			if node != "dn1" && node != "dn2" {
				t.Fatalf("%s is said to hold what it was not sent", node)
			}
		}
	})
}
