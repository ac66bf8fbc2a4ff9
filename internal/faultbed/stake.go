//go:build linux

package faultbed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stakePort  = 7088
	lastNumber = 250
	mountsRoot = "/run/dfs-faultbed" // mount points: mountsRoot/prefixN/id
	imagesRoot = "/dev/shm"          // images: imagesRoot/prefixN/id.img
	namePrefix = "dfsb"
	tempPrefix = "dfs-faultbed-"  // of temporary directories, followed by the process ID
	sweepWait  = 10 * time.Second // for killed processes to let go of a mount
)

// stake is the ownership of a number, and so of everything that is named after
// it. It ends with the process at the latest.
type stake struct {
	number int
	held   net.Listener
}

// name is the bed's part of all names that others on the machine can see.
func (s *stake) name() string { return namePrefix + strconv.Itoa(s.number) }

// of is the name of what belongs to one node.
func (s *stake) of(n *node) string { return s.name() + "-" + n.id }

func take(number int) (*stake, error) {
	held, err := net.Listen("tcp", fmt.Sprintf("127.88.%d.1:%d", number, stakePort))
	if err != nil {
		return nil, err
	}
	return &stake{number: number, held: held}, nil
}

// claim takes a free number for the time of the test, after sweeping what
// killed runs have left.
func claim(t testing.TB) *stake {
	t.Helper()
	if err := sweepAll(); err != nil {
		t.Logf("what an earlier run has left could not be swept: %v", err)
	}
	var err error
	for i := range lastNumber {
		var s *stake
		if s, err = take((os.Getpid()+i)%lastNumber + 1); err == nil {
			t.Cleanup(func() { _ = s.held.Close() }) // nothing was ever sent
			return s
		}
	}
	t.Fatalf("no number is free for a bed: %v", err)
	return nil
}

// makeTemp makes a temporary directory that can be swept once this process is
// dead.
func makeTemp(what string) (string, error) {
	return os.MkdirTemp("", fmt.Sprintf("%s%d-%s-", tempPrefix, os.Getpid(), what))
}

// sweepAll removes what beds of dead processes have left.
func sweepAll() error {
	failures := sweepTemp()
	if os.Getuid() != 0 {
		return errors.Join(failures...) // all else belongs to root
	}
	for _, number := range leftovers() {
		s, err := take(number)
		if err != nil {
			continue // its owner lives
		}
		if err := s.sweep(); err != nil {
			failures = append(failures, fmt.Errorf("bed %d: %w", number, err))
		}
		_ = s.held.Close() // nothing was ever sent
	}
	return errors.Join(failures...)
}

// sweepTemp removes what makeTemp made for processes that are dead. A process ID
// that is in use again only delays it.
func sweepTemp() (failures []error) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*"))
	failures = append(failures, err)
	for _, dir := range found {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), tempPrefix), "-")
		pid, err := strconv.Atoi(text)
		if err == nil && !strings.HasSuffix(dir, keptSuffix) && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			if err := os.RemoveAll(dir); !errors.Is(err, fs.ErrPermission) { // of another user
				failures = append(failures, err)
			}
		}
	}
	return failures
}

// leftovers finds the numbers in names that beds give.
func leftovers() []int {
	var names []string
	for _, place := range []string{imagesRoot, mountsRoot, "/run/netns", "/sys/class/net", cpuHierarchy, allHierarchy} {
		found, err := filepath.Glob(filepath.Join(place, namePrefix+"*"))
		if err == nil { // the patterns are fine
			names = append(names, found...)
		}
	}
	ours := regexp.MustCompile(`^` + namePrefix + `([0-9]{1,3})(-[a-z0-9]+)?$`)
	seen := make(map[int]bool)
	var numbers []int
	for _, name := range names {
		match := ours.FindStringSubmatch(filepath.Base(name))
		if match == nil {
			continue
		}
		number, err := strconv.Atoi(match[1])
		if err == nil && number >= 1 && number <= lastNumber && !seen[number] {
			seen[number] = true
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// sweep removes everything that carries the number. The processes are dead: they
// die with the test process that started them.
func (s *stake) sweep() error {
	var failures []error
	mounts := filepath.Join(mountsRoot, s.name())
	for _, point := range mountPoints(mounts) {
		failures = append(failures, unmountDead(point))
	}
	failures = append(failures, removeTree(mounts), removeTree(filepath.Join(imagesRoot, s.name())))
	for _, pattern := range []string{"/run/netns/" + s.name() + "-*", "/sys/class/net/" + s.name() + "-*", "/sys/class/net/" + s.name()} {
		found, err := filepath.Glob(pattern)
		failures = append(failures, err)
		for _, path := range found {
			failures = append(failures, removeNetwork(path))
		}
	}
	for _, hierarchy := range []string{cpuHierarchy, allHierarchy} {
		found, err := filepath.Glob(filepath.Join(hierarchy, s.name()+"-*"))
		failures = append(failures, err)
		for _, path := range found {
			failures = append(failures, os.Remove(path))
		}
	}
	return errors.Join(failures...)
}

// removeNetwork removes a namespace or link, which may have gone with another.
func removeNetwork(path string) error {
	name := filepath.Base(path)
	if strings.HasPrefix(path, "/run/netns/") {
		return run("ip", "netns", "del", name)
	}
	err := run("ip", "link", "del", name)
	if _, gone := os.Lstat(path); gone != nil {
		return nil // a link goes with the namespace of its other end, a moment later
	}
	return err
}

// removeTree is os.RemoveAll, but stays off what is still mounted.
func removeTree(dir string) error {
	if left := mountPoints(dir); len(left) > 0 {
		return fmt.Errorf("%s is still mounted", left[0])
	}
	return os.RemoveAll(dir)
}

// mountPoints lists what is mounted in dir, the latest first.
func mountPoints(dir string) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var points []string
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append([]string{fields[4]}, points...)
		}
	}
	return points
}

// unmountDead unmounts a disk whose users have been killed, perhaps a moment
// ago, and that may be frozen.
func unmountDead(point string) error {
	_ = thaw(point) // it is an error when it is not frozen
	deadline := time.Now().Add(sweepWait)
	for {
		err := unix.Unmount(point, 0)
		if err == nil || time.Now().After(deadline) {
			return wrap("unmount "+point, err)
		}
		time.Sleep(pollingWait)
	}
}

// run runs a command of the system.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
