//go:build linux

package faults

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/faultbed"
)

// TestFrozenLeaderDisk lets the leader's disk hang under load: the others take
// over, and it comes back when it is started again.
func TestFrozenLeaderDisk(t *testing.T) {
	faultbed.Duration(t)
	b := faultbed.New(t, faultbed.Options{
		NameNodes: 3, NameNodeDisk: faultbed.Disk{Kind: faultbed.Ext4, Size: 128 << 20}, NameNodeFlags: []string{"-disk-timeout", "5s"},
	})
	c := b.Client()
	l := newLedger(t, b)
	work := newLoad(t, c, l, faultbed.Random(t), "frozen", 1, 0)
	work.step = (*worker).tickMkdir
	work.start(t.Context())
	leader := b.LeaderAmong(b.NameNodes()...)
	b.Freeze(leader)
	frozen := time.Now()
	next := b.LeaderAmong(b.Others(leader)...)
	t.Logf("%s leads %s after the disk of %s froze", next, time.Since(frozen).Round(time.Millisecond), leader)
	count := l.count()
	b.WaitUntil("the others go on", func() bool { return l.count() > count+20 })
	b.WaitUntil("it says why it ends", func() bool { return strings.Contains(b.Log(leader), "the disk has not completed a write") })
	t.Logf("%s says so %s after its disk froze", leader, time.Since(frozen).Round(time.Millisecond))
	b.WaitUntil("nobody answers there any more", func() bool { return !listens(b.URL(leader)) })
	t.Logf("%s lets go of its port %s after its disk froze", leader, time.Since(frozen).Round(time.Millisecond))
	b.Thaw(leader) // until then, a thread that waits for the disk keeps the process
	b.WaitUntil("the process has ended", func() bool { return !b.Running(leader) })
	b.StartAll()
	b.WaitReady()
	work.quit()
	l.check(t, readBack(t, c, "/"))
	sameEverywhere(t, b)
}

// listens tells whether a connection to a server is accepted.
func listens(baseURL string) bool {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(baseURL, "http://"), isolatedTimeout)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
