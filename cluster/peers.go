package cluster

import (
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

const (
	maxPeers          = 15
	maxPeerListLength = maxPeers * (dfs.MaxNodeIDLength + 2*dfs.MaxURLLength + 8) // bytes
)

// Peer is one of the NameNodes that form a group together.
type Peer struct {
	ID       dfs.NodeID
	RaftAddr string // host:port of the Raft listener
	URL      string // base URL of the HTTP server
}

// ParsePeers reads a list like
// nn1=10.0.0.1:7000@http://10.0.0.1:8000,nn2=10.0.0.2:7000@http://10.0.0.2:8000
// and refuses one in which an ID, a Raft address or a URL appears twice.
func ParsePeers(list string) ([]Peer, error) {
	if len(list) > maxPeerListLength {
		return nil, dfs.Errorf(dfs.Invalid, "the list of peers is longer than %d bytes", maxPeerListLength)
	}
	parts := strings.Split(list, ",")
	if len(parts) > maxPeers {
		return nil, dfs.Errorf(dfs.Invalid, "%d peers are too many: a group has at most %d", len(parts), maxPeers)
	}
	peers := make([]Peer, 0, len(parts))
	for _, part := range parts {
		p, err := parsePeer(part)
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, checkDistinct(peers)
}

func parsePeer(s string) (Peer, error) {
	idText, rest, hasID := strings.Cut(s, "=")
	addrText, urlText, hasURL := strings.Cut(rest, "@")
	if !hasID || !hasURL {
		return Peer{}, dfs.Errorf(dfs.Invalid, "%.200q is not a peer: write it like nn1=host:7000@http://host:8000", s)
	}
	id, err := dfs.ParseNodeID(idText)
	if err != nil {
		return Peer{}, err
	}
	addr, err := dfs.ParseHostPort(addrText)
	if err != nil {
		return Peer{}, err
	}
	url, err := dfs.ParseBaseURL(urlText)
	if err != nil {
		return Peer{}, err
	}
	return Peer{ID: id, RaftAddr: addr, URL: url}, nil
}

func checkDistinct(peers []Peer) error {
	seen := make(map[string]bool)
	for _, p := range peers {
		for _, s := range []string{"ID " + string(p.ID), "Raft address " + p.RaftAddr, "URL " + p.URL} {
			if seen[s] {
				return dfs.Errorf(dfs.Invalid, "the %s appears twice in the list of peers: each peer needs its own", s)
			}
			seen[s] = true
		}
	}
	return nil
}

func findPeer(peers []Peer, id dfs.NodeID) (Peer, bool) {
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.ID == id })
	if i < 0 {
		return Peer{}, false
	}
	return peers[i], true
}

// initialConfiguration is the same on every peer that was given the same list,
// in whatever order: each of them writes it as its first log entry.
func initialConfiguration(peers []Peer) raft.Configuration {
	sorted := slices.SortedFunc(slices.Values(peers), func(a, b Peer) int {
		return strings.Compare(string(a.ID), string(b.ID))
	})
	var c raft.Configuration
	for _, p := range sorted {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.RaftAddr),
		})
	}
	return c
}

// peersDigest lets two empty members notice that they were given different
// lists. It is zero for no list.
func peersDigest(peers []Peer) dfs.Checksum {
	if len(peers) == 0 {
		return 0
	}
	return dfs.ChecksumOf(raft.EncodeConfiguration(initialConfiguration(peers)))
}
