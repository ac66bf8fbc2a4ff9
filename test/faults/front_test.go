//go:build linux

package faults

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// front is a proxy that stands before a node and can do what the node would not.
// It does nothing until it is told what it stands before.
type front struct {
	*httptest.Server
	proxy   *httputil.ReverseProxy
	before  atomic.Pointer[url.URL]
	change  atomic.Pointer[func(*http.Response) error]                               // of answers; nil leaves them alone
	instead atomic.Pointer[func(w http.ResponseWriter, r *http.Request) (done bool)] // of the node
}

var quietLog = log.New(io.Discard, "", 0)

func newFront(t *testing.T) *front {
	t.Helper()
	f := new(front)
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(f.before.Load()) },
		ModifyResponse: func(response *http.Response) error {
			if change := f.change.Load(); change != nil {
				return (*change)(response)
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // as the node itself would be silent
		ErrorLog:     quietLog,
	}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.before.Load() == nil {
			panic(http.ErrAbortHandler)
		}
		if instead := f.instead.Load(); instead != nil && (*instead)(w, r) {
			return
		}
		f.proxy.ServeHTTP(w, r)
	}))
	f.Config.ErrorLog = quietLog
	f.Start()
	t.Cleanup(f.Close)
	return f
}

// stand puts the proxy before a node.
func (f *front) stand(t *testing.T, baseURL string) {
	t.Helper()
	u, err := url.Parse(baseURL)
	if err != nil {
		t.Fatal(err)
	}
	f.before.Store(u)
}

// answer has answers changed from now on, or left alone.
func (f *front) answer(change func(*http.Response) error) {
	if change == nil {
		f.change.Store(nil)
		return
	}
	f.change.Store(&change)
}

// do has the proxy answer itself, where instead returns true.
func (f *front) do(instead func(w http.ResponseWriter, r *http.Request) bool) {
	if instead == nil {
		f.instead.Store(nil)
		return
	}
	f.instead.Store(&instead)
}

// rewrite returns a change of answers that replaces their bodies.
func rewrite(change func(response *http.Response, body []byte) []byte) func(*http.Response) error {
	return func(response *http.Response) error {
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		_ = response.Body.Close() // read to its end
		body = change(response, body)
		response.Body = io.NopCloser(bytes.NewReader(body))
		response.ContentLength = int64(len(body))
		response.Header.Set("Content-Length", fmt.Sprint(len(body)))
		return nil
	}
}
