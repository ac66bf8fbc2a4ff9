package fsm

import (
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// everyCommand has at least one of each kind, with fields at their limits.
func everyCommand(t testing.TB) []Command {
	long := strings.Repeat("x", dfs.MaxNodeIDLength)
	return []Command{
		&InitCluster{ClusterID: "00112233445566778899aabbccddeeff"},
		&Mkdir{Path: path(t, "/a/ü b"), Parents: true},
		&Mkdir{Path: dfs.Root},
		&BeginUpload{Path: path(t, "/f"), Replication: 3, ChunkSize: 4 << 20, Overwrite: true, Targets: [][]NodeNum{{1, 2, 3}, {math.MaxUint32}}},
		&BeginUpload{Path: path(t, "/f"), Replication: math.MinInt32, ChunkSize: math.MinInt64},
		&AddChunks{Upload: 7, Targets: [][]NodeNum{{1}, {2}}},
		&AddChunks{Upload: math.MaxUint64},
		&Commit{Upload: 1, Position: dfs.MaxChunksPerFile, Final: true, Chunks: []StoredChunk{
			{ID: 1, Size: 5, Checksum: 0xe3069283, Nodes: []NodeNum{1, 2}},
			{ID: math.MaxUint64, Size: math.MinInt64, Checksum: math.MaxUint32},
		}},
		&Commit{},
		&AbortUpload{Upload: 3},
		&ExpireUploads{Uploads: []ExpiredUpload{{1, 2}, {3, -4}}},
		&ExpireUploads{},
		&Delete{Path: path(t, "/a"), Recursive: true},
		&Rename{From: path(t, "/a"), To: path(t, "/b")},
		&SetReplication{Path: path(t, "/a"), Replication: 2},
		&RegisterNode{ID: "dn1", URL: "http://dn1:9000", Rack: "a/b", Instance: long, Incarnation: math.MaxUint64},
		&RegisterNode{ID: dfs.NodeID(long)},
		&Heartbeats{Reports: []NodeReport{
			{
				Node: 1, Incarnation: 2, Seq: 3, Capacity: 4, Used: 5, Free: 6, Writable: true, Count: 7, Digest: math.MaxUint64,
				Added: []dfs.ChunkID{1, 2, math.MaxUint64}, Removed: []dfs.ChunkID{9, 3}, Corrupt: []dfs.ChunkID{1 << 63}, InventoryDone: true,
			},
			{},
		}},
		&SetLiveness{Nodes: []NodeLiveness{{1, Up}, {2, Suspect}, {3, Down}}},
		&SetService{Node: 1, Service: Draining},
		&Purge{Limit: maxPurge},
		&SetMember{ID: "nn1", Instance: "i", URL: "http://nn1:8000", RaftAddr: "nn1:7000"},
		&RemoveMember{ID: "nn1"},
		&ReserveChunks{Count: dfs.MaxChunksPerAllocation},
		&ReserveChunks{},
		&PutFile{Path: path(t, "/f"), Replication: math.MinInt32, ChunkSize: math.MinInt64},
		&PutFile{
			Path: path(t, "/d/ü b"), Replication: 3, ChunkSize: 4 << 20, Overwrite: true, Pool: math.MaxUint64, Base: math.MaxUint64,
			Chunk: StoredChunk{ID: math.MaxUint64, Size: math.MinInt64, Checksum: math.MaxUint32, Nodes: []NodeNum{1, math.MaxUint32}},
		},
		&PutFile{Path: path(t, "/g"), Replication: 2, ChunkSize: testChunkSize, Pool: 1, Chunk: StoredChunk{ID: 1, Size: 1, Nodes: []NodeNum{1, 2}}},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	stamp := time.UnixMilli(1234567890123)
	seen := make(map[number]bool)
	for _, c := range everyCommand(t) {
		seen[c.number()] = true
		for _, id := range []dfs.RequestID{"", "some-request"} {
			e, err := decodeEntry(Encode(c, id, stamp))
			if err != nil {
				t.Errorf("%+v: %v", c, err)
				continue
			}
			if e.stamp != stamp.UnixMilli() || e.request != id || !reflect.DeepEqual(e.command, c) {
				t.Errorf("%+v came back as %+v of %q at %d", c, e.command, e.request, e.stamp)
			}
		}
	}
	for n := number(0); n < 1000; n++ {
		if (newCommand(n) != nil) != seen[n] {
			t.Errorf("command %d: is there: %t, is tested: %t", n, newCommand(n) != nil, seen[n])
		}
	}
}

// The numbers are in logs on disks: they stay as they are.
func TestCommandNumbers(t *testing.T) {
	want := []Command{
		1: &InitCluster{}, 2: &Mkdir{}, 3: &BeginUpload{}, 4: &AddChunks{}, 5: &Commit{}, 6: &AbortUpload{}, 7: &ExpireUploads{},
		8: &Delete{}, 9: &Rename{}, 10: &SetReplication{}, 11: &RegisterNode{}, 12: &Heartbeats{}, 13: &SetLiveness{},
		14: &SetService{}, 15: &Purge{}, 16: &SetMember{}, 17: &RemoveMember{}, 18: &ReserveChunks{}, 19: &PutFile{},
	}
	for n, c := range want {
		if c == nil {
			continue
		}
		if got := newCommand(number(n)); reflect.TypeOf(got) != reflect.TypeOf(c) || c.number() != number(n) {
			t.Errorf("command %d is %T with number %d; want %T", n, got, c.number(), c)
		}
	}
}

// An entry as it lies on disk: this must be readable for ever.
func TestEntryGolden(t *testing.T) {
	want := "\x01\x02\xaa\xb4\xde\x75\x03abc\x04/a/b\x01"
	c := &Mkdir{Path: path(t, "/a/b"), Parents: true}
	if got := Encode(c, "abc", time.UnixMilli(123456789)); string(got) != want {
		t.Errorf("the entry is\n%x; want\n%x", got, want)
	}
}

// A newer version's entry stops the machine before it can differ from others.
func TestUnknownEntriesHalt(t *testing.T) {
	unknownCommand := append([]byte{entryFormat}, binary.AppendUvarint(nil, 5000)...)
	unknownCommand = append(unknownCommand, 0, 0, 1, 2, 3)
	for name, entry := range map[string][]byte{
		"command": unknownCommand,
		"format":  {groupFormat + 1, 2, 3},
		"command in a group": EncodeGroup([][]byte{
			Encode(&Mkdir{Path: path(t, "/first")}, "", epoch), unknownCommand,
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var told []error
			var m *Machine
			m = New(func(err error) {
				told = append(told, err)
				m.Read(func(*State) {}) // it may look at the state
			})
			r := newRig(t)
			r.m = m
			r.mkdir("/a")
			before, _ := documents(t, m.Freeze())
			_, err := r.applyEntry(entry)
			if dfs.CodeOf(err) != dfs.Internal || !errors.Is(err, errUnknownCommand) || !strings.Contains(err.Error(), "upgrade") {
				t.Fatalf("%v", err)
			}
			for range 2 {
				if _, again := r.apply(&Mkdir{Path: r.path("/b")}); again != err {
					t.Fatalf("a later entry gave %v", again)
				}
			}
			if len(told) != 1 || told[0] != err || m.Halted() != err {
				t.Fatalf("told %v, halted by %v; want once %v", told, m.Halted(), err)
			}
			if after, _ := documents(t, m.Freeze()); string(after) != string(before) {
				t.Fatalf("the state has changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// A damaged entry is refused, on every NameNode alike, and is not the end.
func TestMalformedEntries(t *testing.T) {
	var entries [][]byte
	for _, c := range everyCommand(t) {
		whole := Encode(c, "request", epoch)
		for cut := range len(whole) {
			entries = append(entries, whole[:cut])
		}
		entries = append(entries, append(whole[:len(whole):len(whole)], 0))
	}
	head := func(n number) []byte { return Encode(fakeCommand(n), "", epoch) }
	entries = append(entries,
		append(head(numMkdir), "\x03a//\x00"...),
		append(head(numMkdir), "\x02/a\x02"...),                 // neither true nor false
		append(head(numMkdir), "\x03/\xff\xfe\x00"...),          // not UTF-8
		append(head(numInitCluster), "\x02\xff\xfe"...),         // not UTF-8
		append(head(numInitCluster), "\xff\xff\xff\xff\x0f"...), // longer than the entry
		append(head(numSetService), 1, 0xff, 1),                 // no such service, that cut to 8 bits would be one
		append(head(numSetService), 0x81, 0x80, 0x80, 0x80, 0x10, 0),
		append(head(numAbortUpload), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		append(head(numPurge), 0xff, 0xff, 0xff, 0x7f),
		Encode(&Mkdir{Path: dfs.Root}, "not a request ID", epoch),
		Encode(&Mkdir{}, "", epoch),
		Encode(&Commit{Position: dfs.MaxChunksPerFile + 1}, "", epoch),
		Encode(&Commit{Position: -1}, "", epoch),
		Encode(&SetReplication{Path: dfs.Root, Replication: math.MaxInt32 + 1}, "", epoch),
	)
	r := newRig(t)
	r.mkdir("/a")
	before := content(t, r.m.Freeze())
	for _, entry := range entries {
		_, err := r.applyEntry(entry)
		if dfs.CodeOf(err) != dfs.Invalid {
			t.Fatalf("entry %q gave %v", entry, err)
		}
	}
	if r.m.Freeze().AppliedIndex() != r.index {
		t.Fatal("a refused entry does not count as applied")
	}
	if string(before) != string(content(t, r.m.Freeze())) {
		t.Fatal("a damaged entry changed the state")
	}
	r.mkdir("/b")
}

// fakeCommand has a number and no fields.
type fakeCommand number

func (c fakeCommand) number() number             { return number(c) }
func (fakeCommand) encode(*encoder)              {}
func (fakeCommand) decode(*decoder)              {}
func (fakeCommand) apply(*State) (Result, error) { return Result{}, nil }

// A small entry that claims to hold much must not take much memory.
func TestLyingLengths(t *testing.T) {
	for _, n := range []number{numBeginUpload, numAddChunks, numCommit, numExpireUploads, numHeartbeats, numSetLiveness} {
		entry := Encode(fakeCommand(n), "", epoch)
		entry = append(entry, 1, 1, 1, 1)
		for range 100 {
			entry = append(entry, 0xff, 0xff, 0xff, 0xff, 0x0f)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeEntry(entry)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("command %d was believed", n)
		}
		allocated := after.TotalAlloc - before.TotalAlloc
		if allocated > 100_000 {
			t.Errorf("command %d: %d bytes of memory for an entry of %d", n, allocated, len(entry))
		}
	}
}

func TestEncodedSize(t *testing.T) {
	reports := []NodeReport{{Node: 300, Seq: 1 << 40, Added: []dfs.ChunkID{1, 5, 9}, Capacity: -1}, {}}
	with := func(n int) int { return len(Encode(&Heartbeats{Reports: reports[:n]}, "", epoch)) }
	for i := range reports {
		if got, want := reports[i].EncodedSize(), with(i+1)-with(i); got != want {
			t.Errorf("report %d takes %d bytes; EncodedSize says %d", i, want, got)
		}
	}
}

func TestErrorsOfMalformedEntriesAreTheSame(t *testing.T) {
	entry := []byte{entryFormat, byte(numMkdir)}
	_, a := New(nil).Apply(5, entry)
	_, b := New(nil).Apply(5, entry)
	if a == nil || a.Error() != b.Error() {
		t.Fatalf("%v and %v", a, b)
	}
}
