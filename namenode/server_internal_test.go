package namenode

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dfs-go/dfs-go/internal/protocol"
)

// deadlines notes the deadline for reading.
type deadlines struct {
	*httptest.ResponseRecorder
	read []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = append(d.read, t)
	return nil
}

// TestBodyDeadlineEndsWithTheBody: net/http reads on while a call is served, and
// cancels it when that fails. A call may take longer than its body.
func TestBodyDeadlineEndsWithTheBody(t *testing.T) {
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, protocol.Mkdir.Pattern, strings.NewReader(`{"path":"/a"}`))
	c := &call{Request: r, w: w, maxBody: protocol.Mkdir.MaxBody}
	n := &NameNode{meta: &metaDir{}}
	if err := n.admit(c, protocol.Mkdir); err != nil {
		t.Fatal(err)
	}
	var request protocol.MkdirRequest
	if err := c.decode(&request); err != nil {
		t.Fatal(err)
	}
	if len(w.read) != 2 || w.read[0].IsZero() || !w.read[1].IsZero() {
		t.Fatalf("deadlines for reading: %v", w.read)
	}
}
