package client

import (
	"fmt"
	"net/http"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// piece is what is read of one chunk. Only whole blocks can be verified, so
// those around the wanted bytes are fetched, and only the wanted ones are
// handed out. Offsets are in bytes from the start of the chunk.
type piece struct {
	protocol.LocatedChunk
	from, to   int64 // wanted
	start, end int64 // fetched
}

// pieces cuts the bytes of a file from one offset to another along its chunks.
func pieces(file protocol.File, from, to int64) []piece {
	var list []piece
	at := int64(0)
	for _, chunk := range file.Chunks {
		first, last := max(from, at), min(to, at+chunk.Size)
		if first < last {
			list = append(list, newPiece(chunk, first-at, last-at))
		}
		at += chunk.Size
	}
	return list
}

func newPiece(chunk protocol.LocatedChunk, from, to int64) piece {
	end := (to + dfs.BlockSize - 1) / dfs.BlockSize * dfs.BlockSize
	return piece{
		LocatedChunk: chunk,
		from:         from,
		to:           to,
		start:        from / dfs.BlockSize * dfs.BlockSize,
		end:          min(end, chunk.Size),
	}
}

// length is how many bytes are fetched.
func (p piece) length() int64 { return p.end - p.start }

// wanted takes from the fetched bytes those that were wanted.
func (p piece) wanted(data []byte) []byte { return data[p.from-p.start : p.to-p.start] }

// whole tells whether all of the chunk is fetched. Then its own checksum says
// whether it is right; otherwise those of its blocks are needed.
func (p piece) whole() bool { return p.length() == p.Size }

// ask puts into a request what the DataNode is to send.
func (p piece) ask(header http.Header) {
	if p.whole() {
		return
	}
	header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.start, p.end-1))
	header.Set(protocol.HeaderWantBlocks, protocol.WantBlocks)
}

// accept looks at an answer with data before its body is read, and returns the
// proof that the body has to pass.
func (p piece) accept(response *http.Response) (*proof, error) {
	if response.ContentLength >= 0 && response.ContentLength != p.length() {
		return nil, dfs.Errorf(dfs.Corrupt, "it sends %d bytes of its replica, not %d", response.ContentLength, p.length())
	}
	if p.whole() {
		return &proof{sums: []dfs.Checksum{p.CRC32C}, each: p.Size, end: p.Size}, p.expect(response, http.StatusOK, "")
	}
	place := fmt.Sprintf("bytes %d-%d/%d", p.start, p.end-1, p.Size)
	if err := p.expect(response, http.StatusPartialContent, place); err != nil {
		return nil, err
	}
	blocks, err := p.blocks(response.Header)
	if err != nil {
		return nil, err
	}
	return &proof{sums: blocks[p.start/dfs.BlockSize : (p.end+dfs.BlockSize-1)/dfs.BlockSize], each: dfs.BlockSize, at: p.start, end: p.end}, nil
}

// expect refuses an answer about other bytes than were asked for.
func (p piece) expect(response *http.Response, status int, place string) error {
	if got := response.Header.Get("Content-Range"); response.StatusCode != status || got != place {
		return dfs.Errorf(dfs.Corrupt, "it answered %d with the range %.60q, which was not asked for", response.StatusCode, got)
	}
	return nil
}

// blocks takes the checksums of the blocks from an answer. They are as good as
// that of the whole chunk in the namespace when they amount to it.
func (p piece) blocks(header http.Header) ([]dfs.Checksum, error) {
	blocks, err := protocol.ParseBlocks(header.Get(protocol.HeaderBlocks), p.Size)
	if err != nil {
		return nil, dfs.Errorf(dfs.Corrupt, "its block checksums cannot be read: %w", err)
	}
	var sum dfs.Checksum
	left := p.Size
	for _, block := range blocks {
		sum = dfs.Combine(sum, block, min(left, dfs.BlockSize))
		left -= dfs.BlockSize
	}
	if sum != p.CRC32C {
		return nil, dfs.Errorf(dfs.Corrupt, "its block checksums amount to %s, not %s", sum, p.CRC32C)
	}
	return blocks, nil
}

// proof checks bytes while they come, and the processor's cache still has them.
type proof struct {
	sums []dfs.Checksum // of the parts that follow each other, the current one first
	each int64          // bytes of a part; only the last of a chunk may have fewer
	at   int64          // offset of the next byte in the chunk
	end  int64          // where the bytes end
	sum  dfs.Checksum   // of the current part so far
}

// add fails when data ends a part that is not what it should be. There must not
// be more data than was expected.
func (p *proof) add(data []byte) error {
	for len(data) > 0 {
		begin := p.at / p.each * p.each
		end := min(begin+p.each, p.end)
		n := min(int64(len(data)), end-p.at)
		p.sum = p.sum.Update(data[:n])
		p.at, data = p.at+n, data[n:]
		if p.at < end {
			return nil
		}
		if p.sum != p.sums[0] {
			return dfs.Errorf(dfs.Corrupt, "bytes %d to %d of its replica have the checksum %s, not %s", begin, end-1, p.sum, p.sums[0])
		}
		p.sums, p.sum = p.sums[1:], 0
	}
	return nil
}
