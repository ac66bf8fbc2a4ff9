package fsm

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

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
	if _, err := io.Copy(io.Discard, body); err != nil { // white space, or damage that the checksum will show
		return err
	}
	tail := make([]byte, tailLength)
	if _, err := io.ReadFull(r, tail); err != nil {
		return fmt.Errorf("it ends too early: %w", err)
	}
	want := fmt.Sprintf(",\n\"crc32c\":\"%s\"}\n", dfs.Checksum(sum.Sum32()))
	if !bytes.Equal(tail, []byte(want)) {
		return errors.New("its checksum does not match")
	}
	return nil
}

// documentReader reads a document token by token, a record at a time.
type documentReader struct {
	json   *json.Decoder
	counts map[string]int
}

func newDocumentReader(r io.Reader) *documentReader {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields() // to leave out what a newer version wrote would make this copy differ
	return &documentReader{json: decoder, counts: make(map[string]int)}
}

// header reads the scalar fields up to, and the name of, the first section.
func (d *documentReader) header(v any, first string) error {
	if err := d.expect(json.Delim('{')); err != nil {
		return err
	}
	fields := make(map[string]json.RawMessage)
	for len(fields) <= 32 {
		key, err := d.json.Token()
		if err != nil {
			return err
		}
		if key == first {
			return decodeHeader(fields, v)
		}
		name, ok := key.(string)
		if !ok {
			return fmt.Errorf("%v where the name of a field was expected", key)
		}
		var value json.RawMessage
		if err := d.json.Decode(&value); err != nil {
			return err
		}
		fields[name] = value
	}
	return errors.New("the header does not end")
}

// decodeHeader looks at the format first: it decides what the rest means.
func decodeHeader(fields map[string]json.RawMessage, v any) error {
	if format := string(fields["format"]); format != strconv.Itoa(snapshotFormat) {
		return fmt.Errorf("it has format %.10q and this version reads %d; upgrade this NameNode", format, snapshotFormat)
	}
	whole, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(whole))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

func (d *documentReader) expect(want json.Token) error {
	got, err := d.json.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%v where %v was expected", got, want)
	}
	return nil
}

// section reads the array called name into records, and then the name of what
// follows it.
func section[T any](d *documentReader, name, next string, add func(*T) error) error {
	if err := d.expect(json.Delim('[')); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	count := 0
	for d.json.More() {
		record := new(T)
		if err := d.json.Decode(record); err != nil {
			return fmt.Errorf("%s, record %d: %w", name, count, err)
		}
		if err := add(record); err != nil {
			return fmt.Errorf("%s, record %d: %w", name, count, err)
		}
		count++
	}
	if err := d.expect(json.Delim(']')); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.counts[name] = count
	return d.expect(next)
}

func (d *documentReader) checkCounts() error {
	var said map[string]int
	if err := d.json.Decode(&said); err != nil {
		return err
	}
	if len(said) != len(d.counts) {
		return errors.New("its counts are not complete")
	}
	for name, count := range d.counts {
		if said[name] != count {
			return fmt.Errorf("it holds %d %s and says %d", count, name, said[name])
		}
	}
	return nil
}

func readFiles(s *State, d *documentReader) error {
	var h filesHeader
	if err := d.header(&h, "inodes"); err != nil {
		return err
	}
	s.clusterID, s.applied, s.clock = h.ClusterID, h.AppliedIndex, h.ClockMS
	s.nextInode, s.nextChunk, s.nextUpload = h.NextInode, h.NextChunk, h.NextUpload
	if err := section(d, "inodes", "chunks", s.restoreInode); err != nil {
		return err
	}
	if err := section(d, "chunks", "uploads", s.restoreChunk); err != nil {
		return err
	}
	if err := section(d, "uploads", "requests", s.restoreUpload); err != nil {
		return err
	}
	if err := section(d, "requests", "counts", s.restoreRequest); err != nil {
		return err
	}
	return d.checkCounts()
}

func readNodes(s *State, d *documentReader) error {
	var h nodesHeader
	if err := d.header(&h, "nodes"); err != nil {
		return err
	}
	if h.ClusterID != s.clusterID || h.AppliedIndex != s.applied {
		return fmt.Errorf("it is of another moment than %s", FilesDocument)
	}
	s.nextNode = h.NextNode
	if err := section(d, "nodes", "members", s.restoreNode); err != nil {
		return err
	}
	if err := section(d, "members", "unconfirmed", s.restoreMember); err != nil {
		return err
	}
	if err := section(d, "unconfirmed", "orphans", s.restoreUnconfirmed); err != nil {
		return err
	}
	if err := section(d, "orphans", "counts", s.restoreOrphan); err != nil {
		return err
	}
	return d.checkCounts()
}

func (s *State) restoreInode(r *inodeRecord) error {
	if r.Type != typeFile && r.Type != typeDirectory {
		return fmt.Errorf("type %.40q is not known", r.Type)
	}
	if err := dfs.CheckName(r.Name); err != nil {
		return err
	}
	if s.child(r.Parent, r.Name) != nil {
		return errTwice
	}
	s.put(&inode{
		parent: r.Parent, name: r.Name, id: r.ID, directory: r.Type == typeDirectory, mtime: r.MTimeMS,
		size: r.Size, replication: r.Replication, chunkSize: r.ChunkSize, chunks: r.Chunks,
	})
	return nil
}

var errTwice = errors.New("it is there twice")

// setOnce puts a record into its tree, which must not hold one of this key.
func setOnce[K cmp.Ordered, V any](tree *btree.Map[K, V], key K, value V) error {
	if _, replaced := tree.Set(key, value); replaced {
		return errTwice
	}
	return nil
}

func (s *State) restoreUnconfirmed(r *replicaRecord) error {
	if _, replaced := s.unconfirmed.Set(replica{r.Node, r.Chunk, r.SinceMS}); replaced {
		return errTwice
	}
	return nil
}

func (s *State) restoreOrphan(r *orphanRecord) error {
	if r.Since == 0 {
		r.Since = s.applied // an older snapshot does not say
	}
	if _, replaced := s.orphans.Set(orphan{r.Node, r.Chunk, r.Since}); replaced {
		return errTwice
	}
	if r.Unissued || r.Chunk >= s.nextChunk {
		nodes, _ := s.unissued.Get(r.Chunk)
		s.unissued.Set(r.Chunk, nodes+1)
	}
	return nil
}

// findGarbage takes up the garbage that an older snapshot does not mark as such.
func (s *State) findGarbage() {
	s.chunks.Scan(func(id dfs.ChunkID, c *chunk) bool {
		if len(c.replicas) > 0 {
			s.settle(id, c)
		}
		return true
	})
}

func (s *State) restoreChunk(r *chunkRecord) error {
	if r.Garbage > 0 {
		s.garbage.Set(r.ID, r.Garbage)
	}
	return setOnce(s.chunks, r.ID, &chunk{
		size: r.Size, checksum: r.Checksum, refs: r.Refs, upload: dfs.UploadID(r.Upload),
		replicas: r.Replicas, damaged: r.Damaged,
	})
}

func (s *State) restoreUpload(r *uploadRecord) error {
	u := &upload{
		parent: r.Parent, name: r.Name, base: r.Base, overwrite: r.Overwrite, replication: r.Replication,
		chunkSize: r.ChunkSize, touched: r.TouchedMS, sealed: r.Sealed, size: r.Size,
	}
	for _, a := range r.Allocated {
		u.allocated = append(u.allocated, allocated{a.ID, a.Targets})
	}
	return setOnce(s.uploads, r.ID, u)
}

func (s *State) restoreRequest(r *requestRecord) error {
	known := &request{index: r.Index, command: r.Command, result: Result{
		Index: r.At, Upload: dfs.UploadID(r.Upload), First: dfs.ChunkID(r.First), Count: r.Count,
		Path: r.Path, Size: r.Size, Node: r.Node, NeedInventory: r.Need, More: r.More,
	}}
	if r.Code != "" {
		known.err = &dfs.Error{Code: r.Code, Message: r.Message}
	}
	_, newest, _ := s.requestOrder.Max()
	if last, ok := s.requests.Get(newest); ok && last.index > r.Index {
		return fmt.Errorf("a request of log entry %d comes after one of %d", r.Index, last.index)
	}
	s.requestOrder.Set(s.nextTurn(), r.ID)
	return setOnce(s.requests, r.ID, known)
}

func (s *State) restoreNode(r *nodeRecord) error {
	n := &node{
		num: r.Num, id: r.ID, url: r.URL, rack: r.Rack, instance: r.Instance,
		incarnation: r.Incarnation, seq: r.Seq, capacity: r.Capacity, used: r.Used, free: r.Free,
		writable: r.Writable, liveness: r.Liveness, service: r.Service, lastHeartbeat: r.LastHeartbeatMS,
		count: r.Count, held: r.Held, digest: r.Digest, inventoried: r.Inventoried,
	}
	if err := setOnce(s.nodes, r.Num, n); err != nil {
		return err
	}
	return setOnce(s.nodesByID, r.ID, r.Num)
}

func (s *State) restoreMember(r *memberRecord) error {
	return setOnce(s.members, r.ID, &member{r.ID, r.Instance, r.URL, r.RaftAddr, r.Removed})
}
