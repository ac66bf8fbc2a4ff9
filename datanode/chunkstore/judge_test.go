package chunkstore_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
	"github.com/dfs-go/dfs-go/internal/dfs"
)

func checkQuarantine(t *testing.T, dir string, want int) {
	t.Helper()
	if got := files(t, filepath.Join(dir, "quarantine")); len(got) != want {
		t.Errorf("%d files in quarantine, not %d: %q", len(got), want, got)
	}
}

// A start that cannot read says nothing of the chunks.
func TestUnreadableAtStart(t *testing.T) {
	for _, op := range []chunkstore.Op{chunkstore.OpOpen, chunkstore.OpRead} {
		for errno, opens := range map[syscall.Errno]bool{
			syscall.EMFILE: false, syscall.ENFILE: false, syscall.ENOMEM: false, syscall.EACCES: false,
			syscall.EIO: true, syscall.EBADMSG: true,
		} {
			t.Run(string(op)+" "+errno.Error(), func(t *testing.T) {
				f, c, s := faulty(t)
				for _, id := range []dfs.ChunkID{1, 2} {
					mustPut(t, s, id, content(id, 1000))
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				f.reset(func(_ int, o chunkstore.Op, path string) error {
					if o == op && path == chunkPath(c.Dirs[0], 1) {
						return &os.PathError{Op: "open", Path: path, Err: errno}
					}
					return nil
				})
				if opens {
					s = open(t, c)
					checkHeldNot(t, s, 1)
					checkHolds(t, s, 2, content(2, 1000))
					if r := s.Report(10); len(r.Corrupt) > 0 {
						t.Errorf("reported %+v", r)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				} else if s, err := tryOpen(c); err == nil {
					t.Error("opened")
					_ = s.Close() // the failure is told already
				}
				f.reset(nil)
				checkQuarantine(t, c.Dirs[0], 0)
				s = open(t, c)
				checkHolds(t, s, 1, content(1, 1000))
				checkHolds(t, s, 2, content(2, 1000))
			})
		}
	}
}

// A newer version's chunks are not thrown away by an older one; a footer that
// has only rotted in the same place is.
func TestNewerFormat(t *testing.T) {
	const size = 1000
	const version, blockSize = size + 4 + 8, size + 4 + 12
	seal := func(file []byte) {
		end := len(file) - 4
		binary.LittleEndian.PutUint32(file[end:], uint32(dfs.ChecksumOf(file[size:end])))
	}
	for name, change := range map[string]func(file []byte) []byte{
		"version":    func(file []byte) []byte { file[version] = 2; seal(file); return file },
		"block size": func(file []byte) []byte { file[blockSize+2] = 2; seal(file); return file },
		"layout": func(file []byte) []byte {
			file[version] = 9
			return append([]byte("more"), file...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t.TempDir())
			s := open(t, c)
			mustPut(t, s, 1, content(1, size))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(chunkPath(c.Dirs[0], 1))
			if err != nil {
				t.Fatal(err)
			}
			changed := change(bytes.Clone(before))
			write(t, chunkPath(c.Dirs[0], 1), changed)
			if s, err := tryOpen(c); dfs.CodeOf(err) != dfs.Conflict || !strings.Contains(err.Error(), "was written by a newer version of DFS-Go; start that version") {
				t.Errorf("%v", err)
				if err == nil {
					_ = s.Close() // the failure is told already
				}
			}
			checkQuarantine(t, c.Dirs[0], 0)
			if after, err := os.ReadFile(chunkPath(c.Dirs[0], 1)); err != nil || !bytes.Equal(after, changed) {
				t.Errorf("the file was touched: %v", err)
			}
			write(t, chunkPath(c.Dirs[0], 1), before)
			before[version] = 2 // and nothing else: it has rotted
			write(t, chunkPath(c.Dirs[0], 1), before)
			checkHeldNot(t, open(t, c), 1)
			checkQuarantine(t, c.Dirs[0], 1)
		})
	}
}
