package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

const smallReserve = 1 // byte: the tests' disk may be nearly full

const (
	several       = "several"        // names a root with three data directories in it
	packed        = "packed"         // names a root where small chunks are packed
	severalPacked = "several-packed" // names one that is both
)

// everyLayout runs a test with one data directory, which is root itself, and
// with three below root, with small chunks in files and in segments. None of
// that matters to a caller of a store.
func everyLayout(t *testing.T, test func(t *testing.T, root string)) {
	fileLayouts(t, test)
	t.Run("1 directory, packed", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), packed)) })
	t.Run("3 directories, packed", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), severalPacked)) })
}

// fileLayouts is everyLayout for a test that looks for the files of chunks.
func fileLayouts(t *testing.T, test func(t *testing.T, root string)) {
	t.Run("1 directory", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("3 directories", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), several)) })
}

// another returns an empty root of the same layout.
func another(t *testing.T, root string) string {
	switch base := filepath.Base(root); base {
	case several, packed, severalPacked:
		return filepath.Join(t.TempDir(), base)
	}
	return t.TempDir()
}

func config(root string) chunkstore.Config {
	base := filepath.Base(root)
	c := chunkstore.Config{Dirs: []string{root}, NodeID: "dn1", Reserve: smallReserve}
	c.Unpacked = base != packed && base != severalPacked
	if base == several || base == severalPacked {
		c.Dirs = []string{filepath.Join(root, "a"), filepath.Join(root, "b"), filepath.Join(root, "c")}
	}
	return c
}

// tryOpen opens a store and waits until it has been read.
func tryOpen(c chunkstore.Config) (*chunkstore.Store, error) {
	s, err := chunkstore.Open(c)
	if err != nil {
		return nil, err
	}
	if err := s.WaitLoaded(context.Background()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func open(t *testing.T, c chunkstore.Config) *chunkstore.Store {
	t.Helper()
	s, err := tryOpen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func reopen(t *testing.T, s *chunkstore.Store, c chunkstore.Config) *chunkstore.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, c)
}

func content(id dfs.ChunkID, size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(id), byte(id >> 8)})
	_, _ = source.Read(data) // never fails
	return data
}

func put(s *chunkstore.Store, id dfs.ChunkID, data []byte) error {
	w, err := s.Create(id, int64(len(data)))
	if err != nil {
		return err
	}
	defer w.Abort()
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 50_000) // not a divisor of the block size
		if _, err := w.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	_, err = w.Commit(dfs.ChecksumOf(data))
	return err
}

func mustPut(t *testing.T, s *chunkstore.Store, id dfs.ChunkID, data []byte) {
	t.Helper()
	if err := put(s, id, data); err != nil {
		t.Fatal(err)
	}
}

// checkHolds reads a chunk in every way there is.
func checkHolds(t *testing.T, s *chunkstore.Store, id dfs.ChunkID, data []byte) {
	t.Helper()
	want := chunkstore.Info{ID: id, Size: int64(len(data)), CRC32C: dfs.ChecksumOf(data)}
	if info, ok := s.Stat(id); !ok || info != want {
		t.Fatalf("Stat: %+v, %v", info, ok)
	}
	c, err := s.OpenChunk(id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, c.Size)
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) || c.Info != want {
		t.Fatalf("chunk %s: %+v, %v, same bytes: %v", id, c.Info, err, bytes.Equal(got, data))
	}
	if err := s.Verify(id); err != nil {
		t.Fatal(err)
	}
}

func checkHeldNot(t *testing.T, s *chunkstore.Store, id dfs.ChunkID) {
	t.Helper()
	if _, ok := s.Stat(id); ok {
		t.Errorf("chunk %s is held", id)
	}
	if _, err := s.OpenChunk(id); dfs.CodeOf(err) != dfs.NotFound {
		t.Errorf("OpenChunk: %v", err)
	}
}

func checkCode(t *testing.T, err error, want dfs.Code) {
	t.Helper()
	if dfs.CodeOf(err) != want {
		t.Errorf("got code %q (%v), want %q", dfs.CodeOf(err), err, want)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func checkNoTemp(t *testing.T, root string) {
	t.Helper()
	for _, dir := range config(root).Dirs {
		if left := files(t, filepath.Join(dir, "tmp")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// inAll lists the files in a directory of each data directory.
func inAll(t *testing.T, root, name string) (list []string) {
	t.Helper()
	for _, dir := range config(root).Dirs {
		list = append(list, files(t, filepath.Join(dir, name))...)
	}
	return list
}

// chunkPath finds the file of a chunk, or says where it could be.
func chunkPath(root string, id dfs.ChunkID) string {
	name := id.String()
	var path string
	for _, dir := range config(root).Dirs {
		path = filepath.Join(dir, "chunks", name[14:], name)
		if _, err := os.Stat(path); err == nil {
			break
		}
	}
	return path
}

func TestChunksComeBack(t *testing.T) { everyLayout(t, testChunksComeBack) }

func testChunksComeBack(t *testing.T, dir string) {
	s := open(t, config(dir))
	sizes := map[dfs.ChunkID]int{1: 1, 2: dfs.BlockSize - 1, 3: dfs.BlockSize, 0x1ff: dfs.BlockSize + 1, 1 << 40: 3*dfs.BlockSize + 17, 1<<64 - 1: 12}
	var used int64
	var digest dfs.Digest
	for id, size := range sizes {
		mustPut(t, s, id, content(id, size))
		used += int64(size)
		digest = digest.Add(id)
	}
	for range 2 { // as written, then as found again
		for id, size := range sizes {
			checkHolds(t, s, id, content(id, size))
		}
		if got := s.Totals(); got != (chunkstore.Totals{Count: int64(len(sizes)), Used: used, Digest: digest}) {
			t.Errorf("totals %+v", got)
		}
		s = reopen(t, s, config(dir))
	}
	checkNoTemp(t, dir)
	checkHeldNot(t, s, 77)
}

func TestList(t *testing.T) { everyLayout(t, testList) }

func testList(t *testing.T, dir string) {
	s := open(t, config(dir))
	for id := range dfs.ChunkID(10) {
		mustPut(t, s, 10-id, content(id, 10))
	}
	for _, c := range []struct {
		after        dfs.ChunkID
		limit, first int
		length       int
	}{{0, 100, 1, 10}, {0, 3, 1, 3}, {3, 3, 4, 3}, {8, 3, 9, 2}, {10, 3, 0, 0}, {1<<64 - 1, 3, 0, 0}} {
		list := s.List(c.after, c.limit)
		if len(list) != c.length || len(list) > 0 && list[0].ID != dfs.ChunkID(c.first) {
			t.Errorf("List(%d, %d) = %v", c.after, c.limit, list)
		}
	}
}

func TestRefusedUploadsLeaveNothing(t *testing.T) { everyLayout(t, testRefusedUploadsLeaveNothing) }

func testRefusedUploadsLeaveNothing(t *testing.T, dir string) {
	s := open(t, config(dir))
	data := content(1, 100_000)
	sum := dfs.ChecksumOf(data)
	for name, upload := range map[string]func(*chunkstore.Writer) error{
		"shorter": func(w *chunkstore.Writer) error {
			_, err := w.Write(data[:50])
			_, commit := w.Commit(dfs.ChecksumOf(data[:50]))
			return errors.Join(err, commit)
		},
		"longer": func(w *chunkstore.Writer) error {
			_, _ = w.Write(data)
			_, err := w.Write([]byte{1})
			return err
		},
		"wrong checksum": func(w *chunkstore.Writer) error {
			_, _ = w.Write(data)
			_, err := w.Commit(sum + 1)
			return err
		},
		"nothing": func(w *chunkstore.Writer) error {
			_, err := w.Commit(0)
			return err
		},
	} {
		w, err := s.Create(1, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if err := upload(w); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		w.Abort()
		w.Abort() // twice is harmless
		if _, err := w.Write(data[:0]); err == nil {
			t.Errorf("%s: written after Abort", name)
		}
		checkHeldNot(t, s, 1)
	}
	checkNoTemp(t, dir)
	if r := s.Report(10); len(r.Added)+len(r.Removed)+len(r.Corrupt) > 0 || r.Count != 0 {
		t.Errorf("reported %+v", r)
	}
}

func TestCreateRefuses(t *testing.T) {
	c := config(t.TempDir())
	s := open(t, c)
	for _, size := range []int64{-1, 0, dfs.MaxChunkSize + 1, 1<<63 - 1} {
		_, err := s.Create(1, size)
		checkCode(t, err, dfs.Invalid)
	}
	_, err := s.Create(0, 1)
	checkCode(t, err, dfs.Invalid)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(1, 1)
	checkCode(t, err, dfs.Unavailable)

	c.Reserve = 1 << 60 // more than any disk has
	s = open(t, c)
	_, err = s.Create(1, 1)
	checkCode(t, err, dfs.NoSpace)
	checkCode(t, s.Writable(), dfs.NoSpace)
	if space, err := s.Space(); err != nil || space.Free != 0 || space.Capacity <= 0 {
		t.Errorf("%+v, %v", space, err)
	}
	checkNoTemp(t, c.Dirs[0])
}

func TestSameChunkAgain(t *testing.T) { everyLayout(t, testSameChunkAgain) }

func testSameChunkAgain(t *testing.T, dir string) {
	s := open(t, config(dir))
	data := content(1, 70_000)
	mustPut(t, s, 1, data)
	mustPut(t, s, 1, data)
	checkCode(t, put(s, 1, content(2, 70_000)), dfs.Conflict)
	checkCode(t, put(s, 1, data[:100]), dfs.Conflict)
	checkHolds(t, s, 1, data)
	checkNoTemp(t, dir)
	if r := s.Report(10); len(r.Added) != 1 {
		t.Errorf("reported %v", r.Added)
	}
}

func TestSameChunkAtTheSameTime(t *testing.T) { everyLayout(t, testSameChunkAtTheSameTime) }

func testSameChunkAtTheSameTime(t *testing.T, dir string) {
	s := open(t, config(dir))
	good, other := content(1, 200_000), content(2, 200_000)
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		data := good
		if i%3 == 0 {
			data = other
		}
		wg.Go(func() { errs[i] = put(s, 1, data) })
	}
	wg.Wait()
	held, _ := s.Stat(1)
	for i, err := range errs {
		isOther := i%3 == 0
		if wins := isOther == (held.CRC32C == dfs.ChecksumOf(other)); wins && err != nil || !wins && dfs.CodeOf(err) != dfs.Conflict {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	checkNoTemp(t, dir)
	if n := len(inAll(t, dir, "chunks")); n != 1 {
		t.Errorf("%d files", n)
	}
}

func TestReadingWhileWriting(t *testing.T) { everyLayout(t, testReadingWhileWriting) }

func testReadingWhileWriting(t *testing.T, dir string) {
	s := open(t, config(dir))
	data := content(1, 1000)
	w, err := s.Create(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	follower, err := w.OpenData()
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	got := make([]byte, 1000)
	for _, part := range [][2]int{{0, 400}, {400, 1000}} {
		if _, err := w.Write(data[part[0]:part[1]]); err != nil {
			t.Fatal(err)
		}
		if _, err := follower.ReadAt(got[part[0]:part[1]], int64(part[0])); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(dfs.ChecksumOf(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := follower.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Error("not readable after Commit:", err)
	}
}

func TestRemove(t *testing.T) { everyLayout(t, testRemove) }

func testRemove(t *testing.T, dir string) {
	s := open(t, config(dir))
	data := content(1, 1000)
	mustPut(t, s, 1, data)
	c, err := s.OpenChunk(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Remove(1); err != nil {
		t.Fatal(err)
	}
	checkHeldNot(t, s, 1)
	got := make([]byte, 1000)
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Error("a reader that had begun is disturbed:", err)
	}
	checkCode(t, s.Remove(1), dfs.NotFound)
	if s.Totals() != (chunkstore.Totals{}) {
		t.Errorf("%+v", s.Totals())
	}
	s = reopen(t, s, config(dir))
	checkHeldNot(t, s, 1)
	mustPut(t, s, 1, data)
}

func TestDamageIsFound(t *testing.T) { everyLayout(t, testDamageIsFound) }

func testDamageIsFound(t *testing.T, dir string) {
	const size = 3*dfs.BlockSize + 100
	flip := func(offset int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, offset); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{b[0] ^ 4}, offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"first byte":     flip(0),
		"last data byte": flip(size - 1),
		"middle block":   flip(2*dfs.BlockSize - 1),
		"checksum list":  flip(size + 2),
		"trailer":        flip(size + 16 + 20),
		"truncated":      func(t *testing.T, path string) { truncate(t, path, 5000) },
		"empty":          func(t *testing.T, path string) { truncate(t, path, 0) },
		"longer":         func(t *testing.T, path string) { truncate(t, path, 400_000) },
		"vanished": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := another(t, dir)
			s := open(t, config(dir))
			mustPut(t, s, 5, content(5, size))
			mustPut(t, s, 6, content(6, size))
			s.Acknowledge(s.Report(10))
			damage(t, chunkPath(dir, 5))
			checkCode(t, s.Verify(5), dfs.Corrupt)
			checkHeldNot(t, s, 5)
			checkHolds(t, s, 6, content(6, size))
			if r := s.Report(10); len(r.Corrupt) != 1 || r.Corrupt[0] != 5 || r.Count != 1 {
				t.Errorf("reported %+v", r)
			}
			if n := len(inAll(t, dir, "quarantine")); n != 1 && name != "vanished" {
				t.Errorf("%d files in quarantine", n)
			}
			mustPut(t, s, 5, content(5, size)) // a good copy takes its place
			checkHolds(t, s, 5, content(5, size))
		})
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func TestQuarantine(t *testing.T) { everyLayout(t, testQuarantine) }

func testQuarantine(t *testing.T, dir string) {
	s := open(t, config(dir))
	for range 2 { // the same chunk twice gets two names
		mustPut(t, s, 1, content(1, 10))
		if err := s.Quarantine(1, "a test"); err != nil {
			t.Fatal(err)
		}
		checkHeldNot(t, s, 1)
	}
	if n := len(inAll(t, dir, "quarantine")); n != 2 {
		t.Errorf("%d files in quarantine", n)
	}
	checkCode(t, s.Quarantine(1, "a test"), dfs.NotFound)
	s = reopen(t, s, config(dir))
	checkHeldNot(t, s, 1)
}

func TestRecovery(t *testing.T) { everyLayout(t, testRecovery) }

func testRecovery(t *testing.T, dir string) {
	s := open(t, config(dir))
	const size = 70_000
	for id := dfs.ChunkID(1); id <= 8; id++ {
		mustPut(t, s, id, content(id, size))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	truncate(t, chunkPath(dir, 2), 0)
	truncate(t, chunkPath(dir, 3), size)
	truncate(t, chunkPath(dir, 4), 80_000)
	raw, err := os.ReadFile(chunkPath(dir, 6))
	if err != nil {
		t.Fatal(err)
	}
	write(t, chunkPath(dir, 5), raw) // chunk 6 under the name of 5
	raw[size+8] ^= 1
	write(t, chunkPath(dir, 7), raw)
	first := config(dir).Dirs[0]
	foreign := []string{
		filepath.Join(first, "chunks", "01", "README"),
		filepath.Join(first, "chunks", "01", "0000000000000002"), // another directory's
		filepath.Join(first, "chunks", "01", "00000000000000A1"),
		filepath.Join(first, "notes.txt"),
	}
	for _, path := range foreign {
		write(t, path, []byte("mine"))
	}
	if err := os.Mkdir(chunkPath(dir, 0x101), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(first, "tmp", "0000000000000009-1"), raw)

	s = open(t, config(dir))
	for _, id := range []dfs.ChunkID{1, 6, 8} {
		checkHolds(t, s, id, content(id, size))
	}
	for _, id := range []dfs.ChunkID{2, 3, 4, 5, 7, 9, 0x101} {
		checkHeldNot(t, s, id)
	}
	if n := len(inAll(t, dir, "quarantine")); n != 5 {
		t.Errorf("%d files in quarantine", n)
	}
	for _, path := range foreign {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	checkNoTemp(t, dir)
	r := s.Report(100)
	if len(r.Added) != 0 || len(r.Corrupt) != 5 || r.Count != 3 || r.Digest != s.Totals().Digest {
		t.Errorf("reported %+v", r)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestIdentity(t *testing.T) {
	const clusterA, clusterB = dfs.ClusterID("0123456789abcdef0123456789abcdef"), dfs.ClusterID("ffffffffffffffffffffffffffffffff")
	c := config(filepath.Join(t.TempDir(), "new", "directory"))
	s := open(t, c)
	first := s.Identity()
	if first.NodeID != "dn1" || first.ClusterID != "" || first.Incarnation != 1 || len(first.Instance) != 32 {
		t.Fatalf("%+v", first)
	}
	checkCode(t, s.SetClusterID(""), "")
	checkCode(t, s.SetClusterID("short"), dfs.Invalid)
	checkCode(t, s.SetClusterID(clusterA), "")
	checkCode(t, s.SetClusterID(clusterA), "")
	checkCode(t, s.SetClusterID(clusterB), dfs.WrongCluster)

	_, err := tryOpen(c)
	checkCode(t, err, dfs.Conflict)
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the sentence is %q", err)
	}
	s = reopen(t, s, c)
	want := first
	want.ClusterID, want.Incarnation = clusterA, 2
	if got := s.Identity(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	checkCode(t, s.SetClusterID(clusterB), dfs.WrongCluster)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	c.NodeID = "dn2"
	_, err = tryOpen(c)
	checkCode(t, err, dfs.Conflict)
	if err == nil || !strings.Contains(err.Error(), "belongs to dn1") {
		t.Errorf("the sentence is %q", err)
	}
	c.NodeID = "dn1"
	if got := open(t, c).Identity().Incarnation; got != 3 {
		t.Errorf("incarnation %d: the refused start must not count", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	notADirectory := filepath.Join(t.TempDir(), "file")
	write(t, notADirectory, nil)
	withIdentity := func(text string) string {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "identity.json"), []byte(text))
		return dir
	}
	lost := t.TempDir()
	s := open(t, config(lost))
	mustPut(t, s, 1, []byte("x"))
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(lost, "identity.json"))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config chunkstore.Config
		code   dfs.Code
	}{
		"no directory":     {chunkstore.Config{NodeID: "dn1"}, dfs.Invalid},
		"no node ID":       {chunkstore.Config{Dirs: []string{t.TempDir()}}, dfs.Invalid},
		"negative reserve": {chunkstore.Config{Dirs: []string{t.TempDir()}, NodeID: "dn1", Reserve: -1}, dfs.Invalid},
		"a file":           {config(notADirectory), dfs.Invalid},
		"below a file":     {config(filepath.Join(notADirectory, "x")), dfs.Invalid},
		"identity lost":    {config(lost), dfs.Invalid},
		"empty identity":   {config(withIdentity("")), dfs.Corrupt},
		"newer format":     {config(withIdentity(`{"format":2,"instance":"0123456789abcdef0123456789abcdef","node_id":"dn1"}`)), dfs.Corrupt},
		"no instance":      {config(withIdentity(`{"format":1,"node_id":"dn1"}`)), dfs.Corrupt},
		"bad cluster":      {config(withIdentity(`{"format":1,"instance":"0123456789abcdef0123456789abcdef","node_id":"dn1","cluster_id":"x"}`)), dfs.Corrupt},
	} {
		s, err := tryOpen(c.config)
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close() // the failure is told already
		}
		if dfs.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReportsSurviveConcurrency(t *testing.T) { everyLayout(t, testReportsSurviveConcurrency) }

func testReportsSurviveConcurrency(t *testing.T, dir string) {
	s := open(t, config(dir))
	known := map[dfs.ChunkID]bool{}
	stop := make(chan struct{})
	var reporting, writing sync.WaitGroup
	tell := func() {
		r := s.Report(5)
		for _, id := range r.Added {
			known[id] = true
		}
		for _, id := range r.Removed {
			delete(known, id)
		}
		if int64(len(known)) != r.Count {
			t.Errorf("%d chunks are known, %d should be", len(known), r.Count)
		}
		s.Acknowledge(r)
	}
	reporting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				tell()
			}
		}
	})
	for worker := range dfs.ChunkID(4) {
		writing.Go(func() {
			for i := range dfs.ChunkID(15) {
				id := 1 + worker*100 + i
				if err := put(s, id, []byte("content")); err != nil {
					t.Error(err)
				}
				if i%3 == 0 {
					if err := s.Remove(id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reporting.Wait()
	for s.Report(5).More {
		tell()
	}
	tell()
	if len(known) != 40 || s.Totals().Count != 40 {
		t.Errorf("%d known, %+v held", len(known), s.Totals())
	}
}
