package fsm

import (
	"slices"
	"strconv"
	"strings"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	// maxDirectRelease is how many chunks of a deleted file are released at
	// once; a larger file goes through the trash, so that Apply stays short.
	maxDirectRelease = 1024
	// maxPurge bounds the work of one Purge.
	maxPurge = 1 << 16
)

func notFound(path dfs.Path) error {
	return dfs.Errorf(dfs.NotFound, "there is no %s", path)
}

func notDirectory(path string) error {
	return dfs.Errorf(dfs.NotDirectory, "%s is a file, not a directory", path)
}

func (s *State) child(parent uint64, name string) *inode {
	key := s.keys.Get().(*inode)
	key.parent, key.name = parent, name
	n, _ := s.inodes.Get(key)
	key.name = ""
	s.keys.Put(key)
	return n
}

func (s *State) root() *inode {
	n, _ := s.dirs.Get(rootInode)
	return n
}

// lookup finds the inode at path. A file in the middle of the path is
// not_directory, anything missing not_found.
func (s *State) lookup(path dfs.Path) (*inode, error) {
	current := s.root()
	names := path.Names()
	for i, name := range names {
		if !current.directory {
			return nil, notDirectory(pathTo(names[:i]))
		}
		next := s.child(current.id, name)
		if next == nil {
			return nil, notFound(path)
		}
		current = next
	}
	return current, nil
}

func pathTo(names []string) string { return "/" + strings.Join(names, "/") }

// directory finds the directory at path.
func (s *State) directory(path dfs.Path) (*inode, error) {
	n, err := s.lookup(path)
	if err != nil {
		return nil, err
	}
	if !n.directory {
		return nil, notDirectory(path.String())
	}
	return n, nil
}

// file finds the file at path.
func (s *State) file(path dfs.Path) (*inode, error) {
	n, err := s.lookup(path)
	if err != nil {
		return nil, err
	}
	if n.directory {
		return nil, dfs.Errorf(dfs.IsDirectory, "%s is a directory, not a file", path)
	}
	return n, nil
}

// missing checks that the directories of path that exist are directories, and
// returns the deepest of them and the names below it that do not exist.
func (s *State) missing(path dfs.Path) (*inode, []string, error) {
	current := s.root()
	names := path.Names()
	for i, name := range names {
		next := s.child(current.id, name)
		if next == nil {
			return current, names[i:], nil
		}
		if !next.directory {
			return nil, nil, notDirectory(pathTo(names[:i+1]))
		}
		current = next
	}
	return current, nil, nil
}

// makeDirectories makes directories below each other, and returns the last.
func (s *State) makeDirectories(top *inode, names []string) *inode {
	for _, name := range names {
		top = s.link(newDirectory(top.id, name, s.clock))
	}
	return top
}

// newDirectory returns a directory that is not linked yet. The name is one of a
// path, which need not stay in memory for it.
func newDirectory(parent uint64, name string, mtime int64) *inode {
	return &inode{parent: parent, name: strings.Clone(name), directory: true, mtime: mtime}
}

// link gives a new inode its number and puts it into the tree.
func (s *State) link(n *inode) *inode {
	n.id = s.nextInode
	s.nextInode++
	s.put(n)
	return n
}

func (s *State) put(n *inode) {
	s.inodes.Set(n)
	if n.directory {
		s.dirs.Set(n.id, n)
	}
}

// move puts n at another place in the tree; what is below it comes along,
// because children name their parent by number.
func (s *State) move(n *inode, parent uint64, name string) {
	s.inodes.Delete(n)
	moved := *n
	moved.parent, moved.name = parent, name
	s.put(&moved)
}

func (s *State) unlink(n *inode) {
	s.inodes.Delete(n)
	if n.directory {
		s.dirs.Delete(n.id)
	}
}

// firstChild returns the first entry of a directory, nil when it is empty.
func (s *State) firstChild(dir uint64) *inode {
	var first *inode
	s.inodes.Ascend(&inode{parent: dir}, func(n *inode) bool {
		if n.parent == dir {
			first = n
		}
		return false
	})
	return first
}

// pathOf returns where a directory is; ok is false when it was deleted. Renames
// can make the path much longer than one that a caller may give.
func (s *State) pathOf(dir uint64) (path string, ok bool) {
	var few [16]string
	names, length := few[:0], 0 // from the end to the beginning
	for dir != rootInode {
		n, found := s.dirs.Get(dir)
		if !found {
			return "", false
		}
		names, length = append(names, n.name), length+1+len(n.name)
		dir = n.parent
	}
	var text strings.Builder
	text.Grow(length)
	for _, name := range slices.Backward(names) {
		text.WriteByte('/')
		text.WriteString(name)
	}
	return text.String(), true
}

func (c *Mkdir) apply(s *State) (Result, error) {
	deepest, names, err := s.missing(c.Path)
	switch {
	case err != nil:
		if n, lookupErr := s.lookup(c.Path); lookupErr == nil && !n.directory {
			return Result{}, dfs.Errorf(dfs.Exists, "%s exists and is a file", c.Path)
		}
		return Result{}, err
	case len(names) == 0 && !c.Parents:
		return Result{}, dfs.Errorf(dfs.Exists, "%s exists", c.Path)
	case len(names) > 1 && !c.Parents:
		return Result{}, dfs.Errorf(dfs.NotFound, "there is no %s to make %q in; ask for parents to make it too", c.Path.Parent(), c.Path.Name())
	}
	s.makeDirectories(deepest, names)
	return Result{}, nil
}

func (c *Delete) apply(s *State) (Result, error) {
	if c.Path.IsRoot() {
		return Result{}, dfs.Errorf(dfs.Invalid, "the root cannot be deleted; delete what is in it")
	}
	n, err := s.lookup(c.Path)
	if err != nil {
		return Result{}, err
	}
	if n.directory && !c.Recursive && s.firstChild(n.id) != nil {
		return Result{}, dfs.Errorf(dfs.NotEmpty, "%s is not empty; delete it recursively to delete all that is in it", c.Path)
	}
	s.discard(n)
	return Result{}, nil
}

// discard takes n out of the namespace at once; what takes long is left to
// Purge.
func (s *State) discard(n *inode) {
	light := !n.directory && len(n.chunks()) <= maxDirectRelease
	if light || n.directory && s.firstChild(n.id) == nil {
		s.release(n.chunks())
		s.unlink(n)
		return
	}
	s.moveToTrash(n)
}

func (s *State) moveToTrash(n *inode) {
	s.move(n, trashInode, strconv.FormatUint(n.id, 16)) // a name no other has
}

func (c *Purge) apply(s *State) (Result, error) {
	for work := 0; work < c.Limit; {
		n := s.firstChild(trashInode)
		if n == nil {
			return Result{}, nil
		}
		below := s.firstChild(n.id)
		switch {
		case below == nil:
			work += s.purgeLeaf(n, c.Limit-work)
		case below.directory: // up it comes, so that no depth makes a step long
			s.moveToTrash(below)
			work++
		default:
			work += s.purgeLeaf(below, c.Limit-work)
		}
	}
	return Result{More: s.Trashed()}, nil
}

// purgeLeaf removes an empty directory or a file with at most limit chunks; of
// a larger file it releases that many. It returns the work done, at least 1.
func (s *State) purgeLeaf(n *inode, limit int) int {
	chunks := n.chunks()
	if rest := len(chunks) - limit; rest > 0 {
		s.release(chunks[rest:])
		shorter := *n
		shorter.setChunks(chunks[:rest:rest])
		s.put(&shorter)
		return limit
	}
	s.release(chunks)
	s.unlink(n)
	return 1 + len(chunks)
}

func (c *Rename) apply(s *State) (Result, error) {
	if c.From.IsRoot() || c.To.IsRoot() {
		return Result{}, dfs.Errorf(dfs.Invalid, "the root cannot be renamed or replaced")
	}
	from, err := s.lookup(c.From)
	if err != nil {
		return Result{}, err
	}
	if c.To == c.From {
		return Result{}, nil
	}
	if c.To.Within(c.From) {
		return Result{}, dfs.Errorf(dfs.Invalid, "%s cannot be moved into itself", c.From)
	}
	parent, err := s.directory(c.To.Parent())
	if err != nil {
		return Result{}, err
	}
	if s.child(parent.id, c.To.Name()) != nil {
		return Result{}, dfs.Errorf(dfs.Exists, "%s exists; delete it first, or choose another name", c.To)
	}
	s.move(from, parent.id, strings.Clone(c.To.Name())) // without the path around it
	return Result{}, nil
}

func (c *SetReplication) apply(s *State) (Result, error) {
	if err := dfs.CheckReplication(c.Replication); err != nil {
		return Result{}, err
	}
	n, err := s.file(c.Path)
	if err != nil {
		return Result{}, err
	}
	changed := *n
	changed.replication = uint8(c.Replication)
	s.put(&changed)
	return Result{}, nil
}
