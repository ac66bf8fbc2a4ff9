package client

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// DownloadFile is Download into a local file. It is written beside its final
// place and renamed when it is whole and on disk; a failure leaves nothing
// behind, and what was there before as it was. Something that is not a regular
// file, like a named pipe, is written to directly.
func (c *Client) DownloadFile(ctx context.Context, path dfs.Path, local string, options DownloadOptions) (protocol.File, error) {
	place, info, err := resolve(local)
	if err != nil {
		return protocol.File{}, err
	}
	if info != nil && !info.Mode().IsRegular() {
		return c.downloadInto(ctx, path, place, options)
	}
	f, err := createBeside(place, info)
	if err != nil {
		return protocol.File{}, localError(err)
	}
	temporary := f.Name()
	file, err := c.Download(ctx, path, f, options)
	if err == nil && info != nil {
		err = localError(f.Chmod(info.Mode().Perm())) // what the umask took away
	}
	if err == nil {
		err = localError(f.Sync())
	}
	if closeErr := localError(f.Close()); err == nil {
		err = closeErr
	}
	if err == nil {
		err = localError(os.Rename(temporary, place))
	}
	if err != nil {
		_ = os.Remove(temporary) // the first error is the one to tell
		return file, err
	}
	return file, syncDirectory(filepath.Dir(place))
}

// createBeside makes a temporary file in the directory of place. Its name is
// short, whatever the length of the other. While it is written, nobody can read
// it who cannot read what it replaces.
func createBeside(place string, replaced fs.FileInfo) (*os.File, error) {
	permissions := fs.FileMode(0o666)
	if replaced != nil {
		permissions = replaced.Mode().Perm()
	}
	temporary := filepath.Join(filepath.Dir(place), ".dfs-"+dfs.RandomHex())
	return os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, permissions)
}

// resolve follows symbolic links, so that what they point to is replaced and
// not they. The info is nil when there is nothing yet.
func resolve(local string) (string, fs.FileInfo, error) {
	place, err := filepath.EvalSymlinks(local)
	if trimmed := strings.TrimRight(local, "/"); trimmed != local && trimmed != "" {
		info, err := os.Stat(trimmed)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", nil, dfs.Errorf(dfs.NotFound, "there is no directory %s", trimmed)
		case err == nil && !info.IsDir():
			return "", nil, dfs.Errorf(dfs.NotDirectory, "%s is not a directory", trimmed)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		place, err := resolveMissing(local)
		return place, nil, err
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return "", nil, dfs.Errorf(dfs.NotDirectory, "%s: something on the way to it is not a directory", local)
	}
	if err != nil {
		return "", nil, localError(err)
	}
	info, err := os.Stat(place)
	if err == nil && info.IsDir() {
		return "", nil, dfs.Errorf(dfs.IsDirectory, "%s is a directory; name the file to write", local)
	}
	return place, info, localError(err)
}

// resolveMissing finds out where a file goes that is not there yet: also where a
// symbolic link points to, but not through a chain of them.
func resolveMissing(local string) (string, error) {
	place := local
	if target, err := os.Readlink(local); err == nil {
		if place = target; !filepath.IsAbs(target) {
			place = filepath.Join(filepath.Dir(local), target)
		}
		if _, err := os.Lstat(place); err == nil {
			return "", dfs.Errorf(dfs.Invalid, "%s is a symbolic link that leads nowhere; remove it, or name the file it should lead to", local)
		}
	}
	parent, err := os.Stat(filepath.Dir(place))
	if err == nil && !parent.IsDir() {
		return "", dfs.Errorf(dfs.NotDirectory, "%s is not a directory", filepath.Dir(place))
	}
	return place, localError(err)
}

// OpenLocal is os.OpenFile of something that exists, except that it returns when
// ctx ends: opening a named pipe waits for somebody at its other end.
func OpenLocal(ctx context.Context, name string, flag int) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		f, err := os.OpenFile(name, flag, 0)
		select {
		case done <- result{f, err}:
		case <-ctx.Done():
			if err == nil {
				_ = f.Close() // nobody has used it
			}
		}
	}()
	select {
	case got := <-done:
		return got.f, got.err
	case <-ctx.Done():
		return nil, interrupted(ctx, "the opening of "+name+" was interrupted")
	}
}

func (c *Client) downloadInto(ctx context.Context, path dfs.Path, place string, options DownloadOptions) (protocol.File, error) {
	f, err := OpenLocal(ctx, place, os.O_WRONLY)
	if ctx.Err() != nil {
		return protocol.File{}, err
	}
	if err != nil {
		return protocol.File{}, localError(err)
	}
	file, err := c.Download(ctx, path, f, options)
	if closeErr := localError(f.Close()); err == nil {
		err = closeErr
	}
	return file, err
}

// syncDirectory makes a rename last. Where files may be made but not listed,
// it cannot, and leaves that to the file system.
func syncDirectory(directory string) error {
	f, err := os.Open(directory)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return localError(err)
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return localError(err)
}

// localError gives a failure of the local file system a code.
func localError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return dfs.Errorf(dfs.NotFound, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return dfs.Errorf(dfs.Forbidden, "%w", err)
	}
	return dfs.Errorf(dfs.Internal, "%w", err)
}
