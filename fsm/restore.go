package fsm

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/tidwall/btree"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// maxDocumentSize bounds, in bytes, what a snapshot may claim to hold.
const maxDocumentSize = 1 << 40

// ReadSnapshot reads a snapshot: a tar stream of exactly files.json and
// nodes.json. It returns a fresh state, or a Corrupt error when anything is
// missing, miscounted, damaged or does not fit together.
func ReadSnapshot(r io.Reader) (*State, error) {
	s := newState()
	archive := tar.NewReader(r)
	for _, document := range []struct {
		name string
		read func(*State, *documentReader) error
	}{
		{FilesDocument, readFiles},
		{NodesDocument, readNodes},
	} {
		header, err := archive.Next()
		if err == nil && (header.Name != document.name || header.Size < int64(tailLength) || header.Size > maxDocumentSize) {
			err = fmt.Errorf("it holds %.80q with %d bytes where %s was expected", header.Name, header.Size, document.name)
		}
		if err == nil {
			err = readDocument(s, archive, header.Size, document.read)
		}
		if err != nil {
			return nil, dfs.Errorf(dfs.Corrupt, "the snapshot's %s cannot be used: %w", document.name, err)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		return nil, dfs.Errorf(dfs.Corrupt, "the snapshot holds more than its two documents")
	}
	s.findGarbage()
	if err := s.validate(); err != nil {
		return nil, dfs.Errorf(dfs.Corrupt, "the snapshot does not fit together: %w", err)
	}
	return s, nil
}

// readDocument checks the checksum of a document of size bytes around read.
func readDocument(s *State, r io.Reader, size int64, read func(*State, *documentReader) error) error {
	sum := dfs.NewHash()
	body := io.TeeReader(io.LimitReader(r, size-int64(tailLength)), sum)
	if err := read(s, newDocumentReader(body)); err != nil {
		return err
	}
	tail := make([]byte, tailLength)
	if _, err := io.ReadFull(r, tail); err != nil {
		return fmt.Errorf("it ends too early: %w", err)
	}
	if string(tail) != tailFor(dfs.Checksum(sum.Sum32())) {
		return errors.New("its checksum does not match")
	}
	return nil
}

// documentReader reads a document, a record at a time, up to its tail.
type documentReader struct {
	*jsonReader
	counts []sectionCount
}

func newDocumentReader(r io.Reader) *documentReader {
	return &documentReader{jsonReader: newJSONReader(r)}
}

// header reads the fields before the section called first, and its name. field
// reads the value of a field, or returns false when it does not know it: to leave
// out what a newer version wrote would make this copy differ. The format comes
// first: it decides what the rest means.
func (d *documentReader) header(first string, field func(key []byte) bool) error {
	d.expect('{')
	if key := d.key(); d.err == nil && string(key) != "format" {
		d.failf("%.40q where its format was expected", key)
	}
	if format := d.uint(math.MaxUint64); d.err == nil && format != snapshotFormat {
		return fmt.Errorf("it has format %d and this version reads %d; upgrade this NameNode", format, snapshotFormat)
	}
	for d.expect(','); d.err == nil; d.expect(',') {
		key := d.key()
		switch {
		case string(key) == first:
			return d.err
		case d.err == nil && !field(key) && d.err == nil:
			d.failf("a field of the header that is not known")
		}
	}
	return d.err
}

// section reads the array called name, whose name was read, and then the name of
// what follows it. read reads a record.
func (d *documentReader) section(name, next string, read func() error) error {
	count := 0
	d.list(func() {
		err := read()
		if d.err == nil && err != nil {
			d.fail(err)
		}
		if d.err != nil {
			d.err = fmt.Errorf("%s, record %d: %w", name, count, d.err)
		}
		count++
	})
	d.counts = append(d.counts, sectionCount{name, count})
	d.expect(',')
	if key := d.key(); d.err == nil && string(key) != next {
		d.failf("%.40q where %q was expected", key, next)
	}
	return d.err
}

// finish compares the counts, and makes sure that nothing follows them.
func (d *documentReader) finish() error {
	agreed := 0
	d.object(func(key []byte) bool {
		for _, known := range d.counts {
			if known.name != string(key) {
				continue
			}
			if said := d.uint(math.MaxInt64); d.err == nil && said != uint64(known.count) {
				d.failf("it holds %d %s and says %d", known.count, known.name, said)
			}
			agreed++
			return true
		}
		return false
	})
	if d.err == nil && agreed != len(d.counts) {
		return errors.New("its counts are not complete")
	}
	d.rest()
	return d.err
}

func readFiles(s *State, d *documentReader) error {
	err := d.header("inodes", func(key []byte) bool {
		switch string(key) {
		case "cluster_id":
			s.clusterID = dfs.ClusterID(d.string())
		case "applied_index":
			s.applied = d.uint(math.MaxUint64)
		case "clock_ms":
			s.clock = d.int()
		case "next_inode":
			s.nextInode = d.uint(math.MaxUint64)
		case "next_chunk":
			s.nextChunk = d.chunk()
		case "next_upload":
			s.nextUpload = dfs.UploadID(d.id())
		default:
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	r := &fileRecords{s: s, d: d}
	if err := d.section("inodes", "chunks", r.inode); err != nil {
		return err
	}
	if err := d.section("chunks", "uploads", r.chunk); err != nil {
		return err
	}
	if err := d.section("uploads", "requests", r.upload); err != nil {
		return err
	}
	if err := d.section("requests", "counts", r.request); err != nil {
		return err
	}
	return d.finish()
}

func readNodes(s *State, d *documentReader) error {
	var cluster dfs.ClusterID
	var applied uint64
	err := d.header("nodes", func(key []byte) bool {
		switch string(key) {
		case "cluster_id":
			cluster = dfs.ClusterID(d.string())
		case "applied_index":
			applied = d.uint(math.MaxUint64)
		case "next_node":
			s.nextNode = NodeNum(d.uint(maxNodes))
		default:
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	if cluster != s.clusterID || applied != s.applied {
		return fmt.Errorf("it is of another moment than %s", FilesDocument)
	}
	r := &nodeRecords{s: s, d: d}
	if err := d.section("nodes", "members", r.node); err != nil {
		return err
	}
	if err := d.section("members", "unconfirmed", r.member); err != nil {
		return err
	}
	if err := d.section("unconfirmed", "orphans", r.unconfirmed); err != nil {
		return err
	}
	if err := d.section("orphans", "counts", r.orphan); err != nil {
		return err
	}
	return d.finish()
}

var errTwice = errors.New("it is there twice")

// setOnce puts a record into its tree, which must not hold one of this key.
func setOnce[K cmp.Ordered, V any](tree *btree.Map[K, V], key K, value V) error {
	if _, replaced := tree.Load(key, value); replaced {
		return errTwice
	}
	return nil
}

// findGarbage takes up the garbage that an older snapshot does not mark as such.
func (s *State) findGarbage() {
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		if c.replicaCount() > 0 {
			s.settle(id, c)
		}
		return true
	})
}
