package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// web is an nginx that serves files of the same sizes from the same disk.
type web struct {
	process *process
	root    string
	url     string
	client  *http.Client
}

const nginxConfiguration = `worker_processes auto;
daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log warn;
events { worker_connections 2048; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_temp_path %[1]s/tmp; proxy_temp_path %[1]s/tmp; fastcgi_temp_path %[1]s/tmp; uwsgi_temp_path %[1]s/tmp; scgi_temp_path %[1]s/tmp;
  server { listen 127.0.0.1:%[2]d; root %[1]s/www; }
}
`

func startWeb(ctx context.Context, program, home string, port int) (*web, error) {
	dir := filepath.Join(home, "nginx")
	w := &web{root: filepath.Join(dir, "www"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(w.root, 0o755); err != nil {
		return nil, err
	}
	// As root, nginx serves as another user, who must reach the files.
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(user+fmt.Sprintf(nginxConfiguration, dir, port)), 0o644); err != nil {
		return nil, err
	}
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true, ReadBufferSize: 64 << 10}}
	if err := os.WriteFile(filepath.Join(w.root, "ready"), []byte("yes"), 0o644); err != nil {
		return nil, err
	}
	var err error
	if w.process, err = startProcess(dir, "nginx", program, "-p", dir, "-c", file); err != nil {
		return nil, err
	}
	if err := w.process.waitFor(ctx, time.Minute, func(ctx context.Context) error { _, err := w.get(ctx, "ready"); return err }); err != nil {
		return nil, fmt.Errorf("%w; %w", err, w.stop())
	}
	return w, nil
}

func (w *web) stop() error {
	w.client.CloseIdleConnections()
	return w.process.stop()
}

// put lays count files of size bytes under dir of the web root, unless they are
// there.
func (w *web) put(dir string, count int64, size int64) error {
	data := make([]byte, min(size, 8*mib))
	if _, err := rand.Read(data); err != nil {
		return err
	}
	for i := range count {
		name := filepath.Join(w.root, w.name(dir, i))
		if info, err := os.Stat(name); err == nil && info.Size() == size {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := writeFile(name, data, size); err != nil {
			return err
		}
	}
	return nil
}

func (w *web) name(dir string, i int64) string { return fmt.Sprintf("%s/%d/%d", dir, i/1000, i) }

// sink throws bytes away in large pieces; io.Discard takes 8 KiB at a time.
type sink struct{ n int64 }

func (s *sink) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return len(p), nil
}

func (w *web) get(ctx context.Context, name string) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/"+name, nil)
	if err != nil {
		return 0, err
	}
	response, err := w.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close() // only read from
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("nginx answers %s for %s", response.Status, name)
	}
	var out sink
	buffer := make([]byte, min(max(response.ContentLength, 512), 256<<10))
	_, err = io.CopyBuffer(&out, response.Body, buffer)
	if err == nil && out.n != response.ContentLength {
		err = fmt.Errorf("%d of %d bytes of %s arrived", out.n, response.ContentLength, name)
	}
	return out.n, err
}

// read reads the files that put has laid there, each once before it counts.
func (w *web) read(ctx context.Context, dir string, files int64, readers int, last time.Duration, count int64) (load, error) {
	one := func(ctx context.Context, i int64) (int64, error) { return w.get(ctx, w.name(dir, i%files)) }
	if _, err := repeat(ctx, readers, 0, files, one); err != nil {
		return load{}, err
	}
	return repeat(ctx, readers, last, count, one)
}
