package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdConnections are shared by the clients of a load, as etcd's own benchmark
// tool does it.
const etcdConnections = 16

// etcd is a group of three members, as durable as etcd is by default.
type etcd struct {
	members   []*process
	endpoints []string
	leader    string
}

func startEtcd(ctx context.Context, program, home string, port int) (*etcd, error) {
	dir := filepath.Join(home, "etcd")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	e := &etcd{}
	var group []string
	for i := range 3 {
		e.endpoints = append(e.endpoints, fmt.Sprintf("http://127.0.0.1:%d", port+i))
		group = append(group, fmt.Sprintf("e%d=http://127.0.0.1:%d", i, port+10+i))
	}
	for i := range 3 {
		peer := strings.TrimPrefix(group[i], fmt.Sprintf("e%d=", i))
		p, err := startProcess(dir, fmt.Sprintf("e%d", i), program, "--name", fmt.Sprintf("e%d", i), "--data-dir", filepath.Join(dir, fmt.Sprintf("e%d", i)),
			"--listen-client-urls", e.endpoints[i], "--advertise-client-urls", e.endpoints[i], "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(group, ","), "--initial-cluster-state", "new", "--log-level", "error")
		if err != nil {
			return nil, errors.Join(err, e.stop())
		}
		e.members = append(e.members, p)
	}
	if err := e.members[0].waitFor(ctx, time.Minute, e.findLeader); err != nil {
		return nil, errors.Join(err, e.stop())
	}
	return e, nil
}

// findLeader lets clients talk to the leader, which is what is fastest for etcd.
func (e *etcd) findLeader(ctx context.Context) error {
	c, err := connectEtcd(e.endpoints[0])
	if err != nil {
		return err
	}
	defer c.Close()
	for _, endpoint := range e.endpoints {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		status, err := c.Status(ask, endpoint)
		cancel()
		if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
			e.leader = endpoint
			return nil
		}
	}
	return errors.New("no member of etcd leads")
}

func connectEtcd(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

func (e *etcd) stop() (err error) {
	for _, m := range e.members {
		err = errors.Join(err, m.stop())
	}
	return err
}

// repeat lets clients do something over connections that they share.
func (e *etcd) repeat(ctx context.Context, clients int, last time.Duration, work func(ctx context.Context, c *clientv3.Client, i int64) error) (load, error) {
	if err := e.findLeader(ctx); err != nil {
		return load{}, err
	}
	connections := make([]*clientv3.Client, min(clients, etcdConnections))
	for i := range connections {
		var err error
		if connections[i], err = connectEtcd(e.leader); err != nil {
			return load{}, err
		}
		defer connections[i].Close()
	}
	one := func(ctx context.Context, i int64) (int64, error) {
		return 0, work(ctx, connections[i%int64(len(connections))], i)
	}
	if _, err := repeat(ctx, clients, 0, int64(clients), one); err != nil { // connects
		return load{}, err
	}
	return repeat(ctx, clients, last, 0, one)
}

// put writes values of size bytes under keys of their own.
func (e *etcd) put(ctx context.Context, clients, size int, last time.Duration) (load, error) {
	value := make([]byte, size)
	if _, err := rand.Read(value); err != nil {
		return load{}, err
	}
	return e.repeat(ctx, clients, last, func(ctx context.Context, c *clientv3.Client, i int64) error {
		_, err := c.Put(ctx, fmt.Sprintf("/bench/%d/%d", i/1000, i), string(value))
		return err
	})
}

// get reads, linearizably, keys that it has written before.
func (e *etcd) get(ctx context.Context, clients int, last time.Duration) (load, error) {
	const keys = 2000
	if err := e.findLeader(ctx); err != nil {
		return load{}, err
	}
	c, err := connectEtcd(e.leader)
	if err != nil {
		return load{}, err
	}
	defer c.Close()
	key := func(i int64) string { return fmt.Sprintf("/stored/%d", i%keys) }
	if _, err := repeat(ctx, 32, 0, keys, func(ctx context.Context, i int64) (int64, error) {
		_, err := c.Put(ctx, key(i), strings.Repeat("x", 200))
		return 0, err
	}); err != nil {
		return load{}, err
	}
	return e.repeat(ctx, clients, last, func(ctx context.Context, c *clientv3.Client, i int64) error {
		answer, err := c.Get(ctx, key(i))
		if err == nil && len(answer.Kvs) != 1 {
			err = fmt.Errorf("etcd has lost %s", key(i))
		}
		return err
	})
}
