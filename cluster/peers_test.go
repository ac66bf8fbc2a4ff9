package cluster

import (
	"slices"
	"strings"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
)

func TestParsePeers(t *testing.T) {
	got, err := ParsePeers("nn1=a:7000@http://a:8000,nn-2=[::1]:7001@http://b:8001/")
	want := []Peer{{"nn1", "a:7000", "http://a:8000"}, {"nn-2", "[::1]:7001", "http://b:8001"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, error %v", got, err)
	}
	bad := map[string]string{
		"empty":               "",
		"no URL":              "nn1=a:7000",
		"no address":          "nn1=@http://a:8000",
		"no ID":               "=a:7000@http://a:8000",
		"no equals sign":      "a:7000@http://a:8000",
		"no port":             "nn1=a@http://a:8000",
		"port 0":              "nn1=a:0@http://a:8000",
		"no host":             "nn1=:7000@http://a:8000",
		"not HTTP":            "nn1=a:7000@ftp://a:8000",
		"URL with a path":     "nn1=a:7000@http://a:8000/x",
		"bad ID":              "n/1=a:7000@http://a:8000",
		"long ID":             strings.Repeat("n", 65) + "=a:7000@http://a:8000",
		"trailing comma":      "nn1=a:7000@http://a:8000,",
		"space":               "nn1=a:7000@http://a:8000, nn2=b:7000@http://b:8000",
		"ID twice":            "nn1=a:7000@http://a:8000,nn1=b:7000@http://b:8000",
		"address twice":       "nn1=a:7000@http://a:8000,nn2=a:7000@http://b:8000",
		"URL twice":           "nn1=a:7000@http://a:8000,nn2=b:7000@http://a:8000",
		"too many":            strings.Repeat("nn1=a:7000@http://a:8000,", 16),
		"longer than allowed": strings.Repeat("n", 1<<20),
	}
	for name, list := range bad {
		if peers, err := ParsePeers(list); dfs.CodeOf(err) != dfs.Invalid {
			t.Errorf("%s: got %v, error %v", name, peers, err)
		}
	}
}

func FuzzParsePeers(f *testing.F) {
	f.Add("nn1=a:7000@http://a:8000,nn2=b:7000@http://b:8000")
	f.Add("nn1=[::1]:7000@http://[::1]:8000")
	f.Fuzz(func(t *testing.T, list string) {
		peers, err := ParsePeers(list)
		if err != nil {
			return
		}
		var parts []string
		for _, p := range peers {
			parts = append(parts, string(p.ID)+"="+p.RaftAddr+"@"+p.URL)
		}
		again, err := ParsePeers(strings.Join(parts, ","))
		if err != nil || !slices.Equal(again, peers) {
			t.Errorf("%q became %v, which became %v (%v)", list, peers, again, err)
		}
	})
}

func TestInitialConfigurationDoesNotDependOnTheOrder(t *testing.T) {
	a := []Peer{{ID: "nn1", RaftAddr: "a:1"}, {ID: "nn2", RaftAddr: "b:1"}, {ID: "nn3", RaftAddr: "c:1"}}
	b := []Peer{a[2], a[0], a[1]}
	if !slices.Equal(initialConfiguration(a).Servers, initialConfiguration(b).Servers) || peersDigest(a) != peersDigest(b) {
		t.Error("two orders of the same peers make two groups")
	}
	if peersDigest(a) == peersDigest(a[:2]) || peersDigest(nil) != 0 {
		t.Error("the digest does not tell lists apart")
	}
}
