package chunkstore_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func severalDirs(t *testing.T) chunkstore.Config {
	t.Helper()
	return config(filepath.Join(t.TempDir(), several))
}

func inDir(dir string, id dfs.ChunkID) string {
	name := id.String()
	return filepath.Join(dir, "chunks", name[14:], name)
}

func shut(t *testing.T, s *chunkstore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// fill puts chunks until each directory has at least one, and returns which
// has which.
func fill(t *testing.T, s *chunkstore.Store, c chunkstore.Config) map[string][]dfs.ChunkID {
	t.Helper()
	where := make(map[string][]dfs.ChunkID)
	for id := dfs.ChunkID(1); len(where) < len(c.Dirs) || id < 12; id++ {
		if id > 1000 {
			t.Fatal("1000 chunks, and a directory has none")
		}
		mustPut(t, s, id, content(id, 1000))
		for _, dir := range c.Dirs {
			if _, err := os.Stat(inDir(dir, id)); err == nil {
				where[dir] = append(where[dir], id)
			}
		}
	}
	return where
}

func checkAll(t *testing.T, s *chunkstore.Store, where map[string][]dfs.ChunkID, dirs ...string) {
	t.Helper()
	count := 0
	for dir, ids := range where {
		for _, id := range ids {
			if slices.Contains(dirs, dir) {
				count++
				checkHolds(t, s, id, content(id, 1000))
			} else {
				checkHeldNot(t, s, id)
			}
		}
	}
	if got := s.Totals().Count; got != int64(count) {
		t.Errorf("%d chunks are held, not %d", got, count)
	}
}

type identityJSON struct {
	Format      int    `json:"format"`
	Instance    string `json:"instance"`
	NodeID      string `json:"node_id"`
	ClusterID   string `json:"cluster_id"`
	Incarnation uint64 `json:"incarnation"`
	Term        uint64 `json:"term"`
	Volume      string `json:"volume,omitempty"`
	Volumes     []struct {
		ID  string `json:"id"`
		Dir string `json:"dir"`
	} `json:"volumes,omitempty"`
}

func readIdentity(t *testing.T, dir string) identityJSON {
	t.Helper()
	var identity identityJSON
	text, err := os.ReadFile(filepath.Join(dir, "identity.json"))
	if err == nil {
		err = json.Unmarshal(text, &identity)
	}
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func writeIdentity(t *testing.T, dir string, identity identityJSON) {
	t.Helper()
	text, err := json.Marshal(identity)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "identity.json"), text)
}

func TestVolumesShareAnIdentity(t *testing.T) {
	const cluster = "0123456789abcdef0123456789abcdef"
	c := severalDirs(t)
	s := open(t, c)
	if err := errors.Join(s.SetClusterID(cluster), s.RaiseTerm(9)); err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for i, dir := range c.Dirs {
		got := readIdentity(t, dir)
		if got.Instance != s.Identity().Instance || got.ClusterID != cluster || got.Term != 9 || got.Incarnation != 1 || got.NodeID != "dn1" || len(got.Volumes) != 3 {
			t.Errorf("%+v", got)
		}
		if len(got.Volumes) == 3 && (got.Volumes[i].Dir != dir || got.Volumes[i].ID != got.Volume) {
			t.Errorf("%s: %+v", dir, got.Volumes)
		}
		ids[got.Volume] = true
		if status := s.Volumes()[i]; status.ID != got.Volume || status.Dir != dir || status.Failure != nil || status.Capacity <= 0 {
			t.Errorf("%+v", status)
		}
	}
	if len(ids) != 3 {
		t.Errorf("volumes %v", ids)
	}
	shut(t, s)
	behind := readIdentity(t, c.Dirs[0]) // it missed some starts and a term
	behind.Incarnation, behind.Term, behind.ClusterID = 0, 0, ""
	writeIdentity(t, c.Dirs[0], behind)
	ahead := readIdentity(t, c.Dirs[2])
	ahead.Incarnation, ahead.Term = 7, 11
	writeIdentity(t, c.Dirs[2], ahead)
	s = open(t, c)
	if got := s.Identity(); got.Incarnation != 8 || got.Term != 11 || got.ClusterID != cluster {
		t.Errorf("%+v", got)
	}
	for _, dir := range c.Dirs {
		if got := readIdentity(t, dir); got.Incarnation != 8 || got.Term != 11 || got.ClusterID != cluster {
			t.Errorf("%+v", got)
		}
	}
}

// A directory of an earlier version says nothing of volumes.
func TestEarlierIdentity(t *testing.T) {
	c := config(t.TempDir())
	s := open(t, c)
	mustPut(t, s, 1, content(1, 1000))
	shut(t, s)
	old := readIdentity(t, c.Dirs[0])
	old.Volume, old.Volumes = "", nil
	writeIdentity(t, c.Dirs[0], old)
	c.Dirs = append(c.Dirs, filepath.Join(t.TempDir(), "more"))
	s = open(t, c)
	checkHolds(t, s, 1, content(1, 1000))
	for _, dir := range c.Dirs {
		if got := readIdentity(t, dir); got.Instance != old.Instance || len(got.Volume) != 32 || len(got.Volumes) != 2 || got.Incarnation != 2 {
			t.Errorf("%+v", got)
		}
	}
}

func TestDiskThatIsNotMounted(t *testing.T) {
	c := severalDirs(t)
	s := open(t, c)
	where := fill(t, s, c)
	shut(t, s)
	away := filepath.Join(t.TempDir(), "away")
	for name, leave := range map[string]func() error{
		"an empty mount point": func() error { return os.Mkdir(c.Dirs[1], 0o700) },
		"nothing":              func() error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.Rename(c.Dirs[1], away), leave()); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the next start must know it, too
				s := open(t, c)
				checkAll(t, s, where, c.Dirs[0], c.Dirs[2])
				status := s.Volumes()[1]
				if !status.Gone || status.Failure == nil || !strings.Contains(status.Failure.Error(), c.Dirs[1]) || status.Capacity != 0 || len(status.ID) != 32 {
					t.Errorf("%+v", status)
				}
				if err := s.Writable(); err != nil {
					t.Error(err)
				}
				mustPut(t, s, 5000, content(1, 10))
				if err := s.Remove(5000); err != nil {
					t.Error(err)
				}
				s.Probe()
				shut(t, s)
			}
			if entries, err := os.ReadDir(c.Dirs[1]); len(entries) > 0 || err != nil && !os.IsNotExist(err) {
				t.Errorf("%v was put where a disk belongs, %v", entries, err)
			}
			if err := errors.Join(os.RemoveAll(c.Dirs[1]), os.Rename(away, c.Dirs[1])); err != nil {
				t.Fatal(err)
			}
			s := open(t, c)
			checkAll(t, s, where, c.Dirs...)
			shut(t, s)
		})
	}
}

func TestDirectoriesComeAndGo(t *testing.T) {
	c := severalDirs(t)
	all := c.Dirs
	s := open(t, c)
	where := fill(t, s, c)
	shut(t, s)

	c.Dirs = all[:2] // one is given up
	s = open(t, c)
	checkAll(t, s, where, all[:2]...)
	shut(t, s)

	if err := os.RemoveAll(all[2]); err != nil { // and a new disk is put there
		t.Fatal(err)
	}
	c.Dirs = all
	s = open(t, c)
	checkAll(t, s, where, all[:2]...)
	if status := s.Volumes()[2]; status.Gone || status.Failure != nil {
		t.Errorf("%+v", status)
	}
	shut(t, s)

	if err := os.Rename(all[1], all[1]+"-moved"); err != nil { // a known disk elsewhere, a new one in its place
		t.Fatal(err)
	}
	c.Dirs = []string{all[0], all[1], all[2], all[1] + "-moved"}
	where[all[1]+"-moved"] = where[all[1]]
	delete(where, all[1])
	s = open(t, c)
	checkAll(t, s, where, all[0], all[1]+"-moved")
	for _, status := range s.Volumes() {
		if status.Gone {
			t.Errorf("%+v", status)
		}
	}
	shut(t, s)

	for _, dir := range c.Dirs { // all are new: so is the node
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, c)
	if s.Identity().Incarnation != 1 || s.Totals().Count != 0 {
		t.Errorf("%+v", s.Identity())
	}
}

func TestDirectoriesThatDoNotBelong(t *testing.T) {
	made := func(node dfs.NodeID, change func(*identityJSON)) string {
		c := config(t.TempDir())
		c.NodeID = node
		shut(t, open(t, c))
		identity := readIdentity(t, c.Dirs[0])
		if change != nil {
			change(&identity)
		}
		writeIdentity(t, c.Dirs[0], identity)
		return c.Dirs[0]
	}
	mine := made("dn1", func(i *identityJSON) { i.ClusterID = strings.Repeat("a", 32) })
	instance := readIdentity(t, mine).Instance
	sibling := func(change func(*identityJSON)) string {
		return made("dn1", func(i *identityJSON) { i.Instance = instance; change(i) })
	}
	inUse := sibling(func(*identityJSON) {})
	holder := config(inUse)
	open(t, holder)
	notADirectory := filepath.Join(t.TempDir(), "file")
	write(t, notADirectory, nil)
	withChunks := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(inDir(withChunks, 1)), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, inDir(withChunks, 1), []byte("x"))
	for name, c := range map[string]struct {
		dir  string
		code dfs.Code
		says string
	}{
		"another node's":     {made("dn2", nil), dfs.Conflict, "belongs to dn2"},
		"another instance's": {made("dn1", nil), dfs.Conflict, "not made for the same DataNode"},
		"another cluster's":  {sibling(func(i *identityJSON) { i.ClusterID = strings.Repeat("b", 32) }), dfs.Conflict, "belongs to cluster"},
		"a copy":             {sibling(func(i *identityJSON) { i.Volume = readIdentity(t, mine).Volume }), dfs.Conflict, "copies of one"},
		"in use":             {inUse, dfs.Conflict, "in use"},
		"given twice":        {mine + "/", dfs.Invalid, "twice"},
		"no name":            {"", dfs.Invalid, "no name"},
		"a file":             {notADirectory, dfs.Invalid, "cannot be used"},
		"damaged":            {sibling(func(i *identityJSON) { i.Format = 2 }), dfs.Corrupt, "damaged"},
		"chunks, but no ID":  {withChunks, dfs.Invalid, "has chunks"},
	} {
		config := config(mine)
		config.Dirs = []string{mine, c.dir}
		s, err := tryOpen(config)
		if dfs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			shut(t, s)
		}
		if got := readIdentity(t, mine); got.Incarnation != 1 {
			t.Errorf("%s: a refused start counts", name)
			got.Incarnation = 1
			writeIdentity(t, mine, got)
		}
	}
}

// A start that adds a disk may die at any moment. The next one must neither
// take the new disk for one that is not mounted nor lose anything.
func TestDeathWhileADiskIsAdded(t *testing.T) {
	for at := 1; ; at++ {
		f := &faults{}
		c := config(t.TempDir())
		s := open(t, c)
		mustPut(t, s, 1, content(1, 1000))
		shut(t, s)
		c.Dirs = append(c.Dirs, filepath.Join(t.TempDir(), "new"))
		c.Hook = f.hook
		f.reset(func(n int, _ chunkstore.Op, _ string) error {
			if n >= at {
				return errors.New("the process is dead")
			}
			return nil
		})
		s, err := tryOpen(c)
		if err == nil {
			shut(t, s)
		}
		all := len(f.operations()) < at
		f.reset(nil)
		s = open(t, c)
		checkHolds(t, s, 1, content(1, 1000))
		for _, status := range s.Volumes() {
			if status.Gone || status.Failure != nil {
				t.Errorf("death at operation %d: %+v", at, status)
			}
		}
		shut(t, s)
		if all {
			return
		}
	}
}

func TestDuplicates(t *testing.T) {
	const size = 100_000
	data, other := content(1, size), content(2, size)
	spoil := func(t *testing.T, path string) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[10] ^= 1
		write(t, path, raw)
	}
	for name, c := range map[string]struct {
		second         []byte
		spoilt         []int // whose data is not what the footer says
		want           []byte
		quarantined    [2]int
		reportedAsLost bool
	}{
		"the same":         {data, nil, data, [2]int{0, 1}, false},
		"both good":        {other, nil, data, [2]int{0, 1}, false},
		"first is bad":     {other, []int{0}, other, [2]int{1, 0}, false},
		"second is bad":    {other, []int{1}, data, [2]int{0, 1}, false},
		"both are bad":     {other, []int{0, 1}, nil, [2]int{1, 1}, true},
		"same size, other": {content(3, size), []int{0}, content(3, size), [2]int{1, 0}, false},
		"shorter":          {data[:500], []int{0}, data[:500], [2]int{1, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c1, c2 := config(t.TempDir()), config(t.TempDir())
			both := c1
			both.Dirs = []string{c1.Dirs[0], c2.Dirs[0]}
			shut(t, open(t, both))
			for i, part := range []chunkstore.Config{c1, c2} {
				s := open(t, part)
				mustPut(t, s, 1, [][]byte{data, c.second}[i])
				shut(t, s)
				if slices.Contains(c.spoilt, i) {
					spoil(t, inDir(part.Dirs[0], 1))
				}
			}
			s := open(t, both)
			if c.want == nil {
				checkHeldNot(t, s, 1)
			} else {
				checkHolds(t, s, 1, c.want)
			}
			for i, dir := range both.Dirs {
				if got := len(files(t, filepath.Join(dir, "quarantine"))); got != c.quarantined[i] {
					t.Errorf("%d files in the quarantine of directory %d", got, i)
				}
			}
			r := s.Report(10)
			if got := len(r.Corrupt) == 1; got != c.reportedAsLost || len(r.Added)+len(r.Removed) > 0 || r.Count != s.Totals().Count {
				t.Errorf("reported %+v", r)
			}
		})
	}
}

// failIn makes an operation fail in one directory.
func failIn(dir string, which chunkstore.Op, err error) func(int, chunkstore.Op, string) error {
	return func(_ int, op chunkstore.Op, path string) error {
		if op == which && strings.HasPrefix(path, dir) {
			return err
		}
		return nil
	}
}

func severalFaulty(t *testing.T) (*faults, chunkstore.Config, *chunkstore.Store) {
	t.Helper()
	return faultyIn(t, filepath.Join(t.TempDir(), several))
}

// A disk that fails is not written to again; the others take what comes.
func TestOneDiskFails(t *testing.T) {
	f, c, s := severalFaulty(t)
	where := fill(t, s, c)
	f.reset(failIn(c.Dirs[1], chunkstore.OpSyncFile, syscall.EIO))
	failures := 0
	for id := dfs.ChunkID(2000); id < 2060; id++ {
		if err := put(s, id, content(id, 1000)); err != nil {
			failures++
			checkCode(t, err, dfs.Internal)
			checkHeldNot(t, s, id)
			continue
		}
		if _, err := os.Stat(inDir(c.Dirs[1], id)); err == nil {
			t.Errorf("chunk %s lies on the disk that has failed", id)
		}
		if err := s.Remove(id); err != nil {
			t.Error(err)
		}
	}
	if failures != 1 {
		t.Errorf("%d chunks failed", failures)
	}
	f.reset(nil)
	checkAll(t, s, where, c.Dirs...) // reading goes on
	if err := s.Writable(); err != nil {
		t.Error(err)
	}
	if status := s.Volumes(); status[0].Failure != nil || status[1].Failure == nil || status[1].Gone || status[1].Free != 0 || status[1].Chunks != int64(len(where[c.Dirs[1]])) {
		t.Errorf("%+v", status)
	}
	for _, dir := range []string{c.Dirs[0], c.Dirs[2]} {
		f.reset(failIn(dir, chunkstore.OpSyncFile, syscall.EIO))
		for s.Volumes()[slices.Index(c.Dirs, dir)].Failure == nil {
			if err := put(s, 3000, content(1, 10)); err == nil {
				err = s.Remove(3000)
				checkCode(t, err, "")
			}
		}
	}
	checkCode(t, s.Writable(), dfs.Internal)
	checkCode(t, put(s, 3000, content(1, 10)), dfs.Internal)
	f.reset(nil)
	s = reopen(t, s, c)
	checkAll(t, s, where, c.Dirs...)
	checkCode(t, s.Writable(), "")
}

func TestProbe(t *testing.T) {
	remove := func(name string) func(*testing.T, *faults, string) {
		return func(t *testing.T, _ *faults, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fails := func(op chunkstore.Op, err error) func(*testing.T, *faults, string) {
		return func(_ *testing.T, f *faults, dir string) { f.reset(failIn(dir, op, err)) }
	}
	for name, c := range map[string]struct {
		happens         func(*testing.T, *faults, string)
		gone, unwritten bool
	}{
		"nothing":            {func(*testing.T, *faults, string) {}, false, false},
		"directory vanished": {remove(""), true, true},
		"identity vanished":  {remove("identity.json"), true, true},
		"another's identity": {func(t *testing.T, _ *faults, dir string) {
			identity := readIdentity(t, dir)
			identity.Volume = strings.Repeat("e", 32)
			writeIdentity(t, dir, identity)
		}, true, true},
		"damaged identity":  {func(t *testing.T, _ *faults, dir string) { write(t, filepath.Join(dir, "identity.json"), nil) }, false, true},
		"EIO":               {fails(chunkstore.OpStat, syscall.EIO), true, true},
		"ESTALE":            {fails(chunkstore.OpStat, syscall.ESTALE), true, true},
		"ENXIO":             {fails(chunkstore.OpStat, syscall.ENXIO), true, true},
		"no descriptors":    {fails(chunkstore.OpStat, syscall.EMFILE), false, false},
		"read-only":         {fails(chunkstore.OpCreate, syscall.EROFS), false, true},
		"write":             {fails(chunkstore.OpWrite, syscall.EIO), false, true},
		"fsync":             {fails(chunkstore.OpSyncFile, syscall.EIO), false, true},
		"remove":            {fails(chunkstore.OpRemove, syscall.EIO), false, true},
		"full":              {fails(chunkstore.OpWrite, syscall.ENOSPC), false, false},
		"create, no memory": {fails(chunkstore.OpCreate, syscall.ENOMEM), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, config, s := severalFaulty(t)
			where := fill(t, s, config)
			s.Acknowledge(s.Report(1000))
			all := s.Totals()
			for len(s.Urgent()) > 0 {
				<-s.Urgent()
			}
			dir := config.Dirs[1]
			c.happens(t, f, dir)
			for range 2 { // the second finds nothing new
				s.Probe()
			}
			f.reset(nil)
			status := s.Volumes()[1]
			if status.Gone != c.gone || (status.Failure != nil) != c.unwritten {
				t.Fatalf("%+v", status)
			}
			if urgent := len(s.Urgent()) > 0; urgent != c.unwritten && name != "damaged identity" {
				t.Errorf("urgent: %v", urgent)
			}
			checkCode(t, s.Writable(), "")
			r := s.Report(1000)
			slices.Sort(r.Removed)
			if !c.gone {
				checkAll(t, s, where, config.Dirs...)
				if len(r.Removed)+len(r.Corrupt)+len(r.Added) > 0 {
					t.Errorf("reported %+v", r)
				}
				if left := files(t, filepath.Join(dir, "tmp")); len(left) > 0 && name != "remove" {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			checkAll(t, s, where, config.Dirs[0], config.Dirs[2])
			if !slices.Equal(r.Removed, where[dir]) || len(r.Corrupt)+len(r.Added) > 0 || r.Count != all.Count-int64(len(where[dir])) || r.Digest != s.Totals().Digest {
				t.Errorf("reported %+v", r)
			}
			for _, id := range where[dir] { // they are copied back, elsewhere
				mustPut(t, s, id, content(id, 1000))
				if _, err := os.Stat(inDir(dir, id)); c.gone && err == nil && !strings.HasPrefix(name, "E") && !strings.Contains(name, "identity") {
					t.Errorf("chunk %s was put into the directory that is gone", id)
				}
			}
			checkAll(t, s, where, config.Dirs...)
		})
	}
}

// One bad sector is one chunk. Several in a row are the disk.
func TestUnreadableDisk(t *testing.T) {
	f, c, s := severalFaulty(t)
	where := fill(t, s, c)
	for len(where[c.Dirs[0]]) < 4 {
		id := dfs.ChunkID(s.Totals().Count + 1)
		mustPut(t, s, id, content(id, 1000))
		for _, dir := range c.Dirs {
			if _, err := os.Stat(inDir(dir, id)); err == nil {
				where[dir] = append(where[dir], id)
			}
		}
	}
	ids := where[c.Dirs[0]]
	bad := map[string]bool{}
	f.reset(func(_ int, op chunkstore.Op, path string) error {
		if op == chunkstore.OpRead && bad[path] {
			return syscall.EIO
		}
		return nil
	})
	set := func(list ...dfs.ChunkID) {
		f.mu.Lock()
		defer f.mu.Unlock()
		clear(bad)
		for _, id := range list {
			bad[inDir(c.Dirs[0], id)] = true
		}
	}
	set(ids[:3]...)
	for _, id := range []dfs.ChunkID{ids[0], ids[1], ids[0], ids[1], ids[3], ids[2], ids[0], ids[3], ids[1], ids[2]} {
		_ = s.Verify(id) // three different ones, but never without a success between
	}
	set()
	checkAll(t, s, where, c.Dirs...)
	set(ids[:3]...)
	for _, id := range ids[:3] {
		checkCode(t, s.Verify(id), dfs.Internal)
	}
	checkAll(t, s, where, c.Dirs[1], c.Dirs[2])
	if r := s.Report(1000); len(r.Corrupt) > 0 {
		t.Errorf("reported as damaged: %v", r.Corrupt)
	}
	f.reset(nil)
	s = reopen(t, s, c)
	checkAll(t, s, where, slices.Collect(maps.Keys(where))...)
}

// The footers of a dead disk may still be in memory: that they can be read says
// nothing of the data.
func TestUnreadableDiskWithFootersInMemory(t *testing.T) {
	f, c, s := severalFaulty(t)
	where := fill(t, s, c)
	for id := dfs.ChunkID(s.Totals().Count + 1); len(where[c.Dirs[0]]) < 3; id++ {
		mustPut(t, s, id, content(id, 1000))
		for _, dir := range c.Dirs {
			if _, err := os.Stat(inDir(dir, id)); err == nil {
				where[dir] = append(where[dir], id)
			}
		}
	}
	reads := make(map[string]int)
	f.reset(func(_ int, op chunkstore.Op, path string) error {
		if op != chunkstore.OpRead || !strings.HasPrefix(path, c.Dirs[0]) {
			return nil
		}
		if reads[path]++; reads[path] > 1 {
			return syscall.EIO
		}
		return nil
	})
	for _, id := range where[c.Dirs[0]][:3] {
		checkCode(t, s.Verify(id), dfs.Internal)
	}
	f.reset(nil)
	if !s.Volumes()[0].Gone {
		t.Error("three chunks in a row could not be read, and the disk is in service")
	}
	checkAll(t, s, where, c.Dirs[1], c.Dirs[2])
}

// Whoever sends chunks tells what came of it.
func TestReadEnded(t *testing.T) {
	_, c, s := severalFaulty(t)
	where := fill(t, s, c)
	for id := dfs.ChunkID(s.Totals().Count + 1); len(where[c.Dirs[0]]) < 3; id++ {
		mustPut(t, s, id, content(id, 1000))
		for _, dir := range c.Dirs {
			if _, err := os.Stat(inDir(dir, id)); err == nil {
				where[dir] = append(where[dir], id)
			}
		}
	}
	ended := func(id dfs.ChunkID, err error) {
		chunk, failure := s.OpenChunk(id)
		if failure != nil {
			t.Fatal(failure)
		}
		s.ReadEnded(chunk, err)
		if err := chunk.Close(); err != nil {
			t.Error(err)
		}
	}
	failed := &os.SyscallError{Syscall: "sendfile", Err: syscall.EIO}
	ids := where[c.Dirs[0]]
	for _, err := range []error{nil, io.EOF, syscall.EPIPE} {
		ended(ids[0], failed)
		ended(ids[1], failed)
		ended(ids[2], err)
		if s.Volumes()[0].Gone {
			t.Fatalf("two failures and %v cost the directory", err)
		}
		ended(ids[0], nil)
	}
	for _, id := range ids[:3] {
		ended(id, failed)
	}
	checkAll(t, s, where, c.Dirs[1], c.Dirs[2])
}

// Nobody is to rely on what lies on a disk that has failed, however well the
// others are.
func TestSteady(t *testing.T) {
	f, c, s := severalFaulty(t)
	where := fill(t, s, c)
	f.reset(failIn(c.Dirs[1], chunkstore.OpCreate, syscall.EROFS))
	s.Probe()
	checkCode(t, s.Writable(), "")
	checkAll(t, s, where, c.Dirs...)
	checkCode(t, s.Steady(where[c.Dirs[0]][0]), "")
	checkCode(t, s.Steady(where[c.Dirs[1]][0]), dfs.Internal)
	checkCode(t, s.Steady(999), dfs.NotFound)
}

// A disk of another node may be mounted in the place of this one's.
func TestReadingFromADiskThatWasExchanged(t *testing.T) {
	_, c, s := severalFaulty(t)
	where := fill(t, s, c)
	s.Acknowledge(s.Report(1000))
	if err := os.Rename(c.Dirs[2], c.Dirs[2]+".away"); err != nil {
		t.Fatal(err)
	}
	other := config(c.Dirs[2])
	other.NodeID = "dn2"
	shut(t, open(t, other))
	checkCode(t, s.Verify(where[c.Dirs[2]][0]), dfs.NotFound)
	checkAll(t, s, where, c.Dirs[0], c.Dirs[1])
	if r := s.Report(1000); len(r.Corrupt) > 0 || len(r.Removed) != len(where[c.Dirs[2]]) {
		t.Errorf("reported %+v", r)
	}
}

// When a whole disk vanishes between two probes, its chunks are not damaged.
func TestReadingFromADiskThatVanished(t *testing.T) {
	_, c, s := severalFaulty(t)
	where := fill(t, s, c)
	s.Acknowledge(s.Report(1000))
	if err := os.RemoveAll(c.Dirs[2]); err != nil {
		t.Fatal(err)
	}
	checkCode(t, s.Verify(where[c.Dirs[2]][0]), dfs.NotFound)
	checkAll(t, s, where, c.Dirs[0], c.Dirs[1])
	if r := s.Report(1000); len(r.Corrupt) > 0 || len(r.Removed) != len(where[c.Dirs[2]]) {
		t.Errorf("reported %+v", r)
	}
}

// What keeps a single directory from being opened takes out only that one of
// several.
func TestOneVolumeCannotBeRead(t *testing.T) {
	f, c, s := severalFaulty(t)
	where := fill(t, s, c)
	shut(t, s)
	f.reset(failIn(c.Dirs[0], chunkstore.OpSyncDir, syscall.EACCES))
	s = open(t, c)
	checkAll(t, s, where, c.Dirs[1], c.Dirs[2])
	if status := s.Volumes()[0]; !status.Gone || status.Failure == nil {
		t.Errorf("%+v", status)
	}
	shut(t, s)
	f.reset(func(_ int, op chunkstore.Op, _ string) error {
		if op == chunkstore.OpSyncDir {
			return syscall.EACCES
		}
		return nil
	})
	if s, err := tryOpen(c); err == nil {
		t.Error("opened although no directory can be read")
		shut(t, s)
	}
	f.reset(failIn(c.Dirs[0], chunkstore.OpOpen, syscall.EMFILE))
	if s, err := tryOpen(c); dfs.CodeOf(err) != dfs.Internal {
		t.Errorf("a shortage of the process condemns a disk: %v", err)
		if err == nil {
			shut(t, s)
		}
	}
	f.reset(nil)
	s = open(t, c)
	checkAll(t, s, where, c.Dirs...)
}

// A directory that missed a start knows less of the others than those that did
// not.
func TestNewestListOfVolumesCounts(t *testing.T) {
	c := severalDirs(t)
	all := c.Dirs
	c.Dirs = all[:2]
	shut(t, open(t, c))
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(all[0], away); err != nil {
		t.Fatal(err)
	}
	c.Dirs = all // the third is new, and the first does not hear of it
	shut(t, open(t, c))
	if err := errors.Join(os.Rename(away, all[0]), os.RemoveAll(all[2])); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	if status := s.Volumes(); status[0].Gone || status[1].Gone || !status[2].Gone {
		t.Errorf("%+v", status)
	}
}

// A file that is damaged says nothing of a good one on another disk.
func TestDamagedHereAndGoodThere(t *testing.T) {
	c1, c2 := config(t.TempDir()), config(t.TempDir())
	both := c1
	both.Dirs = []string{c1.Dirs[0], c2.Dirs[0]}
	shut(t, open(t, both))
	for _, c := range []chunkstore.Config{c1, c2} {
		s := open(t, c)
		mustPut(t, s, 1, content(1, 1000))
		shut(t, s)
	}
	truncate(t, inDir(c1.Dirs[0], 1), 10)
	s := open(t, both)
	checkHolds(t, s, 1, content(1, 1000))
	if r := s.Report(10); len(r.Added)+len(r.Removed)+len(r.Corrupt) > 0 || r.Count != 1 || r.Digest != s.Totals().Digest {
		t.Errorf("reported %+v", r)
	}
}

// A directory may go while one of its chunks is being changed.
func TestDirectoryGoesInBetween(t *testing.T) {
	for name, which := range map[string]chunkstore.Op{"written": chunkstore.OpSyncDir, "removed": chunkstore.OpRemove} {
		t.Run(name, func(t *testing.T) {
			c := config(t.TempDir())
			var s *chunkstore.Store
			armed := false
			c.Hook = func(op chunkstore.Op, path string) error {
				if !armed || op != which || !strings.Contains(path, "chunks") {
					return nil
				}
				armed = false
				writeIdentity(t, c.Dirs[0], identityJSON{Format: 1, Instance: strings.Repeat("e", 32), NodeID: "dn1"})
				s.Probe()
				if which == chunkstore.OpRemove {
					return syscall.EIO
				}
				return nil
			}
			s = open(t, c)
			mustPut(t, s, 1, content(1, 100))
			armed = true
			err := put(s, 2, content(2, 100))
			if which == chunkstore.OpRemove {
				err = s.Remove(1)
			}
			checkCode(t, err, dfs.Internal)
			if got := s.Totals(); got != (chunkstore.Totals{}) || s.Volumes()[0].Chunks != 0 {
				t.Errorf("%+v is held in a directory that is gone", got)
			}
			checkCode(t, s.Writable(), dfs.Internal)
			_, err = s.Space()
			checkCode(t, err, dfs.Internal)
			if err := s.RaiseTerm(2); err == nil {
				t.Error("a term was noted nowhere")
			}
		})
	}
}

// Several directories may be new at once. Whenever a start dies, those that
// have no identity yet are still new at the next one.
func TestDeathWhileSeveralDisksAreNew(t *testing.T) {
	for _, used := range []int{0, 1} {
		for at := 1; ; at++ {
			f := &faults{}
			c := severalDirs(t)
			all := c.Dirs[:2+used]
			if c.Dirs = all[:used]; used > 0 {
				shut(t, open(t, c))
			}
			c.Dirs, c.Hook = all, f.hook
			f.reset(func(n int, _ chunkstore.Op, _ string) error {
				if n >= at {
					return errors.New("the process is dead")
				}
				return nil
			})
			if s, err := tryOpen(c); err == nil {
				shut(t, s)
			}
			survived := len(f.operations()) < at
			f.reset(nil)
			s := open(t, c)
			for _, status := range s.Volumes() {
				if status.Gone || status.Failure != nil {
					t.Errorf("%d in use, death at operation %d: %+v", used, at, status)
				}
			}
			for _, dir := range c.Dirs {
				if got := readIdentity(t, dir); len(got.Volumes) != len(all) {
					t.Errorf("%s lists %+v", dir, got.Volumes)
				}
			}
			shut(t, s)
			if survived {
				break
			}
		}
	}
}
