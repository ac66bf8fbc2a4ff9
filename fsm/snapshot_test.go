package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestSnapshotRoundTrip(t *testing.T) {
	for name, r := range map[string]*rig{"empty": newRig(t), "busy": busyRig(t)} {
		t.Run(name, func(t *testing.T) {
			before := r.m.Freeze()
			after := restored(t, r.m).Freeze()
			filesA, nodesA := documents(t, before)
			filesB, nodesB := documents(t, after)
			if !bytes.Equal(filesA, filesB) || !bytes.Equal(nodesA, nodesB) {
				t.Fatalf("wrote\n%s%s\nand after reading it\n%s%s", filesA, nodesA, filesB, nodesB)
			}
			if before.AppliedIndex() != after.AppliedIndex() || before.Clock() != after.Clock() || before.ClusterID() != after.ClusterID() {
				t.Fatal("the header was lost")
			}
			if err := checkInvariants(after); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The documents are for people and jq, too: plain JSON, a record a line.
func TestDocumentsAreJSON(t *testing.T) {
	files, nodes := documents(t, busyRig(t).m.Freeze())
	for _, document := range [][]byte{files, nodes} {
		var parsed map[string]any
		if err := json.Unmarshal(document, &parsed); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		counts := parsed["counts"].(map[string]any)
		for section, count := range counts {
			records := parsed[section].([]any)
			if len(records) == 0 || float64(len(records)) != count {
				t.Errorf("%s has %d records and says %v", section, len(records), count)
			}
		}
		for line := range bytes.Lines(document) {
			if bytes.HasPrefix(line, []byte(`{"id":`)) && !json.Valid(bytes.TrimRight(line, ",]\n")) {
				t.Errorf("not a record: %s", line)
			}
		}
	}
}

// What a snapshot of this version looks like: it must be readable for ever.
func TestSnapshotGolden(t *testing.T) {
	r := newRig(t)
	r.must(&InitCluster{ClusterID: "00112233445566778899aabbccddeeff"})
	r.nodes(2)
	r.write("/d/f", 1)
	_, _ = r.applyAs("r1", &Mkdir{Path: r.path("/d")})
	files, nodes := documents(t, r.m.Freeze())
	const wantFiles = `{"format":1,"cluster_id":"00112233445566778899aabbccddeeff","applied_index":6,"clock_ms":1893456000006,"next_inode":5,"next_chunk":"0000000000000002","next_upload":"0000000000000002",
"inodes":[
{"id":3,"parent":1,"name":"d","type":"directory","mtime_ms":1893456000004},
{"id":4,"parent":3,"name":"f","type":"file","mtime_ms":1893456000005,"size":2,"replication":2,"chunk_size":1024,"chunks":["0000000000000001"]}],
"chunks":[
{"id":"0000000000000001","size":2,"crc32c":"9e3779b1","refs":1,"upload":1,"replicas":[1,2]}],
"uploads":[],
"requests":[
{"id":"r1","index":6,"command":2,"code":"exists","message":"/d exists"}],
"counts":{"inodes":2,"chunks":1,"uploads":0,"requests":1},
"crc32c":"feb72469"}
`
	const wantNodes = `{"format":1,"cluster_id":"00112233445566778899aabbccddeeff","applied_index":6,"next_node":3,
"nodes":[
{"num":1,"id":"dn1","url":"http://dn1:9000","rack":"r1","instance":"disk1","incarnation":1,"seq":0,"capacity":0,"used":0,"free":0,"writable":false,"liveness":1,"service":0,"last_heartbeat_ms":1893456000002,"count":0,"held":0,"digest":"0000000000000000","inventoried":false},
{"num":2,"id":"dn2","url":"http://dn2:9000","rack":"r1","instance":"disk2","incarnation":1,"seq":0,"capacity":0,"used":0,"free":0,"writable":false,"liveness":1,"service":0,"last_heartbeat_ms":1893456000003,"count":0,"held":0,"digest":"0000000000000000","inventoried":false}],
"members":[],
"unconfirmed":[
{"node":1,"chunk":"0000000000000001","since_ms":1893456000005},
{"node":2,"chunk":"0000000000000001","since_ms":1893456000005}],
"orphans":[],
"counts":{"nodes":2,"members":0,"unconfirmed":2,"orphans":0},
"crc32c":"2e59b545"}
`
	if string(files) != wantFiles {
		t.Errorf("files.json is\n%s\nwant\n%s", files, wantFiles)
	}
	if string(nodes) != wantNodes {
		t.Errorf("nodes.json is\n%s\nwant\n%s", nodes, wantNodes)
	}
}

// smallSnapshot has a record of most kinds and is short enough to try every
// damage.
func smallSnapshot(t testing.TB) ([]byte, *State) {
	r := newRig(t)
	r.nodes(2)
	r.write("/f", 1)
	r.begin("/g", 1)
	r.beat(newDisk(1).report([]dfs.ChunkID{1, 9}, nil))
	_, _ = r.applyAs("r1", &Mkdir{Path: r.path("/d")})
	s := r.m.Freeze()
	return snapshotOf(t, s), s
}

// damaged makes sure that a damaged snapshot is refused, or that the damage
// was to nothing that is part of the state, as the padding of the archive.
func damaged(t *testing.T, what string, data, want []byte) {
	t.Helper()
	s, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		if dfs.CodeOf(err) != dfs.Corrupt || s != nil {
			t.Fatalf("%s: %v, state %p; want %s and no state", what, err, s, dfs.Corrupt)
		}
		return
	}
	if !bytes.Equal(bothDocuments(t, s), want) {
		t.Fatalf("%s was not detected and changed the state", what)
	}
}

func TestEveryFlippedBitIsSeen(t *testing.T) {
	snapshot, s := smallSnapshot(t)
	want := bothDocuments(t, s)
	for i := range snapshot {
		for bit := range 8 {
			if testing.Short() && bit != i%8 {
				continue
			}
			snapshot[i] ^= 1 << bit
			damaged(t, fmt.Sprintf("bit %d of byte %d", bit, i), snapshot, want)
			snapshot[i] ^= 1 << bit
		}
	}
}

// Within a document every flipped bit is refused.
func TestEveryFlippedBitOfADocumentIsRefused(t *testing.T) {
	_, s := smallSnapshot(t)
	files, nodes := documents(t, s)
	for _, document := range [][]byte{files, nodes} {
		for i := range document {
			document[i] ^= 1 << (i % 8)
			if _, err := ReadSnapshot(bytes.NewReader(archiveOf(t, tarMember{FilesDocument, files}, tarMember{NodesDocument, nodes}))); dfs.CodeOf(err) != dfs.Corrupt {
				t.Fatalf("byte %d: %v", i, err)
			}
			document[i] ^= 1 << (i % 8)
		}
	}
}

func TestEveryTruncationIsSeen(t *testing.T) {
	snapshot, s := smallSnapshot(t)
	want := bothDocuments(t, s)
	for i := range snapshot {
		damaged(t, fmt.Sprintf("cut at %d", i), snapshot[:i], want)
	}
	content := bytes.LastIndex(snapshot, []byte(`"}`)) + len("\"}\n")
	if _, err := ReadSnapshot(bytes.NewReader(snapshot[:content-1])); dfs.CodeOf(err) != dfs.Corrupt {
		t.Fatalf("the last byte is missing: %v", err)
	}
}

// resealed gives a changed document a checksum that fits.
func resealed(document []byte) []byte {
	body := document[:max(0, len(document)-tailLength)]
	return fmt.Appendf(bytes.Clone(body), ",\n\"crc32c\":\"%s\"}\n", dfs.ChecksumOf(body))
}

// A snapshot that a program, not a disk, has spoilt: the checksums fit.
func TestSnapshotThatDoesNotFitTogether(t *testing.T) {
	files, nodes := documents(t, busyRig(t).m.Freeze())
	inFiles := func(old, new string) func() []tarMember {
		return func() []tarMember {
			if !bytes.Contains(files, []byte(old)) {
				t.Fatalf("there is no %s in\n%s", old, files)
			}
			changed := bytes.Replace(files, []byte(old), []byte(new), 1)
			return []tarMember{{FilesDocument, resealed(changed)}, {NodesDocument, nodes}}
		}
	}
	inNodes := func(old, new string) func() []tarMember {
		return func() []tarMember {
			if !bytes.Contains(nodes, []byte(old)) {
				t.Fatalf("there is no %s in\n%s", old, nodes)
			}
			changed := bytes.Replace(nodes, []byte(old), []byte(new), 1)
			return []tarMember{{FilesDocument, files}, {NodesDocument, resealed(changed)}}
		}
	}
	members := func(m ...tarMember) func() []tarMember { return func() []tarMember { return m } }
	good := []tarMember{{FilesDocument, files}, {NodesDocument, nodes}}
	_, otherNodes := documents(t, newRig(t).m.Freeze())
	firstLine := func(section string, document []byte) string { // a record
		_, rest, _ := strings.Cut(string(document), `"`+section+"\":[\n")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	twice := func(section string, document []byte) (string, string) {
		line := firstLine(section, document)
		return line, strings.TrimRight(line, ",]") + ",\n" + line
	}
	tests := []struct {
		name    string
		members func() []tarMember
	}{
		{"nothing", members()},
		{"no nodes.json", members(good[0])},
		{"no files.json", members(good[1])},
		{"wrong order", members(good[1], good[0])},
		{"a third document", members(good[0], good[1], good[1])},
		{"another name", members(tarMember{"x", files}, good[1])},
		{"empty document", members(tarMember{FilesDocument, nil}, good[1])},
		{"only a tail", members(tarMember{FilesDocument, resealed(nil)}, good[1])},
		{"not JSON", members(tarMember{FilesDocument, bytes.Repeat([]byte("x"), 100)}, good[1])},
		{"of another moment", members(good[0], tarMember{NodesDocument, otherNodes})},
		{"another applied index", inNodes(`"applied_index":`, `"applied_index":1`)},
		{"another cluster", inNodes(`"cluster_id":"0`, `"cluster_id":"1`)},
		{"a newer format", inFiles(`"format":1`, `"format":2`)},
		{"a newer format of nodes", inNodes(`"format":1`, `"format":2`)},
		{"no format", inFiles(`"format":1,`, ``)},
		{"too many inodes counted", inFiles(`"counts":{"inodes":`, `"counts":{"inodes":1`)},
		{"a count missing", inFiles(`"counts":{"inodes"`, `"counts":{"else"`)},
		{"a count too many", inFiles(`"counts":{`, `"counts":{"else":0,`)},
		{"nodes miscounted", inNodes(`"counts":{"nodes":3`, `"counts":{"nodes":4`)},
		{"a section missing", inFiles(`"chunks":[`+"\n", `"junks":[`+"\n")},
		{"a field that is not known", inFiles(`"mtime_ms":`, `"new":1,"mtime_ms":`)},
		{"a field of the header that is not known", inFiles(`"clock_ms":`, `"new":1,"clock_ms":`)},
		{"a section twice", inFiles(`"uploads":[`, `"chunks":[],"uploads":[`)},
		{"a record of another kind", inFiles(`"chunks":[`+"\n", `"chunks":[1,`+"\n")},
		{"a type that is not known", inFiles(`"type":"file"`, `"type":"link"`)},
		{"a name that is a path", inFiles(`"name":"half"`, `"name":"a/b"`)},
		{"a chunk ID of zero", inFiles(`{"id":"0000000000000001"`, `{"id":"0000000000000000"`)},
		{"an inode twice", inFiles(twice("inodes", files))},
		{"a chunk twice", inFiles(twice("chunks", files))},
		{"an upload twice", inFiles(twice("uploads", files))},
		{"a request twice", inFiles(twice("requests", files))},
		{"a node twice", inNodes(twice("nodes", nodes))},
		{"a member twice", inNodes(twice("members", nodes))},
		{"an unconfirmed replica twice", inNodes(twice("unconfirmed", nodes))},
		{"an orphan twice", inNodes(twice("orphans", nodes))},
		{"two nodes of one name", inNodes(`"id":"dn2"`, `"id":"dn1"`)},
		{"an inode without its directory", inFiles(`"parent":1,`, `"parent":77777,`)},
		{"a node that is missing", inNodes(`"num":3`, `"num":2000`)},
		{"garbage in use", inFiles(`"refs":1,"upload":2,`, `"refs":1,"garbage_since":1,"upload":2,`)},
		{"garbage of the future", inFiles(`"garbage_since":`, `"garbage_since":99`)},
		{"an orphan of the future", inNodes(`"chunk":"00000000000dbba0","since":`, `"chunk":"00000000000dbba0","since":99`)},
		{"a chunk that never was handed out", inNodes(`"chunk":"00000000000dbba0"`, `"chunk":"0000000000000004"`)},
		{"damaged replicas out of order", inFiles(`"replicas":[1,2]`, `"replicas":[1],"damaged":[3,2]`)},
		{"a damaged replica on a node that is missing", inFiles(`"replicas":[1,2]`, `"replicas":[1,2],"damaged":[777]`)},
		{"something after the counts", members(tarMember{FilesDocument, resealed(slices.Insert(bytes.Clone(files), len(files)-tailLength, []byte(`,"x":1`)...))}, good[1])},
		{"requests out of order", func() []tarMember {
			first := firstLine("requests", files)
			_, rest, _ := strings.Cut(string(files), first+"\n")
			second, _, _ := strings.Cut(rest, "\n")
			return inFiles(first+"\n"+second, second+"\n"+first)()
		}},
		{"replicas out of order", inFiles(`"replicas":[1,2]`, `"replicas":[2,1]`)},
		{"a replica on node 0", inFiles(`"replicas":[1,2]`, `"replicas":[0,1,2]`)},
		{"a replica on a node whose number is too large", inFiles(`"replicas":[1,2]`, `"replicas":[1,65537]`)},
		{"a node whose number is too large", inNodes(`"num":3`, `"num":65536`)},
		{"a size that is too large", inFiles(`"chunk_size":1024`, `"chunk_size":67108865`)},
		{"a replication that is too high", inFiles(`"replication":2`, `"replication":258`)},
		{"a chunk without an ID", inFiles(`{"id":"0000000000000001",`, `{`)},
		{"text that is not UTF-8", inFiles(`"name":"half"`, "\"name\":\"half\xff\"")},
		{"null", inFiles(`"mtime_ms":`, `"size":null,"mtime_ms":`)},
		{"a header that does not end", func() []tarMember {
			var fields strings.Builder
			for i := range 100 {
				fmt.Fprintf(&fields, `"x%d":0,`, i)
			}
			return inFiles(`{"format"`, "{"+fields.String()+`"format"`)()
		}},
	}
	if _, err := ReadSnapshot(bytes.NewReader(archiveOf(t, good...))); err != nil {
		t.Fatalf("the one to be spoilt: %v", err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := ReadSnapshot(bytes.NewReader(archiveOf(t, test.members()...)))
			if dfs.CodeOf(err) != dfs.Corrupt || s != nil {
				t.Fatalf("%v, state %p; want %s and no state", err, s, dfs.Corrupt)
			}
		})
	}
}

func TestSnapshotSaysToUpgrade(t *testing.T) {
	files, nodes := documents(t, newRig(t).m.Freeze())
	files = resealed(bytes.Replace(files, []byte(`"format":1`), []byte(`"format":9`), 1))
	_, err := ReadSnapshot(bytes.NewReader(archiveOf(t, tarMember{FilesDocument, files}, tarMember{NodesDocument, nodes})))
	if err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Fatalf("%v", err)
	}
}

// The disk may be full, the peer gone.
func TestSnapshotReadAndWriteFail(t *testing.T) {
	broken := errors.New("it broke")
	snapshot, s := smallSnapshot(t)
	for _, cut := range []int{0, 600, len(snapshot) / 2} {
		_, err := ReadSnapshot(io.MultiReader(bytes.NewReader(snapshot[:cut]), failing{broken}))
		if !errors.Is(err, broken) {
			t.Errorf("a reader that fails after %d bytes: %v", cut, err)
		}
	}
	for _, write := range []func(io.Writer) error{s.WriteFiles, s.WriteNodes} {
		if err := write(failing{broken}); !errors.Is(err, broken) {
			t.Errorf("a writer that fails: %v", err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }
