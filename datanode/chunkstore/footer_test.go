package chunkstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func sampleFooter(size int64) footer {
	f := footer{id: 0x0123456789abcdef, size: size, crc: 0xdeadbeef}
	for i := range blockCount(size) {
		f.blocks = append(f.blocks, dfs.Checksum(i*7+1))
	}
	return f
}

func TestFooterRoundTrip(t *testing.T) {
	for _, size := range []int64{1, dfs.BlockSize - 1, dfs.BlockSize, dfs.BlockSize + 1, dfs.DefaultChunkSize, dfs.MaxChunkSize} {
		want := sampleFooter(size)
		encoded := want.encode()
		if int64(len(encoded)) != footerSize(size) || len(encoded) > maxFooterSize {
			t.Fatalf("size %d: the footer has %d bytes", size, len(encoded))
		}
		got, err := decodeFooter(encoded, fileSize(size))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("size %d: got %+v, %v", size, got, err)
		}
		before := append(bytes.Repeat([]byte("x"), 10), encoded...) // data may come before it
		if _, err := decodeFooter(before, fileSize(size)); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
	}
}

// The layout is a contract with every data directory there is.
func TestFooterLayout(t *testing.T) {
	f := footer{id: 0x0102030405060708, size: 9, crc: 0xe3069283, blocks: []dfs.Checksum{0xe3069283}}
	want := "\x83\x92\x06\xe3" + "DFSCHUNK" + "\x01\x00\x00\x00" + "\x00\x00\x01\x00" +
		"\x08\x07\x06\x05\x04\x03\x02\x01" + "\x09\x00\x00\x00\x00\x00\x00\x00" + "\x83\x92\x06\xe3"
	got := string(f.encode())
	if got[:len(got)-4] != want {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
}

func TestDecodeFooterRefuses(t *testing.T) {
	good := sampleFooter(3 * dfs.BlockSize).encode()
	length := fileSize(3 * dfs.BlockSize)
	for i := range good {
		for _, flip := range []byte{1, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if f, err := decodeFooter(bad, length); err == nil {
				t.Fatalf("byte %d changed, and yet %+v", i, f)
			}
		}
	}
	for name, c := range map[string]struct {
		tail   []byte
		length int64
	}{
		"empty":           {nil, 0},
		"part of trailer": {good[len(good)-trailerSize+1:], length},
		"list missing":    {good[4:], length},
		"file too long":   {good, length + 1},
		"file too short":  {good, length - 1},
		"no chunk ID":     {footer{size: 1, blocks: []dfs.Checksum{1}}.encode(), fileSize(1)},
	} {
		if _, err := decodeFooter(c.tail, c.length); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Blocks that are right do not excuse a whole that is not what the namespace
// was told.
func TestVerifyComparesTheWhole(t *testing.T) {
	dir := t.TempDir()
	s := openInternal(t, dir)
	data := []byte("data")
	f := footer{id: 1, size: 4, crc: dfs.ChecksumOf(data) + 1, blocks: []dfs.Checksum{dfs.ChecksumOf(data)}}
	if err := os.WriteFile(s.volumes[0].path(1), append(data, f.encode()...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openInternal(t, dir)
	if err := s.Verify(1); dfs.CodeOf(err) != dfs.Corrupt {
		t.Error(err)
	}
}

func FuzzDecodeFooter(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add(sampleFooter(1).encode(), fileSize(1))
	f.Add(sampleFooter(dfs.DefaultChunkSize).encode(), fileSize(dfs.DefaultChunkSize))
	f.Fuzz(func(t *testing.T, tail []byte, length int64) {
		got, err := decodeFooter(tail, length)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(tail, got.encode()) || length != fileSize(got.size) || got.id == 0 {
			t.Fatalf("accepted %x as %+v", tail, got)
		}
	})
}

// FuzzFooterFields gets behind the checksum: a footer with any fields is sealed.
// What is accepted is possible, and read in full; what is not is damage, or of a
// newer version.
func FuzzFooterFields(f *testing.F) {
	sample := sampleFooter(2*dfs.BlockSize + 1)
	sums := sample.encode()[:3*checksumSize]
	f.Add(sums, uint32(formatVersion), uint32(dfs.BlockSize), uint64(sample.id), uint64(sample.size), uint32(sample.crc), fileSize(sample.size))
	f.Add(sums[4:], uint32(formatVersion), uint32(dfs.BlockSize), uint64(sample.id), uint64(sample.size), uint32(sample.crc), fileSize(sample.size))
	f.Add(sums, uint32(formatVersion+1), uint32(dfs.BlockSize), uint64(1), uint64(sample.size), uint32(1), fileSize(sample.size))
	f.Add(sums[:4], uint32(formatVersion), uint32(dfs.BlockSize/2), uint64(1), uint64(1), uint32(1), fileSize(1))
	f.Add(sums[:4], uint32(formatVersion), uint32(dfs.BlockSize), uint64(0), uint64(1), uint32(1), fileSize(1))
	f.Add(sums, uint32(formatVersion), uint32(dfs.BlockSize), uint64(1), ^uint64(0), uint32(1), int64(-1))
	f.Fuzz(func(t *testing.T, sums []byte, version, blockSize uint32, id, size uint64, crc uint32, length int64) {
		tail := append(bytes.Clone(sums), magic...)
		tail = binary.LittleEndian.AppendUint32(tail, version)
		tail = binary.LittleEndian.AppendUint32(tail, blockSize)
		tail = binary.LittleEndian.AppendUint64(tail, id)
		tail = binary.LittleEndian.AppendUint64(tail, size)
		tail = binary.LittleEndian.AppendUint32(tail, crc)
		sealed := tail // of the blocks that there should be, if they are there
		if need := footerSize(int64(min(size, dfs.MaxChunkSize))) - checksumSize; need <= int64(len(tail)) {
			sealed = tail[int64(len(tail))-need:]
		}
		tail = binary.LittleEndian.AppendUint32(tail, uint32(dfs.ChecksumOf(sealed)))
		got, err := decodeFooter(tail, length)
		var damaged damage
		if err != nil {
			short := size <= dfs.MaxChunkSize && footerSize(int64(size)) > int64(len(tail)) // never of a file
			if !errors.As(err, &damaged) && !errors.Is(err, errNewer) && !short {
				t.Fatalf("%v", err)
			}
			return
		}
		if version != formatVersion || blockSize != dfs.BlockSize || uint64(got.id) != id || id == 0 || uint64(got.size) != size || uint32(got.crc) != crc {
			t.Fatalf("version %d, blocks of %d, chunk %x of %d with %x became %+v", version, blockSize, id, size, crc, got)
		}
		if size == 0 || size > dfs.MaxChunkSize || length != fileSize(got.size) || int64(len(got.blocks)) != blockCount(got.size) || !bytes.HasSuffix(tail, got.encode()) {
			t.Fatalf("%+v of %d bytes", got, length)
		}
	})
}

func FuzzDecodeIdentity(f *testing.F) {
	f.Add([]byte(`{"format":1,"instance":"0123456789abcdef0123456789abcdef","node_id":"dn1","cluster_id":"","incarnation":3}`))
	f.Add([]byte(`{"format":1,"instance":"0123456789abcdef0123456789abcdef","node_id":"dn1","volume":"0123456789abcdef0123456789abcdee",
		"volumes":[{"id":"0123456789abcdef0123456789abcdee","dir":"/data1"},{"id":"0123456789abcdef0123456789abcdef","dir":"/data2"}]}`))
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, content []byte) {
		identity, err := decodeIdentity(content)
		if err != nil {
			return
		}
		if _, err := dfs.ParseNodeID(string(identity.NodeID)); err != nil || len(identity.Instance) != 32 || identity.Format != 1 {
			t.Fatalf("accepted %q as %+v", content, identity)
		}
		if len(identity.Volumes) > MaxDirs || identity.Volume != "" && len(identity.Volume) != 32 {
			t.Fatalf("accepted %q as %+v", content, identity)
		}
		for _, record := range identity.Volumes {
			if len(record.ID) != 32 || !filepath.IsAbs(record.Dir) {
				t.Fatalf("accepted %q as %+v", content, identity)
			}
		}
	})
}
