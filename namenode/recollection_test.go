package namenode_test

import (
	"net/http"
	"testing"

	"github.com/dfs-go/dfs-go/internal/dfs"
	"github.com/dfs-go/dfs-go/internal/protocol"
)

// A request that nobody remembers is not carried out again.
func TestForgottenRequest(t *testing.T) {
	n := single(t)
	ask := func(method, path, body, id, age string) (int, protocol.ErrorBody) {
		return n.call(method, path, body, nil, protocol.HeaderRequestID, id, protocol.HeaderRequestAge, age)
	}
	n.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil)
	n.must(http.MethodDelete, "/files?path=/a", nil, nil, protocol.HeaderRequestID, "rm")
	n.must(http.MethodPost, "/mkdir", `{"path":"/a"}`, nil)
	// As long as nothing was ever forgotten, no age is too great.
	if status, failure := ask(http.MethodPost, "/mkdir", `{"path":"/b"}`, "b", "2000000000"); status != http.StatusCreated {
		t.Fatalf("%d %+v", status, failure)
	}
	if err := n.FillMemory(); err != nil {
		t.Fatal(err)
	}
	header := []string{protocol.HeaderRequestID, "rm", protocol.HeaderRequestAge, "60000"}
	response, _ := n.raw(http.MethodDelete, "/files?path=/a", nil, header...)
	if response.Header.Get("Retry-After") != "" {
		t.Error("it is to be asked for again, and will never be known")
	}
	for _, id := range []string{"rm", "another"} {
		if _, failure := ask(http.MethodDelete, "/files?path=/a", "", id, "60000"); failure.Code != dfs.UnknownOutcome {
			t.Fatalf("%s: %+v", id, failure)
		}
	}
	n.must(http.MethodGet, "/stat?path=/a", nil, nil)
	n.must(http.MethodPost, "/mkdir", `{"path":"/c"}`, nil, protocol.HeaderRequestID, "c") // a first try
	if status, failure := ask(http.MethodPost, "/mkdir", `{"path":"/c"}`, "c", "60000"); status != http.StatusCreated {
		t.Errorf("what is remembered: %d %+v", status, failure)
	}
	waitUntil(t, "the memory reaches back far enough for a young one", func() bool {
		_, failure := ask(http.MethodDelete, "/files?path=/a", "", "young", "1")
		if failure.Code != "" && failure.Code != dfs.UnknownOutcome {
			t.Fatal(failure)
		}
		return failure.Code == ""
	})
	for _, age := range []string{"x", "-1", "1.5", "99999999999"} {
		if status, failure := ask(http.MethodPost, "/mkdir", `{"path":"/d"}`, "d", age); status != http.StatusBadRequest {
			t.Errorf("age %q: %d %+v", age, status, failure)
		}
	}
}
