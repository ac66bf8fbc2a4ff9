package chunkstore

import (
	"bytes"
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

// damage is a verdict on the content of a file, and the only reason to put it
// into quarantine. A disk that cannot be read says nothing of the content.
type damage string

// Error implements error.
func (d damage) Error() string { return string(d) }

// errNewer is the footer of a format that this version does not know.
var errNewer = errors.New("was written by a newer version of DFS-Go")

func damagef(format string, args ...any) error { return damage(fmt.Sprintf(format, args...)) }

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
// bytes: maxFooterSize of them, or the whole file when it is shorter. It fails
// with a damage, or with errNewer.
func decodeFooter(tail []byte, length int64) (footer, error) {
	if len(tail) < trailerSize {
		return footer{}, damagef("the file has only %d bytes", length)
	}
	t := tail[len(tail)-trailerSize:]
	size := binary.LittleEndian.Uint64(t[24:])
	switch {
	case string(t[:8]) != magic:
		return footer{}, damage("there is no footer at the end")
	case !bytes.Equal(t[8:16], formatFields()):
		return footer{}, judgeFormat(tail, length)
	case size < 1 || size > dfs.MaxChunkSize:
		return footer{}, damagef("a data size of %d bytes is not possible", size)
	case fileSize(int64(size)) != length:
		return footer{}, damagef("the file has %d bytes instead of %d", length, fileSize(int64(size)))
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
		return footer{}, damage("the footer's checksum is wrong")
	}
	if f.id == 0 {
		return footer{}, damage("the footer has no chunk ID")
	}
	f.blocks = make([]dfs.Checksum, blockCount(f.size))
	for i := range f.blocks {
		f.blocks[i] = dfs.Checksum(binary.LittleEndian.Uint32(all[i*checksumSize:]))
	}
	return f, nil
}

// formatFields are the fields that tell how to read the others.
func formatFields() []byte {
	b := binary.LittleEndian.AppendUint32(nil, formatVersion)
	return binary.LittleEndian.AppendUint32(b, dfs.BlockSize)
}

// judgeFormat tells a newer format from damage: a footer whose checksum is
// right with the fields of this format was written in this format.
func judgeFormat(tail []byte, length int64) error {
	fields := tail[len(tail)-trailerSize+8:][:8]
	restored := bytes.Clone(tail)
	copy(restored[len(tail)-trailerSize+8:], formatFields())
	version, size := binary.LittleEndian.Uint32(fields), binary.LittleEndian.Uint32(fields[4:])
	if _, err := decodeFooter(restored, length); err == nil {
		return damagef("the footer says format version %d and block size %d, which is not what was written", version, size)
	}
	return errNewer
}
