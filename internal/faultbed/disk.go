//go:build linux

package faultbed

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// DiskKind says what a node's directory lies on.
type DiskKind int

const (
	Plain DiskKind = iota // a directory beside the logs
	Ext4                  // ext4 on a loop device over a sparse file in memory: power can be cut
	Tmpfs                 // a file system in memory that can be filled up
)

// Disk is what a node's directory lies on. All kinds but Plain need root.
type Disk struct {
	Kind DiskKind
	Size int64 // bytes; at least 16 MiB for Ext4
}

// Requests of ioctl(2) that golang.org/x/sys does not name.
const (
	fsShutdown         = 0x8004587d // EXT4_IOC_SHUTDOWN
	shutdownNoLogFlush = 2          // at once, and nothing of the journal is written any more
	fsFreeze           = 0xc0045877 // FIFREEZE
	fsThaw             = 0xc0045878 // FITHAW
)

// disk is a mounted file system.
type disk struct {
	Disk
	image   string // "" on Tmpfs
	point   string
	mounted bool
}

// addDisk makes and mounts a disk of a node, if it is to have one. It returns
// the directory on it, or else the one that the node has beside the logs.
func (b *Bed) addDisk(n *node, name string) (dir string, added *disk) {
	b.t.Helper()
	wanted := b.options.NameNodeDisk
	if n.isDataNode() {
		wanted = b.options.DataNodeDisk
	}
	if wanted.Kind == Plain {
		return filepath.Join(b.dir, name), nil
	}
	d := &disk{Disk: wanted, point: filepath.Join(mountsRoot, b.stake.name(), name)}
	b.t.Cleanup(func() { b.removeDisk(name, d) })
	if err := os.MkdirAll(d.point, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if d.Kind == Ext4 {
		d.image = filepath.Join(imagesRoot, b.stake.name(), name+".img")
		if err := makeImage(d.image, d.Size); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := d.mount(); err != nil {
		b.t.Fatal(err)
	}
	return filepath.Join(d.point, n.id), d
}

// makeImage makes a file with an empty file system. The first of each size in a
// directory becomes the template of the others.
func makeImage(path string, size int64) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	template := filepath.Join(dir, fmt.Sprintf("empty-%d.img", size))
	if _, err := os.Stat(template); err != nil {
		file, err := os.Create(template)
		if err != nil {
			return err
		}
		if err := file.Truncate(size); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		if err := run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4", "-E", "nodiscard", template); err != nil {
			return err
		}
	}
	return copySparse(template, path)
}

func copySparse(from, to string) error { return run("cp", "--sparse=always", from, to) }

func (d *disk) mount() error {
	args := []string{"-t", "ext4", "-o", "loop,noatime,commit=3600", d.image, d.point}
	if d.Kind == Tmpfs {
		args = []string{"-t", "tmpfs", "-o", fmt.Sprintf("size=%d", d.Size), "dfs-faultbed", d.point}
	}
	if err := run("mount", args...); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

func (d *disk) unmount() error {
	if !d.mounted {
		return nil
	}
	if err := unmountDead(d.point); err != nil {
		return err
	}
	d.mounted = false
	return nil
}

// removeDisk is the clean-up of addDisk; the processes have been killed.
func (b *Bed) removeDisk(name string, d *disk) {
	keep := b.t.Failed()
	if keep && d.Kind == Tmpfs && d.mounted {
		if err := run("cp", "-a", d.point, b.Path(name)); err != nil {
			b.t.Log(err)
		}
	}
	if err := d.unmount(); err != nil {
		b.t.Error(err)
		return
	}
	if keep && d.image != "" {
		if err := copySparse(d.image, b.Path(name+".img")); err != nil {
			b.t.Log(err)
		}
	}
	if err := os.Remove(d.point); err != nil {
		b.t.Errorf("clean up: %v", err)
	}
	if d.image != "" {
		_ = os.Remove(d.image) // not there when making it failed
	}
	removeWhenEmpty(b.stake)
}

// removeWhenEmpty removes the directories of the bed after its last disk.
func removeWhenEmpty(s *stake) {
	mounts := filepath.Join(mountsRoot, s.name())
	if os.Remove(mounts) != nil {
		return // another disk is there
	}
	_ = os.RemoveAll(filepath.Join(imagesRoot, s.name())) // the next sweep sees what stays
	_ = os.Remove(mountsRoot)                             // other beds may be using it
}

// PowerCut takes the power away from nodes, or all, at this moment: what they
// have not fsynced is lost. Their disks must be Ext4. They are down afterwards;
// Start turns them on again.
func (b *Bed) PowerCut(ids ...string) {
	b.t.Helper()
	nodes := b.some(ids)
	for _, n := range nodes {
		if n.disk == nil || n.disk.Kind != Ext4 {
			b.t.Fatalf("%s has no disk that power can be cut from", n.id)
		}
	}
	for _, n := range nodes {
		if n.running != nil {
			_ = n.running.cmd.Process.Signal(syscall.SIGSTOP) // fails when it has ended
		}
	}
	for _, n := range nodes {
		if err := control(n.disk.point, fsShutdown, shutdownNoLogFlush); err != nil {
			b.t.Fatalf("cut the power of %s: %v", n.id, err)
		}
	}
	if err := kill(nodes); err != nil {
		b.t.Fatal(err)
	}
	for _, n := range nodes {
		if err := n.disk.unmount(); err != nil {
			b.t.Fatal(err)
		}
		if err := n.disk.mount(); err != nil {
			b.t.Fatalf("after the power cut: %v", err)
		}
	}
}

// Freeze makes everything that writes to the disk of a node (Ext4) hang until
// Thaw.
func (b *Bed) Freeze(id string) {
	b.t.Helper()
	d := b.node(id).disk
	if d == nil || d.Kind != Ext4 {
		b.t.Fatalf("%s has no disk that can be frozen", id)
	}
	b.t.Cleanup(func() { _ = thaw(d.point) }) // it is an error when it was thawed
	if err := control(d.point, fsFreeze, 0); err != nil {
		b.t.Fatalf("freeze the disk of %s: %v", id, err)
	}
}

// Thaw undoes Freeze.
func (b *Bed) Thaw(id string) {
	b.t.Helper()
	if err := thaw(b.node(id).disk.point); err != nil {
		b.t.Fatalf("thaw the disk of %s: %v", id, err)
	}
}

func thaw(point string) error { return control(point, fsThaw, 0) }

// control makes a request to the file system that holds a directory.
func control(dir string, request uint, argument int) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), request, argument)
}

// Fill takes all the space that is free on the disk of a node. It returns what
// gives the space back.
func (b *Bed) Fill(id string) (empty func()) {
	b.t.Helper()
	d := b.node(id).disk
	if d == nil {
		b.t.Fatalf("%s has no disk of its own that could be filled", id)
	}
	path := filepath.Join(d.point, "filler")
	file, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = file.Write(block)
	}
	_ = file.Close() // the write has failed already, which is the aim
	return func() {
		b.t.Helper()
		if err := os.Remove(path); err != nil {
			b.t.Fatal(err)
		}
	}
}

// mountsWork finds out, once, whether this process may mount loop devices.
var mountsWork = sync.OnceValue(tryMount)

func requireMounts(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("file systems of its own need root")
	}
	if err := mountsWork(); err != nil {
		t.Skipf("this machine cannot mount an ext4 image: %v", err)
	}
}

func tryMount() error {
	dir, err := makeTemp("try")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // a try; what stays is in the temporary directory
	d := &disk{Disk: Disk{Kind: Ext4, Size: 16 << 20}, image: filepath.Join(dir, "try.img"), point: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(d.point, 0o700); err != nil {
		return err
	}
	if err := makeImage(d.image, d.Size); err != nil {
		return err
	}
	if err := d.mount(); err != nil {
		return err
	}
	if err := control(d.point, fsShutdown, shutdownNoLogFlush); err != nil {
		return wrap("EXT4_IOC_SHUTDOWN", err)
	}
	return d.unmount()
}
