package chunkstore

import (
	"bytes"
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
