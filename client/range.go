package client

import (
	"context"
	"io"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

// ToTheEnd, as the length of a range, means all that follows its offset.
const ToTheEnd = -1

// ReadRange writes length bytes of the file path, from offset on, to w, and
// returns how many it has written: less without an error when the file ends
// before. It is like Download, also in that nothing is written that was not
// verified; of a chunk that is needed only in part, only the blocks around that
// part are fetched.
//
// Errors are those of Download, and dfs.Invalid when offset is negative or lies
// beyond the end, or length is negative and not ToTheEnd.
func (c *Client) ReadRange(ctx context.Context, path dfs.Path, w io.Writer, offset, length int64) (int64, error) {
	if offset < 0 || length < 0 && length != ToTheEnd {
		return 0, dfs.Errorf(dfs.Invalid, "%d bytes from byte %d on are not a range: neither may be negative", length, offset)
	}
	d, err := c.open(ctx, path)
	if err != nil {
		return 0, err
	}
	left := d.file.Size - offset
	if left < 0 {
		return 0, dfs.Errorf(dfs.Invalid, "byte %d lies beyond the end of %s, which has %d bytes", offset, path, d.file.Size)
	}
	if length == ToTheEnd {
		length = left
	}
	var written int64
	err = d.read(ctx, w, offset, offset+min(length, left), func(n int64) { written += n })
	return written, err
}
