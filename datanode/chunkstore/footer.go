package chunkstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	magic         = "DFSCHUNK"
	formatVersion = 1
	checksumSize  = 4
	trailerSize   = 40
	maxBlocks     = dfs.MaxChunkSize / dfs.BlockSize
	maxFooterSize = maxBlocks*checksumSize + trailerSize
)

// footer is what a chunk file says about its data; doc.go has the layout.
type footer struct {
	id     dfs.ChunkID
	size   int64
	crc    dfs.Checksum
	blocks []dfs.Checksum
}

func blockCount(size int64) int64 { return (size + dfs.BlockSize - 1) / dfs.BlockSize }

func footerSize(size int64) int64 { return blockCount(size)*checksumSize + trailerSize }

func fileSize(size int64) int64 { return size + footerSize(size) }

func (f footer) encode() []byte {
	b := make([]byte, 0, footerSize(f.size))
	for _, sum := range f.blocks {
		b = binary.LittleEndian.AppendUint32(b, uint32(sum))
	}
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, dfs.BlockSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.id))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.crc))
	return binary.LittleEndian.AppendUint32(b, uint32(dfs.ChecksumOf(b)))
}

// decodeFooter reads the footer of a file of the given length from its last
// bytes: maxFooterSize of them, or the whole file when it is shorter.
func decodeFooter(tail []byte, length int64) (footer, error) {
	if len(tail) < trailerSize {
		return footer{}, fmt.Errorf("the file has only %d bytes", length)
	}
	t := tail[len(tail)-trailerSize:]
	size := binary.LittleEndian.Uint64(t[24:])
	switch {
	case string(t[:8]) != magic:
		return footer{}, errors.New("there is no footer at the end")
	case binary.LittleEndian.Uint32(t[8:]) != formatVersion:
		return footer{}, fmt.Errorf("format version %d is not known", binary.LittleEndian.Uint32(t[8:]))
	case binary.LittleEndian.Uint32(t[12:]) != dfs.BlockSize:
		return footer{}, fmt.Errorf("a block size of %d is not known", binary.LittleEndian.Uint32(t[12:]))
	case size < 1 || size > dfs.MaxChunkSize:
		return footer{}, fmt.Errorf("a data size of %d bytes is not possible", size)
	case fileSize(int64(size)) != length:
		return footer{}, fmt.Errorf("the file has %d bytes instead of %d", length, fileSize(int64(size)))
	}
	f := footer{
		id:   dfs.ChunkID(binary.LittleEndian.Uint64(t[16:])),
		size: int64(size),
		crc:  dfs.Checksum(binary.LittleEndian.Uint32(t[32:])),
	}
	if need := footerSize(f.size); need > int64(len(tail)) {
		return footer{}, errors.New("the footer was not read wholly") // the caller's fault; never of a file
	}
	all := tail[int64(len(tail))-footerSize(f.size):]
	if uint32(dfs.ChecksumOf(all[:len(all)-checksumSize])) != binary.LittleEndian.Uint32(t[36:]) {
		return footer{}, errors.New("the footer's checksum is wrong")
	}
	if f.id == 0 {
		return footer{}, errors.New("the footer has no chunk ID")
	}
	f.blocks = make([]dfs.Checksum, blockCount(f.size))
	for i := range f.blocks {
		f.blocks[i] = dfs.Checksum(binary.LittleEndian.Uint32(all[i*checksumSize:]))
	}
	return f, nil
}
