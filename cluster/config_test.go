package cluster

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func goodConfig() Config {
	return Config{
		ID: "nn1", Dir: "x", RaftAddr: "10.0.0.1:7000", FSM: &journal{},
		Admit: func(context.Context, dfs.ClusterID) error { return nil },
		Peers: []Peer{{"nn1", "10.0.0.1:7000", "http://a:1"}, {"nn2", "10.0.0.2:7000", "http://b:1"}},
	}
}

func TestConfigFaults(t *testing.T) {
	if _, err := goodConfig().prepared(); err != nil {
		t.Fatalf("the good configuration is refused: %v", err)
	}
	faults := map[string]func(*Config){
		"no ID":                    func(c *Config) { c.ID = "" },
		"bad ID":                   func(c *Config) { c.ID = "a b" },
		"no directory":             func(c *Config) { c.Dir = "" },
		"no state machine":         func(c *Config) { c.FSM = nil },
		"peers and join":           func(c *Config) { c.Join = true },
		"not among its peers":      func(c *Config) { c.ID = "nn9" },
		"peer twice":               func(c *Config) { c.Peers[1] = c.Peers[0] },
		"nobody to admit it":       func(c *Config) { c.Admit = nil },
		"trailing below threshold": func(c *Config) { c.SnapshotThreshold, c.TrailingLogs = 100, 99 },
		"other advertised address": func(c *Config) { c.Advertise = "10.0.0.9:7000" },
		"lease over heartbeat":     func(c *Config) { c.Timing = DefaultTiming(); c.Timing.LeaderLease = time.Second },
		"heartbeat over election":  func(c *Config) { c.Timing = DefaultTiming(); c.Timing.HeartbeatTimeout = time.Second },
		"half a timing":            func(c *Config) { c.Timing.HeartbeatTimeout = time.Second },
		"instance too long":        func(c *Config) { c.Instance = string(make([]byte, 65)) },
	}
	for name, spoil := range faults {
		c := goodConfig()
		spoil(&c)
		if _, err := c.prepared(); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestAdvertisedAddress(t *testing.T) {
	listening := &net.TCPAddr{IP: net.IPv4zero, Port: 7001}
	cases := []struct {
		name   string
		config Config
		want   string // "" for refused
	}{
		{"said", Config{RaftAddr: ":7001", Advertise: "a:9", Join: true}, "a:9"},
		{"said, but unusable", Config{RaftAddr: ":7001", Advertise: ":9"}, ""},
		{"from the list of peers", Config{ID: "nn1", RaftAddr: ":7001", Peers: []Peer{{ID: "nn1", RaftAddr: "b:7"}}}, "b:7"},
		{"from the listener", Config{RaftAddr: "10.0.0.1:0", Join: true}, "10.0.0.1:7001"},
		{"name", Config{RaftAddr: "host:7001", Join: true}, "host:7001"},
		{"IPv6", Config{RaftAddr: "[fe80::1]:7001", Join: true}, "[fe80::1]:7001"},
		{"alone", Config{RaftAddr: ":7001"}, "127.0.0.1:7001"},
		{"alone, unspecified", Config{RaftAddr: "0.0.0.0:7001"}, "127.0.0.1:7001"},
		{"joining without a host", Config{RaftAddr: ":7001", Join: true}, ""},
		{"joining, unspecified", Config{RaftAddr: "0.0.0.0:7001", Join: true}, ""},
		{"joining, unspecified IPv6", Config{RaftAddr: "[::]:7001", Join: true}, ""},
	}
	for _, c := range cases {
		got, err := c.config.advertised(listening)
		if got != c.want || c.want == "" && dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: got %q, error %v", c.name, got, err)
		}
	}
}
