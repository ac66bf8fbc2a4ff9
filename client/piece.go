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

// accept looks at an answer with data before its body is read, and returns the check that
// the body has to pass.
func (p piece) accept(response *http.Response) (check func(data []byte) error, err error) {
	if response.ContentLength >= 0 && response.ContentLength != p.length() {
		return nil, dfs.Errorf(dfs.Corrupt, "it sends %d bytes of its replica, not %d", response.ContentLength, p.length())
	}
	if p.whole() {
		return p.checkWhole, p.expect(response, http.StatusOK, "")
	}
	place := fmt.Sprintf("bytes %d-%d/%d", p.start, p.end-1, p.Size)
	if err := p.expect(response, http.StatusPartialContent, place); err != nil {
		return nil, err
	}
	blocks, err := p.blocks(response.Header)
	if err != nil {
		return nil, err
	}
	return func(data []byte) error { return p.checkBlocks(data, blocks) }, nil
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

func (p piece) checkWhole(data []byte) error {
	if sum := dfs.ChecksumOf(data); sum != p.CRC32C {
		return dfs.Errorf(dfs.Corrupt, "its replica has the checksum %s, not %s", sum, p.CRC32C)
	}
	return nil
}

func (p piece) checkBlocks(data []byte, blocks []dfs.Checksum) error {
	for at := p.start; at < p.end; at += dfs.BlockSize {
		block := data[at-p.start : min(at+dfs.BlockSize, p.end)-p.start]
		if sum, want := dfs.ChecksumOf(block), blocks[at/dfs.BlockSize]; sum != want {
			return dfs.Errorf(dfs.Corrupt, "the block at byte %d of its replica has the checksum %s, not %s", at, sum, want)
		}
	}
	return nil
}
