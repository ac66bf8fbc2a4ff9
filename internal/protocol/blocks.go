package protocol

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const bytesPerChecksum = 4

// FormatBlocks writes the checksums of a chunk's blocks as HeaderBlocks has
// them: base64 of 4 bytes each, little-endian. Those of the largest chunk take
// 5464 bytes.
func FormatBlocks(blocks []dfs.Checksum) string {
	list := make([]byte, 0, len(blocks)*bytesPerChecksum)
	for _, sum := range blocks {
		list = binary.LittleEndian.AppendUint32(list, uint32(sum))
	}
	return base64.StdEncoding.EncodeToString(list)
}

// ParseBlocks reads what FormatBlocks wrote for a chunk of size bytes. It fails
// with dfs.Invalid unless there is a checksum for each block.
func ParseBlocks(text string, size int64) ([]dfs.Checksum, error) {
	if size < 1 || size > dfs.MaxChunkSize {
		return nil, dfs.Errorf(dfs.Invalid, "a chunk of %d bytes is not possible", size)
	}
	count := int((size + dfs.BlockSize - 1) / dfs.BlockSize)
	if len(text) != base64.StdEncoding.EncodedLen(count*bytesPerChecksum) {
		return nil, dfs.Errorf(dfs.Invalid, "%.20q... is not a list of %d block checksums: its length is wrong", text, count)
	}
	list, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(list) != count*bytesPerChecksum {
		return nil, dfs.Errorf(dfs.Invalid, "%.20q... is not a list of %d block checksums in base64", text, count)
	}
	blocks := make([]dfs.Checksum, count)
	for i := range blocks {
		blocks[i] = dfs.Checksum(binary.LittleEndian.Uint32(list[i*bytesPerChecksum:]))
	}
	return blocks, nil
}
