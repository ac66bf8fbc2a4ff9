//go:build linux

package faultbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// place is one more data directory of a DataNode.
type place struct {
	dir  string
	disk *disk // nil when dir is a plain directory
}

func (b *Bed) addPlaces(n *node) {
	b.t.Helper()
	if !n.isDataNode() {
		return
	}
	for i := 2; i <= b.options.DataDirs; i++ {
		dir, disk := b.addDisk(n, fmt.Sprintf("%s-%d", n.id, i))
		n.more = append(n.more, place{dir, disk})
	}
}

func (n *node) dirs() []string {
	dirs := []string{n.dir}
	for _, p := range n.more {
		dirs = append(dirs, p.dir)
	}
	return dirs
}

// Dirs returns all data directories of a node.
func (b *Bed) Dirs(id string) []string { return b.node(id).dirs() }

// lastDisk is the disk of the last data directory, which is the one to be harmed
// when the node is to go on.
func (b *Bed) lastDisk(id string) *disk {
	b.t.Helper()
	n := b.node(id)
	d := n.disk
	if len(n.more) > 0 {
		d = n.more[len(n.more)-1].disk
	}
	if d == nil || d.Kind != Ext4 {
		b.t.Fatalf("the last data directory of %s is on no disk that can be harmed", id)
	}
	return d
}

// BreakDisk lets the disk (Ext4) of the last data directory of a node fail: from
// now on everything that is not in memory is an input/output error.
func (b *Bed) BreakDisk(id string) {
	b.t.Helper()
	if err := control(b.lastDisk(id).point, fsShutdown, shutdownNoLogFlush); err != nil {
		b.t.Fatalf("break a disk of %s: %v", id, err)
	}
}

// PullDisk unmounts the disk (Ext4) of the last data directory of a node, which
// may be in use. What the node finds there from now on is an empty directory.
func (b *Bed) PullDisk(id string) {
	b.t.Helper()
	d := b.lastDisk(id)
	if err := unix.Unmount(d.point, unix.MNT_DETACH); err != nil {
		b.t.Fatalf("pull a disk of %s: %v", id, err)
	}
	d.mounted = false
}

// PutBackDisk mounts the disk of the last data directory of a node again, which
// must not be running.
func (b *Bed) PutBackDisk(id string) {
	b.t.Helper()
	if b.Running(id) {
		b.t.Fatalf("%s still uses its disk", id)
	}
	d := b.lastDisk(id)
	if err := d.unmount(); err != nil {
		b.t.Fatal(err)
	}
	// Mounted twice, it would be damaged.
	b.WaitUntil("nobody uses "+d.image, func() bool { return !isAttached(d.image) })
	if err := d.mount(); err != nil {
		b.t.Fatalf("put back a disk of %s: %v", id, err)
	}
}

// isAttached tells whether a loop device has this file.
func isAttached(image string) bool {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return false
	}
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(content)) == image {
			return true
		}
	}
	return false
}
