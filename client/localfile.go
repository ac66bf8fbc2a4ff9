package client

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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
	temporary := filepath.Join(filepath.Dir(place), "."+filepath.Base(place)+".dfs-"+dfs.RandomHex()[:8])
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return protocol.File{}, localError(err)
	}
	file, err := c.Download(ctx, path, f, options)
	if err == nil && info != nil {
		err = localError(f.Chmod(info.Mode().Perm()))
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

// resolve follows symbolic links, so that what they point to is replaced and
// not they. The info is nil when there is nothing yet.
func resolve(local string) (string, fs.FileInfo, error) {
	place, err := filepath.EvalSymlinks(local)
	if errors.Is(err, fs.ErrNotExist) {
		parent, err := os.Stat(filepath.Dir(local))
		if err == nil && !parent.IsDir() {
			return "", nil, dfs.Errorf(dfs.NotDirectory, "%s is not a directory", filepath.Dir(local))
		}
		return local, nil, localError(err)
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

func (c *Client) downloadInto(ctx context.Context, path dfs.Path, place string, options DownloadOptions) (protocol.File, error) {
	f, err := os.OpenFile(place, os.O_WRONLY, 0)
	if err != nil {
		return protocol.File{}, localError(err)
	}
	file, err := c.Download(ctx, path, f, options)
	if closeErr := localError(f.Close()); err == nil {
		err = closeErr
	}
	return file, err
}

func syncDirectory(directory string) error {
	f, err := os.Open(directory)
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
